//! Levels, noise and spurs. 0 dBFS is a sine that just reaches 32767.

use std::f64::consts::TAU;

/// A sine found in a signal.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// Its level.
    pub level_dbfs: f64,
    /// Its power over that of everything else but direct current.
    pub snr_db: f64,
}

/// The peak of a sine at this level.
pub fn amplitude(level_dbfs: f64) -> f64 {
    32_767.0 * 10f64.powf(level_dbfs / 20.0)
}

/// The level of a sine with this peak; silence is at −120.
pub fn dbfs(amplitude: f64) -> f64 {
    20.0 * (amplitude / 32_767.0).max(1e-6).log10()
}

/// The sine of exactly this frequency that fits a signal best, in whole periods of it.
pub fn fit(pcm: &[i16], rate_hz: u32, frequency_hz: f64) -> Fit {
    let mean = pcm.iter().map(|sample| f64::from(*sample)).sum::<f64>() / pcm.len() as f64;
    let step = TAU * frequency_hz / f64::from(rate_hz);
    // Normal equations of a·cos + b·sin.
    let (mut cc, mut cs, mut ss, mut xc, mut xs, mut xx) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (n, sample) in pcm.iter().enumerate() {
        let (x, (sin, cos)) = (f64::from(*sample) - mean, (step * n as f64).sin_cos());
        cc += cos * cos;
        cs += cos * sin;
        ss += sin * sin;
        xc += x * cos;
        xs += x * sin;
        xx += x * x;
    }
    let det = cc * ss - cs * cs;
    let (a, b) = ((xc * ss - xs * cs) / det, (xs * cc - xc * cs) / det);
    let signal = a * xc + b * xs;
    Fit {
        level_dbfs: dbfs(a.hypot(b)),
        snr_db: 10.0 * (signal / (xx - signal).max(1e-9)).log10(),
    }
}

/// The level around one frequency, in pieces of 100 ms: the phase between them does not matter.
pub fn level(pcm: &[i16], rate_hz: u32, frequency_hz: f64) -> f64 {
    let pieces = pcm.chunks_exact(rate_hz as usize / 10);
    let count = pieces.len() as f64;
    let powers = pieces.map(|piece| hann_amplitude(piece, rate_hz, frequency_hz).powi(2));
    dbfs((powers.sum::<f64>() / count).sqrt())
}

/// The level of a sine as loud as the whole signal.
pub fn loudness(pcm: &[i16]) -> f64 {
    let power = pcm.iter().map(|sample| f64::from(*sample).powi(2));
    dbfs((2.0 * power.sum::<f64>() / pcm.len() as f64).sqrt())
}

/// The strongest component that lies at least 100 Hz beside a tone: its frequency and level.
pub fn worst_spur(pcm: &[i16], rate_hz: u32, tone_hz: f64) -> (f64, f64) {
    let quarter = &pcm[..pcm.len().min(rate_hz as usize / 4)];
    let mut worst = (0.0, -120.0);
    let mut frequency = 50.0;
    while frequency < f64::from(rate_hz) / 2.0 {
        if (frequency - tone_hz).abs() >= 100.0 {
            let found = dbfs(hann_amplitude(quarter, rate_hz, frequency));
            if found > worst.1 {
                worst = (frequency, found);
            }
        }
        // A Hann window of 250 ms is 16 Hz wide between its first zeros.
        frequency += 6.0;
    }
    worst
}

/// The greatest step from one sample to the next.
pub fn steepest(pcm: &[i16]) -> i32 {
    let steps = pcm
        .windows(2)
        .map(|pair| i32::from(pair[1]) - i32::from(pair[0]));
    steps.map(i32::abs).max().unwrap_or(0)
}

fn hann_amplitude(pcm: &[i16], rate_hz: u32, frequency_hz: f64) -> f64 {
    let step = TAU * frequency_hz / f64::from(rate_hz);
    let (mut re, mut im, mut weight) = (0.0, 0.0, 0.0);
    for (n, sample) in pcm.iter().enumerate() {
        let window = 0.5 - 0.5 * (TAU * n as f64 / pcm.len() as f64).cos();
        let (sin, cos) = (step * n as f64).sin_cos();
        re += window * f64::from(*sample) * cos;
        im += window * f64::from(*sample) * sin;
        weight += window;
    }
    2.0 * re.hypot(im) / weight
}
