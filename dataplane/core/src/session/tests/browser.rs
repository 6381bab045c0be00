//! A WebRTC peer without a network: it checks connectivity as an ICE agent does, and has its SRTP keys
//! without a handshake.

use rtpbridge_shared::ipc::endpoint::CreateOffer;
use rtpbridge_shared::ipc::endpoint::SrtpOffer;
use rtpbridge_shared::vocab::{SrtpSuite, Transport};
use stun::attributes::ATTR_USERNAME;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, Message, Setter};
use stun::textattrs::Username;
use webrtc_ice::control::AttrControlling;
use webrtc_ice::priority::PriorityAttr;
use webrtc_ice::use_candidate::UseCandidateAttr;

use super::*;
use crate::sdp::{Fingerprint, FingerprintHash};
use crate::srtp::{MasterKey, Protector, Unprotector};

const SUITE: SrtpSuite = SrtpSuite::AesCm128HmacSha1_80;

/// What stands in a description of a browser for one thing or another.
#[derive(Clone, Copy)]
pub(super) struct Words {
    pub(super) ufrag: &'static str,
    pub(super) setup: &'static str,
    /// Of the certificate, repeated.
    pub(super) fingerprint: &'static str,
}

pub(super) const WORDS: Words = Words {
    ufrag: "peer",
    setup: "actpass",
    fingerprint: "AB",
};

/// A browser and the endpoint that it talks to.
pub(super) struct Browser {
    pub(super) id: EndpointId,
    pub(super) key: EndpointKey,
    pub(super) socket: SocketKey,
    /// The bridge's socket of the other family.
    pub(super) second: Option<SocketKey>,
    pub(super) address: SocketAddr,
    /// The bridge's last description.
    pub(super) sdp: String,
    party: Party,
    protector: Protector,
    unprotector: Unprotector,
}

pub(super) fn webrtc_world() -> World {
    World::with(webrtc_config())
}

pub(super) fn webrtc_config() -> EngineConfig {
    EngineConfig {
        fingerprint: Some(Fingerprint {
            hash: FingerprintHash::Sha256,
            digest: vec![7; 32],
        }),
        ..EngineConfig::default()
    }
}

pub(super) fn description(words: Words) -> String {
    let Words {
        ufrag,
        setup,
        fingerprint,
    } = words;
    let digest = [fingerprint; 32].join(":");
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 0 101\r\nc=IN IP4 0.0.0.0\r\n\
         a=ice-ufrag:{ufrag}\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
         a=fingerprint:sha-256 {digest}\r\na=setup:{setup}\r\na=mid:0\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=sendrecv\r\na=rtcp-mux\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
    )
}

fn master(seed: u8) -> MasterKey {
    MasterKey::new(SUITE, &[seed; 30]).expect("of that length")
}

/// The value of the first such line.
pub(super) fn value<'a>(sdp: &'a str, name: &str) -> &'a str {
    let start = format!("a={name}:");
    sdp.lines()
        .find_map(|line| line.strip_prefix(&start))
        .unwrap_or_else(|| panic!("no {name} in {sdp}"))
}

impl Browser {
    /// Offers itself into the session.
    pub(super) fn offering(world: &mut World) -> Self {
        world.parties += 1;
        let n = world.parties;
        let request = CreateFromOffer {
            session: world.session.id(),
            endpoint: EndpointId::from_bytes([n as u8; 16]),
            sdp: description(WORDS),
            direction: Direction::Sendrecv,
            transport: None,
        };
        let prepared = world.session.prepare_from_offer(&request).expect("usable");
        assert_eq!(prepared.need().transport, Transport::Webrtc);
        Self::created(world, n, request.endpoint, prepared)
    }

    /// Is offered to; its answer is still to come.
    pub(super) fn invited(world: &mut World) -> Self {
        world.parties += 1;
        let n = world.parties;
        let request = CreateOffer {
            session: world.session.id(),
            endpoint: EndpointId::from_bytes([n as u8; 16]),
            transport: Transport::Webrtc,
            direction: Direction::Sendrecv,
            srtp: SrtpOffer::Off,
            codecs: Vec::new(),
        };
        let prepared = world.session.prepare_offer(&request).expect("available");
        Self::created(world, n, request.endpoint, prepared)
    }

    /// Offers itself, nominates its address, and has its keys.
    pub(super) fn connected(world: &mut World) -> Self {
        let browser = Self::offering(world);
        browser.nominate(world, browser.address);
        browser.take_keys(world);
        browser
    }

    fn created(world: &mut World, n: u16, id: EndpointId, prepared: PreparedEndpoint) -> Self {
        let mut sockets = sockets(n);
        let is_wanted = prepared.need().second.is_some();
        sockets.second = sockets.second.filter(|_| is_wanted).map(|second| {
            let local = SocketAddr::from((Ipv6Addr::LOCALHOST, second.local.port()));
            LocalSocket {
                local,
                advertised: local,
                ..second
            }
        });
        let created = world
            .session
            .create_endpoint(world.now, prepared, sockets, &mut world.out)
            .expect("room");
        let address = SocketAddr::from(([10, 0, 0, n as u8], 5000));
        let party = Party {
            id,
            key: created.key,
            address,
            socket: sockets.media.key,
            ssrc: 0x1000 + u32::from(n),
            sequence: 65_500,
            timestamp: u32::MAX - 3000,
        };
        Self {
            id,
            key: created.key,
            socket: sockets.media.key,
            second: sockets.second.map(|second| second.key),
            address,
            sdp: created.sdp,
            party,
            protector: Protector::new(&master(n as u8)),
            unprotector: Unprotector::new(&master(100 + n as u8)),
        }
    }

    /// The handshake is done.
    pub(super) fn take_keys(&self, world: &mut World) {
        let n = self.id.as_bytes()[0];
        let (send, receive) = (master(100 + n), master(n));
        let keys = HandshakeOutcome::Keys {
            send: &send,
            receive: &receive,
        };
        world.handshake(self, keys);
    }

    /// A check under the credentials of the bridge's description `sdp`.
    pub(super) fn check_with(
        &self,
        world: &mut World,
        sdp: &str,
        from: SocketAddr,
        nominates: bool,
    ) -> Message {
        let username = format!("{}:peer", value(sdp, "ice-ufrag"));
        let password = value(sdp, "ice-pwd").to_owned();
        let mut message = Message::new();
        message.typ = BINDING_REQUEST;
        message.write_header();
        message.new_transaction_id().expect("random source");
        let mut attributes: Vec<Box<dyn Setter>> = vec![
            Box::new(Username::new(ATTR_USERNAME, username)),
            Box::new(PriorityAttr(1)),
            Box::new(AttrControlling(7)),
        ];
        if nominates {
            attributes.push(Box::new(UseCandidateAttr));
        }
        let integrity = MessageIntegrity::new_short_term_integrity(password);
        attributes.push(Box::new(integrity));
        attributes.push(Box::new(FINGERPRINT));
        for attribute in attributes {
            attribute.add_to(&mut message).expect("fits");
        }
        world.receive_on(self.key, Channel::Media, from, &message.raw);
        let answer = world.out.sent.pop().expect("answered");
        assert_eq!((answer.socket, answer.to), (self.socket_to(from), from));
        let mut response = Message::default();
        response.unmarshal_binary(&answer.bytes).expect("STUN");
        response
    }

    pub(super) fn nominate(&self, world: &mut World, from: SocketAddr) {
        self.check_with(world, &self.sdp, from, true);
    }

    pub(super) fn check(&self, world: &mut World, from: SocketAddr) {
        self.check_with(world, &self.sdp, from, false);
    }

    /// The next 20 ms, protected.
    pub(super) fn next_packet(&mut self) -> Vec<u8> {
        let mut packet = self.party.next_packet();
        let len = packet.len();
        packet.resize(len + 64, 0);
        let len = self.protector.protect_rtp(&mut packet, len).expect("fits");
        packet.truncate(len);
        packet
    }

    /// Says the next 20 ms from one of its addresses.
    pub(super) fn talk_from(&mut self, world: &mut World, from: SocketAddr) {
        let packet = self.next_packet();
        world.receive_on(self.key, Channel::Media, from, &packet);
    }

    pub(super) fn talk(&mut self, world: &mut World) {
        self.talk_from(world, self.address);
    }

    /// What it was sent and has authenticated: where to, whether it is RTCP, and the packet.
    pub(super) fn take(&mut self, world: &mut World) -> Vec<(SocketAddr, bool, Vec<u8>)> {
        let (theirs, others) = world
            .out
            .sent
            .drain(..)
            .partition(|sent: &Sent| sent.socket == self.socket_to(sent.to));
        world.out.sent = others;
        let now = world.now.at;
        let read = |mut sent: Sent| {
            let is_control = (192..=223).contains(&sent.bytes[1]);
            let len = if is_control {
                self.unprotector.unprotect_rtcp(now, &mut sent.bytes)
            } else {
                self.unprotector.unprotect_rtp(now, &mut sent.bytes)
            };
            sent.bytes.truncate(len.expect("authentic"));
            (sent.to, is_control, sent.bytes)
        };
        Vec::into_iter(theirs).map(read).collect()
    }

    /// The bridge's socket that reaches this address of the browser.
    pub(super) fn socket_to(&self, to: SocketAddr) -> SocketKey {
        let second = self.second.filter(|_| to.is_ipv6());
        second.unwrap_or(self.socket)
    }

    /// How many RTP packets went to which address.
    pub(super) fn take_targets(&mut self, world: &mut World) -> Vec<SocketAddr> {
        let taken = self.take(world).into_iter();
        taken
            .filter(|(_, is_control, _)| !is_control)
            .map(|(to, ..)| to)
            .collect()
    }
}

impl World {
    pub(super) fn handshake(&mut self, browser: &Browser, outcome: HandshakeOutcome<'_>) {
        self.session
            .handle_handshake(self.now, browser.key, outcome, &mut self.out);
    }
}
