//! Our own description of an endpoint's stream, offer and answer alike.

use std::net::SocketAddr;

use rtpbridge_shared::vocab::{Direction, Transport};

use super::agreement::Agreement;
use super::codecs::Formats;
use super::crypto::CryptoLine;
use super::remote::Layout;
use super::stream::Profile;
use super::webrtc::{Extension, Fingerprint, IceCredentials, MediaSource, Setup};

/// Identity of an endpoint's description in its o= line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Random and constant for the endpoint's life.
    pub session_id: u64,
    /// Grows by one with each new description of the endpoint.
    pub version: u64,
}

impl Origin {
    /// The origin of the endpoint's next description.
    #[must_use]
    pub const fn next(self) -> Self {
        Self {
            session_id: self.session_id,
            version: self.version.wrapping_add(1),
        }
    }
}

/// What we say of a stream. The last one of an endpoint is kept: re-offers and later answers are
/// made from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalDescription {
    /// o= line.
    pub origin: Origin,
    /// Address and RTP port to be shown (advertised, not necessarily bound). RTCP is the next port.
    pub address: SocketAddr,
    /// Said from the party's side; written mirrored.
    pub direction: Direction,
    /// What we are ready to receive, preferred first, under our payload types.
    pub formats: Formats,
    /// `a=ptime`, ms; plain RTP only.
    pub packet_time_ms: u16,
    /// `a=rtcp-mux`.
    pub rtcp_mux: bool,
    /// `a=rtcp-rsize`.
    pub rtcp_rsize: bool,
    /// Profile of the m-line.
    pub profile: Profile,
    /// `a=mid`.
    pub mid: Option<String>,
    /// Keying.
    pub security: LocalSecurity,
    /// The rejected streams around ours.
    pub layout: Layout,
}

/// How our description is keyed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalSecurity {
    /// Not at all.
    Plain,
    /// SDES: one line per suite offered, or the one chosen.
    Sdes(Vec<CryptoLine>),
    /// DTLS-SRTP over ICE-lite.
    Webrtc(LocalWebrtc),
}

/// The WebRTC half of our description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalWebrtc {
    /// Our credentials.
    pub ice: IceCredentials,
    /// Of our certificate.
    pub fingerprint: Fingerprint,
    /// Our DTLS role as said in this description.
    pub setup: Setup,
    /// Host candidates, preferred first.
    pub candidates: Vec<SocketAddr>,
    /// Negotiated or offered header extensions.
    pub extensions: Vec<Extension>,
    /// The stream that we send.
    pub source: MediaSource,
    /// Write `a=group:BUNDLE <mid>`.
    pub bundled: bool,
}

impl LocalDescription {
    /// The formats for a further description of the stream: those agreed, which are fewer than an
    /// offer named, or what was written where nothing was in common.
    pub(super) fn formats_in_use(&self, agreement: &Agreement) -> Formats {
        let agreed = agreement.receive_formats();
        if agreed.codecs.is_empty() && agreed.telephone_events.is_empty() {
            self.formats.clone()
        } else {
            agreed
        }
    }

    /// Plain RTP (SDES included) or WebRTC.
    pub const fn transport(&self) -> Transport {
        match self.security {
            LocalSecurity::Webrtc(_) => Transport::Webrtc,
            LocalSecurity::Plain | LocalSecurity::Sdes(_) => Transport::Rtp,
        }
    }
}
