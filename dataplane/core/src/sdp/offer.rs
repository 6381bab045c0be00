//! Our offers, and what the peer's answer to one settles (RFC 3264 sections 5 and 7).

use std::net::SocketAddr;

use rtpbridge_shared::vocab::{Codec, Direction, Transport};

use super::agreement::{AgreedCodec, AgreedSecurity, AgreedTelephoneEvent, Agreement};
use super::codecs::{self, Formats};
use super::crypto::{CryptoLine, SdesKey};
use super::error::SdpError;
use super::local::{LocalDescription, LocalSecurity, LocalWebrtc, Origin};
use super::model::SessionDescription;
use super::remote::{Layout, RemoteDescription, RemoteSecurity};
use super::stream::Profile;
use super::webrtc::{DtlsRole, Extension, IceCredentials, Setup, WebrtcSettings};

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
    let is_webrtc = matches!(settings.security, OfferSecurity::Webrtc(_));
    let (profile, security) = match settings.security {
        OfferSecurity::Plain => (Profile::Avp, LocalSecurity::Plain),
        OfferSecurity::Required(lines) => (Profile::Savp, LocalSecurity::Sdes(lines)),
        OfferSecurity::Optional(lines) => (Profile::Avp, LocalSecurity::Sdes(lines)),
        OfferSecurity::Webrtc(settings) => {
            let webrtc = offered_webrtc(settings);
            (Profile::DtlsSavpf, LocalSecurity::Webrtc(webrtc))
        }
    };
    let codecs = match settings.codecs.as_slice() {
        [] if is_webrtc => &codecs::WEBRTC_ORDER,
        [] => &codecs::RTP_ORDER,
        chosen => chosen,
    };
    LocalDescription {
        origin: settings.origin,
        address: settings.address,
        direction: settings.direction,
        formats: Formats::offered(codecs),
        packet_time_ms: codecs::packet_time_ms(None, None),
        rtcp_mux: true,
        rtcp_rsize: is_webrtc,
        profile,
        mid: is_webrtc.then(|| "0".to_owned()),
        security,
        layout: Layout::default(),
    }
}

fn offered_webrtc(settings: WebrtcSettings) -> LocalWebrtc {
    let extensions = settings.extensions.into_iter().map(|kind| Extension {
        id: kind.offered_id(),
        kind,
    });
    LocalWebrtc {
        ice: settings.ice,
        fingerprint: settings.fingerprint,
        setup: Setup::ActPass,
        candidates: settings.candidates,
        extensions: extensions.collect(),
        source: settings.source,
        bundled: true,
    }
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
    let security = match (change, &current.security, &agreement.security) {
        (Reoffer::Rekey(key), LocalSecurity::Sdes(_), AgreedSecurity::Sdes { local, .. }) => {
            if key.suite() != local.key.suite() {
                return Err(SdpError::NoKey);
            }
            LocalSecurity::Sdes(vec![CryptoLine {
                tag: local.tag,
                key,
                lifetime: None,
            }])
        }
        (Reoffer::IceRestart(ice), LocalSecurity::Webrtc(webrtc), _) => {
            LocalSecurity::Webrtc(LocalWebrtc {
                ice,
                setup: Setup::ActPass,
                ..webrtc.clone()
            })
        }
        (Reoffer::Rekey(_) | Reoffer::IceRestart(_), _, _) => return Err(SdpError::WrongTransport),
    };
    Ok(LocalDescription {
        origin: current.origin.next(),
        formats: current.formats_in_use(agreement),
        security,
        ..current.clone()
    })
}

/// What `answer` settles for our `offer`. Directions wider than offered are narrowed, and lines that
/// we did not offer are passed over.
///
/// # Errors
/// Whatever makes the answer unusable; nothing is changed then.
pub fn accept_answer(
    offer: &LocalDescription,
    answer: &SessionDescription<'_>,
) -> Result<Agreement, SdpError> {
    let remote = RemoteDescription::from_answer(answer, offer.layout.index)?;
    remote.check_family(offer.address)?;
    let security = settle_security(offer, &remote)?;
    let offered = |codec| offer.formats.payload_type_of(codec);
    let listed = remote.formats.codecs.iter();
    let codecs: Vec<_> = listed
        .filter_map(|theirs| {
            Some(AgreedCodec {
                codec: theirs.codec,
                send_payload_type: theirs.payload_type,
                receive_payload_type: offered(theirs.codec)?,
            })
        })
        .collect();
    if codecs.is_empty() {
        return Err(SdpError::NoCommonCodec);
    }
    let known: Vec<_> = codecs.iter().map(|agreed| agreed.codec).collect();
    let is_webrtc = remote.transport() == Transport::Webrtc;
    Ok(Agreement {
        telephone_events: settle_telephone_events(offer, &remote.formats.restricted_to(&known)),
        codecs,
        opus: remote.opus,
        direction: remote.direction.restricted_by(offer.direction),
        address: remote.address,
        rtcp_mux: is_webrtc || (offer.rtcp_mux && remote.rtcp_mux),
        rtcp_rsize: offer.rtcp_rsize && remote.rtcp_rsize,
        packet_time_ms: codecs::packet_time_ms(remote.ptime_ms, remote.maxptime_ms),
        maxptime_ms: remote.maxptime_ms,
        security,
    })
}

fn settle_telephone_events(
    offer: &LocalDescription,
    answered: &Formats,
) -> Vec<AgreedTelephoneEvent> {
    let events = answered.telephone_events.iter();
    events
        .filter_map(|theirs| {
            let own = offer.formats.telephone_event_at(theirs.clock_rate);
            // One that names our payload type under another clock means ours all the same.
            let same_number = || {
                let ours = &offer.formats.telephone_events;
                let number = theirs.payload_type;
                let found = ours.iter().any(|own| own.payload_type == number);
                found.then_some(number)
            };
            Some(AgreedTelephoneEvent {
                clock_rate: theirs.clock_rate,
                send_payload_type: theirs.payload_type,
                receive_payload_type: own.or_else(same_number)?,
            })
        })
        .collect()
}

fn settle_security(
    offer: &LocalDescription,
    remote: &RemoteDescription,
) -> Result<AgreedSecurity, SdpError> {
    match (&offer.security, &remote.security) {
        (LocalSecurity::Webrtc(ours), RemoteSecurity::Webrtc(theirs)) => {
            let role = match theirs.setup {
                Setup::Active => DtlsRole::Passive,
                Setup::Passive => DtlsRole::Active,
                Setup::ActPass => return Err(SdpError::WrongSetup),
            };
            let answered = |extension: &&Extension| theirs.extensions.contains(extension);
            Ok(AgreedSecurity::Dtls {
                role,
                extensions: ours.extensions.iter().filter(answered).copied().collect(),
                mid: offer.mid.clone(),
                remote: theirs.clone(),
            })
        }
        (LocalSecurity::Webrtc(_), _) | (_, RemoteSecurity::Webrtc(_)) => {
            Err(SdpError::WrongTransport)
        }
        (LocalSecurity::Sdes(ours), RemoteSecurity::Sdes(theirs)) => {
            let (local, remote) = pair_lines(ours, theirs).ok_or(SdpError::NoUsableCrypto)?;
            Ok(AgreedSecurity::Sdes { local, remote })
        }
        (LocalSecurity::Sdes(_), RemoteSecurity::Plain) if offer.profile.is_secure() => {
            Err(SdpError::PlainAnswer)
        }
        (LocalSecurity::Plain, RemoteSecurity::Sdes(_)) if remote.profile.is_secure() => {
            Err(SdpError::NoKey)
        }
        (_, RemoteSecurity::Plain) | (LocalSecurity::Plain, _) => Ok(AgreedSecurity::Plain),
    }
}

/// The first line of the answer that is one of ours: by tag and suite, or by suite where the peer
/// numbers its lines anew.
fn pair_lines(ours: &[CryptoLine], theirs: &[CryptoLine]) -> Option<(CryptoLine, CryptoLine)> {
    theirs.iter().find_map(|line| {
        let same_suite = |own: &&CryptoLine| own.key.suite() == line.key.suite();
        let same_tag = |own: &&CryptoLine| own.tag == line.tag;
        let exact = ours.iter().find(|own| same_suite(own) && same_tag(own));
        let local = exact.or_else(|| ours.iter().find(same_suite))?;
        Some((local.clone(), line.clone()))
    })
}
