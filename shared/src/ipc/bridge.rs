//! Joining two sessions.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, SessionId};
use crate::vocab::Direction;

/// `session.bridge`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BridgeCreate {
    /// The session that asks.
    pub session: SessionId,
    /// Its new bridge endpoint, chosen by control.
    pub endpoint: EndpointId,
    /// The other session.
    pub target_session: SessionId,
    /// Its new bridge endpoint, chosen by control.
    pub target_endpoint: EndpointId,
    /// Of `endpoint`; the far end has the mirrored one.
    pub direction: Direction,
}
