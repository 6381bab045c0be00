//! A packet source and everything that is made of it.

use super::fanout::Fanout;
use super::intake::{Intake, Step};
use super::{EncodedFrame, SourcePacket, TICKS_PER_SECOND, TargetFormat, packet_clock_ticks};
use crate::codec::{self, Codec, CodecError, Decoder, MAX_PACKET_SAMPLES};
use crate::time::Instant;

/// Orders, decodes and re-encodes one source.
pub struct Transcoder {
    codec: Codec,
    intake: Intake,
    branches: Vec<Branch>,
    /// The decoded sound is also wanted as it is.
    tapped: bool,
    pcm: Box<[i16]>,
    errors: u64,
}

/// The source decoded at one rate.
struct Branch {
    decoder: Decoder,
    fanout: Fanout,
}

/// What a [`Transcoder`] gives.
pub trait TranscodeSink {
    /// A frame for the listeners of `wanted[place]`.
    fn on_frame(&mut self, place: usize, frame: EncodedFrame<'_>);

    /// The source's own sound, concealment included, while [`Transcoder::set_tapped`] asks for it.
    fn on_pcm(&mut self, rate_hz: u32, pcm: &[i16]);
}

/// A closure takes frames and leaves PCM.
impl<F: FnMut(usize, EncodedFrame<'_>)> TranscodeSink for F {
    fn on_frame(&mut self, place: usize, frame: EncodedFrame<'_>) {
        self(place, frame);
    }

    fn on_pcm(&mut self, _rate_hz: u32, _pcm: &[i16]) {}
}

impl Transcoder {
    /// For a source that sends `codec`.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            intake: Intake::new(codec.clock_rate()),
            branches: Vec::new(),
            tapped: false,
            pcm: vec![0; MAX_PACKET_SAMPLES].into_boxed_slice(),
            errors: 0,
        }
    }

    /// The source's codec.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// How many formats are being made.
    pub fn target_count(&self) -> usize {
        self.branches
            .iter()
            .map(|branch| branch.fanout.target_count())
            .sum()
    }

    /// Frames that could not be decoded or encoded since this was last asked.
    pub fn take_errors(&mut self) -> u64 {
        let encoding: u64 = self
            .branches
            .iter_mut()
            .map(|branch| branch.fanout.take_errors())
            .sum();
        std::mem::take(&mut self.errors) + encoding
    }

    /// Starts making `format`, if it is not made already.
    pub fn add_target(&mut self, format: &TargetFormat) -> Result<(), CodecError> {
        self.want(format, 0)
    }

    pub(super) fn want(&mut self, format: &TargetFormat, stamp: u64) -> Result<(), CodecError> {
        let (rate_hz, _) = codec::rates_between(self.codec, format.codec());
        self.branch(rate_hz)?.fanout.want(format, stamp)
    }

    /// Whether `format` is being made.
    pub fn has_target(&self, format: &TargetFormat) -> bool {
        self.branches
            .iter()
            .any(|branch| branch.fanout.has_target(format))
    }

    /// Stops making `format`.
    pub fn remove_target(&mut self, format: &TargetFormat) {
        for branch in &mut self.branches {
            branch.fanout.remove_target(format);
        }
        self.drop_idle_branches();
    }

    pub(super) fn least_recent(&self) -> Option<(TargetFormat, u64)> {
        let oldest = self
            .branches
            .iter()
            .filter_map(|branch| branch.fanout.least_recent());
        oldest.min_by_key(|(_, stamp)| *stamp)
    }

    /// Tells the encoder of `format` what its listeners lose.
    pub fn set_expected_loss(&mut self, format: &TargetFormat, percent: u8) {
        for branch in &mut self.branches {
            branch.fanout.set_expected_loss(format, percent);
        }
    }

    /// Whether the decoded sound is wanted beside the frames.
    pub fn set_tapped(&mut self, tapped: bool) -> Result<(), CodecError> {
        self.tapped = tapped;
        if tapped && self.branches.is_empty() {
            self.branch(codec::native_rate(self.codec, 16000))?;
        }
        self.drop_idle_branches();
        Ok(())
    }

    /// Takes the source's next packet. Late, duplicate and undecodable ones are dropped; the latter
    /// count as errors.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        packet: SourcePacket<'_>,
        wanted: &[TargetFormat],
        sink: &mut impl TranscodeSink,
    ) {
        let Ok(ticks) = packet_clock_ticks(self.codec, packet.payload) else {
            self.errors += 1;
            return;
        };
        let mut work = Work {
            clock_hz: self.codec.clock_rate(),
            branches: &mut self.branches,
            tapped: self.tapped,
            pcm: &mut self.pcm,
            errors: &mut self.errors,
            wanted,
            sink,
        };
        // A late packet is the network's loss, not an error of ours.
        self.intake
            .handle_packet(now, packet, ticks, &mut |step| work.run(step))
            .ok();
    }

    /// A packet of the source carried no audio: its number is not missing.
    pub fn pass_over(&mut self, sequence: u16) {
        self.intake.pass_over(sequence);
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.intake.next_timeout()
    }

    /// Gives up waiting for a missing packet.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        wanted: &[TargetFormat],
        sink: &mut impl TranscodeSink,
    ) {
        let mut work = Work {
            clock_hz: self.codec.clock_rate(),
            branches: &mut self.branches,
            tapped: self.tapped,
            pcm: &mut self.pcm,
            errors: &mut self.errors,
            wanted,
            sink,
        };
        self.intake.handle_timeout(now, &mut |step| work.run(step));
    }

    fn branch(&mut self, rate_hz: u32) -> Result<&mut Branch, CodecError> {
        let at = match self
            .branches
            .iter()
            .position(|b| b.decoder.rate_hz() == rate_hz)
        {
            Some(at) => at,
            None => {
                let decoder = Decoder::new(self.codec, rate_hz)?;
                self.branches.push(Branch {
                    decoder,
                    fanout: Fanout::new(rate_hz),
                });
                // The cheapest decode that serves is first; taps listen to it.
                self.branches.sort_by_key(|branch| branch.decoder.rate_hz());
                self.branches
                    .iter()
                    .position(|b| b.decoder.rate_hz() == rate_hz)
                    .unwrap_or(0)
            }
        };
        Ok(&mut self.branches[at])
    }

    fn drop_idle_branches(&mut self) {
        let mut keep_one = self.tapped;
        self.branches
            .retain(|branch| branch.fanout.target_count() > 0 || std::mem::take(&mut keep_one));
    }
}

/// The parts of a [`Transcoder`] that a [`Step`] works on.
struct Work<'a, S> {
    clock_hz: u32,
    branches: &'a mut [Branch],
    tapped: bool,
    pcm: &'a mut [i16],
    errors: &'a mut u64,
    wanted: &'a [TargetFormat],
    sink: &'a mut S,
}

impl<S: TranscodeSink> Work<'_, S> {
    fn run(&mut self, step: Step<'_>) {
        for at in 0..self.branches.len() {
            match step {
                Step::Talkspurt {
                    skipped_ticks: None,
                } => self.branches[at].fanout.restart(),
                Step::Talkspurt {
                    skipped_ticks: Some(ticks),
                } => {
                    let ticks = self.common_ticks(ticks);
                    self.branches[at].fanout.skip(ticks);
                }
                Step::Conceal { clock_ticks, next } => self.conceal(at, clock_ticks, Some(next)),
                Step::Frame {
                    payload,
                    marker,
                    clock_ticks,
                } => {
                    if marker {
                        self.branches[at].fanout.mark_talkspurt();
                    }
                    self.decode(at, payload, clock_ticks);
                }
            }
        }
    }

    fn decode(&mut self, at: usize, payload: &[u8], clock_ticks: u32) {
        if !self.is_needed(at) {
            return self.pass(at, clock_ticks);
        }
        match self.branches[at].decoder.decode(payload, self.pcm) {
            Ok(samples) => self.give(at, samples),
            Err(_) => {
                *self.errors += 1;
                self.conceal(at, clock_ticks, None);
            }
        }
    }

    /// Stands in for `clock_ticks`, in as many pieces as the buffer asks for.
    fn conceal(&mut self, at: usize, clock_ticks: u32, next: Option<&[u8]>) {
        if !self.is_needed(at) {
            return self.pass(at, clock_ticks);
        }
        let rate_hz = u64::from(self.branches[at].decoder.rate_hz());
        let mut missing = u64::from(clock_ticks) * rate_hz / u64::from(self.clock_hz);
        while missing > 0 {
            // Never more than the buffer's length, so the cast keeps the value.
            let samples = missing.min(self.pcm.len() as u64) as usize;
            missing -= samples as u64;
            let next = next.filter(|_| missing == 0);
            if self.branches[at]
                .decoder
                .conceal(next, &mut self.pcm[..samples])
                .is_err()
            {
                *self.errors += 1;
                self.pcm[..samples].fill(0);
            }
            self.give(at, samples);
        }
    }

    fn give(&mut self, at: usize, samples: usize) {
        let branch = &mut self.branches[at];
        let pcm = &self.pcm[..samples];
        if self.tapped && at == 0 {
            self.sink.on_pcm(branch.decoder.rate_hz(), pcm);
        }
        let sink = &mut *self.sink;
        branch.fanout.push(pcm, self.wanted, &mut |place, frame| {
            sink.on_frame(place, frame)
        });
    }

    fn pass(&mut self, at: usize, clock_ticks: u32) {
        let ticks = self.common_ticks(clock_ticks);
        self.branches[at].fanout.pass(ticks);
    }

    fn is_needed(&self, at: usize) -> bool {
        (self.tapped && at == 0) || self.branches[at].fanout.is_wanted(self.wanted)
    }

    fn common_ticks(&self, clock_ticks: u32) -> u64 {
        u64::from(clock_ticks) * u64::from(TICKS_PER_SECOND / self.clock_hz)
    }
}

#[cfg(test)]
mod tests;
