//! Sample-rate conversion by a polyphase FIR low-pass, with state across frames.
//!
//! The prototype is a Kaiser-windowed sinc whose cut-off is the lower of the two Nyquist rates; at
//! 8 ⇄ 16 kHz it delays by 2 ms. Each output sample is one dot product: no image or alias within
//! the pass band is above −80 dB. Never interpolates between samples. Rates whose ratio has more
//! than 1024 phases take the nearest two of 1024 filters, blended.

use std::f64::consts::PI;

use super::rounded;

/// Filters kept for one conversion; beyond it neighbouring filters are blended.
const MAX_PHASES: usize = 1024;
/// Where the pass band ends, as a share of the lower Nyquist rate.
const PASS_EDGE: f64 = 0.85;
/// Kaiser window shape for 80 dB of stop-band attenuation.
const KAISER_BETA: f64 = 7.857;
/// Kaiser's design formula for 80 dB: taps × transition width (as a share of the sample rate).
const TAPS_BY_WIDTH: f64 = 5.02;
/// Dot products run over blocks of this many taps.
const LANES: usize = 8;

/// Why a resampler could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResampleError {
    /// Rates from 1 kHz to 768 kHz are converted, by at most a factor of 64.
    #[error("cannot convert {from_hz} Hz to {to_hz} Hz")]
    Rates {
        /// Input rate.
        from_hz: u32,
        /// Output rate.
        to_hz: u32,
    },
}

/// Converts one mono stream from one rate to another.
#[derive(Clone)]
pub struct Resampler {
    from_hz: u32,
    to_hz: u32,
    filters: Box<[f32]>,
    phases: usize,
    taps: usize,
    /// The last `taps - 1` samples, then the samples being converted.
    window: Vec<f32>,
    /// Input samples, as a fraction over `to_hz`, from the window's first whole dot product to the
    /// next output sample.
    position: u64,
    /// Frames of 16-bit samples on their way through.
    scratch: Vec<f32>,
}

impl Resampler {
    /// A converter with silence behind it. Equal rates pass samples through untouched.
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Self, ResampleError> {
        let usable = 1000..=768_000;
        if !usable.contains(&from_hz) || !usable.contains(&to_hz) || from_hz / to_hz >= 64 {
            return Err(ResampleError::Rates { from_hz, to_hz });
        }
        let (from, to) = (from_hz / gcd(from_hz, to_hz), to_hz / gcd(from_hz, to_hz));
        let phases = (to as usize).min(MAX_PHASES);
        let (filters, taps) = design(f64::from(from_hz), f64::from(to_hz), phases);
        Ok(Self {
            from_hz: from,
            to_hz: to,
            filters,
            phases,
            taps,
            window: vec![0.0; taps - 1],
            position: 0,
            scratch: Vec::new(),
        })
    }

    /// Samples by which the output lags the input, at the output's rate.
    pub fn delay_samples(&self) -> f64 {
        if self.from_hz == self.to_hz {
            return 0.0;
        }
        (self.taps as f64 / 2.0) * f64::from(self.to_hz) / f64::from(self.from_hz)
    }

    /// Converts 16-bit samples and appends them to `out`, saturated.
    pub fn process(&mut self, pcm: &[i16], out: &mut Vec<i16>) {
        if self.from_hz == self.to_hz {
            out.extend_from_slice(pcm);
            return;
        }
        self.window
            .extend(pcm.iter().map(|sample| f32::from(*sample)));
        let mut converted = std::mem::take(&mut self.scratch);
        converted.clear();
        self.convert(&mut converted);
        out.extend(converted.iter().map(|sample| rounded(*sample)));
        self.scratch = converted;
    }

    /// Converts 16-bit samples into `out`, which must be as long as the rates say; a sample that
    /// rounding leaves out is silence.
    pub fn process_into(&mut self, pcm: &[i16], out: &mut [i16]) {
        self.window
            .extend(pcm.iter().map(|sample| f32::from(*sample)));
        let mut converted = std::mem::take(&mut self.scratch);
        converted.clear();
        self.convert(&mut converted);
        out.fill(0);
        for (sample, converted) in out.iter_mut().zip(&converted) {
            *sample = rounded(*converted);
        }
        self.scratch = converted;
    }

    /// Converts floating-point samples of any scale and appends them to `out`.
    pub fn process_float(&mut self, pcm: &[f32], out: &mut Vec<f32>) {
        if self.from_hz == self.to_hz {
            out.extend_from_slice(pcm);
            return;
        }
        self.window.extend_from_slice(pcm);
        self.convert(out);
    }

    fn convert(&mut self, out: &mut Vec<f32>) {
        let (from, to) = (u64::from(self.from_hz), u64::from(self.to_hz));
        let ready = (self.window.len() + 1).saturating_sub(self.taps);
        let (mut start, mut fraction) = ((self.position / to) as usize, self.position % to);
        let (step, step_fraction) = ((from / to) as usize, from % to);
        while start < ready {
            let samples = &self.window[start..start + self.taps];
            out.push(self.filtered(samples, fraction));
            start += step;
            fraction += step_fraction;
            if fraction >= to {
                (start, fraction) = (start + 1, fraction - to);
            }
        }
        self.position = (start - ready) as u64 * to + fraction;
        let keep = self.window.len() - ready;
        self.window.copy_within(ready.., 0);
        self.window.truncate(keep);
    }

    fn filtered(&self, samples: &[f32], fraction: u64) -> f32 {
        if fraction == 0 && self.from_hz < self.to_hz {
            // The filter of a sample that stands already: one, and zeros around it.
            return samples[self.taps / 2 - 1];
        }
        let to = u64::from(self.to_hz);
        if self.phases as u64 == to {
            return dot(samples, self.filter(fraction as usize));
        }
        let scaled = fraction * self.phases as u64;
        let phase = (scaled / to) as usize;
        let blend = (scaled % to) as f32 / to as f32;
        let near = dot(samples, self.filter(phase));
        // The filter after the last is the first, one sample later; `design` appends it.
        near + blend * (dot(samples, self.filter(phase + 1)) - near)
    }

    fn filter(&self, phase: usize) -> &[f32] {
        &self.filters[phase * self.taps..(phase + 1) * self.taps]
    }
}

/// Makes `phases + 1` filters, one after the other, each in the order of the samples it meets.
fn design(from_hz: f64, to_hz: f64, phases: usize) -> (Box<[f32]>, usize) {
    let lower = from_hz.min(to_hz) / from_hz;
    let transition = lower * (1.0 - PASS_EDGE);
    let taps = ((TAPS_BY_WIDTH / transition).ceil() as usize).next_multiple_of(LANES);
    let half = taps as f64 / 2.0;
    let mut filters = Vec::with_capacity((phases + 1) * taps);
    for phase in 0..=phases {
        let fraction = phase as f64 / phases as f64;
        let start = filters.len();
        let mut sum = 0.0;
        for tap in 0..taps {
            let distance = tap as f64 - (half - 1.0) - fraction;
            let value = sinc(distance * lower) * kaiser(distance / half);
            sum += value;
            filters.push(value as f32);
        }
        // Every phase passes direct current alike, or a constant would turn into a whine.
        for value in &mut filters[start..] {
            *value /= sum as f32;
        }
    }
    (filters.into_boxed_slice(), taps)
}

fn dot(samples: &[f32], filter: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (block, taps) in samples.chunks_exact(LANES).zip(filter.chunks_exact(LANES)) {
        for lane in 0..LANES {
            lanes[lane] += block[lane] * taps[lane];
        }
    }
    // In pairs: one after the other each addition would wait for the last.
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

fn kaiser(x: f64) -> f64 {
    if x.abs() >= 1.0 {
        return 0.0;
    }
    bessel_i0(KAISER_BETA * (1.0 - x * x).sqrt()) / bessel_i0(KAISER_BETA)
}

/// The modified Bessel function of order zero, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..40 {
        term *= quarter / f64::from(k * k);
        sum += term;
    }
    sum
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
