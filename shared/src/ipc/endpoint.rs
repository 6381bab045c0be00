//! Network endpoints on the wire between the processes.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, SessionId};
use crate::vocab::{Codec, Direction, Transport};

/// `endpoint.create_from_offer`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CreateFromOffer {
    /// The session it joins.
    pub session: SessionId,
    /// Chosen by control.
    pub endpoint: EndpointId,
    /// The peer's offer.
    pub sdp: String,
    /// Restricts what the offer allows.
    pub direction: Direction,
    /// The transport that the method's name promised, if it did.
    pub transport: Option<Transport>,
}

/// `endpoint.create_offer`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CreateOffer {
    /// The session it joins.
    pub session: SessionId,
    /// Chosen by control.
    pub endpoint: EndpointId,
    /// What to offer.
    pub transport: Transport,
    /// The party's direction.
    pub direction: Direction,
    /// Encryption of an RTP offer.
    pub srtp: SrtpOffer,
    /// Offered codecs in order; empty is the transport's default list.
    pub codecs: Vec<Codec>,
}

/// How an RTP offer speaks of SRTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SrtpOffer {
    /// RTP/AVP without a=crypto.
    Off,
    /// RTP/SAVP; a plain answer is refused.
    Required,
    /// RTP/AVP with a=crypto (RFC 8643).
    Optional,
}

/// `endpoint.accept_answer`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AcceptAnswer {
    /// The session.
    pub session: SessionId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The peer's answer.
    pub sdp: String,
    /// The ICE restart this answers, checked before the SDP is read.
    pub offer_generation: Option<u64>,
    /// The transport that the method's name promised, if it did.
    pub transport: Option<Transport>,
}

/// `endpoint.rtp.reinvite` and `endpoint.accept_offer`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RemoteOffer {
    /// The session.
    pub session: SessionId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The peer's new offer.
    pub sdp: String,
}

/// `endpoint.update_direction`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct UpdateDirection {
    /// The session.
    pub session: SessionId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The override; none is `auto`, back to the negotiated direction.
    pub direction: Option<Direction>,
}

/// Answer to an ICE restart.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IceRestarted {
    /// Our offer with the new ufrag and password.
    pub sdp_offer: String,
    /// What `endpoint.accept_answer` may name.
    pub offer_generation: u64,
}

/// `endpoint.transfer`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// Where the endpoint is.
    pub session: SessionId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Where it goes.
    pub target_session: SessionId,
}
