//! The open client connections: how many there may be, and a way to reach all of them. A slot is
//! free as soon as the connection's task has dropped its socket.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rtpbridge_shared::config::Limit;
use tokio::sync::watch;

use crate::event::queue::{Close, Mailbox};
use crate::lock::lock;

/// All open WebSocket connections.
#[derive(Debug)]
pub struct Connections {
    limit: Limit,
    count: watch::Sender<usize>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    mailboxes: HashMap<u64, Arc<Mailbox>>,
    /// All were asked to end for this reason; so is whoever comes late.
    closing: Option<Close>,
}

/// One connection's place; dropping it frees the place.
#[derive(Debug)]
pub struct Slot {
    connections: Arc<Connections>,
}

/// A connection that can be reached; dropping it ends that.
#[derive(Debug)]
pub struct Entered {
    slot: Slot,
    id: u64,
}

impl Connections {
    /// No connections yet, at most `limit`.
    pub fn new(limit: Limit) -> Self {
        Self {
            limit,
            count: watch::Sender::new(0),
            open: Mutex::default(),
        }
    }

    /// A place for one more, unless the limit is reached.
    pub fn admit(self: &Arc<Self>) -> Option<Slot> {
        let admitted = self.count.send_if_modified(|count| {
            let free = self.limit.allows_one_more(*count);
            *count += usize::from(free);
            free
        });
        admitted.then(|| Slot {
            connections: Arc::clone(self),
        })
    }

    /// Connections that hold a place.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Asks every connection to end, those that enter later included.
    pub fn close_all(&self, close: Close) {
        let mut open = lock(&self.open);
        open.closing = Some(close);
        for mailbox in open.mailboxes.values() {
            mailbox.close(close);
        }
    }

    /// Resolves when no connection is left.
    pub async fn wait_until_empty(&self) {
        let mut count = self.count.subscribe();
        // The sender is `self`, so waiting cannot fail.
        let _ = count.wait_for(|count| *count == 0).await;
    }
}

impl Slot {
    /// Makes the connection reachable by its queue.
    pub fn enter(self, mailbox: &Arc<Mailbox>) -> Entered {
        let id = mailbox.id();
        let mut open = lock(&self.connections.open);
        open.mailboxes.insert(id, Arc::clone(mailbox));
        if let Some(close) = open.closing {
            mailbox.close(close);
        }
        drop(open);
        Entered { slot: self, id }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections
            .count
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = lock(&self.slot.connections.open);
        open.mailboxes.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use futures_util::task::noop_waker;

    use super::*;
    use crate::event::queue::{Capacity, Delivery};

    #[tokio::test]
    async fn the_limit_counts_open_connections_only() {
        let connections = Arc::new(Connections::new(Limit::from_setting(1)));
        let first = connections.admit().expect("a free place");
        assert!(connections.admit().is_none());
        drop(first);
        assert!(connections.admit().is_some());
        connections.wait_until_empty().await;
        assert_eq!(connections.count(), 0);
    }

    #[test]
    fn whoever_enters_after_all_were_closed_is_closed_too() {
        let connections = Arc::new(Connections::new(Limit::from_setting(0)));
        let capacity = Capacity {
            events: 1,
            critical: 1,
        };
        let mailboxes = [(); 2].map(|()| Arc::new(Mailbox::new(capacity)));
        let slots = [(); 2].map(|()| connections.admit().expect("a free place"));
        let [early, late] = slots;
        let _early = early.enter(&mailboxes[0]);
        connections.close_all(Close::Restart);
        let _late = late.enter(&mailboxes[1]);
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        for mailbox in mailboxes {
            let next = mailbox.poll_next(&mut cx);
            assert!(matches!(next, Poll::Ready(Delivery::Close(Close::Restart))));
        }
    }
}
