//! Events of a session: numbered from 1, and the critical ones kept until the client has them.
//!
//! While nobody is attached nothing goes out: critical events are held, the others only counted, and
//! the next to attach is told what it gets and how many it missed.

use std::collections::VecDeque;

use rtpbridge_shared::ipc::session::Attached;
use rtpbridge_shared::ipc::{Event, NumberedEvent};

use super::output::Outbox;

/// Numbering and holding.
#[derive(Debug)]
pub(crate) struct EventLog {
    last_number: u64,
    acknowledged: u64,
    held: VecDeque<NumberedEvent>,
    limit: usize,
    is_attached: bool,
}

impl EventLog {
    /// Attached from the beginning; holds at most `limit` critical events.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            last_number: 0,
            acknowledged: 0,
            held: VecDeque::new(),
            limit,
            is_attached: true,
        }
    }

    pub(crate) fn last_number(&self) -> u64 {
        self.last_number
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.is_attached
    }

    /// Something happened.
    pub(crate) fn emit(&mut self, event: Event, out: &mut dyn Outbox) {
        self.last_number += 1;
        let held = event.is_critical();
        let event = NumberedEvent {
            number: self.last_number,
            event,
        };
        if held {
            self.held.push_back(event.clone());
            // The newest tell how things stand; the oldest go.
            if self.held.len() > self.limit {
                self.held.pop_front();
                if !self.is_attached {
                    out.counters().events_dropped += 1;
                }
            }
        }
        if self.is_attached {
            out.event(event, held);
        } else if !held {
            out.counters().events_dropped += 1;
        }
    }

    pub(crate) fn attach(&mut self) -> Attached {
        self.is_attached = true;
        Attached {
            held: self.held.iter().cloned().collect(),
            dropped: (self.last_number - self.acknowledged).saturating_sub(self.held.len() as u64),
            last_event_number: self.last_number,
        }
    }

    pub(crate) fn release(&mut self) {
        self.is_attached = false;
    }

    pub(crate) fn acknowledge(&mut self, number: u64) {
        let number = number.min(self.last_number);
        self.acknowledged = self.acknowledged.max(number);
        while self
            .held
            .front()
            .is_some_and(|event| event.number <= self.acknowledged)
        {
            self.held.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use rtpbridge_shared::id::EndpointId;

    use super::*;
    use crate::session::testing::Collector;

    fn normal() -> Event {
        Event::MediaTimeout {
            endpoint: EndpointId::from_bytes([1; 16]),
            duration_ms: 5000,
        }
    }

    fn critical() -> Event {
        Event::EmptyTimeout {
            empty_timeout_secs: 1,
        }
    }

    fn numbers(attached: &Attached) -> Vec<u64> {
        attached.held.iter().map(|event| event.number).collect()
    }

    #[test]
    fn attached_clients_are_told_everything_in_order() {
        let mut log = EventLog::new(64);
        let mut out = Collector::default();
        for event in [normal(), critical(), normal()] {
            log.emit(event, &mut out);
        }
        let told: Vec<_> = out
            .events
            .iter()
            .map(|(e, held)| (e.number, *held))
            .collect();
        assert_eq!(told, [(1, false), (2, true), (3, false)]);
    }

    #[test]
    fn what_was_not_acknowledged_is_told_again() {
        let mut log = EventLog::new(64);
        let mut out = Collector::default();
        log.emit(critical(), &mut out);
        log.emit(critical(), &mut out);
        log.acknowledge(1);
        log.release();
        let attached = log.attach();
        assert_eq!(numbers(&attached), [2]);
        assert_eq!(attached.dropped, 0);
    }

    #[test]
    fn unattached_sessions_hold_critical_events_and_count_the_rest() {
        let mut log = EventLog::new(2);
        let mut out = Collector::default();
        log.emit(normal(), &mut out);
        log.acknowledge(1);
        log.release();
        for event in [critical(), normal(), critical(), critical(), normal()] {
            log.emit(event, &mut out);
        }
        assert_eq!(out.events.len(), 1);
        assert_eq!(out.counters.events_dropped, 3);
        let attached = log.attach();
        assert_eq!(numbers(&attached), [4, 5]);
        assert_eq!(attached.dropped, 3);
        assert_eq!(attached.last_event_number, 6);
        log.acknowledge(6);
        assert_eq!(log.attach().dropped, 0);
    }

    #[test]
    fn acknowledging_the_future_or_the_past_is_harmless() {
        let mut log = EventLog::new(2);
        let mut out = Collector::default();
        log.emit(critical(), &mut out);
        log.acknowledge(100);
        log.acknowledge(0);
        assert_eq!(log.attach().dropped, 0);
        log.emit(critical(), &mut out);
        assert_eq!(numbers(&log.attach()), [2]);
    }
}
