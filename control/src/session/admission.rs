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
    open: Mutex<HashMap<u64, Arc<Mailbox>>>,
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

    /// Asks every connection to end.
    pub fn close_all(&self, close: Close) {
        for mailbox in lock(&self.open).values() {
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
        lock(&self.connections.open).insert(id, Arc::clone(mailbox));
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
        lock(&self.slot.connections.open).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
