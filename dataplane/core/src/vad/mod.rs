//! Voice activity of one endpoint's own sound, scored by earshot in 16 ms frames at 16 kHz.
//!
//! ```text
//! silent ─score ≥ threshold─► speaking ─320 ms below it─► silent ─every interval─► report
//! ```
//! Time is counted in samples, so that jitter does not matter; when no sound comes at all for 200 ms,
//! the wall clock takes over. Has no opinion on what the endpoint's sound is used for.

use std::time::Duration;

use earshot::Detector;

use crate::codec::resample::Resampler;
use crate::time::Instant;

/// The only rate and frame length that earshot knows.
const RATE_HZ: u32 = 16000;
const FRAME_SAMPLES: usize = 256;
const FRAME: Duration = Duration::from_millis(16);
/// Silence is entered after so long without speech.
const HANGOVER: Duration = Duration::from_millis(320);
/// earshot's score falls below 0.5 some 50 to 140 ms after speech has ended: 58 to 136 from 8 kHz, 52
/// to 104 from 16 kHz, over 24 sentences of a synthesizer. So much silence has passed when it does.
const FALL_LAG: Duration = Duration::from_millis(80);
/// Without sound for so long, the wall clock counts.
const STALLED_AFTER: Duration = Duration::from_millis(200);

/// What to tell the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VadEvent {
    /// `vad.speech_started`
    SpeechStarted,
    /// `vad.silence`
    Silence {
        /// Since the last speech, or since the start.
        duration: Duration,
    },
}

/// Listens to one endpoint.
pub struct Vad {
    detector: Box<Detector>,
    input: Input,
    frame: Vec<i16>,
    threshold: f32,
    interval: Duration,
    speaking: bool,
    /// Since the last frame that scored as speech.
    below_for: Duration,
    /// Unbroken silence counted so far.
    silent_for: Duration,
    next_report: Duration,
    /// When sound last came, or when silence was last brought forward by the wall clock.
    counted_to: Instant,
}

/// Brings sound of any rate to 16 kHz.
struct Input {
    rate_hz: u32,
    converter: Converter,
    converted: Vec<i16>,
}

enum Converter {
    None,
    /// 8 kHz doubled by a two-tap filter, whose image of the band below 4 kHz fades towards 8 kHz.
    /// earshot was trained on full-band sound: with nothing at all above 4 kHz it takes steady noise
    /// for speech and speech for silence until it has settled. This is never played to anyone.
    Doubler {
        last: i16,
    },
    Resampler(Box<Resampler>),
}

impl Vad {
    /// Listens from `now` on. `threshold` is 0 to 1.
    pub fn new(now: Instant, threshold: f64, interval: Duration) -> Self {
        Self {
            detector: Detector::default_boxed(),
            input: Input {
                rate_hz: RATE_HZ,
                converter: Converter::None,
                converted: Vec::with_capacity(FRAME_SAMPLES * 8),
            },
            frame: Vec::with_capacity(FRAME_SAMPLES),
            threshold: threshold as f32,
            interval,
            speaking: false,
            below_for: Duration::ZERO,
            silent_for: Duration::ZERO,
            next_report: interval.max(HANGOVER),
            counted_to: now,
        }
    }

    /// Takes decoded sound of any rate that resamples to 16 kHz; another rate than before is fine.
    pub fn handle_pcm(
        &mut self,
        now: Instant,
        rate_hz: u32,
        pcm: &[i16],
        on_event: &mut impl FnMut(VadEvent),
    ) {
        // If sound had stalled, the wall clock has counted until now.
        self.handle_timeout(now, on_event);
        self.counted_to = now;
        let mut converted = std::mem::take(&mut self.input.converted);
        converted.clear();
        self.input.convert(rate_hz, pcm, &mut converted);
        for sample in &converted {
            self.frame.push(*sample);
            if self.frame.len() == FRAME_SAMPLES {
                let score = self.detector.predict_i16(&self.frame);
                self.frame.clear();
                self.on_score(score, on_event);
            }
        }
        self.input.converted = converted;
    }

    /// When silence will have to be told although no sound comes.
    pub fn next_timeout(&self) -> Option<Instant> {
        let mut to_report = self.next_report.saturating_sub(self.silent_for);
        if self.speaking {
            to_report = to_report.max(HANGOVER.saturating_sub(self.below_for));
        }
        Some(self.counted_to + to_report.max(STALLED_AFTER))
    }

    /// Counts by the wall clock while no sound comes.
    pub fn handle_timeout(&mut self, now: Instant, on_event: &mut impl FnMut(VadEvent)) {
        let stalled = now.saturating_duration_since(self.counted_to);
        if stalled >= STALLED_AFTER {
            self.counted_to = now;
            // What comes next does not join the sound before the gap.
            self.detector.reset();
            self.frame.clear();
            self.on_silence(stalled, on_event);
        }
    }

    fn on_score(&mut self, score: f32, on_event: &mut impl FnMut(VadEvent)) {
        if score >= self.threshold {
            self.silent_for = Duration::ZERO;
            self.below_for = Duration::ZERO;
            self.next_report = self.interval.max(HANGOVER);
            if !std::mem::replace(&mut self.speaking, true) {
                on_event(VadEvent::SpeechStarted);
            }
        } else {
            if self.speaking && self.below_for.is_zero() {
                self.silent_for = FALL_LAG;
            }
            self.on_silence(FRAME, on_event);
        }
    }

    fn on_silence(&mut self, passed: Duration, on_event: &mut impl FnMut(VadEvent)) {
        self.below_for += passed;
        self.silent_for += passed;
        if self.below_for >= HANGOVER {
            self.speaking = false;
        }
        if self.silent_for >= self.next_report && !self.speaking {
            on_event(VadEvent::Silence {
                duration: self.silent_for,
            });
            // One report however many intervals went by at once.
            let intervals = self.silent_for.as_nanos() / self.interval.as_nanos().max(1) + 1;
            let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
            self.next_report = self.interval.saturating_mul(intervals).max(HANGOVER);
        }
    }
}

impl Input {
    fn convert(&mut self, rate_hz: u32, pcm: &[i16], out: &mut Vec<i16>) {
        if rate_hz != self.rate_hz {
            self.rate_hz = rate_hz;
            self.converter = match rate_hz {
                RATE_HZ => Converter::None,
                8000 => Converter::Doubler { last: 0 },
                _ => Resampler::new(rate_hz, RATE_HZ)
                    .map_or(Converter::None, |r| Converter::Resampler(Box::new(r))),
            };
        }
        match &mut self.converter {
            Converter::None => out.extend_from_slice(pcm),
            Converter::Doubler { last } => {
                for sample in pcm {
                    let between = (i32::from(*last) + i32::from(*sample)) / 2;
                    // The mean of two 16-bit values is one.
                    out.extend([between as i16, *sample]);
                    *last = *sample;
                }
            }
            Converter::Resampler(resampler) => resampler.process(pcm, out),
        }
    }
}

#[cfg(test)]
mod tests;
