//! Requests on their way and unanswered, and the bytes that wait to be written. Submitting never
//! waits: when the link is down, or too much is under way already, the request fails at once.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use rtpbridge_shared::id::{InstanceId, SessionId};
use rtpbridge_shared::ipc::hello::Hello;
use rtpbridge_shared::ipc::{Reply, Request, RequestError, ToDataplane, frame};
use thiserror::Error;
use tokio::sync::{Notify, oneshot, watch};
use tracing::{error, warn};

use crate::lock::lock;

/// What came of a request.
pub type Outcome = Result<Reply, LinkError>;

/// Takes the outcome. Runs on the link's reader (or on the submitter, when the link is down) and
/// must not block.
pub type Then = Box<dyn FnOnce(Outcome) + Send>;

/// Why a request brought nothing.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LinkError {
    /// The dataplane is not connected, or went away before it answered: whether the request
    /// happened is unknown.
    #[error("the dataplane is not connected")]
    Unavailable,
    /// The dataplane said no.
    #[error("{0}")]
    Refused(RequestError),
}

/// Where the link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not connected.
    Down,
    /// Connected; the snapshot is being read.
    Syncing,
    /// In service.
    Up,
}

const MAX_PENDING: usize = 65_536;
const MAX_OUTGOING_BYTES: usize = 32 * 1024 * 1024;

/// The sending side of the link, and the state that others ask about.
#[derive(Debug)]
pub struct Link {
    inner: Mutex<Inner>,
    pub(super) wake: Notify,
    phase: watch::Sender<Phase>,
}

#[derive(Default)]
struct Inner {
    next_number: u64,
    pending: HashMap<u64, Then>,
    outgoing: Vec<u8>,
    acknowledged: HashMap<SessionId, u64>,
    peer: Option<Hello>,
    restarts: u64,
    draining: bool,
    /// None while not connected. Decides whether requests are taken; `Link::phase` tells others.
    phase: Option<Phase>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("pending", &self.pending.len())
            .field("outgoing", &self.outgoing.len())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Link {
    /// A link that is down.
    pub fn new() -> Self {
        Self {
            inner: Mutex::default(),
            wake: Notify::new(),
            phase: watch::Sender::new(Phase::Down),
        }
    }

    /// Where the link is now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether requests are taken.
    pub fn is_up(&self) -> bool {
        self.phase() == Phase::Up
    }

    /// Follows the phase.
    pub fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Resolves when no dataplane is connected.
    pub async fn wait_until_down(&self) {
        let mut phase = self.watch_phase();
        // The sender is `self`, so waiting cannot fail.
        let _ = phase.wait_for(|phase| *phase == Phase::Down).await;
    }

    /// The hello of the dataplane last connected to.
    pub fn peer(&self) -> Option<Hello> {
        lock(&self.inner).peer.clone()
    }

    /// How often another dataplane process was found in place of a known one.
    pub fn restarts(&self) -> u64 {
        lock(&self.inner).restarts
    }

    /// Whether the dataplane waits for its sessions to end.
    pub fn peer_is_draining(&self) -> bool {
        self.is_up() && lock(&self.inner).draining
    }

    /// Sends `request`; `then` is called exactly once.
    pub fn submit(&self, request: Request, then: Then) {
        self.submit_in(Phase::Up, request, then);
    }

    /// Sends `request` and waits for the outcome, at most `patience`. None after that.
    pub async fn call(&self, request: Request, patience: Duration) -> Option<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.submit(
            request,
            Box::new(move |outcome| {
                // A receiver that is gone has run out of patience.
                let _ = sender.send(outcome);
            }),
        );
        match tokio::time::timeout(patience, receiver).await {
            Ok(Ok(outcome)) => Some(outcome),
            Ok(Err(_)) => Some(Err(LinkError::Unavailable)),
            Err(_) => None,
        }
    }

    /// Every event of the session up to `event_number` reached its client. Sent with the next write.
    pub fn acknowledge(&self, session: SessionId, event_number: u64) {
        let mut inner = lock(&self.inner);
        if inner.phase != Some(Phase::Up) {
            return;
        }
        let newest = inner.acknowledged.entry(session).or_default();
        *newest = event_number.max(*newest);
        drop(inner);
        self.wake.notify_one();
    }

    pub(super) fn submit_in(&self, least: Phase, request: Request, then: Then) {
        let accepted = {
            let mut inner = lock(&self.inner);
            match inner.phase {
                Some(phase) if phase == Phase::Up || phase == least => {
                    inner.enqueue_request(request, then)
                }
                _ => Err((then, LinkError::Unavailable)),
            }
        };
        match accepted {
            Ok(()) => self.wake.notify_one(),
            Err((then, error)) => then(Err(error)),
        }
    }

    pub(super) fn send_heartbeat(&self) {
        lock(&self.inner).enqueue(&ToDataplane::Heartbeat);
    }

    /// Everything to be written now; acknowledgements come first because later requests may build
    /// on them.
    pub(super) fn take_outgoing(&self) -> Vec<u8> {
        let mut inner = lock(&self.inner);
        inner.flush_acknowledgements();
        std::mem::take(&mut inner.outgoing)
    }

    pub(super) fn complete(&self, number: u64, result: Result<Reply, RequestError>) {
        let then = lock(&self.inner).pending.remove(&number);
        if let Some(then) = then {
            then(result.map_err(LinkError::Refused));
        }
    }

    /// A dataplane accepted our hello. Returns the hello of the one before.
    pub(super) fn on_connected(&self, peer: Hello) -> Option<Hello> {
        let mut inner = lock(&self.inner);
        inner.draining = false;
        inner.phase = Some(Phase::Syncing);
        let before = inner.peer.replace(peer);
        drop(inner);
        self.phase.send_replace(Phase::Syncing);
        before
    }

    pub(super) fn on_restart(&self) {
        lock(&self.inner).restarts += 1;
    }

    pub(super) fn on_draining(&self) {
        lock(&self.inner).draining = true;
    }

    pub(super) fn on_synced(&self) {
        lock(&self.inner).phase = Some(Phase::Up);
        self.phase.send_replace(Phase::Up);
    }

    /// The connection is gone: nothing that was sent will be answered.
    pub(super) fn on_disconnected(&self) {
        self.phase.send_replace(Phase::Down);
        let orphaned = {
            let mut inner = lock(&self.inner);
            inner.phase = None;
            inner.outgoing = Vec::new();
            inner.acknowledged.clear();
            std::mem::take(&mut inner.pending)
        };
        for then in orphaned.into_values() {
            then(Err(LinkError::Unavailable));
        }
    }

    /// The instance that the mirror describes.
    pub(super) fn known_instance(&self) -> Option<InstanceId> {
        lock(&self.inner).peer.as_ref().map(|peer| peer.instance)
    }
}

impl Inner {
    fn enqueue_request(&mut self, request: Request, then: Then) -> Result<(), (Then, LinkError)> {
        if self.pending.len() >= MAX_PENDING || self.outgoing.len() >= MAX_OUTGOING_BYTES {
            return Err((then, LinkError::Unavailable));
        }
        self.flush_acknowledgements();
        self.next_number += 1;
        let number = self.next_number;
        match frame::encode(
            &ToDataplane::Request { number, request },
            &mut self.outgoing,
        ) {
            Ok(()) => {
                self.pending.insert(number, then);
                Ok(())
            }
            Err(error) => {
                warn!(%error, "a request that does not fit a message is refused");
                Err((then, LinkError::Refused(too_large())))
            }
        }
    }

    fn flush_acknowledgements(&mut self) {
        if self.acknowledged.is_empty() {
            return;
        }
        for (session, event_number) in std::mem::take(&mut self.acknowledged) {
            self.enqueue(&ToDataplane::Acknowledge {
                session,
                event_number,
            });
        }
    }

    fn enqueue(&mut self, message: &ToDataplane) {
        if self.outgoing.len() >= MAX_OUTGOING_BYTES {
            return;
        }
        if let Err(error) = frame::encode(message, &mut self.outgoing) {
            error!(%error, "a message to the dataplane could not be encoded");
        }
    }
}

/// Only a limit that is configured beyond what a message holds lets a client come this far.
fn too_large() -> RequestError {
    RequestError::InvalidParams {
        field: "params".to_owned(),
        problem: "too large".to_owned(),
    }
}
