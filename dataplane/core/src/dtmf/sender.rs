//! Digits that we send: queued, then one packet every 20 ms with growing duration, the end three
//! times (RFC 4733 section 2.5.1), 50 ms between digits.
//!
//! ```text
//! idle ──digit──► sending ──third end packet──► pausing ──50 ms──► sending the next, or idle
//! ```
//! Makes payloads only; the stream they go into gives sequence numbers.

use std::collections::VecDeque;
use std::time::Duration;

use rtpbridge_shared::vocab::Digit;

use super::payload::EventPayload;
use crate::time::Instant;

/// Digits that may be waiting or playing at a time.
pub const QUEUE_LIMIT: usize = 32;
/// Between packets.
pub const PACKET_INTERVAL: Duration = Duration::from_millis(20);
/// Between digits.
pub const PAUSE: Duration = Duration::from_millis(50);

const INTERVAL_MS: u32 = 20;
const END_PACKETS: u8 = 3;
/// The longest duration that a segment can say (RFC 4733 section 2.5.1.3).
const SEGMENT_TICKS: u32 = 0xffff;

/// A digit to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueuedDigit {
    /// Which.
    pub digit: Digit,
    /// How long.
    pub duration_ms: u32,
    /// dBm0, negated: 0…63.
    pub volume: u8,
    /// Not to appear in recordings.
    pub is_sensitive: bool,
}

/// The clocks that an event is stamped with, Hz.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventClocks {
    /// Of the stream: timestamps.
    pub stream: u32,
    /// Of the telephone-event's rtpmap: durations.
    pub event: u32,
}

/// One packet to send now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventPacket {
    /// Its payload.
    pub payload: EventPayload,
    /// Its timestamp: that of the event's (segment's) begin.
    pub timestamp: u32,
    /// Set on the first of the event.
    pub marker: bool,
    /// See [`QueuedDigit::is_sensitive`].
    pub is_sensitive: bool,
}

/// Sends digits into one destination's stream.
#[derive(Clone, Debug, Default)]
pub struct EventSender {
    waiting: VecDeque<QueuedDigit>,
    phase: Phase,
}

#[derive(Clone, Debug, Default)]
enum Phase {
    #[default]
    Idle,
    Sending(Sending),
    Pausing {
        until: Instant,
    },
}

#[derive(Clone, Debug)]
struct Sending {
    digit: QueuedDigit,
    /// Of the current segment.
    timestamp: u32,
    /// Ticks of the segments before.
    earlier: u32,
    elapsed_ms: u32,
    ends_sent: u8,
    next_at: Instant,
}

impl EventSender {
    /// Queues a digit; the caller calls [`poll`](Self::poll) next.
    ///
    /// # Errors
    /// The digit comes back when [`QUEUE_LIMIT`] are in the queue, the playing one included.
    pub fn enqueue(&mut self, digit: QueuedDigit) -> Result<(), QueuedDigit> {
        let playing = usize::from(matches!(self.phase, Phase::Sending(_)));
        if self.waiting.len() + playing >= QUEUE_LIMIT {
            return Err(digit);
        }
        self.waiting.push_back(digit);
        Ok(())
    }

    /// Whether the destination's audio is to pause: an event is being sent, or another follows.
    pub fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Sending(_)) || !self.waiting.is_empty()
    }

    /// When [`poll`](Self::poll) has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Sending(sending) => Some(sending.next_at),
            Phase::Pausing { until } => Some(*until),
            Phase::Idle => (!self.waiting.is_empty()).then_some(Instant::ZERO),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.phase = Phase::Idle;
    }

    /// The packet that is due, if one is. `timestamp` is what the stream would stamp audio with now.
    pub fn poll(
        &mut self,
        now: Instant,
        timestamp: u32,
        clocks: EventClocks,
    ) -> Option<EventPacket> {
        if let Phase::Pausing { until } = self.phase
            && now >= until
        {
            self.phase = Phase::Idle;
        }
        if matches!(self.phase, Phase::Idle) {
            let digit = self.waiting.pop_front()?;
            self.phase = Phase::Sending(Sending {
                digit,
                timestamp,
                earlier: 0,
                elapsed_ms: 0,
                ends_sent: 0,
                next_at: now,
            });
        }
        let Phase::Sending(sending) = &mut self.phase else {
            return None;
        };
        if now < sending.next_at {
            return None;
        }
        let packet = sending.step(now, clocks);
        if sending.ends_sent == END_PACKETS {
            self.phase = Phase::Pausing { until: now + PAUSE };
        }
        Some(packet)
    }
}

impl Sending {
    fn step(&mut self, now: Instant, clocks: EventClocks) -> EventPacket {
        let marker = self.elapsed_ms == 0;
        let total_ms = self.digit.duration_ms;
        self.elapsed_ms = (self.elapsed_ms + INTERVAL_MS).min(total_ms);
        let end = self.elapsed_ms == total_ms;
        self.ends_sent += u8::from(end);
        // Late is late: never two at once to catch up.
        let planned = self.next_at + PACKET_INTERVAL;
        self.next_at = if planned > now {
            planned
        } else {
            now + PACKET_INTERVAL
        };
        let ticks = ticks(self.elapsed_ms, clocks.event);
        while ticks - self.earlier > SEGMENT_TICKS {
            self.earlier += SEGMENT_TICKS;
            let step = u64::from(SEGMENT_TICKS) * u64::from(clocks.stream);
            let step = (step / u64::from(clocks.event.max(1))) as u32;
            self.timestamp = self.timestamp.wrapping_add(step);
        }
        EventPacket {
            payload: EventPayload {
                event: self.digit.digit.event(),
                end,
                volume: self.digit.volume,
                duration: (ticks - self.earlier) as u16,
            },
            timestamp: self.timestamp,
            marker,
            is_sensitive: self.digit.is_sensitive,
        }
    }
}

fn ticks(ms: u32, clock_rate: u32) -> u32 {
    (u64::from(ms) * u64::from(clock_rate) / 1000) as u32
}

#[cfg(test)]
#[path = "sender/tests.rs"]
mod tests;
