//! Plain RTP and SDES-SRTP endpoints: two sockets, a peer known from SDP, and whatever address it
//! turns out to send from (RFC 3550, 3551; media.md, Plain RTP endpoints).
//!
//! ```text
//! offer accepted ─────────────► connected ◄──answer accepted── connecting ◄── offer made
//! ```
//! Before it is connected everything that arrives is dropped, and never counts.

pub(crate) mod negotiation;

use std::net::SocketAddr;
use std::time::Duration;

use rtpbridge_shared::vocab::{Direction, EndpointState};

pub(crate) use negotiation::{OfferPlan, prepare_answer, prepare_offer};

use super::latching::{Evidence, Latch, Verdict};
use super::leg::{Heard, MediaLeg, Path, Sinks, TimedOut};
use crate::entropy::Entropy;
use crate::rtp::demux::{PacketKind, classify};
use crate::sdp::{Agreement, LocalDescription};
use crate::session::{Channel, EndpointSockets, LocalSocket, PacketBuffer};
use crate::time::{Instant, Moment};

/// For this long after an answer, datagrams that the kernel had before it are ignored.
const DRAIN: Duration = Duration::from_secs(1);

/// A plain RTP endpoint.
pub(crate) struct RtpEndpoint {
    pub(super) leg: MediaLeg,
    sockets: EndpointSockets,
    /// The last description of ours. Boxed, as the agreement is: packets need neither.
    local: Box<LocalDescription>,
    /// An offer of ours is waiting for its answer.
    is_offering: bool,
    agreement: Option<Box<Agreement>>,
    /// The agreement names an address of the party.
    has_address: bool,
    /// What the client asked for when it made the endpoint.
    own_direction: Direction,
    latch: Latch,
    waits_for_inbound: bool,
    /// Where RTCP came from.
    control_source: Option<SocketAddr>,
    connected_at: Option<Moment>,
}

impl RtpEndpoint {
    pub(crate) fn state(&self) -> EndpointState {
        match self.agreement {
            Some(_) => EndpointState::Connected,
            None => EndpointState::Connecting,
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

    /// Where the party is sent media, or would be.
    pub(crate) fn remote_address(&self) -> Option<SocketAddr> {
        self.latch.believed().or(self.latch.signalled())
    }

    pub(crate) fn handle_packet(
        &mut self,
        arrival: Moment,
        channel: Channel,
        source: SocketAddr,
        buffer: &mut PacketBuffer,
        sinks: &mut Sinks<'_>,
    ) -> Heard {
        if self.is_before_answer(arrival) {
            return Heard::default();
        }
        let counters = sinks.out.counters();
        counters.packets_received += 1;
        match (channel, classify(buffer.datagram())) {
            (Channel::Media, PacketKind::Rtp) => self.handle_rtp(arrival, source, buffer, sinks),
            (_, PacketKind::Rtcp) => self.handle_rtcp(arrival, channel, source, buffer, sinks),
            _ => {
                counters.rejected_malformed += 1;
                Heard::default()
            }
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.leg.next_timeout()
    }

    pub(crate) fn handle_timeout(
        &mut self,
        entropy: &mut dyn Entropy,
        now: Moment,
        sinks: &mut Sinks<'_>,
    ) -> TimedOut {
        let (media, control) = (self.media_path(), self.control_path());
        self.leg.handle_timeout(entropy, now, media, control, sinks)
    }

    /// Says goodbye; the sockets may close.
    pub(crate) fn on_removed(&mut self, now: Moment, sinks: &mut Sinks<'_>) {
        let control = self.control_path();
        if self.agreement.is_some() {
            self.leg.send_goodbye(now, control, sinks);
        }
    }

    /// Where media goes now: nowhere on hold, and nowhere yet when the party is to speak first.
    pub(crate) fn media_path(&self) -> Option<Path> {
        if !self.has_address {
            return None;
        }
        let to = match self.latch.believed() {
            Some(believed) => believed,
            None if self.waits_for_inbound => return None,
            None => self.latch.signalled()?,
        };
        Some(path(self.sockets.media, to))
    }

    fn control_path(&self) -> Option<Path> {
        let media = self.media_path()?;
        let agreement = self.agreement.as_ref()?;
        let Some(socket) = self.sockets.second.filter(|_| !agreement.rtcp_mux) else {
            return Some(media);
        };
        let to = match self.control_source {
            Some(heard) if self.is_control_host(heard) => heard,
            _ if self.latch.signalled() == Some(media.to) => agreement.address?.rtcp?,
            _ => SocketAddr::new(media.to.ip(), media.to.port().checked_add(1)?),
        };
        Some(path(socket, to))
    }

    /// Whether RTCP may come from this host: the party's, or the one that its `a=rtcp` names
    /// (RFC 3605) while it is where it said.
    fn is_control_host(&self, source: SocketAddr) -> bool {
        let signalled = self.agreement.as_ref().and_then(|agreed| agreed.address);
        self.latch.is_party_host(source)
            || signalled.is_some_and(|address| {
                address.rtcp.is_some_and(|rtcp| rtcp.ip() == source.ip())
                    && self.latch.is_party_host(address.rtp)
            })
    }

    /// Nothing agreed yet, or the datagram had arrived before that.
    fn is_before_answer(&self, arrival: Moment) -> bool {
        let Some(connected) = self.connected_at else {
            return true;
        };
        arrival.wall < connected.wall && arrival.at < connected.at + DRAIN
    }

    fn handle_rtp(
        &mut self,
        arrival: Moment,
        source: SocketAddr,
        buffer: &mut PacketBuffer,
        sinks: &mut Sinks<'_>,
    ) -> Heard {
        let header = match self.leg.open(buffer, arrival.at) {
            Ok(header) => header,
            Err(refusal) => return refusal.count(sinks.out.counters()),
        };
        let is_known = self.leg.knows(header.payload_type);
        if !is_known {
            sinks.out.counters().rejected_payload_type += 1;
            if self.latch.believed() != Some(source) {
                return Heard::default();
            }
        }
        let evidence = Evidence {
            source,
            ssrc: header.ssrc,
            sequence: header.sequence,
            is_authenticated: self.leg.keys.is_some(),
            continues: self.leg.continues(&header),
        };
        if self.latch.judge(&evidence, arrival.at) == Verdict::Refused {
            sinks.out.counters().rejected_source += 1;
            return Heard::default();
        }
        self.leg.receive(header, buffer, arrival, sinks)
    }

    fn handle_rtcp(
        &mut self,
        arrival: Moment,
        channel: Channel,
        source: SocketAddr,
        buffer: &mut PacketBuffer,
        sinks: &mut Sinks<'_>,
    ) -> Heard {
        if self.leg.keys.is_none() && !self.is_control_host(source) {
            sinks.out.counters().rejected_source += 1;
            return Heard::default();
        }
        let heard = self.leg.receive_control(buffer, arrival, sinks);
        if heard.is_activity && channel == Channel::Second {
            self.control_source = Some(source);
        }
        heard
    }

    /// Silence counts while the party is connected and not held.
    fn expect_media(&mut self, now: Instant) {
        let is_expected = self.agreement.is_some() && self.negotiated_direction().party_sends();
        self.leg.silence.expect(is_expected, now);
    }
}

fn path(socket: LocalSocket, to: SocketAddr) -> Path {
    Path {
        socket: socket.key,
        to,
    }
}
