//! Commands on endpoints. Each is checked wholly before anything changes, and counts as activity.

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::dtmf::{DtmfInject, DtmfSetSensitive};
use rtpbridge_shared::ipc::endpoint::{
    AcceptAnswer, CreateFromOffer, CreateOffer, IceRestarted, RemoteOffer, UpdateDirection,
};
use rtpbridge_shared::ipc::playback::ToneCreate;
use rtpbridge_shared::vocab::{Codec, Direction, EndpointType, Transport};

use super::engine::Session;
use super::input::{EndpointKey, EndpointSockets, SocketNeed};
use super::output::{EndedRecording, Outbox};
use crate::dtmf::sender::QueuedDigit;
use crate::endpoint::{
    Birth, Endpoint, OfferPlan, RtpEndpoint, Sinks, WebrtcEndpoint, prepare_answer, prepare_offer,
};
use crate::sdp::{AddressFamily, RemoteDescription};
use crate::time::{Instant, Moment};

/// An endpoint whose description was checked; it exists once it is given its sockets.
#[derive(Debug)]
pub struct PreparedEndpoint {
    id: EndpointId,
    direction: Direction,
    need: SocketNeed,
    description: Description,
}

#[derive(Debug)]
enum Description {
    Answer(Box<RemoteDescription>),
    Offer(OfferPlan),
    WebrtcOffer(Vec<Codec>),
}

/// A new endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Created {
    /// For [`Session::handle_packet`].
    pub key: EndpointKey,
    /// Our description, offer or answer.
    pub sdp: String,
}

/// What a removed endpoint leaves behind.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Removed {
    /// To be closed; its BYE went out before this was returned.
    pub sockets: Option<EndpointSockets>,
    /// Its single-leg recordings, to be flushed and closed, then told to
    /// [`Session::recording_stopped`].
    pub recordings: Vec<EndedRecording>,
    /// The other end of the bridge whose end it was: that goes too.
    pub far_end: Option<EndpointId>,
}

impl PreparedEndpoint {
    /// What to bind.
    pub fn need(&self) -> SocketNeed {
        self.need
    }
}

impl Session {
    /// First step of `endpoint.create_from_offer`: checks everything, changes nothing.
    ///
    /// # Errors
    /// Whatever forbids the endpoint.
    pub fn prepare_from_offer(
        &self,
        request: &CreateFromOffer,
    ) -> Result<PreparedEndpoint, RequestError> {
        self.check_new(request.endpoint)?;
        let remote = prepare_answer(&request.sdp, request.transport)?;
        let need = match self.supported(remote.transport())? {
            Transport::Rtp => self.need_of_family(remote.family)?,
            Transport::Webrtc => self.need_of(Transport::Webrtc)?,
        };
        Ok(PreparedEndpoint {
            id: request.endpoint,
            direction: request.direction,
            need,
            description: Description::Answer(Box::new(remote)),
        })
    }

    /// First step of `endpoint.create_offer`: checks everything, changes nothing.
    ///
    /// # Errors
    /// Whatever forbids the endpoint.
    pub fn prepare_offer(&self, request: &CreateOffer) -> Result<PreparedEndpoint, RequestError> {
        self.check_new(request.endpoint)?;
        let transport = self.supported(request.transport)?;
        Ok(PreparedEndpoint {
            id: request.endpoint,
            direction: request.direction,
            need: self.need_of(transport)?,
            description: match transport {
                Transport::Rtp => Description::Offer(prepare_offer(request)),
                Transport::Webrtc => Description::WebrtcOffer(request.codecs.clone()),
            },
        })
    }

    /// Second step of both: the sockets are bound.
    ///
    /// # Errors
    /// The session may have changed since; the sockets are then the shell's to close.
    pub fn create_endpoint(
        &mut self,
        now: Moment,
        prepared: PreparedEndpoint,
        sockets: EndpointSockets,
        out: &mut dyn Outbox,
    ) -> Result<Created, RequestError> {
        self.on_command(now.at)?;
        self.check_new(prepared.id)?;
        let birth = Birth {
            id: prepared.id,
            direction: prepared.direction,
            sockets,
            config: &self.config,
            now,
        };
        let entropy = self.entropy.as_mut();
        let id = prepared.id;
        let (mut endpoint, sdp) = match &prepared.description {
            Description::Answer(remote) if remote.transport() == Transport::Webrtc => {
                let (webrtc, sdp) = WebrtcEndpoint::answer(&birth, remote, entropy)?;
                (Endpoint::webrtc(id, webrtc), sdp)
            }
            Description::Answer(remote) => {
                let (rtp, sdp) = RtpEndpoint::answer(&birth, remote, entropy)?;
                (Endpoint::rtp(id, rtp), sdp)
            }
            Description::Offer(plan) => {
                let (rtp, sdp) = RtpEndpoint::offer(&birth, plan, entropy);
                (Endpoint::rtp(id, rtp), sdp)
            }
            Description::WebrtcOffer(codecs) => {
                let (webrtc, sdp) = WebrtcEndpoint::offer(&birth, codecs, entropy)?;
                (Endpoint::webrtc(id, webrtc), sdp)
            }
        };
        if let Some((role, peer)) = endpoint.take_handshake_start() {
            out.start_handshake(sockets.media.key, role, peer);
        }
        let key = self.endpoints.insert(Box::new(endpoint));
        self.recordings.on_leg(prepared.id, out);
        self.on_endpoints_changed(now.at);
        Ok(Created { key, sdp })
    }

    /// `endpoint.create_tone`
    ///
    /// # Errors
    /// The session has no room.
    pub fn create_tone(
        &mut self,
        now: Moment,
        request: &ToneCreate,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        self.on_command(now.at)?;
        self.check_new(request.endpoint)?;
        self.endpoints.insert(Box::new(Endpoint::tone(request)));
        self.recordings.on_leg(request.endpoint, out);
        self.on_endpoints_changed(now.at);
        Ok(())
    }

    /// `endpoint.accept_answer`. Datagrams that the kernel stamped before `now` are ignored for the
    /// next second.
    ///
    /// # Errors
    /// The endpoint is then as it was.
    pub fn accept_answer(
        &mut self,
        now: Moment,
        request: &AcceptAnswer,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        self.on_command(now.at)?;
        let key = self.key_of(request.endpoint)?;
        let endpoint = self.endpoints.get_mut(key);
        let endpoint = endpoint.ok_or(RequestError::EndpointNotFound)?;
        let actual = endpoint.endpoint_type();
        let promised = request.transport.map(endpoint_type_of);
        if promised.is_some_and(|promised| promised != actual) {
            return Err(RequestError::WrongEndpointType { actual });
        }
        let (states_before, entropy) = (endpoint.states(), self.entropy.as_mut());
        if actual == EndpointType::Webrtc {
            let generation = request.offer_generation;
            let webrtc = endpoint.as_webrtc()?;
            webrtc.accept_answer(&request.sdp, generation, entropy, now)?;
            if let Some((role, peer)) = webrtc.take_start() {
                out.start_handshake(webrtc.sockets().media.key, role, peer);
            }
        } else {
            endpoint
                .as_rtp()?
                .accept_answer(&request.sdp, entropy, now)?;
        }
        let states = endpoint.states();
        self.on_endpoints_changed(now.at);
        self.on_states(request.endpoint, states_before, states, now.at, out);
        Ok(())
    }

    /// `endpoint.rtp.reinvite`; gives our answer.
    ///
    /// # Errors
    /// The endpoint is then as it was.
    pub fn reinvite(
        &mut self,
        now: Moment,
        request: &RemoteOffer,
        out: &mut dyn Outbox,
    ) -> Result<String, RequestError> {
        let _ = out;
        let endpoint = self.command_on(request.endpoint, now.at)?;
        let sdp = endpoint.as_rtp()?.reinvite(&request.sdp, now)?;
        self.on_endpoints_changed(now.at);
        Ok(sdp)
    }

    /// `endpoint.accept_offer` (WebRTC); gives our answer.
    ///
    /// # Errors
    /// The endpoint is then as it was.
    pub fn accept_offer(
        &mut self,
        now: Moment,
        request: &RemoteOffer,
        out: &mut dyn Outbox,
    ) -> Result<String, RequestError> {
        self.on_command(now.at)?;
        let key = self.key_of(request.endpoint)?;
        let endpoint = self.endpoints.get_mut(key);
        let endpoint = endpoint.ok_or(RequestError::EndpointNotFound)?;
        let states_before = endpoint.states();
        let entropy = self.entropy.as_mut();
        let sdp = endpoint
            .as_webrtc()?
            .accept_offer(&request.sdp, entropy, now)?;
        let states = endpoint.states();
        self.on_endpoints_changed(now.at);
        self.on_states(request.endpoint, states_before, states, now.at, out);
        Ok(sdp)
    }

    /// `endpoint.update_direction`
    ///
    /// # Errors
    /// No such endpoint.
    pub fn update_direction(
        &mut self,
        now: Moment,
        request: &UpdateDirection,
    ) -> Result<(), RequestError> {
        let endpoint = self.command_on(request.endpoint, now.at)?;
        endpoint.override_direction(request.direction);
        self.on_endpoints_changed(now.at);
        Ok(())
    }

    /// `endpoint.remove`
    ///
    /// # Errors
    /// No such endpoint.
    pub fn remove_endpoint(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        out: &mut dyn Outbox,
    ) -> Result<Removed, RequestError> {
        self.on_command(now.at)?;
        let key = self.key_of(endpoint)?;
        let mut removed = self
            .endpoints
            .remove(key)
            .ok_or(RequestError::EndpointNotFound)?;
        let recordings = &mut self.recordings;
        removed.on_removed(now, &mut Sinks { recordings, out });
        let recordings = self.recordings.stop_leg(endpoint);
        self.on_endpoints_changed(now.at);
        Ok(Removed {
            sockets: removed.sockets(),
            recordings,
            far_end: removed.far_end(),
        })
    }

    /// `endpoint.ice_restart`
    ///
    /// # Errors
    /// No such endpoint, or not WebRTC.
    pub fn ice_restart(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
    ) -> Result<IceRestarted, RequestError> {
        self.on_command(now.at)?;
        let key = self.key_of(endpoint)?;
        let endpoint = self.endpoints.get_mut(key);
        let endpoint = endpoint.ok_or(RequestError::EndpointNotFound)?;
        endpoint.as_webrtc()?.restart_ice(self.entropy.as_mut())
    }

    /// `endpoint.srtp_rekey`; gives our offer.
    ///
    /// # Errors
    /// No such endpoint, or not SDES.
    pub fn srtp_rekey(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
    ) -> Result<String, RequestError> {
        self.on_command(now.at)?;
        let key = self.key_of(endpoint)?;
        let endpoint = self.endpoints.get_mut(key);
        let endpoint = endpoint.ok_or(RequestError::EndpointNotFound)?;
        endpoint.as_rtp()?.rekey(self.entropy.as_mut())
    }

    /// `endpoint.dtmf.inject`: queues the digit.
    ///
    /// # Errors
    /// No such endpoint, nothing negotiated to send it with, or a full queue.
    pub fn dtmf_inject(
        &mut self,
        now: Moment,
        request: &DtmfInject,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        let endpoint = self.command_on(request.endpoint, now.at)?;
        endpoint.queue_digit(QueuedDigit {
            digit: request.digit,
            duration_ms: request.duration_ms.clamp(1, 10_000),
            volume: request.volume.min(63),
            is_sensitive: endpoint.leg().is_some_and(|leg| leg.is_sensitive()),
        })?;
        let due: Option<Instant> = endpoint.next_timeout();
        self.wake_by(due);
        self.handle_timeout(now, out);
        Ok(())
    }

    /// `endpoint.dtmf.set_sensitive`
    ///
    /// # Errors
    /// No such endpoint.
    pub fn dtmf_set_sensitive(
        &mut self,
        now: Moment,
        request: &DtmfSetSensitive,
    ) -> Result<(), RequestError> {
        let endpoint = self.command_on(request.endpoint, now.at)?;
        let actual = endpoint.endpoint_type();
        let leg = endpoint.leg_mut();
        let leg = leg.ok_or(RequestError::WrongEndpointType { actual })?;
        leg.set_sensitive(request.enabled);
        Ok(())
    }

    /// The first configured address; for WebRTC, whose checks find out which of them reaches the
    /// peer, all of them.
    fn need_of(&self, transport: Transport) -> Result<SocketNeed, RequestError> {
        let mut addresses = self.config.media_ip.iter().copied();
        let address = addresses.next();
        Ok(SocketNeed {
            address: address
                .ok_or_else(|| RequestError::Endpoint("no media_ip is configured".into()))?,
            second: addresses.next().filter(|_| transport == Transport::Webrtc),
            transport,
        })
    }

    /// Plain RTP on the address of the peer's family.
    fn need_of_family(&self, family: AddressFamily) -> Result<SocketNeed, RequestError> {
        let mut addresses = self.config.media_ip.iter().copied();
        let of_family = addresses.find(|address| AddressFamily::of(*address) == family);
        let Some(address) = of_family else {
            let family = family.as_str();
            let text = format!("no media_ip is configured for the offer's {family} address");
            return Err(RequestError::Endpoint(text));
        };
        Ok(SocketNeed {
            address,
            second: None,
            transport: Transport::Rtp,
        })
    }

    /// WebRTC needs the shell's certificate.
    fn supported(&self, transport: Transport) -> Result<Transport, RequestError> {
        if transport == Transport::Webrtc && self.config.fingerprint.is_none() {
            return Err(RequestError::Endpoint("WebRTC is not available".into()));
        }
        Ok(transport)
    }

    /// Whether another endpoint, with this id, may be.
    pub(super) fn check_new(&self, id: EndpointId) -> Result<(), RequestError> {
        if self.liveness.is_over() {
            return Err(RequestError::SessionGone);
        }
        let is_departing = self.departing.iter().any(|known| known.endpoint == id);
        if self.endpoints.find(id).is_some() || is_departing || self.arriving.contains(&id) {
            return Err(RequestError::IdInUse);
        }
        let limit = self.config.max_endpoints_per_session;
        let taken = self.endpoint_count() + self.arriving.len();
        let is_full = limit > 0 && taken >= limit as usize;
        if is_full || !self.endpoints.has_room() {
            return Err(RequestError::TooManyEndpoints { limit });
        }
        Ok(())
    }
}

fn endpoint_type_of(transport: Transport) -> EndpointType {
    match transport {
        Transport::Rtp => EndpointType::Rtp,
        Transport::Webrtc => EndpointType::Webrtc,
    }
}
