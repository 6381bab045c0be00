//! Tones of `endpoint.create_tone`: call progress tones and plain sines, at any sample rate.
//!
//! Time and phase are kept in seconds and turns, so a change of rate does not break the wave.
//! Frequencies that a rate cannot carry are left out rather than folded back.

use std::f64::consts::TAU;

pub use rtpbridge_shared::vocab::Tone;

/// The peak of the sum of a tone's components: −10 dBFS.
const PEAK: f64 = 32767.0 * 0.316_227_766;
/// Length of the slopes where a tone begins and ends.
const SLOPE_SECONDS: f64 = 0.005;

/// Makes one tone, sample by sample.
#[derive(Clone, Debug)]
pub struct ToneGenerator {
    /// Hz; the second is 0 when there is one.
    frequencies: [f64; 2],
    /// Turns, 0 to 1.
    phases: [f64; 2],
    cadence: Option<Cadence>,
    /// Seconds of tone made.
    elapsed: f64,
    duration: f64,
}

/// Seconds of sound and of silence.
#[derive(Clone, Copy, Debug)]
struct Cadence {
    on: f64,
    off: f64,
}

impl ToneGenerator {
    /// `frequency_hz` matters to `sine` only; 20 to 20000, cut to that. Without a duration it plays
    /// on.
    pub fn new(tone: Tone, frequency_hz: f64, duration_ms: Option<u64>) -> Self {
        let (frequencies, cadence) = match tone {
            Tone::Ringback => ([440.0, 480.0], Some(Cadence { on: 2.0, off: 4.0 })),
            Tone::Ringing => ([440.0, 480.0], None),
            Tone::Busy => ([480.0, 620.0], Some(Cadence { on: 0.5, off: 0.5 })),
            Tone::Beep => ([1000.0, 0.0], None),
            Tone::Sine => ([frequency_hz.clamp(20.0, 20000.0), 0.0], None),
        };
        let duration = duration_ms.map_or(f64::INFINITY, |ms| ms as f64 / 1000.0);
        Self {
            frequencies,
            phases: [0.0; 2],
            cadence,
            elapsed: 0.0,
            duration,
        }
    }

    /// Whether the tone's duration is over.
    pub fn is_finished(&self) -> bool {
        self.elapsed >= self.duration
    }

    /// Writes the next samples; fewer than `out` holds where the tone ends. Returns how many.
    pub fn fill(&mut self, rate_hz: u32, out: &mut [i16]) -> usize {
        let step = 1.0 / f64::from(rate_hz);
        // Half a sample of slack keeps sums of many steps from adding one.
        let left = ((self.duration - self.elapsed) / step - 0.5)
            .ceil()
            .max(0.0);
        // A float-to-integer cast saturates, also from infinity.
        let count = out.len().min(left as usize);
        let nyquist = f64::from(rate_hz) / 2.0;
        let components = self.frequencies.iter().filter(|hz| **hz > 0.0).count() as f64;
        for (n, sample) in out[..count].iter_mut().enumerate() {
            let at = self.elapsed + n as f64 * step;
            let mut sum = 0.0;
            for (phase, hz) in self.phases.iter_mut().zip(self.frequencies) {
                if hz > 0.0 && hz < nyquist {
                    sum += (TAU * *phase).sin();
                }
                *phase = (*phase + hz * step).fract();
            }
            *sample = (sum / components * PEAK * self.envelope(at)).round() as i16;
        }
        self.elapsed += count as f64 * step;
        if count < out.len() {
            self.elapsed = self.elapsed.max(self.duration);
        }
        count
    }

    /// 0 to 1: the cadence and the end, with slopes so that nothing clicks.
    fn envelope(&self, at: f64) -> f64 {
        let end = slope(self.duration - at);
        let Some(Cadence { on, off }) = self.cadence else {
            return slope(at).min(end);
        };
        let within = at % (on + off);
        slope(within).min(slope(on - within)).min(end)
    }
}

fn slope(distance: f64) -> f64 {
    (distance / SLOPE_SECONDS).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::probe;

    fn make(tone: Tone, frequency: f64, duration_ms: Option<u64>, rate: u32, ms: u32) -> Vec<i16> {
        let mut generator = ToneGenerator::new(tone, frequency, duration_ms);
        let mut pcm = Vec::new();
        for _ in 0..ms / 20 {
            let mut frame = vec![0; rate as usize / 50];
            let made = generator.fill(rate, &mut frame);
            pcm.extend_from_slice(&frame[..made]);
        }
        pcm
    }

    #[test]
    fn sines_have_their_frequency_and_level_at_every_rate() {
        for rate in [8000, 11025, 16000, 44100, 48000] {
            let pcm = make(Tone::Sine, 440.0, None, rate, 2000);
            let tone = probe::fit_tone(&pcm[rate as usize / 5..], rate, 440.0);
            assert!((tone.level_dbfs + 10.0).abs() < 0.1, "{rate}: {tone:?}");
            assert!(tone.snr_db > 70.0 || rate % 8000 != 0, "{rate}: {tone:?}");
        }
    }

    #[test]
    fn call_progress_tones_have_both_components() {
        for (tone, low, high) in [
            (Tone::Ringback, 440.0, 480.0),
            (Tone::Ringing, 440.0, 480.0),
            (Tone::Busy, 480.0, 620.0),
        ] {
            let pcm = make(tone, 0.0, None, 8000, 400);
            for frequency in [low, high] {
                let level = probe::level_at(&pcm, 8000, frequency);
                assert!((level + 16.0).abs() < 0.7, "{tone} {frequency}: {level}");
            }
        }
        let beep = make(Tone::Beep, 0.0, None, 8000, 400);
        assert!((probe::level_at(&beep, 8000, 1000.0) + 10.0).abs() < 0.5);
    }

    #[test]
    fn cadences_are_on_and_off_in_time() {
        for (tone, on_ms, off_ms) in [(Tone::Ringback, 2000, 4000), (Tone::Busy, 500, 500)] {
            let pcm = make(tone, 0.0, None, 8000, 2 * (on_ms + off_ms));
            for (ms, slice) in pcm.chunks(80).enumerate() {
                let at = ms as u32 * 10 % (on_ms + off_ms);
                let loud = slice.iter().any(|sample| sample.abs() > 50);
                assert_eq!(loud, at < on_ms, "{tone} at {} ms", ms * 10);
            }
        }
    }

    #[test]
    fn a_duration_is_kept_to_the_sample_and_ends_softly() {
        for (rate, duration) in [(8000, 1), (8000, 1000), (48000, 333), (16000, 20)] {
            let pcm = make(Tone::Sine, 400.0, Some(duration), rate, 2000);
            assert_eq!(pcm.len() as u64, u64::from(rate) * duration / 1000);
            assert!(pcm[pcm.len() - 1].abs() < 400, "{:?}", pcm.last());
        }
        let mut generator = ToneGenerator::new(Tone::Beep, 0.0, Some(20));
        assert_eq!(generator.fill(8000, &mut [0; 160]), 160);
        assert!(generator.is_finished());
        assert_eq!(generator.fill(8000, &mut [0; 160]), 0);
    }

    #[test]
    fn the_wave_is_unbroken_across_frames_and_rates() {
        let mut generator = ToneGenerator::new(Tone::Sine, 317.0, None);
        let mut pcm = vec![0; 1600];
        generator.fill(16000, &mut pcm[..777]);
        generator.fill(16000, &mut pcm[777..]);
        let natural = probe::amplitude(-10.0) * TAU * 317.0 / 16000.0;
        let steepest = pcm
            .windows(2)
            .map(|w| (w[1] - w[0]).abs())
            .max()
            .expect("samples");
        assert!(f64::from(steepest) < natural * 1.1);
        let mut next = [0; 1];
        generator.fill(8000, &mut next);
        assert!(f64::from(next[0] - pcm[1599]).abs() < natural * 1.1);
    }

    #[test]
    fn what_a_rate_cannot_carry_is_silence() {
        let pcm = make(Tone::Sine, 15000.0, None, 8000, 100);
        assert!(pcm.iter().all(|sample| *sample == 0));
    }
}
