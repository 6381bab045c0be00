//! Session descriptions (RFC 8866, offer/answer RFC 3264) for plain RTP, SDES-SRTP (RFC 4568) and
//! WebRTC (RFC 8829), reduced to the one audio stream of an endpoint.
//!
//! [`parse`] → [`RemoteDescription::from_offer`] → [`plan_answer`] → [`LocalDescription::write`], or
//! [`plan_offer`] → `write` … [`parse`] → [`accept_answer`]. Both ways end in an [`Agreement`].
//!
//! Everything here is a pure function over its arguments: session ids, ports, keys and ICE
//! credentials are made by the caller. Nothing panics on hostile text, and nothing takes more than
//! linear time: each level's attributes are walked once, payload types index a table of 128.

mod agreement;
mod answer;
mod codecs;
mod crypto;
mod error;
mod level;
mod local;
mod model;
mod offer;
mod parse;
mod remote;
mod stream;
mod webrtc;
mod write;

#[cfg(test)]
mod tests;

pub use agreement::{AgreedCodec, AgreedSecurity, AgreedTelephoneEvent, Agreement};
pub use answer::{AnswerSecurity, AnswerSettings, answer_again, plan_answer};
pub use codecs::{CodecFormat, Formats, OpusParameters, TelephoneEventFormat, packet_time_ms};
pub use crypto::{CryptoLine, SdesKey};
pub use error::SdpError;
pub use local::{LocalDescription, LocalSecurity, LocalWebrtc, Origin};
pub use model::{Attribute, Connection, Media, OriginLine, SessionDescription};
pub use offer::{OfferSecurity, OfferSettings, Reoffer, accept_answer, plan_offer, reoffer};
pub use parse::parse;
pub use remote::{Layout, RejectedMedia, RemoteDescription, RemoteSecurity, RemoteWebrtc};
pub use stream::{AddressFamily, Profile, RemoteAddress};
pub use webrtc::{
    DtlsRole, Extension, ExtensionKind, Fingerprint, FingerprintHash, IceCredentials, MediaSource,
    Setup, WebrtcSettings,
};
