//! Why a command did not do what was asked, and the exit code that says so.

use std::path::PathBuf;

/// Failure of a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum CtlError {
    /// Nobody answers.
    #[error("cannot reach {}: {reason}", .socket.display())]
    Unreachable {
        /// The socket that was tried last.
        socket: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The answer is no.
    #[error("{0}")]
    Failed(String),
    /// The command line is wrong in a way that only we can see.
    #[error("{0}")]
    Usage(String),
}

impl CtlError {
    /// 1 failed, 2 usage, 3 not reachable.
    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            CtlError::Failed(_) => 1,
            CtlError::Usage(_) => 2,
            CtlError::Unreachable { .. } => 3,
        }
    }
}
