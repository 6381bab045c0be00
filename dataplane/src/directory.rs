//! Which worker has which session. Touched when a session begins, ends or gets a command; never for
//! a packet.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rtpbridge_shared::id::SessionId;

/// All sessions of the process.
#[derive(Default)]
pub(crate) struct Directory {
    places: Mutex<HashMap<SessionId, Place>>,
}

#[derive(Clone, Copy)]
struct Place {
    worker: usize,
    /// The worker's own key, once it has made the session.
    key: Option<u64>,
}

impl Directory {
    /// Reserves `session` for `worker`; false when the id is in use.
    pub(crate) fn reserve(&self, session: SessionId, worker: usize) -> bool {
        let mut places = self.lock();
        if places.contains_key(&session) {
            return false;
        }
        places.insert(session, Place { worker, key: None });
        true
    }

    /// The worker's own key for a session of its.
    pub(crate) fn set_key(&self, session: SessionId, key: u64) {
        if let Some(place) = self.lock().get_mut(&session) {
            place.key = Some(key);
        }
    }

    /// What [`set_key`](Self::set_key) said.
    pub(crate) fn key(&self, session: SessionId) -> Option<u64> {
        self.lock().get(&session).and_then(|place| place.key)
    }

    /// Index of the worker that has the session.
    pub(crate) fn worker(&self, session: SessionId) -> Option<usize> {
        self.lock().get(&session).map(|place| place.worker)
    }

    /// The session is no more.
    pub(crate) fn remove(&self, session: SessionId) {
        self.lock().remove(&session);
    }

    /// Number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_reserved_once_until_it_is_removed() {
        let directory = Directory::default();
        let session = SessionId::from_bytes([1; 16]);
        assert!(directory.reserve(session, 3));
        assert!(!directory.reserve(session, 4));
        assert_eq!(
            (directory.worker(session), directory.key(session)),
            (Some(3), None)
        );
        directory.set_key(session, 9);
        assert_eq!(directory.key(session), Some(9));
        directory.remove(session);
        assert_eq!((directory.len(), directory.worker(session)), (0, None));
    }
}
