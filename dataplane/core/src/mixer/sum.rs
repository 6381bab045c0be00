//! Sums in 32 bits, brought back to 16 without wrap-around.
//!
//! The limiter lowers the gain before a peak and lets it rise slowly, so that two full-scale talkers
//! are turned down rather than clipped. It adds no delay: it sees the whole frame at once.

use crate::codec::rounded;

/// Peaks beyond this are turned down: −1 dBFS.
const LIMIT: f32 = 29_204.0;
/// Blocks of a 20 ms frame, in each of which the gain may change.
const BLOCKS: usize = 8;
/// Share of the way back to unity gain in each block: half in about 170 ms.
const RELEASE: f32 = 0.01;

/// Adds `pcm` to `total`.
pub(super) fn add(total: &mut [i32], pcm: &[i16]) {
    for (sum, sample) in total.iter_mut().zip(pcm) {
        *sum += i32::from(*sample);
    }
}

/// Takes `pcm` out of `total`, into `rest`.
pub(super) fn subtract(total: &[i32], pcm: &[i16], rest: &mut [i32]) {
    for ((rest, sum), sample) in rest.iter_mut().zip(total).zip(pcm) {
        *rest = sum - i32::from(*sample);
    }
}

/// Takes `pcm` out of `rest`.
pub(super) fn take_out(rest: &mut [i32], pcm: &[i16]) {
    for (rest, sample) in rest.iter_mut().zip(pcm) {
        *rest -= i32::from(*sample);
    }
}

/// The gain of one destination.
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    gain: f32,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { gain: 1.0 }
    }
}

impl Limiter {
    /// Brings one frame into range.
    pub fn limit(&mut self, sum: &[i32], out: &mut [i16]) {
        let loudest = sum
            .iter()
            .map(|sample| sample.unsigned_abs())
            .max()
            .unwrap_or(0);
        if self.gain >= 1.0 && loudest as f32 <= LIMIT {
            for (sample, sum) in out.iter_mut().zip(sum) {
                // Within the limit, so the cast keeps the value.
                *sample = *sum as i16;
            }
            return;
        }
        let length = sum.len().div_ceil(BLOCKS).max(1);
        let mut wanted = [1.0f32; BLOCKS + 1];
        for (wanted, block) in wanted.iter_mut().zip(sum.chunks(length)) {
            let peak = block
                .iter()
                .map(|sample| sample.unsigned_abs())
                .max()
                .unwrap_or(0);
            *wanted = LIMIT / (peak as f32).max(LIMIT);
        }
        for (at, (block, out)) in sum.chunks(length).zip(out.chunks_mut(length)).enumerate() {
            // Low enough for this block, and on its way to what the next asks for.
            let end = wanted[at].min(wanted[at + 1]);
            let risen = self.gain + (1.0 - self.gain) * RELEASE;
            let end = if risen > 0.999 {
                end.min(1.0)
            } else {
                end.min(risen)
            };
            let start = self.gain.min(wanted[at]);
            let step = (end - start) / block.len() as f32;
            for (n, (sample, sum)) in out.iter_mut().zip(block).enumerate() {
                let gain = start + step * (n + 1) as f32;
                *sample = rounded(*sum as f32 * gain);
            }
            self.gain = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::probe;

    fn limited(tones: &[Vec<i16>]) -> Vec<i16> {
        let mut limiter = Limiter::default();
        let mut heard = Vec::new();
        for at in (0..tones[0].len()).step_by(160) {
            let mut total = vec![0; 160];
            for tone in tones {
                add(&mut total, &tone[at..at + 160]);
            }
            let mut out = vec![0; 160];
            limiter.limit(&total, &mut out);
            heard.extend_from_slice(&out);
        }
        heard
    }

    #[test]
    fn what_fits_is_untouched() {
        let tone = probe::tone(8000, 300.0, -7.5, 8000);
        let other = probe::tone(8000, 1100.0, -7.5, 8000);
        let heard = limited(&[tone.clone(), other.clone()]);
        assert!(
            heard
                .iter()
                .zip(tone.iter().zip(&other))
                .all(|(h, (a, b))| *h == a + b)
        );
    }

    #[test]
    fn two_full_scale_talkers_are_turned_down_without_harmonics() {
        let frequencies = [700.0, 1000.0];
        let heard = limited(&frequencies.map(|f| probe::tone(8000, f, 0.0, 16000)));
        let settled = &heard[8000..];
        let carrier = probe::level_at(settled, 8000, 700.0);
        assert!((-8.0..-5.0).contains(&carrier), "{carrier}");
        assert!((probe::level_at(settled, 8000, 1000.0) - carrier).abs() < 0.2);
        for product in [
            300.0, 400.0, 1300.0, 1400.0, 1700.0, 2000.0, 2100.0, 2400.0, 2700.0, 3000.0,
        ] {
            let level = probe::level_at(settled, 8000, product) - carrier;
            assert!(level < -30.0, "{product} Hz at {level} dBc");
        }
    }

    #[test]
    fn nothing_wraps_even_at_the_onset() {
        for tones in [3, 20] {
            let mut loud = probe::tone(8000, 440.0, 0.0, 8000);
            loud[..3200].fill(0);
            let natural = 32767.0 * std::f64::consts::TAU * 440.0 / 8000.0;
            let heard = limited(&vec![loud; tones]);
            let steep = heard
                .windows(2)
                .map(|w| (i32::from(w[1]) - i32::from(w[0])).abs())
                .max();
            assert!(
                f64::from(steep.expect("samples")) < natural * 1.5,
                "{steep:?}"
            );
        }
    }

    #[test]
    fn the_gain_comes_back() {
        let mut loud = probe::tone(8000, 440.0, 0.0, 16000);
        let other = loud.clone();
        let quiet = probe::tone(8000, 440.0, -20.0, 16000);
        loud[1600..].copy_from_slice(&quiet[1600..]);
        let mut silent = other;
        silent[1600..].fill(0);
        let heard = limited(&[loud, silent]);
        assert!((probe::level_at(&heard[14000..], 8000, 440.0) + 20.0).abs() < 0.1);
    }
}
