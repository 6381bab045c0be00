//! The admin interface: HTTP on the admin Unix socket (0660), the only place for actions that go beyond
//! one's own session. It knows control only through [`AdminBackend`].
//!
//! | request | answer |
//! |---|---|
//! | GET /status | [`StatusAnswer`] |
//! | GET /sessions, GET /sessions/{id} | as on the control address |
//! | GET /sessions/{id}/stats | rows of `stats.snapshot` |
//! | DELETE /sessions/{id} | destroys it: `{}` |
//! | GET /recordings | running recordings, [`RecordingRow`] |
//! | POST /drain, POST /undrain | `{"draining": …, "sessions": …}` |
//! | POST /handover | 202; the process exits with code 75 |
//! | PUT /log-level | `{"level", "process"?}` → `{}` |
//! | GET /health | as on the control address |
//! | GET /version | `{"version", "dataplane"?}` |

mod report;
mod routes;

use std::future::Future;

use rtpbridge_shared::config::LogLevel;
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::stats::StatsRow;

pub use report::{
    ControlStatus, DrainAnswer, Health, LogLevelOrder, LogTarget, RecordingRow, SessionRow,
    StatusAnswer, VersionAnswer,
};
pub use routes::router;

/// Why an admin request failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdminError {
    /// No such session.
    #[error("session {0} not found")]
    SessionNotFound(SessionId),
    /// The dataplane is not connected.
    #[error("the dataplane is not connected")]
    DataplaneUnavailable,
    /// No answer in time.
    #[error("no answer within {0} s")]
    Unresponsive(u64),
    /// Anything else, in words for people.
    #[error("{0}")]
    Failed(String),
}

/// What the control process offers to the admin interface. Methods return within a few seconds, on
/// their own, whatever the dataplane does.
pub trait AdminBackend: Clone + Send + Sync + 'static {
    /// Both processes, as far as they can be seen.
    fn status(&self) -> impl Future<Output = StatusAnswer> + Send;
    /// All sessions, as GET /sessions on the control address.
    fn sessions(&self) -> impl Future<Output = Vec<SessionRow>> + Send;
    /// The answer of `session.info`, as GET /sessions/{id} on the control address.
    fn session(
        &self,
        id: SessionId,
    ) -> impl Future<Output = Result<serde_json::Value, AdminError>> + Send;
    /// The rows of `stats.snapshot`.
    fn stats(
        &self,
        id: SessionId,
    ) -> impl Future<Output = Result<Vec<StatsRow>, AdminError>> + Send;
    /// Destroys the session; its client is told.
    fn kick(&self, id: SessionId) -> impl Future<Output = Result<(), AdminError>> + Send;
    /// Recordings that are being written.
    fn recordings(&self) -> impl Future<Output = Result<Vec<RecordingRow>, AdminError>> + Send;
    /// Starts or ends refusing new sessions; unlike SIGTERM the process stays when all are gone.
    fn set_draining(&self, draining: bool) -> impl Future<Output = DrainAnswer> + Send;
    /// As SIGHUP: clients are closed with 1012, the process exits with code 75.
    fn hand_over(&self) -> impl Future<Output = ()> + Send;
    /// Changes the log level of one process or both.
    fn set_log_level(
        &self,
        target: LogTarget,
        level: LogLevel,
    ) -> impl Future<Output = Result<(), AdminError>> + Send;
    /// As GET /health on the control address.
    fn health(&self) -> impl Future<Output = Health> + Send;
}
