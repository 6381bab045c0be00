//! Telephone-events on the wire between the processes.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, SessionId};
use crate::vocab::Digit;

/// `endpoint.dtmf.inject`; answered when queued.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DtmfInject {
    /// The session.
    pub session: SessionId,
    /// The endpoint whose party hears the digit.
    pub endpoint: EndpointId,
    /// The digit.
    pub digit: Digit,
    /// 1 to 10000.
    pub duration_ms: u32,
    /// 0 to 63, dBm0 negated (RFC 4733 section 2.3.3).
    pub volume: u8,
}

/// `endpoint.dtmf.set_sensitive`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DtmfSetSensitive {
    /// The session.
    pub session: SessionId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// While true its digits stay out of recordings and logs.
    pub enabled: bool,
}
