//! Why a description could not be used.

use thiserror::Error;

/// Every way in which a peer's description can be unusable. Texts never quote key material.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SdpError {
    /// The text does not begin with `v=`.
    #[error("not a session description: it must begin with v=")]
    NotSdp,
    /// A line that is not `<letter>=<value>`, or whose value cannot be read. Counted from 1.
    #[error("line {number} of the SDP is malformed")]
    Line {
        /// Which line, from 1, blank lines included.
        number: usize,
    },
    /// No audio stream with a transport that we know.
    #[error("the SDP has no audio stream with a known transport")]
    NoAudio,
    /// The audio stream of an offer has port 0.
    #[error("the audio stream of the offer has port 0")]
    PortZero,
    /// The peer answered with port 0: it refused the stream.
    #[error("the peer refused the audio stream (port 0 in its answer)")]
    Refused,
    /// Plain RTP without any c= line.
    #[error("the SDP has no connection address (c=)")]
    NoAddress,
    /// The c= line names a host (or something else that is no address).
    #[error("the connection address is not an IP address; host names are not resolved")]
    NotAnAddress,
    /// The c= line holds an address that one party alone cannot have.
    #[error("the connection address is a multicast or broadcast address")]
    Multicast,
    /// The peer's address is of another IP version than ours.
    #[error("the connection address is of another IP version than the endpoint's")]
    WrongFamily,
    /// RTP/SAVP(F) without a crypto line that we can use.
    #[error("the SDP requires SRTP but has no usable a=crypto line")]
    NoUsableCrypto,
    /// We required SRTP and the answer is plain RTP.
    #[error("SRTP was offered but the answer is plain RTP")]
    PlainAnswer,
    /// WebRTC without sha-256, sha-384 or sha-512 fingerprint.
    #[error("the SDP has no usable a=fingerprint (sha-256, sha-384 or sha-512)")]
    NoFingerprint,
    /// WebRTC without valid a=ice-ufrag and a=ice-pwd.
    #[error("the SDP has no usable a=ice-ufrag and a=ice-pwd")]
    NoIceCredentials,
    /// The WebRTC peer is ICE-lite like us: nobody would send checks.
    #[error("the peer is ice-lite, and so are we: nobody would check")]
    IceLitePeer,
    /// No codec in common (WebRTC offers, and every answer).
    #[error("the SDP has no audio codec in common with ours")]
    NoCommonCodec,
    /// WebRTC where plain RTP was needed, or the reverse.
    #[error("the SDP is for another transport than the endpoint's")]
    WrongTransport,
    /// The answer's DTLS roles cannot work together with ours.
    #[error("the DTLS role of the SDP (a=setup) does not fit ours")]
    WrongSetup,
    /// The caller's own settings do not fit the peer's description (a key of another suite).
    #[error("no key for the SRTP suite of the SDP")]
    NoKey,
}
