//! Sessions on the wire between the processes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::event::NumberedEvent;
use super::playback::FetchOrder;
use crate::id::{EndpointId, RecordingId, SessionId};
use crate::vocab::{Codec, Direction, EndpointState, EndpointType};

/// A new session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionCreate {
    /// Chosen by control.
    pub session: SessionId,
    /// Milliseconds since the Unix epoch, reported back in details and snapshots.
    pub created_at_ms: u64,
}

/// What a client that attaches must be told first.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// Unacknowledged critical events, oldest first, at most the configured number.
    pub held: Vec<NumberedEvent>,
    /// Events since the last acknowledged one that are not in `held`.
    pub dropped: u64,
    /// Number of the session's newest event; events with a lower or equal number that are still on
    /// the socket are already accounted for here.
    pub last_event_number: u64,
}

/// Everything `session.info` shows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionDetails {
    /// The session.
    pub session: SessionId,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// In order of creation.
    pub endpoints: Vec<EndpointDetails>,
    /// In order of their start.
    pub recordings: Vec<RecordingDetails>,
    /// Endpoints with voice activity detection on.
    pub vad_active: Vec<EndpointId>,
}

/// One endpoint of `session.info`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EndpointDetails {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its kind.
    pub endpoint_type: EndpointType,
    /// The direction in force.
    pub direction: Direction,
    /// Its state.
    pub state: EndpointState,
    /// The sending codec, once negotiated.
    pub codec: Option<Codec>,
    /// Where we listen, as bound.
    pub local_rtp_addr: Option<SocketAddr>,
    /// Where we send.
    pub remote_rtp_addr: Option<SocketAddr>,
    /// Same for all endpoints that share one decode.
    pub shared_playback_id: Option<String>,
    /// The download this endpoint waits for; a new control starts it again.
    pub pending_fetch: Option<FetchOrder>,
    /// Name in `cache_dir` of the downloaded file this endpoint uses; it must not be evicted.
    pub cache_file: Option<String>,
}

/// One recording of `session.info`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RecordingDetails {
    /// The recording.
    pub recording: RecordingId,
    /// The one leg that is recorded, or none for all.
    pub endpoint: Option<EndpointId>,
    /// Absolute path.
    pub file_path: String,
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// Packets written so far.
    pub packets: u64,
}

/// A session inside a snapshot.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionSnapshot {
    /// As `session.info` would show it.
    pub details: SessionDetails,
    /// Number of the session's newest event.
    pub last_event_number: u64,
}

impl SessionSnapshot {
    /// Rows of each list in one part, so that a part fits a frame.
    pub const PART_ROWS: usize = 256;

    /// The session in parts that fit a frame: one, as a rule. Their lists continue each other.
    pub fn into_parts(mut self) -> Vec<Self> {
        let mut parts = Vec::new();
        loop {
            let rest = SessionDetails {
                endpoints: split_rows(&mut self.details.endpoints),
                recordings: split_rows(&mut self.details.recordings),
                vad_active: split_rows(&mut self.details.vad_active),
                ..self.details
            };
            let is_last = rest.endpoints.is_empty()
                && rest.recordings.is_empty()
                && rest.vad_active.is_empty();
            let last_event_number = self.last_event_number;
            parts.push(self);
            if is_last {
                return parts;
            }
            self = Self {
                details: rest,
                last_event_number,
            };
        }
    }

    /// Takes in the next part of the same session.
    pub fn extend(&mut self, part: Self) {
        self.details.endpoints.extend(part.details.endpoints);
        self.details.recordings.extend(part.details.recordings);
        self.details.vad_active.extend(part.details.vad_active);
    }
}

fn split_rows<T>(rows: &mut Vec<T>) -> Vec<T> {
    rows.split_off(rows.len().min(SessionSnapshot::PART_ROWS))
}

/// How much a session holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionCounts {
    /// The session.
    pub session: SessionId,
    /// Endpoints listed.
    pub endpoints: u32,
    /// Recordings running.
    pub recordings: u32,
}

/// Why a session ended by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SessionEndReason {
    /// `session_idle_timeout_secs`; `session.idle_timeout` came before.
    IdleTimeout,
    /// `empty_session_timeout_secs`; `session.empty_timeout` came before.
    EmptyTimeout,
    /// A bug ended this one session.
    InternalError,
    /// The dataplane stops.
    Shutdown,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(active: usize) -> SessionSnapshot {
        SessionSnapshot {
            details: SessionDetails {
                session: SessionId::random(),
                created_at_ms: 5,
                endpoints: Vec::new(),
                recordings: Vec::new(),
                vad_active: (0..active).map(|_| EndpointId::random()).collect(),
            },
            last_event_number: 7,
        }
    }

    #[test]
    fn a_session_is_told_in_parts_that_make_it_up_again() {
        let rows = SessionSnapshot::PART_ROWS;
        for (active, expected) in [(0, 1), (1, 1), (rows, 1), (rows + 1, 2), (3 * rows, 3)] {
            let whole = snapshot(active);
            let parts = whole.clone().into_parts();
            assert_eq!(parts.len(), expected, "{active} rows");
            let again = parts.into_iter().reduce(|mut begun, part| {
                begun.extend(part);
                begun
            });
            assert_eq!(again, Some(whole));
        }
    }
}
