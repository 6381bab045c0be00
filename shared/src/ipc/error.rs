//! Why a request failed. Control turns these into the client's codes in one place
//! (`control/src/api/ws/envelope.rs`); nobody matches on the texts.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::vocab::EndpointType;

/// Why the dataplane did not do what was asked. Nothing was changed, unless a variant says so.
#[derive(Clone, PartialEq, Eq, Debug, Error, Serialize, Deserialize)]
pub enum RequestError {
    /// The sender's role may not ask this.
    #[error("a {role} may not ask this")]
    NotPermitted { role: String },
    /// No such session.
    #[error("session not found")]
    SessionNotFound,
    /// The other session that the request names does not exist.
    #[error("target session not found")]
    TargetSessionNotFound,
    /// The session's commands come faster than it works them off.
    #[error("session is busy")]
    SessionBusy,
    /// The session ended before the request was carried out.
    #[error("session ended")]
    SessionGone,
    /// A session or endpoint with this id exists already.
    #[error("id is already in use")]
    IdInUse,
    /// No worker can take another session in time.
    #[error("every media worker is too late to take another session")]
    Overloaded,
    /// The process is stopping.
    #[error("the dataplane is stopping")]
    ShuttingDown,
    /// The session has no endpoint with this id.
    #[error("endpoint not found")]
    EndpointNotFound,
    /// `max_endpoints_per_session`
    #[error("MAX_ENDPOINTS_REACHED: a session holds at most {limit} endpoints")]
    TooManyEndpoints { limit: u32 },
    /// The other session is full.
    #[error("MAX_ENDPOINTS_REACHED: the target session holds at most {limit} endpoints")]
    TargetFull { limit: u32 },
    /// The operation does not exist for this kind of endpoint.
    #[error("not possible for a {actual} endpoint")]
    WrongEndpointType { actual: EndpointType },
    /// A parameter that only the dataplane can judge.
    #[error("{field}: {problem}")]
    InvalidParams { field: String, problem: String },
    /// Any other failure of an endpoint operation.
    #[error("{0}")]
    Endpoint(String),
    /// A transfer's insertion failed; the endpoint is back where it was.
    #[error("{0}")]
    TransferFailed(String),
    /// A recording operation failed.
    #[error("{0}")]
    Recording(String),
    /// A voice activity operation failed.
    #[error("{0}")]
    Vad(String),
    /// A statistics operation failed.
    #[error("{0}")]
    Stats(String),
    /// The session did not answer in time; the request may still take effect.
    #[error("the session did not answer in time")]
    Unresponsive,
    /// A bug on our side.
    #[error("internal error: {0}")]
    Internal(String),
}
