//! After every hello: compare the dataplane's sessions with the mirror (processes.md, "Link loss,
//! control death, dataplane death").

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::hello::Hello;
use rtpbridge_shared::ipc::session::{SessionCounts, SessionSnapshot};
use rtpbridge_shared::ipc::{Event, Reply, Request};
use tracing::{info, warn};

use super::pending::{LinkError, Phase};
use crate::app::App;
use crate::event::queue::Mailbox;
use crate::session::orphan;

/// A snapshot that is being read.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    parts: HashMap<SessionId, SessionSnapshot>,
    newer: HashMap<SessionId, SessionCounts>,
    is_refused: Arc<AtomicBool>,
}

impl Snapshot {
    /// The dataplane could not give it: the link is of no use.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    pub(super) fn add(&mut self, part: SessionSnapshot) {
        self.newer.remove(&part.details.session);
        match self.parts.entry(part.details.session) {
            Entry::Occupied(known) => known.into_mut().extend(part),
            Entry::Vacant(place) => {
                place.insert(part);
            }
        }
    }

    /// Something changed after the session's part was made.
    pub(super) fn on_counts(&mut self, counts: SessionCounts) {
        if self.parts.contains_key(&counts.session) {
            self.newer.insert(counts.session, counts);
        }
    }

    /// A recording that ended after the session's part was made must not come back with it.
    pub(super) fn on_event(&mut self, session: SessionId, event: &Event) {
        if let Event::RecordingStopped(summary) = event
            && let Some(part) = self.parts.get_mut(&session)
        {
            let running = &mut part.details.recordings;
            running.retain(|row| row.recording != summary.recording);
        }
    }

    pub(super) fn on_ended(&mut self, session: SessionId) {
        self.parts.remove(&session);
        self.newer.remove(&session);
    }
}

/// The dataplane `peer` accepted our hello: ask for its sessions.
pub(super) fn begin(app: &App, peer: Hello) -> Option<Snapshot> {
    let instance = peer.instance;
    let before = app.link.known_instance();
    app.link.on_connected(peer);
    if before.is_some_and(|known| known != instance) {
        app.link.on_restart();
        let lost = app.registry.lose_all(false);
        app.cache.all_sessions_ended();
        warn!(
            lost,
            "another dataplane process, the sessions of the last one are lost"
        );
    }
    let snapshot = Snapshot::default();
    let is_refused = Arc::clone(&snapshot.is_refused);
    app.link.submit_in(
        Phase::Syncing,
        Request::Snapshot,
        Box::new(move |outcome| {
            if let Err(LinkError::Refused(error)) = outcome {
                warn!(%error, "the dataplane gave no snapshot");
                is_refused.store(true, Ordering::Relaxed);
            }
        }),
    );
    Some(snapshot)
}

/// The snapshot is complete.
pub(super) fn finish(app: &Arc<App>, snapshot: Snapshot) {
    let Snapshot { parts, newer, .. } = snapshot;
    let sessions = parts.len();
    let mut fetches = Vec::new();
    for part in parts.values() {
        let session = part.details.session;
        for endpoint in &part.details.endpoints {
            if let Some(order) = &endpoint.pending_fetch {
                fetches.push((session, endpoint.endpoint, order.clone()));
            }
            if let Some(name) = &endpoint.cache_file {
                app.cache.adopt_use(name, session, endpoint.endpoint);
            }
        }
    }
    let plan = app.registry.resync(parts, app.config.disconnect_timeout);
    for counts in newer.into_values() {
        app.registry.on_counts(counts);
    }
    app.link.on_synced();
    for session in plan.destroy {
        destroy_leftover(app, session);
    }
    for (session, client) in plan.reattach {
        reattach(app, session, client);
    }
    for (session, endpoint, order) in fetches {
        app.cache.fetch(app, session, endpoint, order);
    }
    info!(sessions, "in step with the dataplane");
}

fn destroy_leftover(app: &Arc<App>, session: SessionId) {
    info!(%session, "ending a session that was given up");
    orphan::destroy(app, session);
}

fn reattach(app: &Arc<App>, session: SessionId, client: Arc<Mailbox>) {
    let owner = Arc::clone(app);
    app.link.submit(
        Request::SessionAttach { session },
        Box::new(move |outcome| match outcome {
            Ok(Reply::Attached(attached)) => {
                owner.registry.on_reattached(session, &client, attached);
            }
            // The next connection starts over.
            Err(LinkError::Unavailable) => {}
            other => {
                warn!(%session, ?other, "session could not be resumed");
                owner
                    .registry
                    .release(session, &client, owner.config.disconnect_timeout, || ());
            }
        }),
    );
}
