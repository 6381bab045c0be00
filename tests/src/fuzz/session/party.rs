//! What the parties send: noise, streams that make sense, reports, connectivity checks; under their
//! keys, where they have some.

use std::net::SocketAddr;
use std::time::Duration;

use rtpbridge_core::session::{Channel, EndpointKey, EndpointSockets, HandshakeOutcome};
use rtpbridge_core::srtp::{MasterKey, Protector, SrtpSuite};
use rtpbridge_shared::id::EndpointId;
use stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, Message, Setter};
use stun::textattrs::TextAttribute;

use super::{Bytes, World};

/// Payload types as often as they occur in the offers, and one that nobody knows.
const PAYLOAD_TYPES: [u8; 8] = [0, 8, 9, 111, 101, 110, 96, 77];

/// An endpoint's other end.
pub(super) struct Party {
    pub(super) session: usize,
    pub(super) id: EndpointId,
    /// None for files.
    pub(super) key: Option<EndpointKey>,
    pub(super) sockets: Option<EndpointSockets>,
    /// Where it sends from.
    pub(super) address: SocketAddr,
    /// Our last description.
    pub(super) sdp: String,
    pub(super) protector: Option<Protector>,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
}

impl Party {
    pub(super) fn new(session: usize, id: EndpointId, address: SocketAddr) -> Self {
        Self {
            session,
            id,
            key: None,
            sockets: None,
            address,
            sdp: String::new(),
            protector: None,
            sequence: 65_500,
            timestamp: u32::MAX - 2000,
            ssrc: u32::from(address.port()),
        }
    }

    /// The first value of such a line in our description.
    fn value(&self, name: &str) -> Option<&str> {
        let start = format!("a={name}:");
        self.sdp.lines().find_map(|line| line.strip_prefix(&start))
    }

    fn packet(&self, payload_type: u8, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, payload_type | u8::from(marker) << 7];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn protect(&mut self, mut packet: Vec<u8>, is_report: bool) -> Vec<u8> {
        let Some(protector) = &mut self.protector else {
            return packet;
        };
        let len = packet.len();
        packet.resize(len + 32, 0);
        let protected = if is_report {
            protector.protect_rtcp(&mut packet, len)
        } else {
            protector.protect_rtp(&mut packet, len)
        };
        // What cannot be protected goes out in the clear.
        packet.truncate(protected.unwrap_or(len));
        packet
    }

    /// A check as an ICE agent makes it; None before we described ourselves.
    fn check(&self, flags: u8) -> Option<Vec<u8>> {
        let ufrag = self.value("ice-ufrag")?;
        let password = self.value("ice-pwd")?;
        let role = match flags & 2 {
            0 => ATTR_ICE_CONTROLLING,
            _ => ATTR_ICE_CONTROLLED,
        };
        let mut message = Message::new();
        message.set_type(BINDING_REQUEST);
        message.write_header();
        let name = TextAttribute::new(ATTR_USERNAME, format!("{ufrag}:peer"));
        name.add_to(&mut message).ok()?;
        message.add(ATTR_PRIORITY, &[1; 4]);
        message.add(role, &[1; 8]);
        if flags & 1 == 0 {
            message.add(ATTR_USE_CANDIDATE, &[]);
        }
        let integrity = MessageIntegrity::new_short_term_integrity(password.to_owned());
        integrity.add_to(&mut message).ok()?;
        FINGERPRINT.add_to(&mut message).ok()?;
        Some(message.raw)
    }
}

impl World {
    fn pick(&self, bytes: &mut Bytes<'_>) -> Option<usize> {
        let index = bytes.below(self.parties.len());
        (index < self.parties.len()).then_some(index)
    }

    /// The party's address, or one like it.
    fn source(&self, party: usize, bytes: &mut Bytes<'_>) -> SocketAddr {
        let mut address = self.parties[party].address;
        match bytes.byte() % 16 {
            0..=11 => {}
            12 | 13 => address.set_port(address.port() ^ 2),
            14 => address.set_ip([10, 9, 9, 9].into()),
            _ => address.set_ip([0x2001, 0xdb8, 0, 0, 0, 0, 0, 9].into()),
        }
        address
    }

    pub(super) fn hear_anything(&mut self, bytes: &mut Bytes<'_>) {
        let Some(party) = self.pick(bytes) else {
            return;
        };
        let source = self.source(party, bytes);
        let channel = match bytes.byte() % 3 {
            0 => Channel::Second,
            _ => Channel::Media,
        };
        let datagram = bytes.chunk(false);
        self.receive(party, channel, source, datagram);
    }

    /// Some packets of one stream, 20 ms apart, with loss, jumps and other payload types.
    pub(super) fn hear_audio(&mut self, bytes: &mut Bytes<'_>) {
        let Some(party) = self.pick(bytes) else {
            return;
        };
        let source = self.source(party, bytes);
        let what = bytes.byte();
        let payload_type = PAYLOAD_TYPES[usize::from(what & 7)];
        let sender = &mut self.parties[party];
        match what >> 3 & 7 {
            0 => sender.sequence = sender.sequence.wrapping_add(bytes.word()),
            1 => sender.timestamp = sender.timestamp.wrapping_add(u32::from(bytes.word()) << 12),
            2 => sender.ssrc = bytes.byte().into(),
            3 => sender.sequence = sender.sequence.wrapping_sub(bytes.byte().into()),
            _ => {}
        }
        let payload = bytes.chunk(false);
        for _ in 0..=what >> 6 {
            let sender = &mut self.parties[party];
            let packet = sender.packet(payload_type, what & 8 != 0, payload);
            let packet = sender.protect(packet, false);
            sender.sequence = sender.sequence.wrapping_add(1);
            sender.timestamp = sender.timestamp.wrapping_add(160);
            self.receive(party, Channel::Media, source, &packet);
            self.pass_to(self.passed + Duration::from_millis(20));
        }
    }

    pub(super) fn hear_report(&mut self, bytes: &mut Bytes<'_>) {
        let Some(party) = self.pick(bytes) else {
            return;
        };
        let source = self.source(party, bytes);
        let what = bytes.byte();
        let mut body = bytes.chunk(false).to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let sender = &mut self.parties[party];
        let mut report = vec![
            0x80 | what >> 3,
            200 + what % 8,
            0,
            body.len() as u8 / 4 + 1,
        ];
        report.extend(sender.ssrc.to_be_bytes());
        report.extend(body);
        let report = sender.protect(report, true);
        let channel = match what % 2 {
            0 => Channel::Media,
            _ => Channel::Second,
        };
        self.receive(party, channel, source, &report);
    }

    pub(super) fn hear_check(&mut self, bytes: &mut Bytes<'_>) {
        let Some(party) = self.pick(bytes) else {
            return;
        };
        let source = self.source(party, bytes);
        if let Some(check) = self.parties[party].check(bytes.byte()) {
            self.receive(party, Channel::Media, source, &check);
        }
    }

    pub(super) fn shake_hands(&mut self, bytes: &mut Bytes<'_>) {
        let Some(party) = self.pick(bytes) else {
            return;
        };
        let (now, what) = (self.now(), bytes.byte());
        let record = [&[22], bytes.chunk(false)].concat();
        let sender = &mut self.parties[party];
        let Some(key) = sender.key else {
            return;
        };
        let master = |seed: u8| {
            let suite = SrtpSuite::AesCm128HmacSha1_80;
            MasterKey::new(suite, &[seed; 30]).expect("of that length")
        };
        let (send, receive) = (master(what), master(what.wrapping_add(1)));
        let outcome = match what % 8 {
            0 => HandshakeOutcome::Over,
            1 => HandshakeOutcome::Transmit(&record),
            _ => {
                sender.protector = Some(Protector::new(&receive));
                HandshakeOutcome::Keys {
                    send: &send,
                    receive: &receive,
                }
            }
        };
        let session = sender.session;
        self.wire.turn_of(session);
        self.sessions[session].handle_handshake(now, key, outcome, &mut self.wire);
    }
}
