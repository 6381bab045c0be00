//! Digits from a party's telephone-events: one per event, however many packets of it arrive.
//!
//! ```text
//! idle ──packet──► held ──end bit │ 200 ms of silence │ another event──► reported, idle
//! ```
//! An event is known by its timestamp, so repeated ends and stragglers are not new digits. An event
//! longer than a duration can say comes in segments (RFC 4733 section 2.5.1.3), which are one digit.

use std::time::Duration;

use rtpbridge_shared::vocab::Digit;

use super::payload::EventPayload;
use crate::time::Instant;

/// Silence after which an event without end is over.
pub const EVENT_TIMEOUT: Duration = Duration::from_millis(200);
/// After this long nothing of a reported event can be on its way any more, and its timestamp is no
/// measure for what is old (half the range of timestamps passes in 12 hours at 48 kHz).
const STRAGGLERS: Duration = Duration::from_secs(5);

/// An event that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FinishedEvent {
    /// The digit; none for events that are not digits.
    pub digit: Option<Digit>,
    /// As last said by the party.
    pub duration_ms: u64,
    /// As last said by the party.
    pub volume: u8,
    /// The event's timestamp at its source (of its first segment).
    pub timestamp: u32,
}

/// Follows the telephone-events of one source.
#[derive(Clone, Debug, Default)]
pub struct EventReceiver {
    held: Option<Held>,
    reported: Option<Reported>,
}

/// The newest event that was reported.
#[derive(Clone, Copy, Debug)]
struct Reported {
    /// Of its last segment.
    timestamp: u32,
    first_timestamp: u32,
    heard_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    event: u8,
    volume: u8,
    clock_rate: u32,
    first_timestamp: u32,
    /// Of the current segment.
    timestamp: u32,
    duration: u16,
    /// Ticks of the segments before.
    earlier: u64,
    heard_at: Instant,
}

impl EventReceiver {
    /// Takes a packet. Gives the event that it ended: itself, or the one before it.
    pub fn on_packet(
        &mut self,
        timestamp: u32,
        clock_rate: u32,
        payload: EventPayload,
        now: Instant,
    ) -> [Option<FinishedEvent>; 2] {
        if self.is_straggler(timestamp, now) {
            return [None, None];
        }
        let mut previous = None;
        match &mut self.held {
            Some(held) if held.is_same_event(timestamp, payload) => {
                held.update(timestamp, payload, now);
            }
            Some(held) if (timestamp.wrapping_sub(held.timestamp) as i32) < 0 => {
                return [None, None];
            }
            _ => {
                previous = self.finish(now);
                self.held = Some(Held::new(timestamp, clock_rate, payload, now));
            }
        }
        let ended = if payload.end { self.finish(now) } else { None };
        [previous, ended]
    }

    /// The source's sequence began anew, with a packet of this timestamp. Unless that belongs to an
    /// event known already, its timestamps began anew, too.
    pub fn on_restart(&mut self, timestamp: u32, now: Instant) -> Option<FinishedEvent> {
        let held = self.held.map(|held| held.timestamp);
        let reported = self.reported.map(|reported| reported.timestamp);
        if held.or(reported) == Some(timestamp) {
            return None;
        }
        self.on_new_source(now)
    }

    /// The source began anew: its timestamps say nothing about the ones before.
    pub fn on_new_source(&mut self, now: Instant) -> Option<FinishedEvent> {
        let finished = self.finish(now);
        self.reported = None;
        finished
    }

    /// When an event whose end was lost is over.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.held.map(|held| held.heard_at + EVENT_TIMEOUT)
    }

    /// Gives the event whose end was lost.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<FinishedEvent> {
        if self.next_timeout().is_some_and(|due| now >= due) {
            self.finish(now)
        } else {
            None
        }
    }

    /// Timestamp of the first segment of the event in progress, or just ended, that this timestamp
    /// belongs to.
    pub fn event_start(&self, timestamp: u32) -> u32 {
        match (self.held, self.reported) {
            (Some(held), _) if held.timestamp == timestamp => held.first_timestamp,
            (_, Some(reported)) if reported.timestamp == timestamp => reported.first_timestamp,
            _ => timestamp,
        }
    }

    fn is_straggler(&mut self, timestamp: u32, now: Instant) -> bool {
        let Some(reported) = &mut self.reported else {
            return false;
        };
        if reported.timestamp == timestamp && now - reported.heard_at < STRAGGLERS {
            reported.heard_at = now;
        }
        (timestamp.wrapping_sub(reported.timestamp) as i32) <= 0
            && now - reported.heard_at < STRAGGLERS
    }

    fn finish(&mut self, now: Instant) -> Option<FinishedEvent> {
        let held = self.held.take()?;
        self.reported = Some(Reported {
            timestamp: held.timestamp,
            first_timestamp: held.first_timestamp,
            heard_at: now,
        });
        let ticks = held.earlier + u64::from(held.duration);
        Some(FinishedEvent {
            digit: Digit::from_event(held.event),
            duration_ms: ticks * 1000 / u64::from(held.clock_rate.max(1)),
            volume: held.volume,
            timestamp: held.first_timestamp,
        })
    }
}

impl Held {
    fn new(timestamp: u32, clock_rate: u32, payload: EventPayload, now: Instant) -> Self {
        Self {
            event: payload.event,
            volume: payload.volume,
            clock_rate,
            first_timestamp: timestamp,
            timestamp,
            duration: payload.duration,
            earlier: 0,
            heard_at: now,
        }
    }

    fn is_same_event(&self, timestamp: u32, payload: EventPayload) -> bool {
        timestamp == self.timestamp || self.is_next_segment(timestamp, payload)
    }

    /// The next segment begins where the longest possible duration, or the last one seen, ended.
    fn is_next_segment(&self, timestamp: u32, payload: EventPayload) -> bool {
        let step = timestamp.wrapping_sub(self.timestamp);
        payload.event == self.event
            && step != 0
            && (step == 0xffff || step == u32::from(self.duration))
    }

    fn update(&mut self, timestamp: u32, payload: EventPayload, now: Instant) {
        if timestamp != self.timestamp {
            self.earlier += u64::from(timestamp.wrapping_sub(self.timestamp));
            self.timestamp = timestamp;
            self.duration = 0;
        }
        self.duration = self.duration.max(payload.duration);
        self.heard_at = now;
    }
}

#[cfg(test)]
#[path = "receiver/tests.rs"]
mod tests;
