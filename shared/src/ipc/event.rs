//! What happens in a session without being asked for. Towards clients, `control/src/event` gives
//! each its name and JSON form.

use serde::{Deserialize, Serialize};

use super::recording::RecordingSummary;
use super::stats::StatsRow;
use crate::id::{EndpointId, SessionId};
use crate::vocab::{Digit, Direction, EndpointState, EndpointType, FinishReason, IceState};

/// An event with its place in the session's order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NumberedEvent {
    /// Grows by one with every event of the session, critical or not; begins at 1. The client's
    /// `seq` of a critical event.
    pub number: u64,
    /// What happened.
    pub event: Event,
}

/// Everything a session can report by itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// `dtmf`
    Dtmf {
        endpoint: EndpointId,
        digit: Digit,
        duration_ms: u64,
        sensitive: bool,
    },
    /// `endpoint.state_changed`
    StateChanged {
        endpoint: EndpointId,
        old_state: EndpointState,
        new_state: EndpointState,
    },
    /// `endpoint.ice_state_changed`
    IceStateChanged {
        endpoint: EndpointId,
        ice_state: IceState,
    },
    /// `endpoint.file.finished`
    FileFinished {
        endpoint: EndpointId,
        reason: FinishReason,
        error: Option<String>,
    },
    /// `endpoint.tone.finished`
    ToneFinished { endpoint: EndpointId },
    /// `endpoint.media_timeout`
    MediaTimeout {
        endpoint: EndpointId,
        duration_ms: u64,
    },
    /// `endpoint.rtcp_bye`
    RtcpBye {
        endpoint: EndpointId,
        ssrc_list: Vec<u32>,
        reason: Option<String>,
    },
    /// `endpoint.transferred_out`
    TransferredOut {
        endpoint: EndpointId,
        target_session: SessionId,
    },
    /// `endpoint.transferred_in`
    TransferredIn {
        endpoint: EndpointId,
        source_session: SessionId,
        endpoint_type: EndpointType,
        direction: Direction,
        state: EndpointState,
    },
    /// `recording.stopped`
    RecordingStopped(RecordingSummary),
    /// `session.idle_timeout`
    IdleTimeout { idle_timeout_secs: u64 },
    /// `session.empty_timeout`
    EmptyTimeout { empty_timeout_secs: u64 },
    /// `stats`
    Stats(Vec<StatsRow>),
    /// `vad.speech_started`
    VadSpeechStarted { endpoint: EndpointId },
    /// `vad.silence`
    VadSilence {
        endpoint: EndpointId,
        silence_duration_ms: u64,
    },
    /// `vad.error`
    VadError { endpoint: EndpointId, error: String },
}

impl Event {
    /// Whether the event is held until a client has it (the events marked * in the protocol).
    pub const fn is_critical(&self) -> bool {
        match self {
            Event::StateChanged { .. }
            | Event::IceStateChanged { .. }
            | Event::FileFinished { .. }
            | Event::ToneFinished { .. }
            | Event::RecordingStopped(_)
            | Event::IdleTimeout { .. }
            | Event::EmptyTimeout { .. } => true,
            Event::Dtmf { .. }
            | Event::MediaTimeout { .. }
            | Event::RtcpBye { .. }
            | Event::TransferredOut { .. }
            | Event::TransferredIn { .. }
            | Event::Stats(_)
            | Event::VadSpeechStarted { .. }
            | Event::VadSilence { .. }
            | Event::VadError { .. } => false,
        }
    }
}
