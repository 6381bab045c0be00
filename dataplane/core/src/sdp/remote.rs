//! A peer's description, reduced to what the one audio stream of an endpoint needs.

use rtpbridge_shared::vocab::{Direction, SrtpSuite, Transport};

use super::codecs::{Formats, OpusParameters};
use super::crypto::CryptoLine;
use super::error::SdpError;
use super::model::SessionDescription;
use super::stream::{AddressFamily, Profile, RemoteAddress};
use super::webrtc::{Extension, Fingerprint, IceCredentials, Setup};

/// The audio stream that a peer describes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteDescription {
    /// Profile of the m-line.
    pub profile: Profile,
    /// Family of the c= line (WebRTC: IPv4 where it says nothing). Our side must use the same.
    pub family: AddressFamily,
    /// Where to send. None: hold (0.0.0.0, RFC 3264 section 8.4) or WebRTC, where ICE decides.
    pub address: Option<RemoteAddress>,
    /// Party's direction. An address on hold takes away receiving.
    pub direction: Direction,
    /// Known formats in the peer's order.
    pub formats: Formats,
    /// fmtp of Opus; the defaults when it has none.
    pub opus: OpusParameters,
    /// Bit n is set when the m-line lists payload type n, known or not.
    pub payload_types: u128,
    /// `a=ptime`, ms.
    pub ptime_ms: Option<u16>,
    /// `a=maxptime`, ms.
    pub maxptime_ms: Option<u16>,
    /// `a=rtcp-mux` (RFC 5761).
    pub rtcp_mux: bool,
    /// `a=rtcp-rsize` (RFC 5506).
    pub rtcp_rsize: bool,
    /// `a=mid` of the stream (RFC 5888).
    pub mid: Option<String>,
    /// Keying.
    pub security: RemoteSecurity,
    /// The streams around it.
    pub layout: Layout,
}

/// How the peer wants its packets protected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RemoteSecurity {
    /// Not at all.
    Plain,
    /// SDES. Usable lines in the peer's order, at least one; opportunistic when the profile is
    /// not secure (RFC 8643).
    Sdes(Vec<CryptoLine>),
    /// DTLS-SRTP over ICE.
    Webrtc(RemoteWebrtc),
}

/// The WebRTC half of a peer's description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteWebrtc {
    /// Its credentials; the password is not needed by a lite agent.
    pub ice: IceCredentials,
    /// One to eight; the certificate must match one of them (RFC 8122 section 5).
    pub fingerprints: Vec<Fingerprint>,
    /// Its DTLS role.
    pub setup: Setup,
    /// Header extensions that we know.
    pub extensions: Vec<Extension>,
    /// Our stream's mid is in an `a=group:BUNDLE`.
    pub bundled: bool,
}

/// Where our m-line stands among those of the description.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Layout {
    /// Index of our m-line.
    pub index: usize,
    /// All the others in order, to be mirrored with port 0 (RFC 3264 section 6).
    pub others: Vec<RejectedMedia>,
}

/// An m-line that is not ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RejectedMedia {
    /// `video` and so on.
    pub kind: String,
    /// Protocol as written.
    pub proto: String,
    /// Formats as written.
    pub formats: Vec<String>,
    /// `a=mid`.
    pub mid: Option<String>,
}

impl RemoteDescription {
    /// The first usable audio stream of an offer.
    ///
    /// # Errors
    /// What was wrong with the first audio stream when none is usable; [`SdpError::NoAudio`] when
    /// there is none at all.
    pub fn from_offer(sdp: &SessionDescription<'_>) -> Result<Self, SdpError> {
        let _ = sdp;
        Err(SdpError::NoAudio)
    }

    /// The stream of an answer at our m-line `index`. Port 0 is [`SdpError::Refused`].
    ///
    /// # Errors
    /// Whatever makes it unusable.
    pub fn from_answer(sdp: &SessionDescription<'_>, index: usize) -> Result<Self, SdpError> {
        let _ = (sdp, index);
        Err(SdpError::NoAudio)
    }

    /// Plain RTP (SDES included) or WebRTC.
    pub const fn transport(&self) -> Transport {
        match self.security {
            RemoteSecurity::Webrtc(_) => Transport::Webrtc,
            RemoteSecurity::Plain | RemoteSecurity::Sdes(_) => Transport::Rtp,
        }
    }

    /// The suite of the first usable crypto line: the one to answer.
    pub fn offered_suite(&self) -> Option<SrtpSuite> {
        match &self.security {
            RemoteSecurity::Sdes(lines) => lines.first().map(|line| line.key.suite()),
            RemoteSecurity::Plain | RemoteSecurity::Webrtc(_) => None,
        }
    }
}
