//! Telephone-events on their way to one destination: one at a time, whether passed on from a source
//! or made here; others wait their turn as digits (media.md, Mixing).

use crate::dtmf::payload::EventPayload;
use crate::dtmf::receiver::EVENT_TIMEOUT;
use crate::dtmf::sender::EventSender;
use crate::time::Instant;

/// Events waiting at a time for their end to be known.
const WAITING_LIMIT: usize = 32;
/// The longest duration that a segment can say (RFC 4733 section 2.5.1.3).
const SEGMENT_TICKS: u64 = 0xffff;

/// An event: by its source's name and the timestamp of its begin there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EventKey {
    pub(super) source: u32,
    pub(super) start: u32,
}

/// What is being sent, and what waits.
#[derive(Clone, Debug, Default)]
pub(super) struct EventLane {
    pub(super) sender: EventSender,
    passing: Option<Passing>,
    waiting: Vec<EventKey>,
}

#[derive(Clone, Copy, Debug)]
struct Passing {
    key: EventKey,
    /// Our timestamp of its begin.
    timestamp: u32,
    until: Instant,
}

/// Whether a packet of a source's event may pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passage {
    /// It is the first of its event that passes.
    Begins,
    /// Its event began at this timestamp of ours.
    GoesOn(u32),
    /// Another event is being sent.
    Waits,
}

impl EventLane {
    /// Asks for a packet of the event `key`.
    pub(super) fn admit(&mut self, key: EventKey, now: Instant) -> Passage {
        if self.waiting.contains(&key) {
            return Passage::Waits;
        }
        match self.passing {
            Some(passing) if passing.key == key => Passage::GoesOn(passing.timestamp),
            _ if self.sender.is_active() || self.is_passing(now) => {
                if self.waiting.len() == WAITING_LIMIT {
                    self.waiting.remove(0);
                }
                self.waiting.push(key);
                Passage::Waits
            }
            _ => Passage::Begins,
        }
    }

    /// A packet of the event passes; `timestamp` is where the event begins in our stream.
    pub(super) fn on_passed(&mut self, key: EventKey, timestamp: u32, end: bool, now: Instant) {
        let until = if end { now } else { now + EVENT_TIMEOUT };
        self.passing = Some(Passing {
            key,
            timestamp,
            until,
        });
    }

    /// A source's event is over; whether it waited here and is now to be sent as a digit.
    pub(super) fn take_waiting(&mut self, key: EventKey) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| *waiting != key);
        self.waiting.len() < before
    }

    /// Keys mean other sources from now on.
    pub(super) fn forget_sources(&mut self) {
        self.passing = None;
        self.waiting.clear();
    }

    /// Whether an event of a source is in the middle of passing.
    pub(super) fn is_passing(&self, now: Instant) -> bool {
        self.passing.is_some_and(|passing| now < passing.until)
    }

    /// When our own sender has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let due = self.sender.next_timeout()?;
        Some(match self.passing {
            Some(passing) => due.max(passing.until),
            None => due,
        })
    }
}

/// What a packet of a source's event says in another clock: the payload, and how far its segment
/// begins behind the event, in event ticks. `since_start` is the source's segment offset.
pub(super) fn rescale(
    payload: EventPayload,
    since_start: u32,
    from_clock: u32,
    to_clock: u32,
) -> (EventPayload, u64) {
    let theirs = u64::from(since_start) + u64::from(payload.duration);
    let ours = theirs * u64::from(to_clock) / u64::from(from_clock.max(1));
    let segment_start = ours.saturating_sub(1) / SEGMENT_TICKS * SEGMENT_TICKS;
    let payload = EventPayload {
        duration: (ours - segment_start) as u16,
        ..payload
    };
    (payload, segment_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: u32, start: u32) -> EventKey {
        EventKey { source, start }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn one_event_passes_and_another_waits_until_the_first_is_over() {
        let mut lane = EventLane::default();
        assert_eq!(lane.admit(key(1, 800), at(0)), Passage::Begins);
        lane.on_passed(key(1, 800), 5000, false, at(0));
        assert_eq!(lane.admit(key(2, 90), at(20)), Passage::Waits);
        assert_eq!(lane.admit(key(1, 800), at(20)), Passage::GoesOn(5000));
        lane.on_passed(key(1, 800), 5000, true, at(20));
        // It began to wait, so it is sent whole afterwards rather than from the middle.
        assert_eq!(lane.admit(key(2, 90), at(40)), Passage::Waits);
        assert!(lane.take_waiting(key(2, 90)));
        assert!(!lane.take_waiting(key(2, 90)));
        assert_eq!(lane.admit(key(1, 800), at(60)), Passage::GoesOn(5000));
        assert_eq!(lane.admit(key(3, 7), at(60)), Passage::Begins);
    }

    #[test]
    fn an_event_whose_end_was_lost_blocks_for_200_ms() {
        let mut lane = EventLane::default();
        lane.on_passed(key(1, 800), 5000, false, at(0));
        assert_eq!(lane.admit(key(2, 90), at(200)), Passage::Begins);
    }

    #[test]
    fn who_waits_is_bounded() {
        let mut lane = EventLane::default();
        lane.on_passed(key(1, 800), 5000, false, at(0));
        for start in 0..1000 {
            assert_eq!(lane.admit(key(2, start), at(1)), Passage::Waits);
        }
        assert_eq!(lane.waiting.len(), WAITING_LIMIT);
    }

    #[test]
    fn durations_change_their_clock_and_split_into_segments() {
        let payload = EventPayload {
            event: 1,
            end: false,
            volume: 10,
            duration: 16_000,
        };
        let (scaled, start) = rescale(payload, 0, 8000, 48_000);
        assert_eq!(
            (u64::from(scaled.duration) + start, start),
            (96_000, 0xffff)
        );
        let (scaled, start) = rescale(payload, 0, 48_000, 8000);
        assert_eq!((scaled.duration, start), (2666, 0));
        let (scaled, start) = rescale(payload, 0xffff, 8000, 8000);
        assert_eq!((scaled.duration, start), (16_000, 0xffff));
    }
}
