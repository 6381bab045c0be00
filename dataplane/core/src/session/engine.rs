//! The session: owns its parts and calls them in order.

use std::net::SocketAddr;
use std::sync::Arc;

use rtpbridge_shared::id::{EndpointId, RecordingId, SessionId};
use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::dtmf::{DtmfInject, DtmfSetSensitive};
use rtpbridge_shared::ipc::endpoint::{
    AcceptAnswer, CreateFromOffer, CreateOffer, IceRestarted, RemoteOffer, UpdateDirection,
};
use rtpbridge_shared::ipc::recording::{RecordingStart, RecordingSummary};
use rtpbridge_shared::ipc::session::{Attached, SessionCounts, SessionDetails, SessionSnapshot};
use rtpbridge_shared::ipc::stats::{StatsRow, StatsSubscribe};

use super::config::EngineConfig;
use super::input::{Channel, EndpointKey, EndpointSockets, PacketBuffer, RecordingKey, SocketNeed};
use super::output::{EndedRecording, Outbox};
use crate::entropy::Entropy;
use crate::time::{Instant, Moment};

/// One call. See the module's comment for how it is driven.
pub struct Session {
    id: SessionId,
    created_at_ms: u64,
    config: Arc<EngineConfig>,
    entropy: Box<dyn Entropy + Send>,
}

/// An endpoint whose description was checked; it exists once it is given its sockets.
#[derive(Debug)]
pub struct PreparedEndpoint {
    need: SocketNeed,
}

/// A new endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Created {
    /// For [`Session::handle_packet`].
    pub key: EndpointKey,
    /// Our description, offer or answer.
    pub sdp: String,
}

/// What a removed endpoint leaves behind.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Removed {
    /// To be closed; its BYE went out before this was returned.
    pub sockets: Option<EndpointSockets>,
    /// Its single-leg recordings, to be flushed and closed, then told to
    /// [`Session::recording_stopped`].
    pub recordings: Vec<EndedRecording>,
}

/// What an ended session leaves behind.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Closed {
    /// To be closed; BYEs went out before this was returned.
    pub sockets: Vec<EndpointSockets>,
    /// To be flushed and closed, then told to [`Session::recording_stopped`]; the session numbers
    /// the events, so drop it only then.
    pub recordings: Vec<EndedRecording>,
}

/// An endpoint on its way to another session, with all its state.
pub struct DetachedEndpoint {
    id: EndpointId,
}

impl PreparedEndpoint {
    /// What to bind.
    pub fn need(&self) -> SocketNeed {
        self.need
    }
}

impl DetachedEndpoint {
    /// Which endpoint.
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// Its sockets, whose place in an event loop the shell has to move along. None only for kinds
    /// that have none.
    pub fn sockets(&self) -> Option<EndpointSockets> {
        None
    }
}

fn unbuilt<T>() -> Result<T, RequestError> {
    Err(RequestError::Internal("not built".into()))
}

/// Life of the session.
impl Session {
    /// An empty session, attached to the client that made it. `created_at_ms` (Unix epoch) is
    /// reported back.
    pub fn new(
        id: SessionId,
        created_at_ms: u64,
        config: Arc<EngineConfig>,
        entropy: Box<dyn Entropy + Send>,
        now: Instant,
    ) -> Self {
        let _ = now;
        Self {
            id,
            created_at_ms,
            config,
            entropy,
        }
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Removes all endpoints, saying BYE, and ends all recordings. The session takes packets and
    /// commands no more, but [`recording_stopped`](Self::recording_stopped).
    pub fn close(&mut self, now: Moment, out: &mut dyn Outbox) -> Closed {
        let _ = (now, out);
        Closed::default()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; may change with every other call. Cheap.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Does what is due. Calling it early does nothing; late is late.
    pub fn handle_timeout(&mut self, now: Moment, out: &mut dyn Outbox) {
        let _ = (now, out);
    }

    /// A datagram came in for an endpoint. `arrival.wall` is the kernel's time stamp where there is
    /// one. The buffer's contents are spent afterwards.
    pub fn handle_packet(
        &mut self,
        arrival: Moment,
        endpoint: EndpointKey,
        channel: Channel,
        source: SocketAddr,
        buffer: &mut PacketBuffer,
        out: &mut dyn Outbox,
    ) {
        let _ = (arrival, endpoint, channel, source, buffer, out);
    }

    /// A client holds the session from now on: events flow.
    pub fn attach(&mut self, now: Moment) -> Attached {
        let _ = now;
        Attached {
            held: Vec::new(),
            dropped: 0,
            last_event_number: 0,
        }
    }

    /// No client holds the session: critical events are held, others only counted.
    pub fn release(&mut self) {}

    /// All events up to and including `event_number` are accounted for at the client.
    pub fn acknowledge(&mut self, event_number: u64) {
        let _ = event_number;
    }

    /// How much it holds.
    pub fn counts(&self) -> SessionCounts {
        SessionCounts {
            session: self.id,
            endpoints: 0,
            recordings: 0,
        }
    }

    /// As `session.info` shows it. `packets` of a recording are those handed to the outbox.
    pub fn details(&self) -> SessionDetails {
        SessionDetails {
            session: self.id,
            created_at_ms: self.created_at_ms,
            endpoints: Vec::new(),
            recordings: Vec::new(),
            vad_active: Vec::new(),
        }
    }

    /// For control's mirror.
    pub fn snapshot(&self) -> SessionSnapshot {
        SessionSnapshot {
            details: self.details(),
            last_event_number: 0,
        }
    }
}

/// Endpoints. Every command counts as activity of the session.
impl Session {
    /// First step of `endpoint.create_from_offer`: checks everything, changes nothing.
    ///
    /// # Errors
    /// Whatever forbids the endpoint.
    pub fn prepare_from_offer(
        &self,
        request: &CreateFromOffer,
    ) -> Result<PreparedEndpoint, RequestError> {
        let _ = (request, &self.config);
        unbuilt()
    }

    /// First step of `endpoint.create_offer`: checks everything, changes nothing.
    ///
    /// # Errors
    /// Whatever forbids the endpoint.
    pub fn prepare_offer(&self, request: &CreateOffer) -> Result<PreparedEndpoint, RequestError> {
        let _ = request;
        unbuilt()
    }

    /// Second step of both: the sockets are bound.
    ///
    /// # Errors
    /// The session may have changed since; the sockets are then the shell's to close.
    pub fn create_endpoint(
        &mut self,
        now: Moment,
        prepared: PreparedEndpoint,
        sockets: EndpointSockets,
        out: &mut dyn Outbox,
    ) -> Result<Created, RequestError> {
        let _ = (now, prepared, sockets, out, &mut self.entropy);
        unbuilt()
    }

    /// `endpoint.accept_answer`. Datagrams that the kernel stamped before `now` are ignored for the
    /// next second.
    ///
    /// # Errors
    /// The endpoint is then as it was.
    pub fn accept_answer(
        &mut self,
        now: Moment,
        request: &AcceptAnswer,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        let _ = (now, request, out);
        unbuilt()
    }

    /// `endpoint.rtp.reinvite`; gives our answer.
    ///
    /// # Errors
    /// The endpoint is then as it was.
    pub fn reinvite(
        &mut self,
        now: Moment,
        request: &RemoteOffer,
        out: &mut dyn Outbox,
    ) -> Result<String, RequestError> {
        let _ = (now, request, out);
        unbuilt()
    }

    /// `endpoint.accept_offer` (WebRTC); gives our answer.
    ///
    /// # Errors
    /// The endpoint is then as it was.
    pub fn accept_offer(
        &mut self,
        now: Moment,
        request: &RemoteOffer,
        out: &mut dyn Outbox,
    ) -> Result<String, RequestError> {
        let _ = (now, request, out);
        unbuilt()
    }

    /// `endpoint.update_direction`
    ///
    /// # Errors
    /// No such endpoint.
    pub fn update_direction(
        &mut self,
        now: Moment,
        request: &UpdateDirection,
    ) -> Result<(), RequestError> {
        let _ = (now, request);
        unbuilt()
    }

    /// `endpoint.remove`
    ///
    /// # Errors
    /// No such endpoint.
    pub fn remove_endpoint(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        out: &mut dyn Outbox,
    ) -> Result<Removed, RequestError> {
        let _ = (now, endpoint, out);
        unbuilt()
    }

    /// `endpoint.ice_restart`
    ///
    /// # Errors
    /// No such endpoint, or not WebRTC.
    pub fn ice_restart(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
    ) -> Result<IceRestarted, RequestError> {
        let _ = (now, endpoint);
        unbuilt()
    }

    /// `endpoint.srtp_rekey`; gives our offer.
    ///
    /// # Errors
    /// No such endpoint, or not SDES.
    pub fn srtp_rekey(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
    ) -> Result<String, RequestError> {
        let _ = (now, endpoint);
        unbuilt()
    }

    /// `endpoint.dtmf.inject`: queues the digit.
    ///
    /// # Errors
    /// No such endpoint, nothing negotiated to send it with, or a full queue.
    pub fn dtmf_inject(
        &mut self,
        now: Moment,
        request: &DtmfInject,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        let _ = (now, request, out);
        unbuilt()
    }

    /// `endpoint.dtmf.set_sensitive`
    ///
    /// # Errors
    /// No such endpoint.
    pub fn dtmf_set_sensitive(
        &mut self,
        now: Moment,
        request: &DtmfSetSensitive,
    ) -> Result<(), RequestError> {
        let _ = (now, request);
        unbuilt()
    }
}

/// Transfer: `detach` here, `insert` there, then `transferred_out` here; or `insert` here again with
/// `from` None when the other session would not have it.
impl Session {
    /// Takes the endpoint out, silently. Its recordings and its counting in limits stay until
    /// [`transferred_out`](Self::transferred_out).
    ///
    /// # Errors
    /// No such endpoint, or of a kind that cannot move.
    pub fn detach(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
    ) -> Result<Box<DetachedEndpoint>, RequestError> {
        let _ = (now, endpoint);
        unbuilt()
    }

    /// Takes the endpoint in and, when `from` names the session it left, says so in an event.
    ///
    /// # Errors
    /// The session is full or knows the id; the endpoint comes back unharmed.
    pub fn insert(
        &mut self,
        now: Moment,
        endpoint: Box<DetachedEndpoint>,
        from: Option<SessionId>,
        out: &mut dyn Outbox,
    ) -> Result<EndpointKey, (Box<DetachedEndpoint>, RequestError)> {
        let _ = (now, from, out);
        Err((endpoint, RequestError::Internal("not built".into())))
    }

    /// The endpoint that was detached is in its new session: the event, and the single-leg
    /// recordings that end with it.
    pub fn transferred_out(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        target: SessionId,
        out: &mut dyn Outbox,
    ) -> Vec<EndedRecording> {
        let _ = (now, endpoint, target, out);
        Vec::new()
    }
}

/// Recordings: the session decides what goes into which; the files are the shell's.
impl Session {
    /// First step of `recording.start`: whether it may be. Changes nothing.
    ///
    /// # Errors
    /// Unknown endpoint, too many recordings, an id in use.
    pub fn check_recording(&self, request: &RecordingStart) -> Result<(), RequestError> {
        let _ = request;
        unbuilt()
    }

    /// Second step, when the file exists: packets go to `key` from now on.
    ///
    /// # Errors
    /// As the first step.
    pub fn start_recording(
        &mut self,
        now: Moment,
        request: &RecordingStart,
        key: RecordingKey,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        let _ = (now, request, key, out);
        unbuilt()
    }

    /// First step of `recording.stop` (and of a write error): no more packets go to it. It stays
    /// listed until [`recording_stopped`](Self::recording_stopped).
    ///
    /// # Errors
    /// No such recording, or it is stopping already.
    pub fn stop_recording(
        &mut self,
        now: Moment,
        recording: RecordingId,
    ) -> Result<RecordingKey, RequestError> {
        let _ = (now, recording);
        unbuilt()
    }

    /// Last step of every stop: the file is closed. Gives the event unless the reason is
    /// `Requested`, and forgets the recording.
    pub fn recording_stopped(&mut self, summary: RecordingSummary, out: &mut dyn Outbox) {
        let _ = (summary, out);
    }
}

/// Statistics.
impl Session {
    /// `stats.subscribe`
    ///
    /// # Errors
    /// An interval out of bounds.
    pub fn stats_subscribe(
        &mut self,
        now: Moment,
        request: &StatsSubscribe,
    ) -> Result<(), RequestError> {
        let _ = (now, request);
        unbuilt()
    }

    /// `stats.unsubscribe`
    pub fn stats_unsubscribe(&mut self, now: Moment) {
        let _ = now;
    }

    /// One row per endpoint, in order of creation.
    pub fn stats_rows(&self, now: Instant) -> Vec<StatsRow> {
        let _ = now;
        Vec::new()
    }
}
