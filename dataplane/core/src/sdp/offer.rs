//! Our offers, and what the peer's answer to one settles (RFC 3264 sections 5 and 7).

use std::net::SocketAddr;

use rtpbridge_shared::vocab::{Codec, Direction};

use super::agreement::Agreement;
use super::crypto::{CryptoLine, SdesKey};
use super::error::SdpError;
use super::local::{LocalDescription, Origin};
use super::model::SessionDescription;
use super::webrtc::{IceCredentials, WebrtcSettings};

/// What the caller decides of an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfferSettings {
    /// o= line; a first offer has version 1 or any other start.
    pub origin: Origin,
    /// Address and RTP port to show.
    pub address: SocketAddr,
    /// Said from the party's side.
    pub direction: Direction,
    /// Which codecs in which order; empty: all, in the transport's default order.
    pub codecs: Vec<Codec>,
    /// Transport and keying.
    pub security: OfferSecurity,
}

/// Transport and keying of an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OfferSecurity {
    /// RTP/AVP.
    Plain,
    /// RTP/SAVP with these lines; a plain answer is refused.
    Required(Vec<CryptoLine>),
    /// RTP/AVP with these lines (RFC 8643); a plain answer is accepted.
    Optional(Vec<CryptoLine>),
    /// UDP/TLS/RTP/SAVPF, ICE-lite, actpass.
    Webrtc(WebrtcSettings),
}

/// What changes with a new offer for a negotiated stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reoffer {
    /// A new sending key, of the suite in use.
    Rekey(SdesKey),
    /// New ICE credentials.
    IceRestart(IceCredentials),
}

/// The first offer of an endpoint.
pub fn plan_offer(settings: OfferSettings) -> LocalDescription {
    let _ = settings;
    todo!()
}

/// A new offer for a stream already negotiated: codecs, payload types and m-lines stay as they are,
/// the version grows by one.
///
/// # Errors
/// [`SdpError::WrongTransport`] where the change does not fit the stream's keying, and
/// [`SdpError::NoKey`] when the key is for another suite.
pub fn reoffer(
    current: &LocalDescription,
    agreement: &Agreement,
    change: Reoffer,
) -> Result<LocalDescription, SdpError> {
    let _ = (current, agreement, change);
    todo!()
}

/// What `answer` settles for our `offer`.
///
/// # Errors
/// Whatever makes the answer unusable; nothing is changed then.
pub fn accept_answer(
    offer: &LocalDescription,
    answer: &SessionDescription<'_>,
) -> Result<Agreement, SdpError> {
    let _ = (offer, answer);
    todo!()
}
