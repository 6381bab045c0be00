//! Every frame that crosses the socket, in both directions.

use serde::{Deserialize, Serialize};

use super::bridge::BridgeCreate;
use super::dtmf::{DtmfInject, DtmfSetSensitive};
use super::endpoint::{
    AcceptAnswer, CreateFromOffer, CreateOffer, IceRestarted, RemoteOffer, Transfer,
    UpdateDirection,
};
use super::error::RequestError;
use super::event::NumberedEvent;
use super::hello::{Hello, Refusal};
use super::playback::{FileCreate, FileFetched, FileSeek, ToneCreate};
use super::process::{MetricsReport, StatusReport};
use super::recording::{RecordingStart, RecordingSummary};
use super::session::{
    Attached, SessionCounts, SessionCreate, SessionDetails, SessionEndReason, SessionSnapshot,
};
use super::stats::{StatsRow, StatsSubscribe};
use super::vad::VadStart;
use crate::id::{EndpointId, InstanceId, RecordingId, SessionId};

/// Frames from control (or an observer) to the dataplane.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ToDataplane {
    /// The first frame of a connection.
    Hello(Hello),
    /// A request; answered by exactly one [`ToControl::Answer`] with the same number, in any order.
    Request {
        /// Chosen by the sender, unique among its unanswered requests.
        number: u64,
        /// What is asked.
        request: Request,
    },
    /// Every event of the session up to and including this number was written to a client's
    /// WebSocket, or was counted to the client as dropped.
    Acknowledge {
        /// The session whose events these are.
        session: SessionId,
        /// The newest event number that is accounted for.
        event_number: u64,
    },
    /// Sent every second.
    Heartbeat,
}

/// Frames from the dataplane to control (or an observer).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ToControl {
    /// The answer to a hello that was accepted.
    Hello(Hello),
    /// The answer to a hello that was not; the connection closes after it.
    Refused(Refusal),
    /// The answer to the request with this number.
    Answer {
        /// The request's number.
        number: u64,
        /// What came of it.
        result: Result<Reply, RequestError>,
    },
    /// Something happened in a session that a client holds. Never sent for a session whose events
    /// are being held (nobody attached).
    Event {
        /// The session it happened in.
        session: SessionId,
        /// The event with its number.
        event: NumberedEvent,
    },
    /// How many endpoints and recordings a session has, whenever that changed; it comes before the
    /// answer or event that reports the change.
    Counts(SessionCounts),
    /// The session ended without a `SessionDestroy` of this connection; its last events came before.
    SessionEnded {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: SessionEndReason,
    },
    /// First frame of the snapshot asked for by the request with this number.
    SnapshotBegin {
        /// The request's number.
        number: u64,
    },
    /// One session of a snapshot; one with very many endpoints comes in several of these, each with
    /// the next stretch of its lists. Events at or below its stamp are already contained in it.
    SnapshotPart {
        /// The request's number.
        number: u64,
        /// The session, and the number of its last event.
        session: SessionSnapshot,
    },
    /// Last frame of a snapshot.
    SnapshotEnd {
        /// The request's number.
        number: u64,
    },
    /// The dataplane was told to stop and waits for its sessions to end.
    Draining,
    /// Another controller took over; the connection closes after this.
    Displaced {
        /// Instance id of the new controller.
        by: InstanceId,
    },
    /// Sent every second.
    Heartbeat,
}

/// What control asks of the dataplane. Each is applied wholly or not at all.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Makes an empty session, attached to the client that asked. → `Done`
    SessionCreate(SessionCreate),
    /// Removes all endpoints and recordings, then the session. → `Recordings` (how each ended), sent
    /// when the files are closed
    SessionDestroy { session: SessionId },
    /// A client holds the session from now on: events flow. → `Attached`
    SessionAttach { session: SessionId },
    /// No client holds the session: critical events are held, others counted. → `Done`
    SessionRelease { session: SessionId },
    /// → `Session`
    SessionInfo { session: SessionId },
    /// All sessions, as `SnapshotBegin`, `SnapshotPart`…, `SnapshotEnd`. → `Done`, after the end
    Snapshot,

    /// → `Sdp`
    EndpointCreateFromOffer(CreateFromOffer),
    /// → `Sdp`
    EndpointCreateOffer(CreateOffer),
    /// → `Done`
    EndpointAcceptAnswer(AcceptAnswer),
    /// A new offer for a plain RTP endpoint. → `Sdp`
    EndpointReinvite(RemoteOffer),
    /// A new offer for a WebRTC endpoint. → `Sdp`
    EndpointAcceptOffer(RemoteOffer),
    /// → `Done`
    EndpointUpdateDirection(UpdateDirection),
    /// → `Recordings`: the single-leg recordings that it ended
    EndpointRemove {
        session: SessionId,
        endpoint: EndpointId,
    },
    /// → `IceRestarted`
    EndpointIceRestart {
        session: SessionId,
        endpoint: EndpointId,
    },
    /// → `Sdp`
    EndpointSrtpRekey {
        session: SessionId,
        endpoint: EndpointId,
    },
    /// → `Done`
    EndpointTransfer(Transfer),

    /// → `Done`
    DtmfInject(DtmfInject),
    /// → `Done`
    DtmfSetSensitive(DtmfSetSensitive),

    /// → `Done`
    FileCreate(FileCreate),
    /// The download that a `FileCreate` waits for has ended. → `Done`
    FileFetched(FileFetched),
    /// → `Done`
    FileSeek(FileSeek),
    /// → `Done`
    FilePause {
        session: SessionId,
        endpoint: EndpointId,
    },
    /// → `Done`
    FileResume {
        session: SessionId,
        endpoint: EndpointId,
    },
    /// → `Done`
    ToneCreate(ToneCreate),

    /// → `Done`, when the file exists
    RecordingStart(RecordingStart),
    /// → `Recordings` with one row, when the file is closed
    RecordingStop {
        session: SessionId,
        recording: RecordingId,
    },

    /// → `Done`
    VadStart(VadStart),
    /// → `Done`
    VadStop {
        session: SessionId,
        endpoint: EndpointId,
    },

    /// → `Done`
    StatsSubscribe(StatsSubscribe),
    /// → `Done`
    StatsUnsubscribe { session: SessionId },
    /// → `Stats`
    StatsSnapshot { session: SessionId },

    /// Joins two sessions; one message, so that a crash leaves both ends or none. → `Done`
    BridgeCreate(BridgeCreate),

    /// → `Metrics`
    Metrics,
    /// → `Status`
    Status,
    /// → `Done`
    SetLogLevel { level: String },
}

/// What a request that succeeded brings.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing to say beyond success.
    Done,
    /// A session description of ours, offer or answer.
    Sdp(String),
    /// See [`Request::SessionAttach`].
    Attached(Attached),
    /// See [`Request::SessionInfo`].
    Session(SessionDetails),
    /// Recordings that the request ended, each already flushed and closed.
    Recordings(Vec<RecordingSummary>),
    /// See [`Request::EndpointIceRestart`].
    IceRestarted(IceRestarted),
    /// One row per endpoint.
    Stats(Vec<StatsRow>),
    /// See [`Request::Metrics`].
    Metrics(Box<MetricsReport>),
    /// See [`Request::Status`].
    Status(Box<StatusReport>),
}
