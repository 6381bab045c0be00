//! Recordings on the wire between the processes.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, RecordingId, SessionId};
use crate::vocab::StopReason;

/// `recording.start`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RecordingStart {
    /// The session.
    pub session: SessionId,
    /// Chosen by control.
    pub recording: RecordingId,
    /// One leg, or none for all.
    pub endpoint: Option<EndpointId>,
    /// Absolute, as the client gave it; the dataplane resolves it beneath `recording_dir`.
    pub file_path: String,
    /// Also what is sent to each endpoint.
    pub record_outbound: bool,
}

/// How a recording ended; what `recording.stop` answers and `recording.stopped` carries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecordingSummary {
    /// The recording.
    pub recording: RecordingId,
    /// Absolute path.
    pub file_path: String,
    /// From start to stop.
    pub duration_ms: u64,
    /// Records written.
    pub packets: u64,
    /// Lost to the queue or to a write error.
    pub dropped_packets: u64,
    /// Why it ended.
    pub reason: StopReason,
    /// Whether the file was flushed and closed in time.
    pub flushed: bool,
    /// One row per RTP stream seen, and one with 0 packets for a leg that sent nothing.
    pub streams: Vec<RecordedStream>,
}

/// One RTP stream of a recording.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecordedStream {
    /// The leg.
    pub endpoint: EndpointId,
    /// 0 for a leg that sent nothing.
    pub ssrc: u32,
    /// Received from the leg, or sent to it.
    pub direction: StreamDirection,
    /// Payload types seen, with the names negotiated for them.
    pub payload_types: Vec<(u8, String)>,
    /// RTP packets written.
    pub packets: u64,
    /// RTP packets lost to the queue or a write error.
    pub dropped: u64,
    /// Sequence numbers missing.
    pub gaps: u64,
    /// First packet, from the recording's start.
    pub first_ms: u64,
    /// Last packet, from the recording's start.
    pub last_ms: u64,
}

/// Which way a recorded stream went, seen from the bridge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum StreamDirection {
    /// From the party.
    #[serde(rename = "inbound")]
    Inbound,
    /// To the party.
    #[serde(rename = "outbound")]
    Outbound,
}
