//! Voice activity detection on the wire between the processes.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, SessionId};

/// `vad.start`; replaces the settings when it already runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VadStart {
    /// The session.
    pub session: SessionId,
    /// The endpoint listened to.
    pub endpoint: EndpointId,
    /// 100 to 3600000.
    pub silence_interval_ms: u32,
    /// 0.0 to 1.0.
    pub speech_threshold: f64,
}
