//! The one ordered queue of a client connection: answers and events in the order in which they came
//! from the dataplane. Producers never wait; a full queue drops events and counts them, answers
//! always fit (a connection has one request in flight). One consumer, the connection's task.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use super::ClientEvent;
use crate::dataplane::pending::Outcome;
use crate::lock::lock;

/// One thing for the connection to handle.
#[derive(Debug)]
pub enum Delivery {
    /// The outcome of the request with this serial.
    Answer {
        /// Serial of the request on this connection.
        serial: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// Something happened.
    Event(ClientEvent),
    /// This many events were lost here.
    Dropped(u64),
    /// The connection must end.
    Close(Close),
}

/// Why the server ends a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// Another connection took the session (`force`).
    Taken,
    /// The program is replaced or stops; the session stays.
    Restart,
}

/// Places in the queue.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// For all events.
    pub events: usize,
    /// Further ones for critical events.
    pub critical: usize,
}

/// A connection's queue, shared by its producers and its one consumer.
#[derive(Debug)]
pub struct Mailbox {
    id: u64,
    capacity: Capacity,
    inner: Mutex<Inner>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Inner {
    items: VecDeque<(Place, Delivery)>,
    events: usize,
    critical: usize,
    dropped: u64,
    close: Option<Close>,
    gone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Event,
    Critical,
    Free,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Mailbox {
    /// An empty queue; allocates nothing yet.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            capacity,
            inner: Mutex::new(Inner::default()),
            waker: AtomicWaker::new(),
        }
    }

    /// Names the connection within this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the connection has ended.
    pub fn is_gone(&self) -> bool {
        lock(&self.inner).gone
    }

    /// Queues the outcome of a request.
    pub fn push_answer(&self, serial: u64, outcome: Outcome) {
        self.push(Place::Free, Delivery::Answer { serial, outcome });
    }

    /// Queues an event, or counts it as dropped. Returns whether it fitted.
    pub fn push_event(&self, event: ClientEvent) -> bool {
        let critical = event.is_critical();
        let place = {
            let mut inner = lock(&self.inner);
            if inner.gone {
                return true;
            }
            if event.unbinds() {
                // One or two in a session's life; a client must not stay bound to what is gone.
                Place::Free
            } else if inner.events < self.capacity.events {
                inner.events += 1;
                Place::Event
            } else if critical && inner.critical < self.capacity.critical {
                inner.critical += 1;
                Place::Critical
            } else {
                inner.dropped = inner.dropped.saturating_add(1);
                return false;
            }
        };
        self.push(place, Delivery::Event(event));
        true
    }

    /// Queues what an attach brings: the held events whatever the capacity (their number is bounded
    /// where they are held), then the count of those that were lost.
    pub fn push_backlog(&self, held: impl IntoIterator<Item = ClientEvent>, lost: u64) {
        for event in held {
            self.push(Place::Free, Delivery::Event(event));
        }
        if lost > 0 {
            self.push(Place::Free, Delivery::Dropped(lost));
        }
    }

    /// Asks the connection to end. The loss of the session overtakes everything queued; the end of
    /// the process comes after what the client is still owed.
    pub fn close(&self, close: Close) {
        match close {
            Close::Taken => {
                lock(&self.inner).close.get_or_insert(close);
                self.waker.wake();
            }
            Close::Restart => self.push(Place::Free, Delivery::Close(close)),
        }
    }

    /// Marks the connection as ended and forgets what is queued.
    pub fn retire(&self) {
        let mut inner = lock(&self.inner);
        inner.gone = true;
        inner.items = VecDeque::new();
    }

    /// The next item for the one consumer.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Delivery> {
        self.waker.register(cx.waker());
        let mut inner = lock(&self.inner);
        match inner.pop() {
            Some(delivery) => Poll::Ready(delivery),
            None => Poll::Pending,
        }
    }

    /// Only a wish to close, for a consumer that cannot take anything else now.
    pub fn poll_close(&self, cx: &mut Context<'_>) -> Poll<Close> {
        self.waker.register(cx.waker());
        match lock(&self.inner).close.take() {
            Some(close) => Poll::Ready(close),
            None => Poll::Pending,
        }
    }

    fn push(&self, place: Place, delivery: Delivery) {
        {
            let mut inner = lock(&self.inner);
            if inner.gone {
                return;
            }
            inner.items.push_back((place, delivery));
        }
        self.waker.wake();
    }
}

impl Inner {
    fn pop(&mut self) -> Option<Delivery> {
        if let Some(close) = self.close.take() {
            return Some(Delivery::Close(close));
        }
        if self.dropped > 0 && matches!(self.items.front(), Some((_, Delivery::Event(_)))) {
            return Some(Delivery::Dropped(std::mem::take(&mut self.dropped)));
        }
        let (place, delivery) = self.items.pop_front()?;
        match place {
            Place::Event => self.events -= 1,
            Place::Critical => self.critical -= 1,
            Place::Free => {}
        }
        if self.items.is_empty() && self.items.capacity() > 8 {
            self.items = VecDeque::new();
        }
        Some(delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Body;
    use futures_util::task::noop_waker;
    use rtpbridge_shared::id::{EndpointId, SessionId};
    use rtpbridge_shared::ipc::{Event, Reply};

    const SMALL: Capacity = Capacity {
        events: 2,
        critical: 1,
    };

    fn normal(number: u64) -> ClientEvent {
        ClientEvent {
            session: SessionId::from_bytes([1; 16]),
            number,
            body: Body::Media(Event::VadSpeechStarted {
                endpoint: EndpointId::from_bytes([2; 16]),
            }),
        }
    }

    fn critical(number: u64) -> ClientEvent {
        ClientEvent {
            body: Body::Media(Event::ToneFinished {
                endpoint: EndpointId::from_bytes([2; 16]),
            }),
            ..normal(number)
        }
    }

    fn drain(mailbox: &Mailbox) -> Vec<String> {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut seen = Vec::new();
        while let Poll::Ready(delivery) = mailbox.poll_next(&mut cx) {
            seen.push(match delivery {
                Delivery::Answer { serial, .. } => format!("answer {serial}"),
                Delivery::Event(event) => format!("event {}", event.number),
                Delivery::Dropped(count) => format!("dropped {count}"),
                Delivery::Close(close) => format!("close {close:?}"),
            });
        }
        seen
    }

    #[test]
    fn critical_events_have_further_places_and_the_drop_is_told_before_the_next_delivery() {
        let mailbox = Mailbox::new(SMALL);
        assert!(mailbox.push_event(normal(1)));
        assert!(mailbox.push_event(critical(2)));
        assert!(!mailbox.push_event(normal(3)));
        assert!(mailbox.push_event(critical(4)));
        assert!(!mailbox.push_event(critical(5)));
        mailbox.push_answer(9, Ok(Reply::Done));
        assert_eq!(
            drain(&mailbox),
            ["dropped 2", "event 1", "event 2", "event 4", "answer 9"]
        );
        assert!(mailbox.push_event(normal(6)));
        assert_eq!(drain(&mailbox), ["event 6"]);
    }

    #[test]
    fn a_backlog_ignores_the_capacity_and_ends_with_the_loss() {
        let mailbox = Mailbox::new(SMALL);
        mailbox.push_backlog((1..=5).map(critical), 7);
        assert!(mailbox.push_event(normal(20)));
        let seen = drain(&mailbox);
        assert_eq!(seen.len(), 7);
        assert_eq!(seen[5], "dropped 7");
        assert_eq!(seen[6], "event 20");
    }

    #[test]
    fn a_taken_session_overtakes_a_restart_waits_and_a_retired_queue_swallows() {
        let mailbox = Mailbox::new(SMALL);
        assert!(mailbox.push_event(normal(1)));
        mailbox.close(Close::Taken);
        assert_eq!(drain(&mailbox), ["close Taken", "event 1"]);
        assert!(mailbox.push_event(normal(3)));
        mailbox.close(Close::Restart);
        assert_eq!(drain(&mailbox), ["event 3", "close Restart"]);
        mailbox.retire();
        assert!(mailbox.push_event(normal(2)));
        assert!(drain(&mailbox).is_empty());
    }
}
