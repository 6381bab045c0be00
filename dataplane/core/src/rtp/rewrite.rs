//! The one continuous RTP stream that a destination is sent, whatever happens behind it (media.md,
//! Routing): own SSRC, sequence and timestamp.
//!
//! Forwarded packets keep their distance in the source's sequence, so that loss and order stay
//! visible (our number = base + theirs). What we withhold on purpose is not loss: the first packet
//! after it is last sent + 1, and packets older than such a rebase are refused. No number is ever
//! given twice.
//!
//! Must never decrease timestamps in sequence order, telephone-events excepted (RFC 4733 section 2.6).

use std::time::Duration;

use crate::entropy::Entropy;
use crate::srtp;
use crate::time::Instant;

/// Packets late by at least this many numbers are not sent any more: SRTP could not send them, and
/// no jitter buffer waits that long.
const WINDOW: u64 = srtp::WINDOW_LEN;

/// Where packets come from: a source and its epoch, which changes when the source begins anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceEpoch {
    /// The source's name.
    pub source: u32,
    /// Which of its lives.
    pub epoch: u32,
}

/// A packet's place at its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourcePosition {
    /// Where it comes from.
    pub from: SourceEpoch,
    /// Extended sequence number there.
    pub sequence: u64,
    /// Timestamp there.
    pub timestamp: u32,
    /// Marker there.
    pub marker: bool,
    /// Telephone-events stand still in time.
    pub is_event: bool,
}

/// A packet's place in our stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
}

/// Our stream to one destination.
#[derive(Clone, Debug)]
pub struct OutgoingStream {
    ssrc: u32,
    clock_rate: u32,
    /// Newest number sent, extended; before the first packet: the one before it.
    highest: u64,
    /// Bit n: `highest - n` was sent.
    sent: u64,
    /// Timestamp of the newest audio, and when it left. None before the first packet.
    reference: Option<(u32, Instant)>,
    first_timestamp: u32,
    mapping: Option<Mapping>,
    packets: u64,
    octets: u64,
}

/// How the numbers of a source become ours.
#[derive(Clone, Debug)]
struct Mapping {
    from: SourceEpoch,
    /// ours = theirs + this, wrapping.
    sequence_offset: u64,
    timestamp_offset: u32,
    /// Older packets are from before a rebase.
    floor: u64,
    /// Newest of theirs that was sent or withheld.
    newest: u64,
    /// Something was withheld: the next packet follows the last one sent.
    rebase: bool,
}

impl OutgoingStream {
    /// A stream with random SSRC, first sequence number and first timestamp (RFC 3550 section 5.1).
    pub fn new(entropy: &mut dyn Entropy, clock_rate: u32) -> Self {
        Self {
            ssrc: entropy.next_u32(),
            clock_rate,
            // One cycle up, so that extended numbers never go below zero; and in its lower half, so
            // that a receiver which misses the first packets does not miss a roll-over with them
            // (RFC 3711 section 3.3.1).
            highest: 0x1_0000 + u64::from(entropy.next_u16() & 0x7fff),
            sent: 0,
            reference: None,
            first_timestamp: entropy.next_u32(),
            mapping: None,
            packets: 0,
            octets: 0,
        }
    }

    /// Our SSRC, for the endpoint's life.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Clock of the timestamps, Hz.
    pub fn clock_rate(&self) -> u32 {
        self.clock_rate
    }

    /// The clock of the codec that was agreed on. Timestamps run on from where they are.
    pub fn set_clock_rate(&mut self, clock_rate: u32, now: Instant) {
        if clock_rate != self.clock_rate {
            self.reference = self.reference.map(|_| (self.timestamp_at(now), now));
            self.clock_rate = clock_rate;
            self.mapping = None;
        }
    }

    /// Packets and payload octets sent, as sender reports count them.
    pub fn sent(&self) -> (u64, u64) {
        (self.packets, self.octets)
    }

    /// The timestamp that a packet made now would carry: last timestamp + elapsed time.
    pub fn timestamp_at(&self, now: Instant) -> u32 {
        match self.reference {
            None => self.first_timestamp,
            Some((timestamp, at)) => timestamp.wrapping_add(self.ticks(now - at)),
        }
    }

    /// Counts a packet that left with this many payload octets.
    pub fn on_sent(&mut self, octets: usize) {
        self.packets += 1;
        self.octets += octets as u64;
    }

    /// Packets are being withheld until further notice: what comes after them follows the last
    /// packet sent.
    pub fn rebase(&mut self) {
        if let Some(mapping) = &mut self.mapping {
            mapping.rebase = true;
        }
    }

    /// The names of sources mean others from now on (the stream was moved): what comes next is
    /// another source.
    pub fn forget_source(&mut self) {
        self.mapping = None;
    }

    /// This one packet is withheld, and its number taken out of the sequence; loss around it stays
    /// visible.
    pub fn withhold(&mut self, from: SourceEpoch, sequence: u64) {
        if let Some(mapping) = &mut self.mapping
            && mapping.from == from
            && sequence > mapping.newest
        {
            mapping.sequence_offset = mapping.sequence_offset.wrapping_sub(1);
            mapping.newest = sequence;
            mapping.floor = sequence + 1;
        }
    }

    /// Places a packet that is passed on. None: it is from before the last rebase, too late, or its
    /// number was sent already.
    pub fn forward(&mut self, position: SourcePosition, now: Instant) -> Option<Placed> {
        let theirs = position.sequence;
        let mut changed = false;
        let mapping = match &self.mapping {
            Some(mapping) if mapping.from == position.from => {
                if theirs < mapping.floor || (mapping.rebase && theirs <= mapping.newest) {
                    return None;
                }
                if mapping.rebase {
                    let kept = mapping.timestamp_offset;
                    self.map(&position, kept)
                } else {
                    mapping.clone()
                }
            }
            _ => {
                changed = true;
                let offset = self.timestamp_at(now).wrapping_sub(position.timestamp);
                self.map(&position, offset)
            }
        };
        let ours = theirs.wrapping_add(mapping.sequence_offset);
        let mapping = self.mapping.insert(mapping);
        mapping.newest = mapping.newest.max(theirs);
        let timestamp = position.timestamp.wrapping_add(mapping.timestamp_offset);
        let timestamp = if ours > self.highest {
            self.advance(ours, timestamp, position.is_event, now)
        } else {
            self.fill_in(ours, timestamp, position.is_event)?
        };
        Some(Placed {
            sequence: ours as u16,
            timestamp,
            marker: position.marker || changed,
        })
    }

    /// Places a packet of our own making behind the last one.
    pub fn append(&mut self, timestamp: u32, marker: bool, is_event: bool, now: Instant) -> Placed {
        self.rebase();
        let sequence = self.highest + 1;
        let timestamp = self.advance(sequence, timestamp, is_event, now);
        Placed {
            sequence: sequence as u16,
            timestamp,
            marker,
        }
    }

    fn map(&self, position: &SourcePosition, timestamp_offset: u32) -> Mapping {
        Mapping {
            from: position.from,
            sequence_offset: (self.highest + 1).wrapping_sub(position.sequence),
            timestamp_offset,
            floor: position.sequence,
            newest: position.sequence,
            rebase: false,
        }
    }

    /// A number newer than all before; gives the timestamp to use.
    fn advance(&mut self, ours: u64, timestamp: u32, is_event: bool, now: Instant) -> u32 {
        let step = ours - self.highest;
        self.sent = if step < WINDOW { self.sent << step } else { 0 } | 1;
        self.highest = ours;
        let Some((last, _)) = self.reference else {
            self.reference = Some((timestamp, now));
            return timestamp;
        };
        let is_older = (timestamp.wrapping_sub(last) as i32) < 0;
        if is_event {
            if !is_older && timestamp != last {
                self.reference = Some((timestamp, now));
            }
            return timestamp;
        }
        if !is_older {
            self.reference = Some((timestamp, now));
            return timestamp;
        }
        let repaired = self.timestamp_at(now);
        if let Some(mapping) = &mut self.mapping {
            let correction = repaired.wrapping_sub(timestamp);
            mapping.timestamp_offset = mapping.timestamp_offset.wrapping_add(correction);
        }
        self.reference = Some((repaired, now));
        repaired
    }

    /// A number among those already sent; None when it is too old or was sent itself.
    fn fill_in(&mut self, ours: u64, timestamp: u32, is_event: bool) -> Option<u32> {
        let behind = self.highest - ours;
        if behind >= WINDOW || self.sent >> behind & 1 != 0 {
            return None;
        }
        self.sent |= 1 << behind;
        match self.reference {
            Some((last, _)) if !is_event && (timestamp.wrapping_sub(last) as i32) > 0 => Some(last),
            _ => Some(timestamp),
        }
    }

    fn ticks(&self, elapsed: Duration) -> u32 {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        (micros.wrapping_mul(u64::from(self.clock_rate)) / 1_000_000) as u32
    }
}

#[cfg(test)]
#[path = "rewrite/tests.rs"]
mod tests;
