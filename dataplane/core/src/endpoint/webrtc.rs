//! WebRTC endpoints: one socket, an ICE-lite agent that says who the peer is, DTLS (run by the shell)
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
use std::time::Duration;

use rtpbridge_shared::vocab::{Direction, EndpointState, IceState};

use super::leg::{Keys, MediaLeg, Path, Refusal, Sinks};
use super::rtp::{Heard, TimedOut};
use crate::entropy::Entropy;
use crate::ice::{IceLite, MAX_RESPONSE_LEN, StunOutcome};
use crate::rtp::demux::{PacketKind, classify};
use crate::sdp::{Agreement, DtlsRole, Fingerprint, LocalDescription};
use crate::session::{LocalSocket, PacketBuffer};
use crate::time::{Instant, Moment};

/// What the shell needs to run the handshake: our role, and what the peer's certificate must match.
pub(crate) type HandshakeStart = (DtlsRole, Vec<Fingerprint>);

/// A WebRTC endpoint.
pub(crate) struct WebrtcEndpoint {
    pub(super) leg: MediaLeg,
    socket: LocalSocket,
    /// The last description of ours.
    local: LocalDescription,
    /// An offer of ours is waiting for its answer.
    is_offering: bool,
    /// Which of our offers that is; grows with each ICE restart.
    offer_generation: u64,
    agreement: Option<Agreement>,
    /// What the client asked for when it made the endpoint.
    own_direction: Direction,
    ice: IceLite,
    /// What the handshake will need, until it is started.
    pending_start: Option<HandshakeStart>,
    /// The handshake failed or the peer said goodbye: nothing brings it back.
    is_over: bool,
    connected_at: Option<Instant>,
    media_timeout: Duration,
    /// Silence was reported and has not ended since.
    is_silent: bool,
    /// The source whose goodbye was reported, by its epoch.
    goodbye_of: Option<u32>,
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

    pub(crate) fn socket(&self) -> LocalSocket {
        self.socket
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
        self.connected_at = Some(now.at);
    }

    /// The handshake failed, or the peer said goodbye.
    pub(crate) fn on_handshake_over(&mut self) {
        self.is_over = true;
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let timeouts = [
            self.leg.next_timeout(),
            self.ice.next_timeout(),
            self.silence_due_at(),
        ];
        timeouts.into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(
        &mut self,
        entropy: &mut dyn Entropy,
        now: Moment,
        sinks: &mut Sinks<'_>,
    ) -> TimedOut {
        self.ice.handle_timeout(now.at);
        let path = self.media_path();
        let finished = self.leg.handle_timeout(entropy, now, path, path, sinks);
        let is_due = self.silence_due_at().is_some_and(|due| now.at >= due);
        let silent_for = self
            .silent_since()
            .filter(|_| is_due)
            .map(|since| now.at - since);
        self.is_silent |= is_due;
        TimedOut {
            finished,
            silent_for,
        }
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
            sinks.out.transmit(self.socket.key, source, response);
        }
        if let Some((role, peer)) = self.take_start() {
            sinks.out.start_handshake(self.socket.key, role, peer);
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
            Err(refusal) => return refuse(refusal, sinks),
        };
        self.ice.on_authentic_packet(arrival.at);
        if !self.leg.knows(header.payload_type) {
            sinks.out.counters().rejected_payload_type += 1;
        }
        match self.leg.receive(header, buffer, arrival, sinks) {
            Ok((inbound, finished)) => {
                self.is_silent = false;
                Heard {
                    inbound: Some(inbound),
                    finished,
                    is_activity: true,
                    ..Heard::default()
                }
            }
            Err(refusal) => refuse(refusal, sinks),
        }
    }

    fn handle_rtcp(
        &mut self,
        arrival: Moment,
        buffer: &mut PacketBuffer,
        sinks: &mut Sinks<'_>,
    ) -> Heard {
        let read = match self.leg.receive_control(buffer, arrival, sinks) {
            Ok(read) => read,
            Err(refusal) => return refuse(refusal, sinks),
        };
        self.ice.on_authentic_packet(arrival.at);
        let epoch = self.leg.epoch();
        let is_news = self.goodbye_of != Some(epoch);
        let goodbye = read.goodbye.filter(|_| is_news);
        if goodbye.is_some() {
            self.goodbye_of = Some(epoch);
        }
        Heard {
            goodbye,
            is_activity: true,
            ..Heard::default()
        }
    }

    fn path_to(&self, to: SocketAddr) -> Path {
        Path {
            socket: self.socket.key,
            to,
        }
    }

    fn silent_since(&self) -> Option<Instant> {
        let connected = self.connected_at?;
        let heard = self.leg.last_heard_at();
        Some(heard.map_or(connected, |heard| heard.max(connected)))
    }

    /// When silence is to be reported; never while the party is not expected to send.
    fn silence_due_at(&self) -> Option<Instant> {
        let is_expected =
            self.state() == EndpointState::Connected && self.negotiated_direction().party_sends();
        if self.is_silent || !is_expected {
            return None;
        }
        Some(self.silent_since()? + self.media_timeout)
    }
}

fn refuse(refusal: Refusal, sinks: &mut Sinks<'_>) -> Heard {
    refusal.count(sinks.out.counters());
    Heard::default()
}
