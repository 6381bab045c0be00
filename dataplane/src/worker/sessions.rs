//! Sessions on a worker: birth, events on their way out, and the three ways to end (asked for, by
//! itself, by a panic). Who closes what: the session says BYE and names its sockets and recordings;
//! sockets are closed at once, the session is dropped when its files are closed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rtpbridge_core::entropy::Entropy;
use rtpbridge_core::session::Session;
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::session::{SessionCounts, SessionCreate, SessionEndReason};
use rtpbridge_shared::ipc::{RequestError, ToControl};
use rtpbridge_shared::vocab::StopReason;
use tracing::error;

use super::Worker;
use super::recordings::After;
use super::turn::guarded;

/// Arrival times are asked of the kernel for this long after an answer was accepted, so that the
/// engine can tell what came before it.
const STAMP_NS: u64 = 1_000_000_000;

/// A session and what the worker remembers of it.
pub(super) struct Slot {
    pub(super) session: Session,
    pub(super) id: SessionId,
    /// Its earliest entry in the timer heap.
    pub(super) armed: Option<u64>,
    /// Recordings whose files are open.
    pub(super) recordings: u32,
    pub(super) closing: bool,
    stamp_until_ns: u64,
    told: SessionCounts,
}

impl Slot {
    /// Whether the engine or a recording needs to know when packets really arrived.
    pub(super) fn needs_arrival_times(&self, now_ns: u64) -> bool {
        self.recordings > 0 || now_ns < self.stamp_until_ns
    }

    /// Asks the kernel for arrival times for a while.
    pub(super) fn stamp_from(&mut self, now_ns: u64) {
        self.stamp_until_ns = now_ns.saturating_add(STAMP_NS);
    }

    /// Until when arrival times are asked for.
    pub(super) fn stamp_until_ns(&self) -> u64 {
        self.stamp_until_ns
    }

    /// Asks for arrival times at least until then.
    pub(super) fn stamp_until(&mut self, until_ns: u64) {
        self.stamp_until_ns = self.stamp_until_ns.max(until_ns);
    }
}

impl Worker {
    pub(super) fn create_session(&mut self, request: &SessionCreate) -> u64 {
        let session = Session::new(
            request.session,
            request.created_at_ms,
            Arc::clone(&self.shared.engine),
            Box::new(OsEntropy),
            self.now.at,
        );
        self.sessions_total += 1;
        let slot = Slot {
            told: session.counts(),
            session,
            id: request.session,
            armed: None,
            recordings: 0,
            closing: false,
            stamp_until_ns: 0,
        };
        let key = self.sessions.insert_with(|_| slot);
        self.shared.directory.set_key(request.session, key);
        self.after_turn_of(key, true);
        key
    }

    /// The living session with this id.
    pub(super) fn find_session(&self, id: SessionId) -> Result<u64, RequestError> {
        let key = self.shared.directory.key(id);
        let key = key.ok_or(RequestError::SessionNotFound)?;
        match self.sessions.get(key) {
            Some(slot) if slot.id == id && !slot.closing => Ok(key),
            _ => Err(RequestError::SessionGone),
        }
    }

    /// Sends what the session's turn left behind, counts first.
    pub(super) fn send_events(&mut self, key: u64) {
        self.send_counts(key);
        let Some(slot) = self.sessions.get(key) else {
            self.out.forget_turn();
            return;
        };
        for event in self.out.events.drain(..) {
            self.shared.controller.send_event(slot.id, event);
        }
        let (ended, closing) = (self.out.ended.take(), slot.closing);
        let legless = std::mem::take(&mut self.out.ended_recordings);
        if !legless.is_empty() {
            let legless = legless.iter().map(|key| key.0).collect();
            self.stop_recordings(key, legless, StopReason::EndpointRemoved, After::Nothing);
        }
        if let Some(reason) = ended
            && !closing
        {
            self.close_session(key, After::Ended(key, reason));
        }
    }

    /// Tells control how much the session holds, when that changed.
    pub(super) fn send_counts(&mut self, key: u64) {
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        let counts = slot.session.counts();
        if counts != slot.told {
            slot.told = counts;
            self.shared.controller.send(&ToControl::Counts(counts));
        }
    }

    /// Ends a session; `after` follows when its files are closed.
    pub(super) fn close_session(&mut self, key: u64, after: After) {
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        slot.closing = true;
        let (now, out, session) = (self.now, &mut self.out, &mut slot.session);
        let closed = catch_unwind(AssertUnwindSafe(|| session.close(now, out)));
        let Ok(closed) = closed else {
            drop(after);
            self.on_panic(key);
            return;
        };
        self.send_events(key);
        for sockets in closed.sockets {
            self.close_sockets(sockets);
        }
        let recordings = closed.recordings.iter().map(|ended| ended.key.0);
        let recordings = (key, recordings.collect());
        let reason = StopReason::SessionDestroyed;
        self.take_leave(recordings, reason, after, closed.far_ends);
    }

    /// Forgets a session whose files are closed.
    pub(super) fn drop_session(&mut self, key: u64) {
        let Some(slot) = self.sessions.remove(key) else {
            return;
        };
        self.shared.directory.remove(slot.id);
        self.handle.gauges.sessions.fetch_sub(1, Ordering::Relaxed);
        // A session's own drop must not take the worker along either.
        if catch_unwind(AssertUnwindSafe(|| drop(slot.session))).is_err() {
            error!(session = %slot.id, "panic while a session was dropped");
        }
    }

    /// A bug ended this session: what belongs to it is found without asking it.
    pub(super) fn on_panic(&mut self, key: u64) {
        self.out.forget_turn();
        let Some(slot) = self.sessions.get(key) else {
            return;
        };
        let id = slot.id;
        error!(session = %id, "a bug ended this session");
        let owned = self.out.sockets.iter().filter(|(_, e)| e.session == key);
        let owned: Vec<u64> = owned.map(|(socket, _)| socket).collect();
        for socket in owned {
            let spoken_over = self.close_socket(socket).into_iter().collect();
            let now_ns = self.out.now_ns;
            self.out.handshakes.leave(socket, spoken_over, now_ns);
        }
        self.abandon_recordings_of(key);
        self.drop_session(key);
        let reason = SessionEndReason::InternalError;
        let ended = ToControl::SessionEnded {
            session: id,
            reason,
        };
        self.shared.controller.send(&ended);
    }

    /// Releases all sessions when the controller has changed.
    pub(super) fn follow_controller(&mut self) {
        let term = self.shared.controller.term();
        if term == self.term {
            return;
        }
        self.term = term;
        for index in 0..self.sessions.places() {
            let key = self.sessions.at(index).map(|(key, _)| key);
            if let Some(key) = key {
                self.release_session(key);
            }
        }
    }

    /// Nobody holds the session any more.
    pub(super) fn release_session(&mut self, key: u64) {
        if let Some(slot) = self.sessions.get_mut(key)
            && !guarded(&mut slot.session, Session::release)
        {
            self.on_panic(key);
        }
    }
}

struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        if getrandom::fill(bytes).is_err() {
            // Keys that can be guessed are worse than no process.
            std::process::abort();
        }
    }
}
