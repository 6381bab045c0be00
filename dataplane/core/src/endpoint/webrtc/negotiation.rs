//! Offers and answers of WebRTC endpoints, ICE restarts of both sides included. Nothing is changed
//! before everything is known to fit.

use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::endpoint::IceRestarted;
use rtpbridge_shared::vocab::Codec;

use super::{HandshakeStart, WebrtcEndpoint};
use crate::endpoint::leg::MediaLeg;
use crate::endpoint::rtp::negotiation::{Birth, fresh_origin, read_offer, unusable};
use crate::entropy::Entropy;
use crate::ice::{CREDENTIAL_ENTROPY, IceLite, random_credentials};
use crate::sdp::{
    self, AgreedSecurity, Agreement, AnswerSecurity, AnswerSettings, DtlsRole, ExtensionKind,
    IceCredentials, LocalDescription, LocalSecurity, MediaSource, OfferSecurity, OfferSettings,
    RemoteDescription, Reoffer, WebrtcSettings,
};
use crate::time::Moment;

/// What is made before the endpoint itself.
struct WebrtcParts {
    leg: MediaLeg,
    settings: WebrtcSettings,
}

impl WebrtcParts {
    /// Fresh credentials and a fresh stream.
    ///
    /// # Errors
    /// The process has no certificate.
    fn new(birth: &Birth<'_>, entropy: &mut dyn Entropy) -> Result<Self, RequestError> {
        let Some(fingerprint) = birth.config.fingerprint.clone() else {
            return Err(RequestError::Endpoint("WebRTC is not available".into()));
        };
        let leg = MediaLeg::new(birth.id, birth.config.media_timeout, entropy);
        let settings = WebrtcSettings {
            ice: fresh_credentials(entropy),
            fingerprint,
            candidates: birth.sockets.iter().map(|it| it.advertised).collect(),
            extensions: vec![ExtensionKind::Mid],
            source: MediaSource {
                ssrc: leg.stream.ssrc(),
                cname: leg.control.cname().to_owned(),
            },
        };
        Ok(Self { leg, settings })
    }
}

impl WebrtcEndpoint {
    /// Answers a peer's offer: connecting, until the handshake is done.
    ///
    /// # Errors
    /// The offer cannot be answered.
    pub(crate) fn answer(
        birth: &Birth<'_>,
        remote: &RemoteDescription,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, String), RequestError> {
        let parts = WebrtcParts::new(birth, entropy)?;
        let settings = AnswerSettings {
            origin: fresh_origin(entropy),
            address: birth.sockets.media.advertised,
            direction: birth.direction,
            codecs: Vec::new(),
            security: AnswerSecurity::Webrtc {
                settings: parts.settings.clone(),
                role: None,
            },
        };
        let (local, agreement) = sdp::plan_answer(remote, settings).map_err(unusable)?;
        let start = handshake_of(&agreement)?;
        let sdp = local.write();
        let mut endpoint = Self::born(birth, parts, local);
        endpoint.is_offering = false;
        endpoint.pending_start = Some(start);
        endpoint.agree(agreement, entropy, birth.now);
        Ok((endpoint, sdp))
    }

    /// Makes an offer.
    ///
    /// # Errors
    /// WebRTC is not available.
    pub(crate) fn offer(
        birth: &Birth<'_>,
        codecs: &[Codec],
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, String), RequestError> {
        let parts = WebrtcParts::new(birth, entropy)?;
        let local = sdp::plan_offer(OfferSettings {
            origin: fresh_origin(entropy),
            address: birth.sockets.media.advertised,
            direction: birth.direction,
            codecs: codecs.to_vec(),
            security: OfferSecurity::Webrtc(parts.settings.clone()),
        });
        let sdp = local.write();
        Ok((Self::born(birth, parts, local), sdp))
    }

    /// The answer to our offer, the first or an ICE restart's.
    ///
    /// # Errors
    /// It does not fit, or none is waited for; nothing is changed.
    pub(crate) fn accept_answer(
        &mut self,
        sdp: &str,
        generation: Option<u64>,
        entropy: &mut dyn Entropy,
        now: Moment,
    ) -> Result<(), RequestError> {
        if !self.is_offering {
            let text = "no offer of this endpoint waits for an answer";
            return Err(RequestError::Endpoint(text.into()));
        }
        let pending = self.offer_generation;
        if let Some(answered) = generation.filter(|answered| *answered != pending) {
            return Err(RequestError::Endpoint(format!(
                "offer_generation {answered} is not the pending one, {pending}"
            )));
        }
        let answer = sdp::parse(sdp).map_err(unusable)?;
        let agreement = sdp::accept_answer(&self.local, &answer).map_err(unusable)?;
        let start = match &self.agreement {
            None => Some(handshake_of(&agreement)?),
            Some(before) => {
                same_association(before, &agreement)?;
                None
            }
        };
        self.is_offering = false;
        if start.is_some() {
            self.pending_start = start;
        }
        self.agree(agreement, entropy, now);
        Ok(())
    }

    /// A further offer of the peer, its ICE restart included; gives our answer.
    ///
    /// # Errors
    /// It does not fit; nothing is changed.
    pub(crate) fn accept_offer(
        &mut self,
        sdp: &str,
        entropy: &mut dyn Entropy,
        now: Moment,
    ) -> Result<String, RequestError> {
        let Some(before) = &self.agreement else {
            let text = "the endpoint waits for the answer to its own offer";
            return Err(RequestError::Endpoint(text.into()));
        };
        let remote = read_offer(sdp)?;
        let (role, ice_before) = association_of(before)?;
        let sdp::RemoteSecurity::Webrtc(peer) = &remote.security else {
            return Err(unusable(sdp::SdpError::WrongTransport));
        };
        let is_restart = peer.ice != ice_before;
        let ice = if is_restart {
            fresh_credentials(entropy)
        } else {
            self.ice.credentials().clone()
        };
        let settings = AnswerSettings {
            origin: self.local.origin.next(),
            address: self.local.address,
            direction: self.own_direction,
            codecs: Vec::new(),
            security: AnswerSecurity::Webrtc {
                settings: self.settings_with(ice.clone())?,
                role: Some(role),
            },
        };
        let (local, agreement) = sdp::plan_answer(&remote, settings).map_err(unusable)?;
        same_association(before, &agreement)?;
        if is_restart {
            self.ice.restart(ice);
        }
        let sdp = local.write();
        *self.local = local;
        // Both cannot offer at once: the peer's offer supersedes ours.
        self.is_offering = false;
        self.agree(agreement, entropy, now);
        Ok(sdp)
    }

    /// Fresh credentials; the old ones answer until the new pair is nominated.
    ///
    /// # Errors
    /// Nothing is agreed yet.
    pub(crate) fn restart_ice(
        &mut self,
        entropy: &mut dyn Entropy,
    ) -> Result<IceRestarted, RequestError> {
        let Some(agreement) = &self.agreement else {
            let text = "the endpoint waits for the answer to its own offer";
            return Err(RequestError::Endpoint(text.into()));
        };
        let ice = fresh_credentials(entropy);
        let change = Reoffer::IceRestart(ice.clone());
        let local = sdp::reoffer(&self.local, agreement, change).map_err(unusable)?;
        self.ice.restart(ice);
        *self.local = local;
        self.is_offering = true;
        self.offer_generation += 1;
        Ok(IceRestarted {
            sdp_offer: self.local.write(),
            offer_generation: self.offer_generation,
        })
    }

    fn born(birth: &Birth<'_>, parts: WebrtcParts, local: LocalDescription) -> Self {
        Self {
            leg: parts.leg,
            sockets: birth.sockets,
            local: Box::new(local),
            is_offering: true,
            offer_generation: 0,
            agreement: None,
            own_direction: birth.direction,
            ice: IceLite::new(parts.settings.ice),
            pending_start: None,
            is_over: false,
        }
    }

    fn agree(&mut self, agreement: Agreement, entropy: &mut dyn Entropy, now: Moment) {
        let is_same_media = self.agreement.as_ref().is_some_and(|before| {
            before.codecs == agreement.codecs
                && before.telephone_events == agreement.telephone_events
        });
        if !is_same_media {
            self.leg.agree(&agreement, entropy, now.at);
        }
        self.leg.relearn_source();
        self.ice.on_remote_description(now.at);
        self.agreement = Some(Box::new(agreement));
        self.expect_media(now.at);
    }

    fn settings_with(&self, ice: IceCredentials) -> Result<WebrtcSettings, RequestError> {
        let LocalSecurity::Webrtc(local) = &self.local.security else {
            let text = "a WebRTC endpoint without WebRTC description";
            return Err(RequestError::Internal(text.into()));
        };
        Ok(WebrtcSettings {
            ice,
            fingerprint: local.fingerprint.clone(),
            candidates: local.candidates.clone(),
            extensions: vec![ExtensionKind::Mid],
            source: local.source.clone(),
        })
    }
}

fn fresh_credentials(entropy: &mut dyn Entropy) -> IceCredentials {
    let mut random = zeroize::Zeroizing::new([0; CREDENTIAL_ENTROPY]);
    entropy.fill(&mut random[..]);
    random_credentials(&random)
}

fn handshake_of(agreement: &Agreement) -> Result<HandshakeStart, RequestError> {
    match &agreement.security {
        AgreedSecurity::Dtls { role, remote, .. } => Ok((*role, remote.fingerprints.clone())),
        AgreedSecurity::Plain | AgreedSecurity::Sdes { .. } => {
            Err(unusable(sdp::SdpError::WrongTransport))
        }
    }
}

fn association_of(agreement: &Agreement) -> Result<(DtlsRole, IceCredentials), RequestError> {
    match &agreement.security {
        AgreedSecurity::Dtls { role, remote, .. } => Ok((*role, remote.ice.clone())),
        AgreedSecurity::Plain | AgreedSecurity::Sdes { .. } => {
            Err(unusable(sdp::SdpError::WrongTransport))
        }
    }
}

/// A description with other fingerprints or another role means another DTLS association (RFC 8842
/// section 5.5), which an endpoint has only one of.
fn same_association(before: &Agreement, after: &Agreement) -> Result<(), RequestError> {
    if handshake_of(before)? == handshake_of(after)? {
        Ok(())
    } else {
        let text = "a new DTLS association needs a new endpoint";
        Err(RequestError::Endpoint(text.into()))
    }
}
