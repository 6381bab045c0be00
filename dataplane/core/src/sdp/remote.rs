//! A peer's description, reduced to what the one audio stream of an endpoint needs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rtpbridge_shared::vocab::{Direction, SrtpSuite, Transport};

use super::codecs::{Formats, ListedFormats, OpusParameters};
use super::crypto::CryptoLine;
use super::error::SdpError;
use super::level::{Level, RtcpLine, mid_of};
use super::model::{Connection, Media, SessionDescription};
use super::stream::{AddressFamily, Profile, RemoteAddress};
use super::webrtc::{Extension, Fingerprint, IceCredentials, Setup};

/// The audio stream that a peer describes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteDescription {
    /// Profile of the m-line.
    pub profile: Profile,
    /// Family of the c= line, which our side must use as well. It binds nobody with WebRTC, where it
    /// may say nothing (then: IPv4).
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
    /// Its `rtpmap` and `fmtp` lines after `a=`.
    pub format_lines: Vec<String>,
}

impl RemoteDescription {
    /// The first usable audio stream of an offer.
    ///
    /// # Errors
    /// What was wrong with the first audio stream when none is usable; [`SdpError::NoAudio`] when
    /// there is none at all.
    pub fn from_offer(sdp: &SessionDescription<'_>) -> Result<Self, SdpError> {
        let session = Level::read(&sdp.attributes);
        let mut first_error = None;
        for (index, media) in sdp.media.iter().enumerate() {
            if !is_audio(media) {
                continue;
            }
            match read_stream(sdp, &session, media, Side::Offer) {
                Ok(mut remote) => {
                    remote.layout = read_layout(sdp, index);
                    return Ok(remote);
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or(SdpError::NoAudio))
    }

    /// The stream of an answer at our m-line `index`, or its first audio stream where that is none.
    ///
    /// # Errors
    /// [`SdpError::Refused`] for port 0, otherwise whatever makes it unusable.
    pub fn from_answer(sdp: &SessionDescription<'_>, index: usize) -> Result<Self, SdpError> {
        let session = Level::read(&sdp.attributes);
        let ours = sdp.media.get(index).filter(|media| is_audio(media));
        let media = ours
            .or_else(|| sdp.media.iter().find(|media| is_audio(media)))
            .ok_or(SdpError::NoAudio)?;
        read_stream(sdp, &session, media, Side::Answer)
    }

    /// Plain RTP (SDES included) or WebRTC.
    pub const fn transport(&self) -> Transport {
        match self.security {
            RemoteSecurity::Webrtc(_) => Transport::Webrtc,
            RemoteSecurity::Plain | RemoteSecurity::Sdes(_) => Transport::Rtp,
        }
    }

    /// An address to send to must be of our own family; one on hold need not.
    pub(super) fn check_family(&self, ours: SocketAddr) -> Result<(), SdpError> {
        match self.address {
            Some(_) if self.family != AddressFamily::of(ours.ip()) => Err(SdpError::WrongFamily),
            Some(_) | None => Ok(()),
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

/// Whose turn it is; what may be missing differs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Offer,
    Answer,
}

fn is_audio(media: &Media<'_>) -> bool {
    media.kind.eq_ignore_ascii_case("audio")
}

/// Everything but the layout.
fn read_stream(
    sdp: &SessionDescription<'_>,
    session: &Level<'_>,
    media: &Media<'_>,
    side: Side,
) -> Result<RemoteDescription, SdpError> {
    let profile = Profile::from_text(media.proto).ok_or(SdpError::NoAudio)?;
    let mut level = Level::read(&media.attributes);
    let is_webrtc = profile.is_dtls() || level.has_fingerprint || session.has_fingerprint;
    if media.port == 0 {
        match side {
            Side::Answer => return Err(SdpError::Refused),
            // Its port is that of the group (RFC 8843 section 6).
            Side::Offer if is_webrtc && level.bundle_only => {}
            Side::Offer => return Err(SdpError::PortZero),
        }
    }
    let security = if is_webrtc {
        RemoteSecurity::Webrtc(read_webrtc(session, &level, side)?)
    } else if !level.crypto.is_empty() {
        RemoteSecurity::Sdes(std::mem::take(&mut level.crypto))
    } else if profile.is_secure() {
        return Err(SdpError::NoUsableCrypto);
    } else {
        RemoteSecurity::Plain
    };
    let rtcp_mux = level.rtcp_mux || session.rtcp_mux;
    let connection = media.connection.or(sdp.connection);
    let (family, address) = if is_webrtc {
        (webrtc_family(connection), None)
    } else {
        let ip = read_address(connection)?;
        let address = (!ip.is_unspecified()).then(|| {
            let rtp = SocketAddr::new(ip, media.port);
            let rtcp = rtcp_address(rtp, rtcp_mux, level.rtcp);
            RemoteAddress { rtp, rtcp }
        });
        (AddressFamily::of(ip), address)
    };
    let said = level.direction.or(session.direction);
    let said = said.unwrap_or(Direction::Sendrecv);
    let on_hold = !is_webrtc && address.is_none();
    let allowed = Direction::from_halves(true, !on_hold);
    let listed = ListedFormats::read(media);
    Ok(RemoteDescription {
        profile,
        family,
        address,
        direction: said.restricted_by(allowed),
        formats: listed.formats,
        opus: listed.opus,
        payload_types: listed.payload_types,
        ptime_ms: level.ptime_ms.or(session.ptime_ms),
        maxptime_ms: level.maxptime_ms.or(session.maxptime_ms),
        rtcp_mux,
        rtcp_rsize: level.rtcp_rsize || session.rtcp_rsize,
        mid: level.mid.map(str::to_owned),
        security,
        layout: Layout::default(),
    })
}

fn read_webrtc(
    session: &Level<'_>,
    level: &Level<'_>,
    side: Side,
) -> Result<RemoteWebrtc, SdpError> {
    if session.ice_lite || level.ice_lite {
        return Err(SdpError::IceLitePeer);
    }
    let keyed = if level.has_fingerprint {
        level
    } else {
        session
    };
    if keyed.fingerprints.is_empty() {
        return Err(SdpError::NoFingerprint);
    }
    let ufrag = level.ice_ufrag.or(session.ice_ufrag);
    let password = level.ice_pwd.or(session.ice_pwd);
    let ice = ufrag
        .zip(password)
        .and_then(|(ufrag, password)| IceCredentials::new(ufrag, password))
        .ok_or(SdpError::NoIceCredentials)?;
    // An offer without a=setup leaves the choice to us; an answer without it is active, the
    // default of RFC 4145 section 4.
    let default_setup = match side {
        Side::Offer => Setup::ActPass,
        Side::Answer => Setup::Active,
    };
    let extensions = if level.extensions.is_empty() {
        session
    } else {
        level
    };
    Ok(RemoteWebrtc {
        ice,
        fingerprints: keyed.fingerprints.clone(),
        setup: level.setup.or(session.setup).unwrap_or(default_setup),
        extensions: extensions.extensions.clone(),
        bundled: level.mid.is_some_and(|mid| session.bundles(mid)),
    })
}

/// The address to send to; unspecified means hold.
fn read_address(connection: Option<Connection<'_>>) -> Result<IpAddr, SdpError> {
    let text = connection.ok_or(SdpError::NoAddress)?.address;
    let ip = text.parse::<IpAddr>().map_err(|_| SdpError::NotAnAddress)?;
    let ip = ip.to_canonical();
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(SdpError::Multicast);
    }
    Ok(ip)
}

/// The c= line of WebRTC says nothing but, where it is an address, the family.
fn webrtc_family(connection: Option<Connection<'_>>) -> AddressFamily {
    let ip = connection.and_then(|connection| connection.address.parse::<IpAddr>().ok());
    ip.map_or(AddressFamily::V4, |ip| AddressFamily::of(ip.to_canonical()))
}

fn rtcp_address(rtp: SocketAddr, mux: bool, line: Option<RtcpLine>) -> Option<SocketAddr> {
    if mux {
        return Some(rtp);
    }
    let Some(line) = line else {
        let port = rtp.port().checked_add(1)?;
        return Some(SocketAddr::new(rtp.ip(), port));
    };
    let usable =
        |ip: &IpAddr| ip.is_ipv4() == rtp.is_ipv4() && !ip.is_multicast() && !ip.is_unspecified();
    let ip = line.address.map(|ip| ip.to_canonical()).filter(usable);
    Some(SocketAddr::new(ip.unwrap_or(rtp.ip()), line.port))
}

fn read_layout(sdp: &SessionDescription<'_>, index: usize) -> Layout {
    let others = sdp.media.iter().enumerate();
    let others = others.filter(|(at, _)| *at != index).map(|(_, media)| {
        let formats = media.formats.iter().map(|format| (*format).to_owned());
        RejectedMedia {
            kind: media.kind.to_owned(),
            proto: media.proto.to_owned(),
            formats: formats.collect(),
            mid: mid_of(&media.attributes).map(str::to_owned),
            format_lines: format_lines(media),
        }
    });
    Layout {
        index,
        others: others.collect(),
    }
}

/// What says what the formats of an m-line are, as far as it is fit to be repeated.
fn format_lines(media: &Media<'_>) -> Vec<String> {
    let fit = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let lines = media.attributes.iter();
    lines
        .filter(|line| matches!(line.name, "rtpmap" | "fmtp") && fit(line.value))
        .map(|line| format!("{}:{}", line.name, line.value))
        .collect()
}
