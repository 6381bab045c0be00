//! Our answers to a peer's offer (RFC 3264 section 6).

use std::net::SocketAddr;

use rtpbridge_shared::vocab::{Codec, Direction};

use super::agreement::Agreement;
use super::crypto::SdesKey;
use super::error::SdpError;
use super::local::{LocalDescription, Origin};
use super::remote::RemoteDescription;
use super::webrtc::{DtlsRole, WebrtcSettings};

/// What the caller decides of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnswerSettings {
    /// o= line.
    pub origin: Origin,
    /// Address and RTP port to show, of the offer's family.
    pub address: SocketAddr,
    /// The endpoint's own direction, which restricts the offer's.
    pub direction: Direction,
    /// Codecs that may be used; empty: all. The order is the offer's.
    pub codecs: Vec<Codec>,
    /// Keying.
    pub security: AnswerSecurity,
}

/// Keying of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnswerSecurity {
    /// For an offer without usable crypto lines.
    Plain,
    /// Our key, of the suite that [`RemoteDescription::offered_suite`] names.
    Sdes(SdesKey),
    /// For a WebRTC offer.
    Webrtc {
        /// Our half.
        settings: WebrtcSettings,
        /// Our role where an association exists already (a further offer): it stays.
        role: Option<DtlsRole>,
    },
}

/// The answer to a first offer, or to a further WebRTC one.
///
/// # Errors
/// [`SdpError::NoCommonCodec`] for WebRTC (plain RTP answers with telephone-event alone),
/// [`SdpError::WrongTransport`] and [`SdpError::NoKey`] when the settings do not fit the offer.
pub fn plan_answer(
    remote: &RemoteDescription,
    settings: AnswerSettings,
) -> Result<(LocalDescription, Agreement), SdpError> {
    let _ = (remote, settings);
    todo!()
}

/// The answer to a further offer of a plain RTP peer (hold, resume, moved address, new receiving
/// key): codecs, payload types and our key stay as they are, the version grows by one.
/// `direction` is the endpoint's own.
///
/// # Errors
/// [`SdpError::WrongTransport`] when either side is WebRTC, [`SdpError::NoUsableCrypto`] when SRTP is
/// in use and the offer has no line of the suite in use.
pub fn answer_again(
    current: &LocalDescription,
    agreement: &Agreement,
    remote: &RemoteDescription,
    direction: Direction,
) -> Result<(LocalDescription, Agreement), SdpError> {
    let _ = (current, agreement, remote, direction);
    todo!()
}
