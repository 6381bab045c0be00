//! The JSON of the admin interface. `rtpbridgectl` reads these and prints them for people or passes
//! them on, so adding members is fine and renaming is not.

use rtpbridge_shared::config::LogLevel;
use rtpbridge_shared::id::{EndpointId, InstanceId, RecordingId, SessionId};
use rtpbridge_shared::ipc::process::StatusReport;
use rtpbridge_shared::vocab::SessionState;
use serde::{Deserialize, Serialize};

/// GET /status.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The control process; `None` when the dataplane was asked without it.
    pub control: Option<ControlStatus>,
    /// What the dataplane says about itself; `None` when it does not answer.
    pub dataplane: Option<StatusReport>,
    /// About how many more calls like the present ones the workers could carry; `None` while too
    /// little runs to tell.
    pub calls_that_fit: Option<u64>,
}

/// The control process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ControlStatus {
    /// Program version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// This run.
    pub instance: InstanceId,
    /// Seconds since start.
    pub uptime_secs: u64,
    /// Sessions in the mirror.
    pub sessions: u64,
    /// Of those, without a client.
    pub orphaned: u64,
    /// WebSocket connections.
    pub connections: u64,
    /// `max_sessions`, 0 for no limit.
    pub max_sessions: u64,
    /// New sessions are refused.
    pub draining: bool,
    /// The dataplane is connected.
    pub dataplane_connected: bool,
    /// One line per protection: name and what is in force.
    pub sandbox: Vec<(String, String)>,
}

impl StatusAnswer {
    /// Puts the two reports together and estimates the room that is left.
    pub fn new(control: Option<ControlStatus>, dataplane: Option<StatusReport>) -> Self {
        let room = dataplane.as_ref().and_then(calls_that_fit);
        let limit = control.as_ref().map_or(0, |control| control.max_sessions);
        let sessions = dataplane.as_ref().map_or(0, |dataplane| dataplane.sessions);
        let calls_that_fit = match limit {
            0 => room,
            limit => room.map(|room| room.min(limit.saturating_sub(sessions))),
        };
        Self {
            control,
            dataplane,
            calls_that_fit,
        }
    }
}

/// The present calls' share of the workers' time, carried on to a worker that is 80 % busy: above
/// that, latency grows faster than load.
fn calls_that_fit(dataplane: &StatusReport) -> Option<u64> {
    const FULL: f64 = 0.8;
    /// Below this, fixed costs hide what a call costs.
    const TELLING: f64 = 0.02;
    let busy: f64 = dataplane.workers.iter().map(|worker| worker.load).sum();
    let sessions: u64 = dataplane.workers.iter().map(|worker| worker.sessions).sum();
    let workers = dataplane.workers.len() as f64;
    if sessions == 0 || !busy.is_finite() || busy < TELLING {
        return None;
    }
    let per_session = busy / sessions as f64;
    // A float outside the target's range saturates.
    Some(((workers * FULL - busy).max(0.0) / per_session) as u64)
}

/// One row of GET /sessions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionRow {
    /// The session.
    pub session_id: SessionId,
    /// Whether a client holds it.
    pub state: SessionState,
    /// Its endpoints.
    pub endpoint_count: u64,
    /// RFC 3339, UTC.
    pub created_at: String,
}

/// One row of GET /recordings.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RecordingRow {
    /// The recording.
    pub recording_id: RecordingId,
    /// Its session.
    pub session_id: SessionId,
    /// The one leg that is recorded, or none for all.
    pub endpoint_id: Option<EndpointId>,
    /// Absolute path.
    pub file_path: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Packets written so far.
    pub packets: u64,
}

/// POST /drain and POST /undrain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrainAnswer {
    /// Whether new sessions are refused from now on.
    pub draining: bool,
    /// Sessions that exist.
    pub sessions: u64,
}

/// Whose log level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// Both processes.
    #[default]
    All,
    /// `rtpbridge-control`.
    Control,
    /// `rtpbridge-dataplane`.
    Dataplane,
}

/// PUT /log-level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogLevelOrder {
    /// The new level.
    pub level: LogLevel,
    /// Whose.
    #[serde(default)]
    pub process: LogTarget,
}

/// GET /health.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Health {
    /// Both processes serve.
    Ok,
    /// The dataplane is not connected.
    DataplaneUnavailable,
}

/// GET /version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VersionAnswer {
    /// Of the control process.
    pub version: String,
    /// Of the dataplane, when it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtpbridge_shared::ipc::process::WorkerReport;

    fn dataplane(loads: &[(f64, u64)]) -> StatusReport {
        let worker = |&(load, sessions): &(f64, u64)| WorkerReport {
            load,
            sessions,
            ..WorkerReport::default()
        };
        StatusReport {
            version: "1".to_owned(),
            pid: 1,
            instance: InstanceId::from_bytes([0; 16]),
            uptime_secs: 0,
            sessions: loads.iter().map(|(_, sessions)| sessions).sum(),
            endpoints: 0,
            recordings: 0,
            draining: false,
            controller_connected: true,
            sandbox: Vec::new(),
            workers: loads.iter().map(worker).collect(),
        }
    }

    #[test]
    fn room_is_extrapolated_from_the_present_calls() {
        let room = |loads: &[(f64, u64)]| StatusAnswer::new(None, Some(dataplane(loads)));
        assert_eq!(room(&[(0.4, 100)]).calls_that_fit, Some(100));
        assert_eq!(room(&[(0.4, 100), (0.0, 0)]).calls_that_fit, Some(300));
        assert_eq!(room(&[(0.95, 100)]).calls_that_fit, Some(0));
        assert_eq!(room(&[(0.0, 0)]).calls_that_fit, None);
        assert_eq!(room(&[(f64::NAN, 1)]).calls_that_fit, None);
        assert_eq!(StatusAnswer::new(None, None).calls_that_fit, None);
    }

    #[test]
    fn health_is_the_documented_json() {
        let text = |health: Health| serde_json::to_string(&health).expect("serialises");
        assert_eq!(text(Health::Ok), r#"{"status":"ok"}"#);
        let unavailable = r#"{"status":"dataplane_unavailable"}"#;
        assert_eq!(text(Health::DataplaneUnavailable), unavailable);
    }
}
