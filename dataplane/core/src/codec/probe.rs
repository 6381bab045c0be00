//! Measures sound in tests: makes tones and noise, and finds level, noise and spurs of what comes
//! out of a codec. Levels are in dBFS, where a sine that just reaches 32767 is 0.

use std::f64::consts::TAU;

/// What was found of one tone in a signal.
#[derive(Debug)]
pub(crate) struct ToneFit {
    pub(crate) level_dbfs: f64,
    /// The tone's power over that of everything else, direct current aside.
    pub(crate) snr_db: f64,
    /// The strongest other component of at least 100 Hz distance.
    pub(crate) worst_spur_dbfs: f64,
}

pub(crate) fn amplitude(dbfs: f64) -> f64 {
    32767.0 * 10f64.powf(dbfs / 20.0)
}

pub(crate) fn dbfs(amplitude: f64) -> f64 {
    20.0 * (amplitude / 32767.0).max(1e-12).log10()
}

pub(crate) fn tone(rate_hz: u32, frequency_hz: f64, level_dbfs: f64, samples: usize) -> Vec<i16> {
    let peak = amplitude(level_dbfs);
    let step = TAU * frequency_hz / f64::from(rate_hz);
    (0..samples)
        .map(|n| (peak * (step * n as f64).sin()).round() as i16)
        .collect()
}

/// Full-scale white noise, the same for the same seed.
pub(crate) fn noise(seed: u64, samples: usize) -> impl Iterator<Item = i16> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..samples).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as i16
    })
}

/// Amplitude and phase-free level of one frequency, under a Hann window.
/// The largest step from one sample to the next.
pub(crate) fn steepest(pcm: &[i16]) -> i32 {
    pcm.windows(2)
        .map(|w| (i32::from(w[1]) - i32::from(w[0])).abs())
        .max()
        .unwrap_or(0)
}

pub(crate) fn level_at(pcm: &[i16], rate_hz: u32, frequency_hz: f64) -> f64 {
    let step = TAU * frequency_hz / f64::from(rate_hz);
    let count = pcm.len() as f64;
    let (mut re, mut im, mut weight) = (0.0, 0.0, 0.0);
    for (n, sample) in pcm.iter().enumerate() {
        let n = n as f64;
        let window = 0.5 - 0.5 * (TAU * n / count).cos();
        re += window * f64::from(*sample) * (step * n).cos();
        im += window * f64::from(*sample) * (step * n).sin();
        weight += window;
    }
    dbfs(2.0 * re.hypot(im) / weight)
}

/// Points of the spectrum.
const SPECTRUM: usize = 8192;

/// The level of each bin up to half the sample rate, under a Hann window, from the last samples.
fn spectrum_dbfs(pcm: &[i16]) -> Vec<f64> {
    let pcm = &pcm[pcm.len().saturating_sub(SPECTRUM)..];
    let mut points = vec![(0.0, 0.0); SPECTRUM];
    for (n, sample) in pcm.iter().enumerate() {
        let window = 0.5 - 0.5 * (TAU * n as f64 / pcm.len() as f64).cos();
        points[n].0 = window * f64::from(*sample);
    }
    transform(&mut points);
    let scale = 4.0 / pcm.len() as f64;
    points[..SPECTRUM / 2]
        .iter()
        .map(|(re, im)| dbfs(scale * re.hypot(*im)))
        .collect()
}

/// The discrete Fourier transform of a power of two of points, by recursive halving.
fn transform(points: &mut [(f64, f64)]) {
    let count = points.len();
    if count < 2 {
        return;
    }
    let mut even: Vec<_> = points.iter().step_by(2).copied().collect();
    let mut odd: Vec<_> = points.iter().skip(1).step_by(2).copied().collect();
    transform(&mut even);
    transform(&mut odd);
    for k in 0..count / 2 {
        let (sin, cos) = (-TAU * k as f64 / count as f64).sin_cos();
        let (re, im) = (
            odd[k].0 * cos - odd[k].1 * sin,
            odd[k].0 * sin + odd[k].1 * cos,
        );
        points[k] = (even[k].0 + re, even[k].1 + im);
        points[k + count / 2] = (even[k].0 - re, even[k].1 - im);
    }
}

/// Fits one tone by least squares (with direct current) and measures what is left.
pub(crate) fn fit_tone(pcm: &[i16], rate_hz: u32, frequency_hz: f64) -> ToneFit {
    let step = TAU * frequency_hz / f64::from(rate_hz);
    // Whole periods make sine, cosine and constant orthogonal.
    let period = f64::from(rate_hz) / frequency_hz;
    let periods = (pcm.len() as f64 / period).floor();
    let pcm = &pcm[..(periods * period).round() as usize];
    let count = pcm.len() as f64;
    let mean = pcm.iter().map(|s| f64::from(*s)).sum::<f64>() / count;
    let (mut a, mut b) = (0.0, 0.0);
    for (n, sample) in pcm.iter().enumerate() {
        a += 2.0 / count * (f64::from(*sample) - mean) * (step * n as f64).cos();
        b += 2.0 / count * (f64::from(*sample) - mean) * (step * n as f64).sin();
    }
    let rest: Vec<i16> = pcm
        .iter()
        .enumerate()
        .map(|(n, sample)| {
            let fitted = a * (step * n as f64).cos() + b * (step * n as f64).sin();
            (f64::from(*sample) - mean - fitted).round() as i16
        })
        .collect();
    let rest_power = rest.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / count;
    let spur = spectrum_dbfs(&rest)
        .iter()
        .enumerate()
        .map(|(bin, level)| (bin as f64 * f64::from(rate_hz) / SPECTRUM as f64, *level))
        .filter(|(f, _)| *f >= 100.0 && (f - frequency_hz).abs() >= 100.0)
        .fold(f64::MIN, |worst, (_, level)| worst.max(level));
    ToneFit {
        level_dbfs: dbfs(a.hypot(b)),
        snr_db: 10.0 * ((a * a + b * b) / 2.0 / rest_power.max(1e-9)).log10(),
        worst_spur_dbfs: spur,
    }
}
