//! Our answers to a peer's offer (RFC 3264 section 6).

use std::net::SocketAddr;

use rtpbridge_shared::vocab::{Codec, Direction, Transport};

use super::agreement::{AgreedCodec, AgreedSecurity, AgreedTelephoneEvent, Agreement};
use super::codecs::{Formats, RTP_ORDER, packet_time_ms};
use super::crypto::{CryptoLine, SdesKey};
use super::error::SdpError;
use super::local::{LocalDescription, LocalSecurity, LocalWebrtc, Origin};
use super::remote::{RemoteDescription, RemoteSecurity, RemoteWebrtc};
use super::webrtc::{DtlsRole, Extension, Setup, WebrtcSettings};

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
/// [`SdpError::WrongTransport`], [`SdpError::WrongFamily`] and [`SdpError::NoKey`] when the settings do not fit the offer.
pub fn plan_answer(
    remote: &RemoteDescription,
    settings: AnswerSettings,
) -> Result<(LocalDescription, Agreement), SdpError> {
    remote.check_family(settings.address)?;
    let codecs = match settings.codecs.as_slice() {
        [] => &RTP_ORDER,
        chosen => chosen,
    };
    let common = remote.formats.restricted_to(codecs);
    let is_webrtc = remote.transport() == Transport::Webrtc;
    if is_webrtc && common.codecs.is_empty() {
        return Err(SdpError::NoCommonCodec);
    }
    let (security, agreed_security) = answer_security(remote, settings.security)?;
    let direction = remote.direction.restricted_by(settings.direction);
    let agreement = Agreement {
        codecs: common.codecs.iter().map(AgreedCodec::same).collect(),
        telephone_events: common
            .telephone_events
            .iter()
            .map(AgreedTelephoneEvent::same)
            .collect(),
        opus: remote.opus,
        direction,
        address: remote.address,
        rtcp_mux: is_webrtc || remote.rtcp_mux,
        rtcp_rsize: remote.rtcp_rsize,
        packet_time_ms: packet_time_ms(remote.ptime_ms, remote.maxptime_ms),
        maxptime_ms: remote.maxptime_ms,
        security: agreed_security,
    };
    // An m-line needs a format, and an answer may name some that were not offered (RFC 3264 section
    // 6.1); nothing is agreed by that.
    let nothing_common = common.codecs.is_empty() && common.telephone_events.is_empty();
    let formats = if nothing_common {
        Formats::telephone_event_alone(remote.payload_types)
    } else {
        common
    };
    let local = LocalDescription {
        origin: settings.origin,
        address: settings.address,
        direction,
        formats,
        packet_time_ms: agreement.packet_time_ms,
        rtcp_mux: remote.rtcp_mux,
        rtcp_rsize: remote.rtcp_rsize,
        profile: remote.profile,
        mid: remote.mid.clone(),
        security,
        layout: remote.layout.clone(),
    };
    Ok((local, agreement))
}

fn answer_security(
    remote: &RemoteDescription,
    ours: AnswerSecurity,
) -> Result<(LocalSecurity, AgreedSecurity), SdpError> {
    match (&remote.security, ours) {
        (RemoteSecurity::Webrtc(theirs), AnswerSecurity::Webrtc { settings, role }) => {
            answer_webrtc(theirs, settings, role, remote.mid.clone())
        }
        (RemoteSecurity::Webrtc(_), _) | (_, AnswerSecurity::Webrtc { .. }) => {
            Err(SdpError::WrongTransport)
        }
        (RemoteSecurity::Sdes(lines), AnswerSecurity::Sdes(key)) => answer_sdes(lines, key),
        // A secure profile always has lines, so only an opportunistic offer falls back.
        (RemoteSecurity::Sdes(_), AnswerSecurity::Plain) if remote.profile.is_secure() => {
            Err(SdpError::NoKey)
        }
        (RemoteSecurity::Plain, _) | (_, AnswerSecurity::Plain) => {
            Ok((LocalSecurity::Plain, AgreedSecurity::Plain))
        }
    }
}

/// Answers the first of `lines` that is for the suite of our `key`, under its tag.
fn answer_sdes(
    lines: &[CryptoLine],
    key: SdesKey,
) -> Result<(LocalSecurity, AgreedSecurity), SdpError> {
    let chosen = lines.iter().find(|line| line.key.suite() == key.suite());
    let remote = chosen.ok_or(SdpError::NoKey)?.clone();
    let local = CryptoLine {
        tag: remote.tag,
        key,
        lifetime: None,
    };
    let written = LocalSecurity::Sdes(vec![local.clone()]);
    Ok((written, AgreedSecurity::Sdes { local, remote }))
}

fn answer_webrtc(
    theirs: &RemoteWebrtc,
    settings: WebrtcSettings,
    role: Option<DtlsRole>,
    mid: Option<String>,
) -> Result<(LocalSecurity, AgreedSecurity), SdpError> {
    let role = match (theirs.setup, role) {
        (Setup::Active, None | Some(DtlsRole::Passive))
        | (Setup::ActPass, Some(DtlsRole::Passive)) => DtlsRole::Passive,
        (Setup::ActPass | Setup::Passive, None | Some(DtlsRole::Active)) => DtlsRole::Active,
        (Setup::Active, Some(DtlsRole::Active)) | (Setup::Passive, Some(DtlsRole::Passive)) => {
            return Err(SdpError::WrongSetup);
        }
    };
    let spoken = |offered: &&Extension| settings.extensions.contains(&offered.kind);
    let extensions: Vec<_> = theirs.extensions.iter().filter(spoken).copied().collect();
    let local = LocalWebrtc {
        ice: settings.ice,
        fingerprint: settings.fingerprint,
        setup: role.as_setup(),
        candidates: settings.candidates,
        extensions: extensions.clone(),
        source: settings.source,
        bundled: theirs.bundled,
    };
    let agreed = AgreedSecurity::Dtls {
        role,
        remote: theirs.clone(),
        extensions,
        mid,
    };
    Ok((LocalSecurity::Webrtc(local), agreed))
}

/// The answer to a further offer of a plain RTP peer (hold, resume, moved address, new receiving
/// key): codecs, payload types and our key stay as they are, the version grows by one.
/// `direction` is the endpoint's own.
///
/// # Errors
/// [`SdpError::WrongTransport`] when either side is WebRTC, [`SdpError::WrongFamily`] when the peer
/// moved to another IP version, [`SdpError::NoUsableCrypto`] when SRTP is in use and the offer has no
/// line of the suite in use, [`SdpError::NoKey`] when only the offer insists on SRTP.
pub fn answer_again(
    current: &LocalDescription,
    agreement: &Agreement,
    remote: &RemoteDescription,
    direction: Direction,
) -> Result<(LocalDescription, Agreement), SdpError> {
    remote.check_family(current.address)?;
    let (security, agreed_security) = match (&agreement.security, &remote.security) {
        (_, RemoteSecurity::Webrtc(_)) | (AgreedSecurity::Dtls { .. }, _) => {
            return Err(SdpError::WrongTransport);
        }
        (AgreedSecurity::Sdes { local, .. }, RemoteSecurity::Sdes(lines)) => {
            let answered = answer_sdes(lines, local.key.clone());
            answered.map_err(|_| SdpError::NoUsableCrypto)?
        }
        // What was protected stays protected.
        (AgreedSecurity::Sdes { .. }, RemoteSecurity::Plain) => {
            return Err(SdpError::NoUsableCrypto);
        }
        (AgreedSecurity::Plain, _) if remote.profile.is_secure() => return Err(SdpError::NoKey),
        (AgreedSecurity::Plain, _) => (LocalSecurity::Plain, AgreedSecurity::Plain),
    };
    let direction = remote.direction.restricted_by(direction);
    let local = LocalDescription {
        origin: current.origin.next(),
        formats: current.formats_in_use(agreement),
        direction,
        rtcp_mux: remote.rtcp_mux,
        rtcp_rsize: remote.rtcp_rsize,
        profile: remote.profile,
        mid: remote.mid.clone(),
        security,
        layout: remote.layout.clone(),
        ..current.clone()
    };
    let agreement = Agreement {
        direction,
        address: remote.address,
        rtcp_mux: remote.rtcp_mux,
        rtcp_rsize: remote.rtcp_rsize,
        security: agreed_security,
        ..agreement.clone()
    };
    Ok((local, agreement))
}
