//! Endpoints of a session. The only place that matches on their kind: a new kind is a new file, one
//! variant of [`Kind`] and one arm in each match here.

mod bridge;
mod file;
mod latching;
mod leg;
mod pcm;
mod rtp;
mod tone;
mod voice;
mod webrtc;

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::playback::ToneCreate;
use rtpbridge_shared::ipc::session::EndpointDetails;
use rtpbridge_shared::ipc::stats::{InboundStats, OutboundStats, StatsRow};
use rtpbridge_shared::ipc::vad::VadStart;
use rtpbridge_shared::ipc::{Event, RequestError};
use rtpbridge_shared::vocab::{Codec, Direction, EndpointState, EndpointType, IceState};

pub use self::bridge::{BridgeEnd, bridge};
pub(crate) use self::bridge::{Crossed, Crossing};
pub(crate) use self::file::{FileEndpoint, order_bytes};
pub use self::file::{OpenedFile, PlayOrder};
pub(crate) use self::leg::{
    Content, Heard, Inbound, Keys, MediaLeg, PacketArea, Path, Sinks, TimedOut,
};
pub(crate) use self::pcm::{Ending, MAX_FRAME, Pulled};
pub(crate) use self::rtp::negotiation::Birth;
pub(crate) use self::rtp::{OfferPlan, RtpEndpoint, prepare_answer, prepare_offer};
use self::tone::ToneEndpoint;
use self::voice::Voice;
pub(crate) use self::webrtc::{HandshakeStart, WebrtcEndpoint};
use crate::codec::opus::OpusSettings;
use crate::dtmf::sender::QueuedDigit;
use crate::entropy::Entropy;
use crate::playback;
use crate::rtp::frame_track::FrameMaker;
use crate::session::{
    Channel, EndpointKey, EndpointSockets, EndpointView, EngineConfig, PacketBuffer,
};
use crate::time::{Instant, Moment};
use crate::transcode::{EncodedFrame, TargetFormat};

/// One endpoint with everything that moves when it is transferred.
pub(crate) struct Endpoint {
    id: EndpointId,
    direction_override: Option<Direction>,
    voice: Option<Box<Voice>>,
    kind: Kind,
}

/// What clients are told about when it changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct States {
    pub(crate) endpoint: EndpointState,
    pub(crate) ice: Option<IceState>,
}

/// Not boxed for those of the network: endpoints are boxed as a whole.
enum Kind {
    Rtp(RtpEndpoint),
    Webrtc(WebrtcEndpoint),
    File(Box<FileEndpoint>),
    Tone(Box<ToneEndpoint>),
    Bridge(Box<BridgeEnd>),
}

impl Endpoint {
    pub(crate) fn rtp(id: EndpointId, endpoint: RtpEndpoint) -> Self {
        Self::of_kind(id, Kind::Rtp(endpoint))
    }

    pub(crate) fn webrtc(id: EndpointId, endpoint: WebrtcEndpoint) -> Self {
        Self::of_kind(id, Kind::Webrtc(endpoint))
    }

    pub(crate) fn file(id: EndpointId, endpoint: FileEndpoint) -> Self {
        Self::of_kind(id, Kind::File(Box::new(endpoint)))
    }

    pub(crate) fn tone(request: &ToneCreate) -> Self {
        let tone = ToneEndpoint::new(request);
        Self::of_kind(request.endpoint, Kind::Tone(Box::new(tone)))
    }

    fn of_kind(id: EndpointId, kind: Kind) -> Self {
        Self {
            id,
            direction_override: None,
            voice: None,
            kind,
        }
    }

    pub(crate) fn bridge(id: EndpointId, end: BridgeEnd) -> Self {
        Self {
            id,
            direction_override: None,
            voice: None,
            kind: Kind::Bridge(Box::new(end)),
        }
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.id
    }

    pub(crate) fn endpoint_type(&self) -> EndpointType {
        match &self.kind {
            Kind::Rtp(_) => EndpointType::Rtp,
            Kind::Webrtc(_) => EndpointType::Webrtc,
            Kind::File(_) => EndpointType::File,
            Kind::Tone(_) => EndpointType::Tone,
            Kind::Bridge(_) => EndpointType::Bridge,
        }
    }

    pub(crate) fn state(&self) -> EndpointState {
        match &self.kind {
            Kind::Rtp(rtp) => rtp.state(),
            Kind::Webrtc(webrtc) => webrtc.state(),
            Kind::File(file) => file.state(),
            Kind::Tone(tone) => tone.state(),
            Kind::Bridge(_) => EndpointState::Connected,
        }
    }

    /// The direction in force.
    pub(crate) fn direction(&self) -> Direction {
        let negotiated = match &self.kind {
            Kind::Rtp(rtp) => rtp.negotiated_direction(),
            Kind::Webrtc(webrtc) => webrtc.negotiated_direction(),
            Kind::File(_) | Kind::Tone(_) => Direction::Sendonly,
            Kind::Bridge(bridge) => bridge.direction(),
        };
        self.direction_override.unwrap_or(negotiated)
    }

    pub(crate) fn override_direction(&mut self, direction: Option<Direction>) {
        self.direction_override = direction;
    }

    pub(crate) fn sockets(&self) -> Option<EndpointSockets> {
        match &self.kind {
            Kind::Rtp(rtp) => Some(rtp.sockets()),
            Kind::Webrtc(webrtc) => Some(webrtc.sockets()),
            Kind::File(_) | Kind::Tone(_) | Kind::Bridge(_) => None,
        }
    }

    /// The shell has other names for its sockets.
    pub(crate) fn rename_sockets(&mut self, sockets: EndpointSockets) {
        match &mut self.kind {
            Kind::Rtp(rtp) => rtp.rename_sockets(sockets),
            Kind::Webrtc(webrtc) => webrtc.rename_sockets(sockets),
            // Of the others none has any.
            _ => {}
        }
    }

    /// Whether the endpoint counts as activity of its session by itself.
    pub(crate) fn is_playing(&self) -> bool {
        self.state() == EndpointState::Playing
    }

    pub(crate) fn view(&self, key: EndpointKey) -> EndpointView {
        let is_live = matches!(
            self.state(),
            EndpointState::Connected | EndpointState::Playing
        );
        let direction = self.direction();
        EndpointView {
            key,
            is_bridge: self.endpoint_type() == EndpointType::Bridge,
            sends: is_live && direction.party_sends(),
            receives: is_live && direction.party_receives(),
            incoming: self.incoming_codec(),
            outgoing: match &self.kind {
                Kind::Bridge(bridge) => Some(bridge.outgoing()),
                _ => self.sending_codec(),
            },
            longest_ms: self.longest_ms(),
            maxptime_ms: self.leg().and_then(MediaLeg::maxptime_ms),
        }
    }

    pub(crate) fn sending_codec(&self) -> Option<Codec> {
        match &self.kind {
            Kind::Bridge(_) => Some(Codec::L16),
            _ => self.leg().and_then(MediaLeg::sending_codec),
        }
    }

    /// It sent a packet of `ms` that somebody does not take.
    pub(crate) fn on_too_long(&mut self, ms: u16) {
        match &mut self.kind {
            Kind::Bridge(bridge) => bridge.on_too_long(ms),
            _ => {
                if let Some(leg) = self.leg_mut() {
                    leg.on_too_long(ms);
                }
            }
        }
    }

    /// See [`on_too_long`](Self::on_too_long).
    pub(crate) fn longest_ms(&self) -> u16 {
        match &self.kind {
            Kind::Bridge(bridge) => bridge.longest_ms(),
            _ => self.leg().map_or(0, MediaLeg::longest_ms),
        }
    }

    /// What it sends; L16 stands for PCM that is pulled.
    pub(crate) fn incoming_codec(&self) -> Option<Codec> {
        match (&self.kind, self.leg()) {
            (Kind::Bridge(bridge), _) => Some(bridge.incoming()),
            (_, Some(leg)) => leg.incoming_codec(),
            (_, None) => self.pcm_rate(8000).map(|_| Codec::L16),
        }
    }

    /// What it is to be sent when we encode for it.
    pub(crate) fn target_format(&self, config: &EngineConfig) -> Option<TargetFormat> {
        match &self.kind {
            Kind::Bridge(_) => {
                let unused = OpusSettings::default();
                Some(TargetFormat::new(Codec::L16, 20, unused))
            }
            _ => self.leg()?.target_format(config),
        }
    }

    /// Takes a frame that `maker` encoded for it.
    pub(crate) fn handle_frame(
        &mut self,
        maker: FrameMaker,
        frame: &EncodedFrame<'_>,
        now: Moment,
        area: &mut PacketArea,
        sinks: &mut Sinks<'_>,
    ) {
        if let Kind::Bridge(bridge) = &mut self.kind {
            return bridge.handle_sound(frame.payload);
        }
        let path = self.media_path();
        if let Some(leg) = self.leg_mut() {
            leg.send_frame(maker, frame, now, path, area, sinks);
        }
    }

    /// Where sound is pulled from it: at which rate, when `wanted_hz` is the best that its listeners
    /// can use. None for endpoints that receive packets.
    pub(crate) fn pcm_rate(&self, wanted_hz: u32) -> Option<u32> {
        match &self.kind {
            Kind::Rtp(_) | Kind::Webrtc(_) => None,
            Kind::File(_) => Some(playback::RATE_HZ),
            Kind::Tone(_) => Some(wanted_hz),
            Kind::Bridge(_) => Some(playback::RATE_HZ),
        }
    }

    /// The next 20 ms of what it makes, at the rate that [`pcm_rate`](Self::pcm_rate) gave: `out` has
    /// room for exactly that. Called at every tick.
    pub(crate) fn pull(&mut self, rate_hz: u32, out: &mut [i16]) -> Pulled {
        match &mut self.kind {
            Kind::Rtp(_) | Kind::Webrtc(_) => Pulled::Nothing,
            Kind::File(file) => file.pull(out),
            Kind::Tone(tone) => tone.pull(rate_hz, out),
            Kind::Bridge(bridge) => bridge.pull(out),
        }
    }

    pub(crate) fn details(&self) -> EndpointDetails {
        let (local, remote) = match &self.kind {
            Kind::Rtp(rtp) => (Some(rtp.sockets().media.local), rtp.remote_address()),
            Kind::Webrtc(webrtc) => (Some(webrtc.local_address()), webrtc.remote_address()),
            Kind::File(_) | Kind::Tone(_) | Kind::Bridge(_) => (None, None),
        };
        let file = self.file_part();
        EndpointDetails {
            endpoint: self.id,
            endpoint_type: self.endpoint_type(),
            direction: self.direction(),
            state: self.state(),
            codec: self.sending_codec(),
            local_rtp_addr: local,
            remote_rtp_addr: remote,
            shared_playback_id: file.and_then(|file| file.shared_playback_id().map(str::to_owned)),
            pending_fetch: file.and_then(|file| file.pending_fetch().cloned()),
            cache_file: file.and_then(|file| file.cache_file().map(str::to_owned)),
        }
    }

    pub(crate) fn stats_row(&self, now: Instant) -> StatsRow {
        let leg = self.leg();
        let round_trip = leg.and_then(|leg| leg.control.round_trip());
        StatsRow {
            endpoint_id: self.id,
            inbound: leg.map_or_else(InboundStats::default, |leg| leg.inbound_stats(now)),
            outbound: leg.map_or_else(OutboundStats::default, MediaLeg::outbound_stats),
            rtt_ms: round_trip.map(|time| time.as_secs_f64() * 1000.0),
            codec: self
                .sending_codec()
                .map_or(String::new(), |codec| codec.as_str().to_owned()),
            state: self.state(),
        }
    }

    pub(crate) fn handle_packet(
        &mut self,
        arrival: Moment,
        channel: Channel,
        source: std::net::SocketAddr,
        buffer: &mut PacketBuffer,
        sinks: &mut Sinks<'_>,
    ) -> Heard {
        match &mut self.kind {
            Kind::Rtp(rtp) => rtp.handle_packet(arrival, channel, source, buffer, sinks),
            Kind::Webrtc(webrtc) => webrtc.handle_packet(arrival, source, buffer, sinks),
            Kind::File(_) | Kind::Tone(_) | Kind::Bridge(_) => Heard::default(),
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let own = match &self.kind {
            Kind::Rtp(rtp) => rtp.next_timeout(),
            Kind::Webrtc(webrtc) => webrtc.next_timeout(),
            Kind::File(_) | Kind::Tone(_) | Kind::Bridge(_) => None,
        };
        let voice = self.voice.as_ref().and_then(|voice| voice.next_timeout());
        own.into_iter().chain(voice).min()
    }

    pub(crate) fn handle_timeout(
        &mut self,
        entropy: &mut dyn Entropy,
        now: Moment,
        sinks: &mut Sinks<'_>,
    ) -> TimedOut {
        if let Some(voice) = &mut self.voice {
            voice.handle_timeout(now.at);
        }
        match &mut self.kind {
            Kind::Rtp(rtp) => rtp.handle_timeout(entropy, now, sinks),
            Kind::Webrtc(webrtc) => webrtc.handle_timeout(entropy, now, sinks),
            Kind::File(_) | Kind::Tone(_) | Kind::Bridge(_) => TimedOut::default(),
        }
    }

    pub(crate) fn on_removed(&mut self, now: Moment, sinks: &mut Sinks<'_>) {
        match &mut self.kind {
            Kind::Rtp(rtp) => rtp.on_removed(now, sinks),
            Kind::Webrtc(webrtc) => webrtc.on_removed(now, sinks),
            Kind::File(_) | Kind::Tone(_) | Kind::Bridge(_) => {}
        }
    }

    /// Listens for speech in what it says from now on, or no more.
    pub(crate) fn listen(&mut self, request: Option<&VadStart>, now: Instant) {
        self.voice = request.map(|request| Box::new(Voice::new(request, now)));
    }

    /// Whether its sound is listened to for speech.
    pub(crate) fn is_listened_to(&self) -> bool {
        self.voice.is_some()
    }

    /// What it says, for whoever listens for speech.
    pub(crate) fn hear(&mut self, now: Instant, rate_hz: u32, pcm: &[i16]) {
        if let Some(voice) = &mut self.voice {
            voice.hear(now, rate_hz, pcm);
        }
    }

    /// What was found in its sound and not yet told.
    pub(crate) fn poll_voice(&mut self) -> Option<Event> {
        self.voice.as_mut()?.poll(self.id)
    }

    /// Where its party is sent media now; none is nowhere.
    pub(crate) fn media_path(&self) -> Option<Path> {
        match &self.kind {
            Kind::Rtp(rtp) => rtp.media_path(),
            Kind::Webrtc(webrtc) => webrtc.media_path(),
            Kind::File(_) | Kind::Tone(_) | Kind::Bridge(_) => None,
        }
    }

    /// The media half of a network endpoint.
    pub(crate) fn leg(&self) -> Option<&MediaLeg> {
        match &self.kind {
            Kind::Rtp(rtp) => Some(&rtp.leg),
            Kind::Webrtc(webrtc) => Some(&webrtc.leg),
            Kind::File(_) | Kind::Tone(_) | Kind::Bridge(_) => None,
        }
    }

    /// The media half of a network endpoint.
    pub(crate) fn leg_mut(&mut self) -> Option<&mut MediaLeg> {
        match &mut self.kind {
            Kind::Rtp(rtp) => Some(&mut rtp.leg),
            Kind::Webrtc(webrtc) => Some(&mut webrtc.leg),
            Kind::File(_) | Kind::Tone(_) | Kind::Bridge(_) => None,
        }
    }

    /// The plain RTP endpoint that it is.
    ///
    /// # Errors
    /// It is of another kind.
    pub(crate) fn as_rtp(&mut self) -> Result<&mut RtpEndpoint, RequestError> {
        let actual = self.endpoint_type();
        match &mut self.kind {
            Kind::Rtp(rtp) => Ok(rtp),
            _ => Err(RequestError::WrongEndpointType { actual }),
        }
    }

    /// The WebRTC endpoint that it is.
    ///
    /// # Errors
    /// It is of another kind.
    pub(crate) fn as_webrtc(&mut self) -> Result<&mut WebrtcEndpoint, RequestError> {
        let actual = self.endpoint_type();
        match &mut self.kind {
            Kind::Webrtc(webrtc) => Ok(webrtc),
            _ => Err(RequestError::WrongEndpointType { actual }),
        }
    }

    /// The end of a bridge that it is.
    pub(crate) fn as_bridge(&self) -> Option<&BridgeEnd> {
        match &self.kind {
            Kind::Bridge(bridge) => Some(bridge),
            _ => None,
        }
    }

    /// The end of a bridge that it is.
    pub(crate) fn as_bridge_mut(&mut self) -> Option<&mut BridgeEnd> {
        match &mut self.kind {
            Kind::Bridge(bridge) => Some(bridge),
            _ => None,
        }
    }

    /// The endpoint at the other end of the bridge whose end this is.
    pub(crate) fn far_end(&self) -> Option<EndpointId> {
        self.as_bridge().map(BridgeEnd::far)
    }

    /// See [`WebrtcEndpoint::take_start`].
    pub(crate) fn take_handshake_start(&mut self) -> Option<HandshakeStart> {
        self.as_webrtc().ok()?.take_start()
    }

    /// What clients see of its connectivity; None for kinds without ICE.
    pub(crate) fn ice_state(&self) -> Option<IceState> {
        match &self.kind {
            Kind::Webrtc(webrtc) => Some(webrtc.ice_state()),
            _ => None,
        }
    }

    /// Frames for which what feeds it was late since this was last asked.
    pub(crate) fn take_underruns(&mut self) -> u64 {
        match &mut self.kind {
            Kind::File(file) => file.take_underruns(),
            Kind::Bridge(bridge) => bridge.take_underruns(),
            _ => 0,
        }
    }

    /// The file endpoint that it is.
    ///
    /// # Errors
    /// It is of another kind.
    pub(crate) fn as_file(&mut self) -> Result<&mut FileEndpoint, RequestError> {
        let actual = self.endpoint_type();
        match &mut self.kind {
            Kind::File(file) => Ok(file),
            _ => Err(RequestError::WrongEndpointType { actual }),
        }
    }

    /// Why a file's decoder gave up, if it did.
    pub(crate) fn file_failure(&self) -> Option<&str> {
        self.file_part()?.failure()
    }

    /// How much the download that it waits for takes to describe.
    pub(crate) fn order_bytes(&self) -> usize {
        self.file_part().map_or(0, FileEndpoint::order_bytes)
    }

    fn file_part(&self) -> Option<&FileEndpoint> {
        match &self.kind {
            Kind::File(file) => Some(file),
            _ => None,
        }
    }

    /// Both states that clients are told about.
    pub(crate) fn states(&self) -> States {
        States {
            endpoint: self.state(),
            ice: self.ice_state(),
        }
    }

    /// Queues a digit for the party.
    ///
    /// # Errors
    /// It cannot be sent digits, or too many wait.
    pub(crate) fn queue_digit(&mut self, digit: QueuedDigit) -> Result<(), RequestError> {
        let (direction, actual) = (self.direction(), self.endpoint_type());
        let refused = |text: String| Err(RequestError::Endpoint(text));
        let Some(leg) = self.leg_mut() else {
            return Err(RequestError::WrongEndpointType { actual });
        };
        if !leg.takes_events() {
            return refused("telephone-event was not negotiated".into());
        }
        if !direction.party_receives() {
            return refused(format!(
                "the party of a {direction} endpoint is sent nothing"
            ));
        }
        leg.queue_digit(digit)
            .or_else(|_| refused("32 digits are waiting already".into()))
    }
}
