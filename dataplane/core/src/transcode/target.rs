//! One target format: gathers samples into frames of the listener's length and encodes them.

use super::{EncodedFrame, TICKS_PER_SECOND, TargetFormat};
use crate::codec::{self, CodecError, Encoder};

/// A place on the source's time line, and the turn in which it is pushed to all who want it.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) turn: u64,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Frames and encoder of one format, fed from one source.
pub(super) struct Target {
    format: TargetFormat,
    rate_hz: u32,
    encoder: Encoder,
    /// Samples of the frame that is not full yet.
    pending: Vec<i16>,
    frame_samples: usize,
    /// Where the next frame begins, on the source's time line.
    frame_start: u64,
    /// What was pushed last; what does not follow on it does not join.
    heard: Span,
    marker: bool,
    restart: bool,
    /// What is pushed next stands elsewhere on a new time line.
    unrelated: bool,
    pub(super) last_used: u64,
}

impl Target {
    /// For a source that gives PCM at `source_hz`.
    pub(super) fn new(format: TargetFormat, source_hz: u32) -> Result<Self, CodecError> {
        let rate_hz = codec::native_rate(format.codec, source_hz);
        let frame_samples = rate_hz as usize / 1000 * usize::from(format.ptime_ms);
        Ok(Self {
            format,
            rate_hz,
            encoder: Encoder::new(format.codec, rate_hz, &format.opus())?,
            pending: Vec::with_capacity(frame_samples),
            frame_samples,
            frame_start: 0,
            heard: Span::default(),
            marker: true,
            restart: true,
            unrelated: false,
            last_used: 0,
        })
    }

    pub(super) fn format(&self) -> &TargetFormat {
        &self.format
    }

    /// Rate of the samples it takes.
    pub(super) fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    pub(super) fn set_expected_loss(&mut self, percent: u8) -> Result<(), CodecError> {
        self.encoder.set_expected_loss(percent)
    }

    /// The source's time line began anew.
    pub(super) fn mark_restart(&mut self) {
        self.unrelated = true;
    }

    /// Ticks of the common time line in one frame.
    fn frame_ticks(&self) -> u64 {
        u64::from(self.format.ptime_ms) * u64::from(TICKS_PER_SECOND / 1000)
    }

    /// Takes the samples of `span`; `marker` begins a talkspurt. Returns how many frames failed.
    pub(super) fn push(
        &mut self,
        pcm: &[i16],
        span: Span,
        marker: bool,
        payload: &mut [u8],
        emit: &mut impl FnMut(EncodedFrame<'_>),
    ) -> u64 {
        let mut failed = 0;
        let left_out = span.turn != self.heard.turn + 1;
        if left_out {
            // What is pending is stale.
            self.pending.clear();
        }
        let unrelated = std::mem::take(&mut self.unrelated) || left_out;
        if unrelated || span.start != self.heard.end {
            failed += self.flush(payload, emit);
            self.frame_start = self.frame_start.max(span.start);
            self.marker = true;
            self.restart |= unrelated;
        } else if marker && self.pending.is_empty() {
            self.marker = true;
        }
        self.heard = span;
        let mut rest = pcm;
        while !rest.is_empty() {
            let room = self.frame_samples - self.pending.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.pending.extend_from_slice(now);
            rest = later;
            if self.pending.len() == self.frame_samples {
                failed += self.encode(payload, emit);
            }
        }
        failed
    }

    /// Sends a frame that will not be filled, with silence behind it.
    pub(super) fn flush(
        &mut self,
        payload: &mut [u8],
        emit: &mut impl FnMut(EncodedFrame<'_>),
    ) -> u64 {
        if self.pending.is_empty() {
            return 0;
        }
        self.pending.resize(self.frame_samples, 0);
        self.encode(payload, emit)
    }

    fn encode(&mut self, payload: &mut [u8], emit: &mut impl FnMut(EncodedFrame<'_>)) -> u64 {
        let ticks_per_clock = u64::from(TICKS_PER_SECOND / self.format.codec.clock_rate());
        // RTP timestamps wrap.
        let timestamp = (self.frame_start / ticks_per_clock) as u32;
        self.frame_start += self.frame_ticks();
        let encoded = self.encoder.encode(&self.pending, payload);
        self.pending.clear();
        let Ok(length) = encoded else { return 1 };
        let Some(payload) = payload.get(..length).filter(|payload| !payload.is_empty()) else {
            // DTX: the next frame that is sent begins a talkspurt.
            self.marker = true;
            return 0;
        };
        let marker = std::mem::take(&mut self.marker);
        let restart = std::mem::take(&mut self.restart);
        emit(EncodedFrame {
            payload,
            timestamp,
            marker,
            restart,
        });
        0
    }
}
