//! Offers and answers of plain RTP endpoints. Nothing is changed before everything is known to fit.

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::endpoint::{CreateOffer, SrtpOffer};
use rtpbridge_shared::vocab::{Codec, Direction, SrtpSuite, Transport};

use super::{MediaLeg, RtpEndpoint};
use crate::endpoint::latching::Latch;
use crate::endpoint::leg::Keys;
use crate::entropy::Entropy;
use crate::sdp::{
    self, AgreedSecurity, Agreement, AnswerSecurity, AnswerSettings, CryptoLine, LocalDescription,
    OfferSecurity, OfferSettings, Origin, RemoteDescription, Reoffer, SdesKey, SdpError,
};
use crate::session::{EndpointSockets, EngineConfig};
use crate::srtp::MasterKey;
use crate::time::Moment;

/// What an offer of ours will say.
#[derive(Clone, Debug)]
pub(crate) struct OfferPlan {
    srtp: SrtpOffer,
    codecs: Vec<Codec>,
}

/// A peer's offer, read and found to be for plain RTP.
///
/// # Errors
/// The SDP cannot be used.
pub(crate) fn prepare_answer(
    sdp: &str,
    transport: Option<Transport>,
) -> Result<RemoteDescription, RequestError> {
    let remote = read_offer(sdp)?;
    let actual = remote.transport();
    match transport {
        Some(wanted) if wanted != actual => Err(RequestError::Endpoint(format!(
            "the SDP is for a {actual} endpoint, not {wanted}"
        ))),
        _ => Ok(remote),
    }
}

/// Our offer, as far as it can be planned without sockets.
pub(crate) fn prepare_offer(request: &CreateOffer) -> OfferPlan {
    OfferPlan {
        srtp: request.srtp,
        codecs: request.codecs.clone(),
    }
}

/// What every new endpoint is made of.
pub(crate) struct Birth<'a> {
    pub(crate) id: EndpointId,
    pub(crate) direction: Direction,
    pub(crate) sockets: EndpointSockets,
    pub(crate) config: &'a EngineConfig,
    pub(crate) now: Moment,
}

impl RtpEndpoint {
    /// Answers a peer's offer: connected at once.
    ///
    /// # Errors
    /// The offer cannot be answered.
    pub(crate) fn answer(
        birth: &Birth<'_>,
        remote: &RemoteDescription,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, String), RequestError> {
        let security = match remote.offered_suite() {
            Some(suite) => AnswerSecurity::Sdes(fresh_key(suite, entropy)),
            None => AnswerSecurity::Plain,
        };
        let settings = AnswerSettings {
            origin: fresh_origin(entropy),
            address: birth.sockets.media.advertised,
            direction: birth.direction,
            codecs: Vec::new(),
            security,
        };
        let (local, agreement) = sdp::plan_answer(remote, settings).map_err(unusable)?;
        let keys = keys_of(&agreement)?;
        let sdp = local.write();
        let mut endpoint = Self::born(birth, local, entropy);
        endpoint.is_offering = false;
        endpoint.connect(agreement, keys, entropy, birth.now);
        Ok((endpoint, sdp))
    }

    /// Makes an offer: connecting.
    pub(crate) fn offer(
        birth: &Birth<'_>,
        plan: &OfferPlan,
        entropy: &mut dyn Entropy,
    ) -> (Self, String) {
        let lines = |entropy: &mut dyn Entropy, suites: &[SrtpSuite]| {
            let line = |(tag, suite): (u32, &SrtpSuite)| CryptoLine {
                tag,
                key: fresh_key(*suite, entropy),
                lifetime: None,
            };
            (1..).zip(suites).map(line).collect()
        };
        let suites = &birth.config.srtp_suites;
        let security = match plan.srtp {
            SrtpOffer::Off => OfferSecurity::Plain,
            SrtpOffer::Required => OfferSecurity::Required(lines(entropy, suites)),
            SrtpOffer::Optional => OfferSecurity::Optional(lines(entropy, suites)),
        };
        let local = sdp::plan_offer(OfferSettings {
            origin: fresh_origin(entropy),
            address: birth.sockets.media.advertised,
            direction: birth.direction,
            codecs: plan.codecs.clone(),
            security,
        });
        let sdp = local.write();
        (Self::born(birth, local, entropy), sdp)
    }

    /// The answer to our offer.
    ///
    /// # Errors
    /// It does not fit, or none is waited for; nothing is changed.
    pub(crate) fn accept_answer(
        &mut self,
        sdp: &str,
        entropy: &mut dyn Entropy,
        now: Moment,
    ) -> Result<(), RequestError> {
        if !self.is_offering {
            let text = "no offer of this endpoint waits for an answer";
            return Err(RequestError::Endpoint(text.into()));
        }
        let answer = sdp::parse(sdp).map_err(unusable)?;
        let agreement = sdp::accept_answer(&self.local, &answer).map_err(unusable)?;
        if self.agreement.is_none() {
            let keys = keys_of(&agreement)?;
            self.connect(agreement, keys, entropy, now);
        } else if self.leg.keys.is_some() && matches!(agreement.security, AgreedSecurity::Plain) {
            // What was protected stays protected, also where plain RTP could have been agreed once.
            return Err(unusable(SdpError::PlainAnswer));
        } else {
            self.renew(agreement, now)?;
        }
        self.is_offering = false;
        Ok(())
    }

    /// A further offer of the peer: address, direction and receiving key may change, nothing else.
    ///
    /// # Errors
    /// It does not fit; nothing is changed.
    pub(crate) fn reinvite(&mut self, sdp: &str, now: Moment) -> Result<String, RequestError> {
        let Some(agreement) = &self.agreement else {
            let text = "the endpoint waits for the answer to its own offer";
            return Err(RequestError::Endpoint(text.into()));
        };
        let remote = read_offer(sdp)?;
        let again = sdp::answer_again(&self.local, agreement, &remote, self.own_direction);
        let (local, agreement) = again.map_err(unusable)?;
        let sdp = local.write();
        self.renew(agreement, now)?;
        *self.local = local;
        Ok(sdp)
    }

    /// A new sending key, at once; gives the offer that tells the peer.
    ///
    /// # Errors
    /// The endpoint has no SDES keys.
    pub(crate) fn rekey(&mut self, entropy: &mut dyn Entropy) -> Result<String, RequestError> {
        let Some(agreement) = &mut self.agreement else {
            let text = "the endpoint waits for the answer to its own offer";
            return Err(RequestError::Endpoint(text.into()));
        };
        let (AgreedSecurity::Sdes { local, .. }, Some(keys)) =
            (&mut agreement.security, &mut self.leg.keys)
        else {
            let text = "the endpoint does not use SRTP with SDES";
            return Err(RequestError::Endpoint(text.into()));
        };
        let key = fresh_key(local.key.suite(), entropy);
        let master = master_key(&key)?;
        let agreed_local = CryptoLine {
            key: key.clone(),
            ..local.clone()
        };
        let offer = sdp::reoffer(&self.local, agreement, Reoffer::Rekey(key)).map_err(unusable)?;
        if let AgreedSecurity::Sdes { local, .. } = &mut agreement.security {
            *local = agreed_local;
        }
        keys.protector.rekey(&master);
        *self.local = offer;
        self.is_offering = true;
        Ok(self.local.write())
    }

    fn born(birth: &Birth<'_>, local: LocalDescription, entropy: &mut dyn Entropy) -> Self {
        Self {
            leg: MediaLeg::new(birth.id, birth.config.media_timeout, entropy),
            sockets: birth.sockets,
            local: Box::new(local),
            is_offering: true,
            agreement: None,
            has_address: false,
            own_direction: birth.direction,
            latch: Latch::new(birth.config.rtp_learning, None),
            waits_for_inbound: birth.config.rtp_wait_for_inbound,
            control_source: None,
            connected_at: None,
        }
    }

    fn connect(
        &mut self,
        agreement: Agreement,
        keys: Option<Box<Keys>>,
        entropy: &mut dyn Entropy,
        now: Moment,
    ) {
        self.leg.agree(&agreement, entropy, now.at);
        self.leg.keys = keys;
        self.latch
            .reopen(agreement.address.map(|address| address.rtp), now.at);
        self.has_address = agreement.address.is_some();
        self.agreement = Some(Box::new(agreement));
        self.connected_at = Some(now);
        self.expect_media(now.at);
    }

    /// The stream goes on under a new agreement.
    fn renew(&mut self, agreement: Agreement, now: Moment) -> Result<(), RequestError> {
        let receiving_key = self.changed_receiving_key(&agreement)?;
        if let (Some(key), Some(keys)) = (receiving_key, &mut self.leg.keys) {
            keys.unprotector.rekey(&key, now.at);
        }
        let address = agreement.address.map(|address| address.rtp);
        if address != self.latch.signalled() {
            self.control_source = None;
        }
        self.latch.reopen(address, now.at);
        self.leg.relearn_source();
        self.has_address = agreement.address.is_some();
        self.agreement = Some(Box::new(agreement));
        self.expect_media(now.at);
        Ok(())
    }

    fn changed_receiving_key(&self, new: &Agreement) -> Result<Option<MasterKey>, RequestError> {
        let remote_key = |agreement: &Agreement| match &agreement.security {
            AgreedSecurity::Sdes { remote, .. } => Some(remote.key.clone()),
            AgreedSecurity::Plain | AgreedSecurity::Dtls { .. } => None,
        };
        let before = self.agreement.as_deref().and_then(remote_key);
        match remote_key(new) {
            Some(key) if before.as_ref() != Some(&key) => master_key(&key).map(Some),
            _ => Ok(None),
        }
    }
}

pub(crate) fn read_offer(text: &str) -> Result<RemoteDescription, RequestError> {
    let parsed = sdp::parse(text).map_err(unusable)?;
    RemoteDescription::from_offer(&parsed).map_err(unusable)
}

pub(crate) fn unusable(error: SdpError) -> RequestError {
    RequestError::Endpoint(error.to_string())
}

fn keys_of(agreement: &Agreement) -> Result<Option<Box<Keys>>, RequestError> {
    let AgreedSecurity::Sdes { local, remote } = &agreement.security else {
        return Ok(None);
    };
    let (send, receive) = (master_key(&local.key)?, master_key(&remote.key)?);
    Ok(Some(Box::new(Keys::new(&send, &receive))))
}

fn master_key(key: &SdesKey) -> Result<MasterKey, RequestError> {
    MasterKey::from_parts(key.suite(), key.master_key(), key.master_salt())
        .map_err(|error| RequestError::Endpoint(error.to_string()))
}

fn fresh_key(suite: SrtpSuite, entropy: &mut dyn Entropy) -> SdesKey {
    let mut random = zeroize::Zeroizing::new([0; SdesKey::MAX_LEN]);
    entropy.fill(&mut random[..]);
    SdesKey::from_random(suite, &random)
}

pub(crate) fn fresh_origin(entropy: &mut dyn Entropy) -> Origin {
    Origin {
        // Some peers read it as a signed number.
        session_id: entropy.next_u64() >> 2,
        version: 1,
    }
}
