//! What happens to the mirror around an attach's answer, a fresh snapshot, and the dataplane's
//! death.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::session::{Attached, SessionSnapshot};
use rtpbridge_shared::ipc::{NumberedEvent, Reply};
use rtpbridge_shared::vocab::StopReason;

use super::registry::{Entry, Hold, Registry, Stream};
use crate::event::queue::Mailbox;
use crate::event::{Body, ClientEvent, LossReason};
use crate::lock::lock;

/// What the dataplane has to be told after its snapshot was compared with the mirror.
#[derive(Debug, Default)]
pub struct ResyncPlan {
    /// Sessions that connections still hold: attach them again.
    pub reattach: Vec<(SessionId, Arc<Mailbox>)>,
    /// Sessions that must not exist any more.
    pub destroy: Vec<SessionId>,
}

impl Registry {
    /// The dataplane answered a client's attach. Queues the answer, then the backlog.
    pub fn on_attached(
        &self,
        session: SessionId,
        client: &Arc<Mailbox>,
        serial: u64,
        attached: Attached,
    ) {
        let mut inner = lock(&self.inner);
        let Some(entry) = inner.sessions.get_mut(&session) else {
            return;
        };
        if !entry.go_live(client) {
            return;
        }
        entry.routed = attached.last_event_number;
        client.push_answer(serial, Ok(Reply::Done));
        client.push_backlog(numbered(session, attached.held), attached.dropped);
    }

    /// The dataplane answered an attach that control made after a link loss: the client only sees
    /// what it missed.
    pub fn on_reattached(&self, session: SessionId, client: &Arc<Mailbox>, attached: Attached) {
        let mut inner = lock(&self.inner);
        let Some(entry) = inner.sessions.get_mut(&session) else {
            return;
        };
        if !entry.go_live(client) {
            return;
        }
        let seen = entry.routed;
        let mut held = attached.held;
        held.retain(|event| event.number > seen);
        let missed = attached.last_event_number.saturating_sub(seen);
        let lost = missed.saturating_sub(held.len() as u64);
        entry.routed = attached.last_event_number.max(seen);
        client.push_backlog(numbered(session, held), lost);
    }

    /// Compares the snapshot of the same dataplane with the mirror.
    pub fn resync(
        &self,
        mut parts: HashMap<SessionId, SessionSnapshot>,
        timeout: Duration,
    ) -> ResyncPlan {
        let mut plan = ResyncPlan::default();
        let mut inner = lock(&self.inner);
        let mut vanished = Vec::new();
        for (session, entry) in &mut inner.sessions {
            let Some(snapshot) = parts.remove(session) else {
                if !matches!(entry.hold, Hold::Creating) {
                    vanished.push(*session);
                }
                continue;
            };
            entry.refresh(&snapshot);
            match &mut entry.hold {
                Hold::Held { client, stream } => {
                    *stream = Stream::Attaching;
                    plan.reattach.push((*session, Arc::clone(client)));
                }
                Hold::Ending { .. } => plan.destroy.push(*session),
                Hold::Creating | Hold::Orphaned { .. } => {}
            }
        }
        for session in vanished {
            if let Some(mut entry) = inner.remove(session) {
                entry.tell_vanished(session);
            }
        }
        let condemned = std::mem::take(&mut inner.condemned);
        self.publish(&inner);
        drop(inner);
        for (session, snapshot) in &parts {
            if condemned.contains(session) {
                plan.destroy.push(*session);
            } else {
                self.adopt(snapshot, timeout);
            }
        }
        plan
    }

    /// The dataplane with all sessions is gone, or counts as gone. Everybody is told. With
    /// `may_return`, the sessions end should that very process come back.
    pub fn lose_all(&self, may_return: bool) -> usize {
        let mut inner = lock(&self.inner);
        let sessions: Vec<SessionId> = inner.sessions.keys().copied().collect();
        for session in &sessions {
            if let Some(mut entry) = inner.remove(*session) {
                entry.tell_lost(*session);
            }
        }
        if may_return {
            inner.condemned.extend(&sessions);
        } else {
            inner.condemned.clear();
        }
        self.publish(&inner);
        sessions.len()
    }
}

impl Entry {
    fn go_live(&mut self, by: &Mailbox) -> bool {
        match &mut self.hold {
            Hold::Held { client, stream } if client.id() == by.id() => {
                *stream = Stream::Live;
                true
            }
            _ => false,
        }
    }

    /// The dataplane lives and does not know the session any more: its end was reached unheard.
    fn tell_vanished(&mut self, session: SessionId) {
        match self.hold {
            Hold::Ending { .. } => self.tell_gone(session, StopReason::SessionDestroyed),
            _ => self.tell_lost(session),
        }
    }

    /// The dataplane is gone. A session that was being ended keeps the reason for that.
    fn tell_lost(&mut self, session: SessionId) {
        self.tell_gone(session, StopReason::DataplaneLost);
    }

    fn tell_gone(&mut self, session: SessionId, recordings: StopReason) {
        let farewell = match &self.hold {
            Hold::Ending { farewell, .. } => farewell.clone(),
            _ => Body::Lost(LossReason::DataplaneLost),
        };
        self.tell_recordings(session, recordings);
        self.tell(session, farewell);
    }
}

fn numbered(session: SessionId, events: Vec<NumberedEvent>) -> impl Iterator<Item = ClientEvent> {
    events.into_iter().map(move |event| ClientEvent {
        session,
        number: event.number,
        body: Body::Media(event.event),
    })
}
