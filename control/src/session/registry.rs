//! All sessions this process knows, each with its hold:
//!
//! ```text
//! Creating ─► Held(Live) ─► Orphaned ─► Held(Attaching) ─► Held(Live)
//!                 └── resync ──► Held(Attaching) ─┘
//!        Held, Orphaned ─► Ending ─► forgotten
//!                             └─► tried again
//! ```
//!
//! Nothing here waits or does IO: one lock, held for a few map operations, shared by the reader of
//! the dataplane link and by all clients.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rtpbridge_shared::config::Limit;
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::session::{SessionCounts, SessionEndReason, SessionSnapshot};
use rtpbridge_shared::ipc::{Event, NumberedEvent};
use rtpbridge_shared::vocab::SessionState;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::recordings::Recordings;
use crate::event::queue::{Close, Mailbox};
use crate::event::{Body, ClientEvent, LossReason};
use crate::lock::lock;

/// The mirror.
#[derive(Debug)]
pub struct Registry {
    pub(super) inner: Mutex<Inner>,
    deadline_changed: Notify,
    population: watch::Sender<usize>,
}

/// One row of the lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionView {
    /// The session.
    pub session: SessionId,
    /// Whether a connection holds it.
    pub state: SessionState,
    /// Endpoints listed.
    pub endpoint_count: u32,
    /// Recordings running.
    pub recording_count: u32,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// `max_sessions` is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("at most {limit} sessions")]
pub struct Full {
    /// The limit.
    pub limit: Limit,
}

/// Why a session cannot be attached to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AttachRefused {
    /// No such session.
    #[error("session not found")]
    NotFound,
    /// Another connection holds it.
    #[error("another connection holds the session")]
    Held,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) sessions: HashMap<SessionId, Entry>,
    deadlines: BTreeSet<(Instant, SessionId)>,
    /// To be destroyed wherever a snapshot shows them.
    pub(super) condemned: HashSet<SessionId>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) created_at_ms: u64,
    pub(super) endpoints: u32,
    pub(super) recording_count: u32,
    pub(super) recordings: Recordings,
    pub(super) hold: Hold,
    /// Number of the newest event that reached a connection's queue or is accounted for there.
    pub(super) routed: u64,
    /// Number of the newest event that was made here, beyond those of the dataplane.
    told: u64,
}

#[derive(Debug)]
pub(super) enum Hold {
    Creating,
    Held {
        client: Arc<Mailbox>,
        stream: Stream,
    },
    Orphaned {
        deadline: Instant,
    },
    /// Its destruction is under way; the connection that held it still hears of it.
    Ending {
        client: Option<Arc<Mailbox>>,
        /// What that connection is told at the end.
        farewell: Body,
        /// The last attempt failed; when the next one is due.
        retry: Option<Instant>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    /// The attach is under way; events before its answer are accounted for in the answer.
    Attaching,
    Live,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// Knows no session.
    pub fn new() -> Self {
        Self {
            inner: Mutex::default(),
            deadline_changed: Notify::new(),
            population: watch::Sender::new(0),
        }
    }

    /// Takes a place for a session that the dataplane is about to be asked for.
    ///
    /// # Errors
    /// When `limit` is reached.
    pub fn begin_create(
        &self,
        session: SessionId,
        created_at_ms: u64,
        limit: Limit,
    ) -> Result<(), Full> {
        let mut inner = lock(&self.inner);
        if !limit.allows_one_more(inner.sessions.len()) {
            return Err(Full { limit });
        }
        inner
            .sessions
            .insert(session, Entry::new(created_at_ms, Hold::Creating));
        self.publish(&inner);
        Ok(())
    }

    /// The dataplane made the session. Returns false when nobody wants it any more; then it must be
    /// destroyed.
    pub fn finish_create(&self, session: SessionId, client: &Arc<Mailbox>) -> bool {
        let mut inner = lock(&self.inner);
        let Some(entry) = inner.sessions.get_mut(&session) else {
            return false;
        };
        let wanted = matches!(entry.hold, Hold::Creating) && !client.is_gone();
        entry.hold = if wanted {
            Hold::Held {
                client: Arc::clone(client),
                stream: Stream::Live,
            }
        } else {
            Hold::unattended_end()
        };
        wanted
    }

    /// The creation failed, or its outcome is unknown (`condemn`): then a snapshot that shows the
    /// session leads to its end. Returns false when the session was made after all and is listed.
    pub fn abandon_create(&self, session: SessionId, condemn: bool) -> bool {
        let mut inner = lock(&self.inner);
        let made = inner
            .sessions
            .get(&session)
            .is_some_and(|entry| !matches!(entry.hold, Hold::Creating));
        if made {
            return false;
        }
        inner.remove(session);
        if condemn {
            inner.condemned.insert(session);
        } else {
            inner.condemned.remove(&session);
        }
        self.publish(&inner);
        true
    }

    /// Claims the session for `client`. Returns the connection it was taken from, to be closed.
    ///
    /// # Errors
    /// When there is no such session, or another connection holds it and `force` is off.
    pub fn begin_attach(
        &self,
        session: SessionId,
        client: &Arc<Mailbox>,
        force: bool,
    ) -> Result<(), AttachRefused> {
        let mut inner = lock(&self.inner);
        let Some(entry) = inner.sessions.get_mut(&session) else {
            return Err(AttachRefused::NotFound);
        };
        let hold = Hold::Held {
            client: Arc::clone(client),
            stream: Stream::Attaching,
        };
        match &entry.hold {
            Hold::Creating | Hold::Ending { .. } => return Err(AttachRefused::NotFound),
            Hold::Held { .. } if !force => return Err(AttachRefused::Held),
            Hold::Held { client: holder, .. } => holder.close(Close::Taken),
            Hold::Orphaned { deadline } => {
                let deadline = *deadline;
                entry.hold = hold;
                inner.deadlines.remove(&(deadline, session));
                return Ok(());
            }
        }
        entry.hold = hold;
        Ok(())
    }

    /// The connection gives the session up; it becomes orphaned until `timeout` from now. Returns
    /// whether it held it. Then `tell` has been called before anybody else could claim the session;
    /// it must neither block nor come back here.
    pub fn release(
        &self,
        session: SessionId,
        client: &Mailbox,
        timeout: Duration,
        tell: impl FnOnce(),
    ) -> bool {
        let mut inner = lock(&self.inner);
        let held = inner
            .sessions
            .get(&session)
            .is_some_and(|entry| entry.is_held_by(client));
        if held {
            self.orphan(&mut inner, session, Instant::now() + timeout);
            tell();
        }
        held
    }

    /// The session is gone.
    pub fn forget(&self, session: SessionId) {
        let mut inner = lock(&self.inner);
        inner.remove(session);
        self.publish(&inner);
    }

    /// Nobody may attach from now on; the connection that holds the session will be told `farewell`.
    /// Returns false when there is no such session, or its end is under way.
    pub fn begin_end(&self, session: SessionId, farewell: Body) -> bool {
        lock(&self.inner).begin_end(session, farewell)
    }

    /// The end is reached; the connection that held the session is told so.
    pub fn finish_end(&self, session: SessionId) {
        let mut inner = lock(&self.inner);
        inner.condemned.remove(&session);
        if let Some(mut entry) = inner.remove(session)
            && let Hold::Ending { farewell, .. } = &entry.hold
        {
            let farewell = farewell.clone();
            entry.tell(session, farewell);
        }
        self.publish(&inner);
    }

    /// The end could not be reached, or not yet: it is due again after `delay`.
    pub fn retry_end(&self, session: SessionId, delay: Duration) {
        let mut inner = lock(&self.inner);
        let Some(entry) = inner.sessions.get_mut(&session) else {
            return;
        };
        if let Hold::Ending { retry, .. } = &mut entry.hold {
            let due = Instant::now() + delay;
            if let Some(old) = retry.replace(due) {
                inner.deadlines.remove(&(old, session));
            }
            inner.deadlines.insert((due, session));
            self.deadline_changed.notify_one();
        }
    }

    /// Sessions whose end is due: their time as orphans is over, or the last attempt failed.
    pub fn take_expired(&self, now: Instant) -> Vec<SessionId> {
        let mut inner = lock(&self.inner);
        let mut expired = Vec::new();
        while let Some((deadline, session)) = inner.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            inner.deadlines.remove(&(deadline, session));
            let Some(entry) = inner.sessions.get_mut(&session) else {
                continue;
            };
            match &mut entry.hold {
                Hold::Ending { retry, .. } => *retry = None,
                hold => *hold = Hold::unattended_end(),
            }
            expired.push(session);
        }
        expired
    }

    /// When the next session is due for [`Self::take_expired`].
    pub fn next_deadline(&self) -> Option<Instant> {
        let inner = lock(&self.inner);
        inner.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Resolves when [`Self::next_deadline`] may have become earlier.
    pub async fn deadline_changed(&self) {
        self.deadline_changed.notified().await;
    }

    /// Hands an event to the connection that holds the session. Returns whether it was lost to a
    /// full queue.
    pub fn route(&self, session: SessionId, event: NumberedEvent) -> bool {
        let mut inner = lock(&self.inner);
        let Some(entry) = inner.sessions.get_mut(&session) else {
            return false;
        };
        if let Event::RecordingStopped(summary) = &event.event {
            entry.recordings.ended(summary.recording);
        }
        match &entry.hold {
            Hold::Held {
                client,
                stream: Stream::Live,
            }
            | Hold::Ending {
                client: Some(client),
                ..
            } if event.number > entry.routed => {
                entry.routed = event.number;
                !client.push_event(ClientEvent {
                    session,
                    number: event.number,
                    body: Body::Media(event.event),
                })
            }
            _ => false,
        }
    }

    /// How much the session holds now.
    pub fn on_counts(&self, counts: SessionCounts) {
        let mut inner = lock(&self.inner);
        if let Some(entry) = inner.sessions.get_mut(&counts.session) {
            entry.endpoints = counts.endpoints;
            entry.recording_count = counts.recordings;
        }
    }

    /// The session ended by itself. Its connection is told what its events did not say.
    pub fn on_ended(&self, session: SessionId, reason: SessionEndReason) {
        let body = match reason {
            SessionEndReason::IdleTimeout | SessionEndReason::EmptyTimeout => Body::Unbound,
            SessionEndReason::InternalError => Body::Lost(LossReason::InternalError),
            SessionEndReason::Shutdown => Body::Lost(LossReason::DataplaneLost),
        };
        let mut inner = lock(&self.inner);
        if let Some(mut entry) = inner.remove(session) {
            entry.tell(session, body);
        }
        self.publish(&inner);
    }

    /// The session was destroyed; `client` is unbound if it is still bound to it.
    pub fn on_destroyed(&self, session: SessionId, client: &Mailbox) {
        self.forget(session);
        client.push_event(ClientEvent {
            session,
            number: 0,
            body: Body::Unbound,
        });
    }

    /// Adds a session that was found in a snapshot, with nobody holding it.
    pub fn adopt(&self, snapshot: &SessionSnapshot, timeout: Duration) {
        let mut inner = lock(&self.inner);
        let session = snapshot.details.session;
        let deadline = Instant::now() + timeout;
        let mut entry = Entry::new(snapshot.details.created_at_ms, Hold::Creating);
        entry.refresh(snapshot);
        inner.sessions.insert(session, entry);
        self.orphan(&mut inner, session, deadline);
        self.publish(&inner);
    }

    /// Sessions that clients can see, sorted by creation.
    pub fn list(&self) -> Vec<SessionView> {
        let inner = lock(&self.inner);
        let mut rows: Vec<SessionView> = inner
            .sessions
            .iter()
            .filter_map(|(session, entry)| entry.view(*session))
            .collect();
        drop(inner);
        rows.sort_by_key(|row| (row.created_at_ms, row.session));
        rows
    }

    /// One session, when clients can see it.
    pub fn view(&self, session: SessionId) -> Option<SessionView> {
        let inner = lock(&self.inner);
        inner.sessions.get(&session)?.view(session)
    }

    /// How many sessions there are, those coming and going included.
    pub fn population(&self) -> usize {
        *self.population.borrow()
    }

    /// Follows [`Self::population`].
    pub fn watch_population(&self) -> watch::Receiver<usize> {
        self.population.subscribe()
    }

    /// Resolves when there is no session.
    pub async fn wait_until_empty(&self) {
        let mut population = self.watch_population();
        // The sender is `self`, so waiting cannot fail.
        let _ = population.wait_for(|sessions| *sessions == 0).await;
    }

    /// All sessions, whatever their hold.
    pub fn all(&self) -> Vec<SessionId> {
        lock(&self.inner).sessions.keys().copied().collect()
    }

    pub(super) fn orphan(&self, inner: &mut Inner, session: SessionId, deadline: Instant) {
        if let Some(entry) = inner.sessions.get_mut(&session) {
            if let Hold::Orphaned { deadline: old } = entry.hold {
                inner.deadlines.remove(&(old, session));
            }
            entry.hold = Hold::Orphaned { deadline };
            inner.deadlines.insert((deadline, session));
            self.deadline_changed.notify_one();
        }
    }

    pub(super) fn publish(&self, inner: &Inner) {
        let now = inner.sessions.len();
        self.population.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
    }
}

impl Inner {
    pub(super) fn remove(&mut self, session: SessionId) -> Option<Entry> {
        let entry = self.sessions.remove(&session)?;
        if let Some(deadline) = entry.hold.deadline() {
            self.deadlines.remove(&(deadline, session));
        }
        Some(entry)
    }

    fn begin_end(&mut self, session: SessionId, farewell: Body) -> bool {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return false;
        };
        let client = match &entry.hold {
            Hold::Ending { .. } | Hold::Creating => return false,
            Hold::Held { client, .. } => Some(Arc::clone(client)),
            Hold::Orphaned { deadline } => {
                self.deadlines.remove(&(*deadline, session));
                None
            }
        };
        entry.hold = Hold::Ending {
            client,
            farewell,
            retry: None,
        };
        true
    }
}

impl Hold {
    /// The end of a session that no connection has to hear of.
    const fn unattended_end() -> Self {
        Hold::Ending {
            client: None,
            farewell: Body::Unbound,
            retry: None,
        }
    }

    const fn deadline(&self) -> Option<Instant> {
        match self {
            Hold::Orphaned { deadline } => Some(*deadline),
            Hold::Ending { retry, .. } => *retry,
            Hold::Creating | Hold::Held { .. } => None,
        }
    }
}

impl Entry {
    pub(super) fn new(created_at_ms: u64, hold: Hold) -> Self {
        Self {
            created_at_ms,
            endpoints: 0,
            recording_count: 0,
            recordings: Recordings::default(),
            hold,
            routed: 0,
            told: 0,
        }
    }

    pub(super) fn is_held_by(&self, client: &Mailbox) -> bool {
        matches!(&self.hold, Hold::Held { client: holder, .. } if holder.id() == client.id())
    }

    /// Queues something that the dataplane gave no number. It gets one that the client has not seen,
    /// without taking the place of an event that is still to come.
    pub(super) fn tell(&mut self, session: SessionId, body: Body) {
        if let Hold::Held { client, .. }
        | Hold::Ending {
            client: Some(client),
            ..
        } = &self.hold
        {
            self.told = self.told.max(self.routed).saturating_add(1);
            client.push_event(ClientEvent {
                session,
                number: self.told,
                body,
            });
        }
    }

    /// Takes over what a snapshot says, the hold and the event numbers aside.
    pub(super) fn refresh(&mut self, snapshot: &SessionSnapshot) {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        self.endpoints = count(snapshot.details.endpoints.len());
        self.recording_count = count(snapshot.details.recordings.len());
        self.recordings.replace(&snapshot.details.recordings);
    }

    fn view(&self, session: SessionId) -> Option<SessionView> {
        let state = match self.hold {
            Hold::Creating | Hold::Ending { .. } => return None,
            Hold::Held { .. } => SessionState::Active,
            Hold::Orphaned { .. } => SessionState::Orphaned,
        };
        Some(SessionView {
            session,
            state,
            endpoint_count: self.endpoints,
            recording_count: self.recording_count,
            created_at_ms: self.created_at_ms,
        })
    }
}

#[cfg(test)]
mod tests;
