//! Per-endpoint statistics; the rows are also what clients see.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, SessionId};
use crate::vocab::EndpointState;

/// `stats.subscribe`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatsSubscribe {
    /// The session.
    pub session: SessionId,
    /// 500 to 3600000.
    pub interval_ms: u32,
}

/// One endpoint's row.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatsRow {
    /// The endpoint.
    pub endpoint_id: EndpointId,
    /// From the party.
    pub inbound: InboundStats,
    /// To the party.
    pub outbound: OutboundStats,
    /// Round-trip time from RTCP (RFC 3550 section 6.4.1), once known.
    pub rtt_ms: Option<f64>,
    /// The sending codec's name, "" until negotiated.
    pub codec: String,
    /// The endpoint's state.
    pub state: EndpointState,
}

/// What came from the party.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct InboundStats {
    /// RTP packets.
    pub packets: u64,
    /// RTP payload bytes.
    pub bytes: u64,
    /// As RFC 3550 appendix A.3 computes it; negative with duplicates.
    pub packets_lost: i64,
    /// As RFC 3550 appendix A.8 computes it, in ms of the codec's clock.
    pub jitter_ms: f64,
    /// 0 when nothing came.
    pub last_received_ms_ago: u64,
}

/// What went to the party.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct OutboundStats {
    /// RTP packets.
    pub packets: u64,
    /// RTP payload bytes.
    pub bytes: u64,
}
