//! What waits to be written to one connection. Anybody may push, from any thread, and nobody ever
//! waits: normal events are dropped when the reader is slow (their numbers show the gap), everything
//! else must arrive, so over a hard bound the connection is given up and a snapshot heals it.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::{Event, NumberedEvent, Reply, RequestError, ToControl, frame};
use tokio::sync::Notify;
use tracing::{error, warn};

/// Above this, normal events are dropped.
const SOFT_BYTES: usize = 1024 * 1024;
/// Above this, the connection is given up.
const HARD_BYTES: usize = 32 * 1024 * 1024;
/// A snapshot goes on when less than this waits.
const LOW_BYTES: usize = 256 * 1024;

/// Queue of encoded frames towards one peer.
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    changed: Notify,
    dropped: AtomicU64,
    hard_bytes: usize,
}

#[derive(Default)]
struct Queue {
    frames: Vec<u8>,
    closed: bool,
}

impl Queue {
    /// Whoever asked for an answer that fits no frame learns that much; the others who are served
    /// over this connection must not suffer from it.
    fn say_too_large(&mut self, message: &ToControl) -> bool {
        let ToControl::Answer { number, .. } = *message else {
            return false;
        };
        let result = Err(RequestError::Internal("the answer is too large".to_owned()));
        let answer = ToControl::Answer { number, result };
        frame::encode(&answer, &mut self.frames).is_ok()
    }
}

/// What may happen to a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Dropped, and counted, when the reader is slow.
    Droppable,
    /// Kept, at the price of the connection.
    MustArrive,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self::with_bound(HARD_BYTES)
    }

    fn with_bound(hard_bytes: usize) -> Self {
        Self {
            queue: Mutex::default(),
            changed: Notify::new(),
            dropped: AtomicU64::new(0),
            hard_bytes,
        }
    }

    /// Queues `message`, or not.
    pub(crate) fn push(&self, message: &ToControl, class: Class) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        if class == Class::Droppable && queue.frames.len() > SOFT_BYTES {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if queue.frames.len() > self.hard_bytes {
            warn!(
                bytes = queue.frames.len(),
                "the reader is too slow, closing the connection"
            );
            queue.frames = Vec::new();
            queue.closed = true;
        } else if let Err(error) = frame::encode(message, &mut queue.frames) {
            error!(%error, "message not sent");
            queue.closed = !queue.say_too_large(message);
        }
        drop(queue);
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// Whether more waits than the reader takes at once.
    pub(crate) fn is_behind(&self) -> bool {
        self.lock().frames.len() > SOFT_BYTES
    }

    /// Nothing more goes in; what is in is still written.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Normal events dropped here.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits for frames and swaps them into `buffer`, which must be empty; false at the end.
    pub(crate) async fn next(&self, buffer: &mut Vec<u8>) -> bool {
        loop {
            let changed = self.changed.notified();
            {
                let mut queue = self.lock();
                if !queue.frames.is_empty() {
                    mem::swap(&mut queue.frames, buffer);
                    break;
                }
                if queue.closed {
                    return false;
                }
            }
            changed.await;
        }
        self.changed.notify_waiters();
        true
    }

    /// Waits until little is queued, or the outbox is closed.
    pub(crate) async fn drained(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let queue = self.lock();
                if queue.closed || queue.frames.len() < LOW_BYTES {
                    return;
                }
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to answer one request, exactly once. Dropped unanswered, it says that the session is
/// gone, which is then the reason.
pub(crate) struct Ticket {
    outbox: Arc<Outbox>,
    number: u64,
    answered: bool,
}

impl Ticket {
    /// For the request with `number` that came from the peer behind `outbox`.
    pub(crate) fn new(outbox: Arc<Outbox>, number: u64) -> Self {
        Self {
            outbox,
            number,
            answered: false,
        }
    }

    /// Where the answer goes.
    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The request's number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Answers.
    pub(crate) fn answer(mut self, result: Result<Reply, RequestError>) {
        self.send(result);
    }

    fn send(&mut self, result: Result<Reply, RequestError>) {
        self.answered = true;
        let number = self.number;
        let answer = ToControl::Answer { number, result };
        self.outbox.push(&answer, Class::MustArrive);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.send(Err(RequestError::SessionGone));
        }
    }
}

/// Whoever is controller now, as the workers see it.
#[derive(Default)]
pub(crate) struct ControllerSlot {
    current: Mutex<Option<Arc<Outbox>>>,
    term: AtomicU64,
    dropped_before: AtomicU64,
}

impl ControllerSlot {
    /// Puts another controller in place. Sessions held for the one before are to be released: every
    /// worker sees that by the [`term`](Self::term), which is given.
    pub(crate) fn install(&self, outbox: Option<Arc<Outbox>>) -> u64 {
        let mut current = self.lock();
        if let Some(before) = mem::replace(&mut *current, outbox) {
            let dropped = before.dropped();
            self.dropped_before.fetch_add(dropped, Ordering::Relaxed);
        }
        self.term.fetch_add(1, Ordering::Release) + 1
    }

    /// Grows with every change of controller.
    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// The controller's queue.
    pub(crate) fn current(&self) -> Option<Arc<Outbox>> {
        self.lock().clone()
    }

    /// Normal events dropped towards all controllers so far.
    pub(crate) fn dropped(&self) -> u64 {
        let now = self.lock().as_ref().map_or(0, |outbox| outbox.dropped());
        self.dropped_before.load(Ordering::Relaxed) + now
    }

    /// Tells the controller, if there is one.
    pub(crate) fn send(&self, message: &ToControl) {
        if let Some(outbox) = &*self.lock() {
            outbox.push(message, Class::MustArrive);
        }
    }

    /// Tells the controller what happened in a session.
    pub(crate) fn send_event(&self, session: SessionId, event: NumberedEvent) {
        let class = if Event::is_critical(&event.event) {
            Class::MustArrive
        } else {
            Class::Droppable
        };
        if let Some(outbox) = &*self.lock() {
            outbox.push(&ToControl::Event { session, event }, class);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Outbox>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn drain(outbox: &Outbox) -> Vec<ToControl> {
        outbox.close();
        let mut bytes = Vec::new();
        let mut buffer = Vec::new();
        while outbox.next(&mut buffer).await {
            bytes.append(&mut buffer);
        }
        let mut reader = frame::FrameReader::new(&bytes[..]);
        let mut messages = Vec::new();
        while let Some(message) = reader.read().await.expect("whole frames") {
            messages.push(message);
        }
        messages
    }

    #[tokio::test]
    async fn frames_come_out_in_order() {
        let outbox = Outbox::new();
        outbox.push(&ToControl::Heartbeat, Class::Droppable);
        outbox.push(&ToControl::Draining, Class::MustArrive);
        let messages = drain(&outbox).await;
        assert_eq!(messages, [ToControl::Heartbeat, ToControl::Draining]);
        outbox.push(&ToControl::Heartbeat, Class::MustArrive);
        assert!(!outbox.next(&mut Vec::new()).await, "closed is closed");
    }

    #[tokio::test]
    async fn a_slow_reader_loses_normal_events_only() {
        let outbox = Outbox::new();
        let text = "x".repeat(SOFT_BYTES + 1);
        let answer = ToControl::Answer {
            number: 1,
            result: Ok(Reply::Sdp(text)),
        };
        outbox.push(&answer, Class::MustArrive);
        outbox.push(&ToControl::Heartbeat, Class::Droppable);
        outbox.push(&ToControl::Draining, Class::MustArrive);
        assert_eq!(outbox.dropped(), 1);
        let messages = drain(&outbox).await;
        assert_eq!(messages, [answer, ToControl::Draining]);
    }

    #[tokio::test]
    async fn a_reader_that_stopped_costs_the_connection_not_the_memory() {
        let outbox = Outbox::with_bound(10);
        for _ in 0..100 {
            outbox.push(&ToControl::Heartbeat, Class::MustArrive);
        }
        assert!(outbox.is_closed());
        assert!(!outbox.next(&mut Vec::new()).await);
        outbox.drained().await;
    }

    #[tokio::test]
    async fn an_answer_that_fits_no_frame_costs_its_asker_alone() {
        let outbox = Outbox::new();
        let text = "x".repeat(frame::MAX_FRAME_BYTES + 1);
        let answer = |number, result| ToControl::Answer { number, result };
        outbox.push(&answer(1, Ok(Reply::Sdp(text))), Class::MustArrive);
        outbox.push(&answer(2, Ok(Reply::Done)), Class::MustArrive);
        let messages = drain(&outbox).await;
        let refused = RequestError::Internal("the answer is too large".to_owned());
        let expected = [answer(1, Err(refused)), answer(2, Ok(Reply::Done))];
        assert_eq!(messages, expected);
    }

    #[tokio::test]
    async fn every_ticket_is_answered_once() {
        let outbox = Arc::new(Outbox::new());
        Ticket::new(Arc::clone(&outbox), 1).answer(Ok(Reply::Done));
        drop(Ticket::new(Arc::clone(&outbox), 2));
        let answers = drain(&outbox).await;
        let expected = [(1, Ok(Reply::Done)), (2, Err(RequestError::SessionGone))];
        let expected = expected.map(|(number, result)| ToControl::Answer { number, result });
        assert_eq!(answers, expected);
    }

    #[test]
    fn a_change_of_controller_is_seen_by_its_term() {
        let slot = ControllerSlot::default();
        let term = slot.term();
        let next = slot.install(Some(Arc::new(Outbox::new())));
        assert!(next > term);
        assert_eq!(slot.term(), next);
        slot.install(None);
        assert!(slot.term() > next);
        slot.send(&ToControl::Draining);
        assert!(slot.current().is_none());
    }
}
