//! One PCM stream to every format that is wanted of it: one resampling per rate, one encode per
//! format.

use super::target::{Span, Target};
use super::{EncodedFrame, TICKS_PER_SECOND, TargetFormat};
use crate::codec::resample::Resampler;
use crate::codec::{CodecError, MAX_PAYLOAD};

/// Encodes one PCM stream for all its listeners.
pub struct Fanout {
    rate_hz: u32,
    /// Where the next sample belongs.
    position: u64,
    /// Samples too few for a whole tick, kept so that odd rates do not drift.
    position_rest: u64,
    lanes: Vec<Lane>,
    targets: Vec<Target>,
    payload: Box<[u8]>,
    marker: bool,
    /// Counts what was pushed and passed, so that a target knows when it was left out.
    turn: u64,
    errors: u64,
}

/// The stream at one rate.
struct Lane {
    rate_hz: u32,
    resampler: Resampler,
    pcm: Vec<i16>,
    /// Turn for which `pcm` was made.
    made_for: u64,
}

impl Fanout {
    /// For a stream at `rate_hz`.
    pub fn new(rate_hz: u32) -> Self {
        Self {
            rate_hz,
            position: 0,
            position_rest: 0,
            lanes: Vec::new(),
            targets: Vec::new(),
            payload: vec![0; MAX_PAYLOAD].into_boxed_slice(),
            marker: false,
            turn: 0,
            errors: 0,
        }
    }

    /// Rate of the stream.
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// How many formats are being made.
    pub fn target_count(&self) -> usize {
        self.targets.len()
    }

    /// Frames that could not be encoded since this was last asked.
    pub fn take_errors(&mut self) -> u64 {
        std::mem::take(&mut self.errors)
    }

    /// Makes sure `format` is made from now on; `stamp` says when it was last wanted.
    pub(super) fn want(&mut self, format: &TargetFormat, stamp: u64) -> Result<(), CodecError> {
        let target = match self.targets.iter_mut().position(|t| t.format() == format) {
            Some(at) => &mut self.targets[at],
            None => {
                let target = Target::new(*format, self.rate_hz)?;
                self.add_lane(target.rate_hz())?;
                self.targets.push(target);
                let last = self.targets.len() - 1;
                &mut self.targets[last]
            }
        };
        target.last_used = stamp;
        Ok(())
    }

    /// Starts making `format`, if it is not made already.
    pub fn add_target(&mut self, format: &TargetFormat) -> Result<(), CodecError> {
        self.want(format, 0)
    }

    /// Whether `format` is being made.
    pub fn has_target(&self, format: &TargetFormat) -> bool {
        self.targets.iter().any(|target| target.format() == format)
    }

    /// Stops making `format`.
    pub fn remove_target(&mut self, format: &TargetFormat) {
        self.targets.retain(|target| target.format() != format);
        let targets = &self.targets;
        self.lanes.retain(|lane| {
            targets
                .iter()
                .any(|target| target.rate_hz() == lane.rate_hz)
        });
    }

    /// The format that has gone unwanted for longest, and when it was last wanted.
    pub(super) fn least_recent(&self) -> Option<(TargetFormat, u64)> {
        let oldest = self.targets.iter().min_by_key(|target| target.last_used)?;
        Some((*oldest.format(), oldest.last_used))
    }

    /// Tells the encoder of `format` what its listeners lose.
    pub fn set_expected_loss(&mut self, format: &TargetFormat, percent: u8) {
        if let Some(target) = self
            .targets
            .iter_mut()
            .find(|target| target.format() == format)
            && target.set_expected_loss(percent).is_err()
        {
            self.errors += 1;
        }
    }

    /// Encodes the next samples for each of `wanted` that is being made, and calls `emit` with the
    /// format's place in `wanted` for each frame that is full.
    pub fn push(
        &mut self,
        pcm: &[i16],
        wanted: &[TargetFormat],
        emit: &mut impl FnMut(usize, EncodedFrame<'_>),
    ) {
        let start = self.position;
        let elapsed = pcm.len() as u64 * u64::from(TICKS_PER_SECOND) + self.position_rest;
        self.position += elapsed / u64::from(self.rate_hz);
        self.position_rest = elapsed % u64::from(self.rate_hz);
        self.turn += 1;
        let span = Span {
            turn: self.turn,
            start,
            end: self.position,
        };
        let marker = std::mem::take(&mut self.marker);
        for lane in &mut self.lanes {
            lane.pcm.clear();
        }
        for (place, format) in wanted.iter().enumerate() {
            let Some(target) = self.targets.iter_mut().find(|t| t.format() == format) else {
                continue;
            };
            let samples = if target.rate_hz() == self.rate_hz {
                pcm
            } else if let Some(lane) = self
                .lanes
                .iter_mut()
                .find(|lane| lane.rate_hz == target.rate_hz())
            {
                lane.fill(pcm, self.turn);
                &lane.pcm
            } else {
                continue;
            };
            let mut emit = |frame: EncodedFrame<'_>| emit(place, frame);
            self.errors += target.push(samples, span, marker, &mut self.payload, &mut emit);
        }
    }

    /// Time passes in which the stream is silent and nothing is sent.
    pub fn skip(&mut self, ticks: u64) {
        self.position = self.position.saturating_add(ticks);
        self.marker = true;
    }

    /// Goes on at `position` of a time line that is kept elsewhere; back never.
    pub(crate) fn advance_to(&mut self, position: u64) {
        if position > self.position {
            self.skip(position - self.position);
        }
    }

    /// The stream is over: sends frames that are not full, filled up with silence.
    pub fn finish(
        &mut self,
        wanted: &[TargetFormat],
        emit: &mut impl FnMut(usize, EncodedFrame<'_>),
    ) {
        for (place, format) in wanted.iter().enumerate() {
            if let Some(target) = self.targets.iter_mut().find(|t| t.format() == format) {
                let mut emit = |frame: EncodedFrame<'_>| emit(place, frame);
                self.errors += target.flush(&mut self.payload, &mut emit);
            }
        }
    }

    /// Sound passes that nobody wants encoded.
    pub(super) fn pass(&mut self, ticks: u64) {
        self.position = self.position.saturating_add(ticks);
        self.turn += 1;
    }

    /// Whether any of `wanted` is being made.
    pub(super) fn is_wanted(&self, wanted: &[TargetFormat]) -> bool {
        wanted.iter().any(|format| self.has_target(format))
    }

    /// What follows begins a talkspurt.
    pub fn mark_talkspurt(&mut self) {
        self.marker = true;
    }

    /// What follows stands nowhere on the time line so far.
    pub fn restart(&mut self) {
        self.marker = true;
        for target in &mut self.targets {
            target.mark_restart();
        }
    }

    fn add_lane(&mut self, rate_hz: u32) -> Result<(), CodecError> {
        if rate_hz == self.rate_hz || self.lanes.iter().any(|lane| lane.rate_hz == rate_hz) {
            return Ok(());
        }
        let resampler = Resampler::new(self.rate_hz, rate_hz)?;
        let pcm = Vec::with_capacity(rate_hz as usize / 16);
        self.lanes.push(Lane {
            rate_hz,
            resampler,
            pcm,
            made_for: 0,
        });
        Ok(())
    }
}

impl Lane {
    fn fill(&mut self, pcm: &[i16], turn: u64) {
        if self.made_for != turn {
            self.made_for = turn;
            self.resampler.process(pcm, &mut self.pcm);
        }
    }
}
