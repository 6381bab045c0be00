//! Puts a source's packets in order and says what to do about those that are missing.
//!
//! ```text
//!           expected packet: deliver             one ahead: hold it for one frame's time
//! ordered ◄──────────────────────── ordered ─────────────────────────────────► holding
//!    ▲                                                                            │
//!    └── the missing one, another packet, or the time: conceal what is missing ◄──┘
//! ```
//! A gap of up to five frames is concealed; what comes after a longer one begins a new talkspurt, as
//! does a timestamp that jumps where no packet is missing (DTX). Packets that come after their
//! place was filled are dropped. Time is the source's RTP clock.

use std::time::Duration;

use super::SourcePacket;
use crate::time::Instant;

/// Frames that concealment bridges.
const MAX_CONCEALED: u16 = 5;
/// A packet this far behind is late; one further behind is a sender that began anew (RFC 3550 A.1).
const MAX_MISORDER: i16 = 100;
/// Timestamps that jump further than this do not say how much time has passed.
const MAX_SKIP_SECONDS: u32 = 3600;
/// Longest payload that can be held back.
const MAX_HELD: usize = 2048;

/// Why a packet was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IntakeError {
    /// Its place in the stream has been filled, or it came twice.
    #[error("late or duplicate packet, {behind} behind")]
    Late {
        /// Sequence numbers behind the next expected.
        behind: u16,
    },
    /// It would have to wait, and is longer than any packet we hold.
    #[error("payload of {bytes} bytes cannot wait")]
    TooLong {
        /// Length of the payload.
        bytes: usize,
    },
}

/// What to do next, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step<'a> {
    /// Stand in for lost frames.
    Conceal {
        /// How much is missing.
        clock_ticks: u32,
        /// The payload behind the gap.
        next: &'a [u8],
    },
    /// What follows does not join what came before.
    Talkspurt {
        /// How much time passed without sound, `None` when the source does not tell.
        skipped_ticks: Option<u32>,
    },
    /// Decode this.
    Frame {
        /// The payload.
        payload: &'a [u8],
        /// The source's marker bit.
        marker: bool,
        /// Its length.
        clock_ticks: u32,
    },
}

/// Order and loss of one source.
pub struct Intake {
    clock_hz: u32,
    expected: Option<Expected>,
    held: Held,
    held_until: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Expected {
    sequence: u16,
    timestamp: u32,
    frame_ticks: u32,
}

struct Held {
    sequence: u16,
    timestamp: u32,
    marker: bool,
    ticks: u32,
    payload: Vec<u8>,
}

impl Intake {
    /// For a source whose RTP clock runs at `clock_hz`.
    pub fn new(clock_hz: u32) -> Self {
        let payload = Vec::with_capacity(MAX_HELD);
        let held = Held {
            sequence: 0,
            timestamp: 0,
            marker: false,
            ticks: 0,
            payload,
        };
        Self {
            clock_hz,
            expected: None,
            held,
            held_until: None,
        }
    }

    /// Takes a packet of `ticks` length and calls `step` for what can be done now.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        packet: SourcePacket<'_>,
        ticks: u32,
        step: &mut impl FnMut(Step<'_>),
    ) -> Result<(), IntakeError> {
        let Some(expected) = self.expected else {
            step(Step::Talkspurt {
                skipped_ticks: None,
            });
            self.deliver(packet, ticks, step);
            return Ok(());
        };
        let ahead = packet.sequence.wrapping_sub(expected.sequence) as i16;
        if ahead < 0 && ahead > -MAX_MISORDER {
            return Err(IntakeError::Late {
                behind: ahead.unsigned_abs(),
            });
        }
        if ahead == 0 {
            self.deliver(packet, ticks, step);
            self.release_if_next(step);
            return Ok(());
        }
        if self.held_until.is_some() {
            return self.handle_second_ahead(now, packet, ticks, step);
        }
        if ahead < 0 || ahead as u16 > MAX_CONCEALED {
            self.bridge_and_deliver(packet, ticks, step);
            return Ok(());
        }
        self.hold(now, packet, ticks)
    }

    /// A packet of the stream carried no audio (a telephone-event, say): its number is not missing. One
    /// that comes out of order is taken for lost.
    pub fn pass_over(&mut self, sequence: u16) {
        if let Some(expected) = &mut self.expected
            && expected.sequence == sequence
        {
            expected.sequence = sequence.wrapping_add(1);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.held_until
    }

    /// Gives up waiting for a missing packet.
    pub fn handle_timeout(&mut self, now: Instant, step: &mut impl FnMut(Step<'_>)) {
        if self.held_until.is_some_and(|until| until <= now) {
            self.release(step);
        }
    }

    /// A packet is held and another that is not the missing one came: the wait is over.
    fn handle_second_ahead(
        &mut self,
        now: Instant,
        packet: SourcePacket<'_>,
        ticks: u32,
        step: &mut impl FnMut(Step<'_>),
    ) -> Result<(), IntakeError> {
        let after_held = packet.sequence.wrapping_sub(self.held.sequence) as i16;
        if after_held == 0 {
            return Err(IntakeError::Late { behind: 0 });
        }
        if after_held < 0 {
            self.bridge_and_deliver(packet, ticks, step);
            self.release_if_next(step);
            return Ok(());
        }
        self.release(step);
        self.handle_packet(now, packet, ticks, step)
    }

    fn hold(
        &mut self,
        now: Instant,
        packet: SourcePacket<'_>,
        ticks: u32,
    ) -> Result<(), IntakeError> {
        let bytes = packet.payload.len();
        if bytes > MAX_HELD {
            return Err(IntakeError::TooLong { bytes });
        }
        let held = &mut self.held;
        (held.sequence, held.timestamp) = (packet.sequence, packet.timestamp);
        (held.marker, held.ticks) = (packet.marker, ticks);
        held.payload.clear();
        held.payload.extend_from_slice(packet.payload);
        let frame_ticks = self.expected.map_or(ticks, |expected| expected.frame_ticks);
        let nanos = u64::from(frame_ticks) * 1_000_000_000 / u64::from(self.clock_hz);
        self.held_until = Some(now + Duration::from_nanos(nanos));
        Ok(())
    }

    fn release_if_next(&mut self, step: &mut impl FnMut(Step<'_>)) {
        let next = self.expected.map(|expected| expected.sequence);
        if self.held_until.is_some() && next == Some(self.held.sequence) {
            self.release(step);
        }
    }

    fn release(&mut self, step: &mut impl FnMut(Step<'_>)) {
        self.held_until = None;
        let payload = std::mem::take(&mut self.held.payload);
        let packet = SourcePacket {
            sequence: self.held.sequence,
            timestamp: self.held.timestamp,
            marker: self.held.marker,
            payload: &payload,
        };
        self.bridge_and_deliver(packet, self.held.ticks, step);
        self.held.payload = payload;
    }

    /// Fills the gap before `packet`, as far as it can be filled.
    fn bridge_and_deliver(
        &mut self,
        packet: SourcePacket<'_>,
        ticks: u32,
        step: &mut impl FnMut(Step<'_>),
    ) {
        if let Some(expected) = self.expected {
            let lost = packet.sequence.wrapping_sub(expected.sequence);
            let gap = packet.timestamp.wrapping_sub(expected.timestamp);
            let longest = expected
                .frame_ticks
                .max(ticks)
                .saturating_mul(MAX_CONCEALED.into());
            if (1..=MAX_CONCEALED).contains(&lost) && (1..=longest).contains(&gap) {
                step(Step::Conceal {
                    clock_ticks: gap,
                    next: packet.payload,
                });
                self.expected = Some(Expected {
                    timestamp: packet.timestamp,
                    ..expected
                });
            } else if lost > 0 {
                self.begin_talkspurt(gap, step);
                self.expected = Some(Expected {
                    timestamp: packet.timestamp,
                    ..expected
                });
            }
        }
        self.deliver(packet, ticks, step);
    }

    /// Delivers a packet before which nothing is missing; its timestamp may still have jumped.
    fn deliver(&mut self, packet: SourcePacket<'_>, ticks: u32, step: &mut impl FnMut(Step<'_>)) {
        if let Some(expected) = self.expected {
            let gap = packet.timestamp.wrapping_sub(expected.timestamp);
            // Senders that stamp by a wall clock stray by less than half a frame.
            if (gap as i32).unsigned_abs() > expected.frame_ticks / 2 {
                self.begin_talkspurt(gap, step);
            }
        }
        step(Step::Frame {
            payload: packet.payload,
            marker: packet.marker,
            clock_ticks: ticks,
        });
        self.expected = Some(Expected {
            sequence: packet.sequence.wrapping_add(1),
            timestamp: packet.timestamp.wrapping_add(ticks),
            frame_ticks: ticks,
        });
    }

    fn begin_talkspurt(&mut self, gap: u32, step: &mut impl FnMut(Step<'_>)) {
        let believable = gap <= MAX_SKIP_SECONDS * self.clock_hz;
        step(Step::Talkspurt {
            skipped_ticks: believable.then_some(gap),
        });
    }
}

#[cfg(test)]
mod tests;
