//! WebRTC endpoints: one socket per address family, an ICE-lite agent that says who the peer is, DTLS (run by the shell)
//! that gives the keys, and SRTP with rtcp-mux (RFC 8445, 5764, 8829).
//!
//! ```text
//! description exchanged ──► connecting ──keys──► connected ◄──any authentic sign──┐
//!                               │                    │ 15 s of silence ──► disconnected
//!                               └─handshake failed───┴─DTLS goodbye──────► disconnected, for good
//! ```
//! Only addresses that passed an ICE check are heard or sent anything.

mod negotiation;

use std::net::SocketAddr;

use rtpbridge_shared::vocab::{Direction, EndpointState, IceState};

use super::leg::{Heard, Keys, MediaLeg, Path, Sinks, TimedOut};
use crate::entropy::Entropy;
use crate::ice::{IceLite, MAX_RESPONSE_LEN, StunOutcome};
use crate::rtp::demux::{PacketKind, classify};
use crate::sdp::{Agreement, DtlsRole, Fingerprint, LocalDescription};
use crate::session::{EndpointSockets, LocalSocket, PacketBuffer};
use crate::time::{Instant, Moment};

/// What the shell needs to run the handshake: our role, and what the peer's certificate must match.
pub(crate) type HandshakeStart = (DtlsRole, Vec<Fingerprint>);

/// A WebRTC endpoint.
pub(crate) struct WebrtcEndpoint {
    pub(super) leg: MediaLeg,
    sockets: EndpointSockets,
    /// The last description of ours. Boxed, as the agreement is: packets need neither.
    local: Box<LocalDescription>,
    /// An offer of ours is waiting for its answer.
    is_offering: bool,
    /// Which of our offers that is; grows with each ICE restart.
    offer_generation: u64,
    agreement: Option<Box<Agreement>>,
    /// What the client asked for when it made the endpoint.
    own_direction: Direction,
    ice: IceLite,
    /// What the handshake will need, until it is started.
    pending_start: Option<HandshakeStart>,
    /// The handshake failed or the peer said goodbye: nothing brings it back.
    is_over: bool,
}

impl WebrtcEndpoint {
    pub(crate) fn state(&self) -> EndpointState {
        if self.is_over {
            EndpointState::Disconnected
        } else if self.agreement.is_none() || self.leg.keys.is_none() {
            EndpointState::Connecting
        } else if self.ice.state() == IceState::Disconnected {
            EndpointState::Disconnected
        } else {
            EndpointState::Connected
        }
    }

    pub(crate) fn ice_state(&self) -> IceState {
        if self.is_over && self.ice.state() == IceState::Connected {
            IceState::Disconnected
        } else {
            self.ice.state()
        }
    }

    /// The direction that SDP settled, or the one asked for until it did.
    pub(crate) fn negotiated_direction(&self) -> Direction {
        self.agreement
            .as_ref()
            .map_or(self.own_direction, |agreement| agreement.direction)
    }

    pub(crate) fn sockets(&self) -> EndpointSockets {
        self.sockets
    }

    pub(crate) fn rename_sockets(&mut self, sockets: EndpointSockets) {
        self.sockets = sockets;
    }

    /// Where the party is sent media from, or may be.
    pub(crate) fn local_address(&self) -> SocketAddr {
        let to = self.remote_address();
        to.map_or(self.sockets.media, |to| self.socket_to(to)).local
    }

    /// Where the party is sent media.
    pub(crate) fn remote_address(&self) -> Option<SocketAddr> {
        self.ice.send_address()
    }

    pub(crate) fn media_path(&self) -> Option<Path> {
        if self.is_over || self.leg.keys.is_none() {
            return None;
        }
        self.ice.send_address().map(|to| self.path_to(to))
    }

    /// Where handshake datagrams go.
    pub(crate) fn handshake_path(&self) -> Option<Path> {
        self.ice.handshake_address().map(|to| self.path_to(to))
    }

    /// What starts the handshake, once, as soon as it may begin: when we open it (the active role),
    /// there must be an address to send to.
    pub(crate) fn take_start(&mut self) -> Option<HandshakeStart> {
        let (role, _) = self.pending_start.as_ref()?;
        if *role == DtlsRole::Active && self.ice.send_address().is_none() {
            return None;
        }
        self.pending_start.take()
    }

    pub(crate) fn handle_packet(
        &mut self,
        arrival: Moment,
        source: SocketAddr,
        buffer: &mut PacketBuffer,
        sinks: &mut Sinks<'_>,
    ) -> Heard {
        let kind = classify(buffer.datagram());
        if kind == PacketKind::Stun {
            return self.handle_stun(arrival, source, buffer, sinks);
        }
        let counters = sinks.out.counters();
        if !self.ice.is_validated(source) {
            counters.rejected_source += 1;
            return Heard::default();
        }
        match kind {
            PacketKind::Dtls => Heard {
                is_handshake: !self.is_over,
                ..Heard::default()
            },
            // The peer's first packets may be here before the keys.
            PacketKind::Rtp | PacketKind::Rtcp if self.leg.keys.is_none() || self.is_over => {
                Heard::default()
            }
            PacketKind::Rtp => {
                counters.packets_received += 1;
                self.handle_rtp(arrival, buffer, sinks)
            }
            PacketKind::Rtcp => {
                counters.packets_received += 1;
                self.handle_rtcp(arrival, buffer, sinks)
            }
            PacketKind::Stun | PacketKind::Unknown => {
                counters.rejected_malformed += 1;
                Heard::default()
            }
        }
    }

    /// The handshake is done.
    pub(crate) fn on_keys(&mut self, keys: Keys, now: Moment) {
        if self.is_over {
            return;
        }
        self.leg.keys = Some(Box::new(keys));
        self.expect_media(now.at);
    }

    /// The handshake failed, or the peer said goodbye.
    pub(crate) fn on_handshake_over(&mut self, now: Moment) {
        self.is_over = true;
        self.expect_media(now.at);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let timeouts = [self.leg.next_timeout(), self.ice.next_timeout()];
        timeouts.into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(
        &mut self,
        entropy: &mut dyn Entropy,
        now: Moment,
        sinks: &mut Sinks<'_>,
    ) -> TimedOut {
        self.ice.handle_timeout(now.at);
        self.expect_media(now.at);
        let path = self.media_path();
        self.leg.handle_timeout(entropy, now, path, path, sinks)
    }

    /// Says goodbye; the socket may close.
    pub(crate) fn on_removed(&mut self, now: Moment, sinks: &mut Sinks<'_>) {
        let path = self.media_path();
        if path.is_some() {
            self.leg.send_goodbye(now, path, sinks);
        }
    }

    fn handle_stun(
        &mut self,
        arrival: Moment,
        source: SocketAddr,
        buffer: &PacketBuffer,
        sinks: &mut Sinks<'_>,
    ) -> Heard {
        let mut response = [0; MAX_RESPONSE_LEN];
        let datagram = buffer.datagram();
        let outcome = self
            .ice
            .handle_stun(arrival.at, source, datagram, &mut response);
        let (response_len, is_activity) = match outcome {
            StunOutcome::Ignored => (0, false),
            StunOutcome::Refused { response_len, .. } => (response_len, false),
            StunOutcome::Valid { response_len, .. } => (response_len, true),
        };
        if !is_activity {
            sinks.out.counters().rejected_stun += 1;
        }
        if let Some(response) = response.get(..response_len).filter(|r| !r.is_empty()) {
            let socket = self.socket_to(source).key;
            sinks.out.transmit(socket, source, response);
        }
        self.expect_media(arrival.at);
        if let Some((role, peer)) = self.take_start() {
            let socket = self.sockets.media.key;
            sinks.out.start_handshake(socket, role, peer);
        }
        Heard::default()
    }

    fn handle_rtp(
        &mut self,
        arrival: Moment,
        buffer: &mut PacketBuffer,
        sinks: &mut Sinks<'_>,
    ) -> Heard {
        let header = match self.leg.open(buffer, arrival.at) {
            Ok(header) => header,
            Err(refusal) => return refusal.count(sinks.out.counters()),
        };
        self.on_authentic_packet(arrival.at);
        if !self.leg.knows(header.payload_type) {
            sinks.out.counters().rejected_payload_type += 1;
        }
        self.leg.receive(header, buffer, arrival, sinks)
    }

    fn handle_rtcp(
        &mut self,
        arrival: Moment,
        buffer: &mut PacketBuffer,
        sinks: &mut Sinks<'_>,
    ) -> Heard {
        let heard = self.leg.receive_control(buffer, arrival, sinks);
        if heard.is_activity {
            self.on_authentic_packet(arrival.at);
        }
        heard
    }

    fn on_authentic_packet(&mut self, now: Instant) {
        let was_gone = self.ice.state() == IceState::Disconnected;
        self.ice.on_authentic_packet(now);
        if was_gone {
            self.expect_media(now);
        }
    }

    fn path_to(&self, to: SocketAddr) -> Path {
        Path {
            socket: self.socket_to(to).key,
            to,
        }
    }

    /// The socket of the family of `to`: the others do not reach it.
    fn socket_to(&self, to: SocketAddr) -> LocalSocket {
        let second = self.sockets.second;
        let reaches = |socket: &LocalSocket| socket.local.is_ipv4() == to.is_ipv4();
        second.filter(reaches).unwrap_or(self.sockets.media)
    }

    /// Silence counts while the party is connected and not held.
    fn expect_media(&mut self, now: Instant) {
        let is_expected =
            self.state() == EndpointState::Connected && self.negotiated_direction().party_sends();
        self.leg.silence.expect(is_expected, now);
    }
}
