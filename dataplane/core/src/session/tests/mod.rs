//! Whole calls through a session, in made-up time.

mod bad_line;
mod bridges;
mod browser;
mod calls;
mod digits;
mod drift;
mod files;
mod hostile;
mod learning;
mod life;
mod mixing;
mod opus;
mod recordings;
mod srtp;
mod switching;
mod tones;
mod voice;
mod walk;
mod webrtc;
mod webrtc_offers;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::Event;
use rtpbridge_shared::ipc::endpoint::{CreateFromOffer, UpdateDirection};
use rtpbridge_shared::vocab::{Codec, Direction};

use super::testing::{Collector, Seeded, Sent};
use super::*;
use crate::rtp::header::{OwnHeader, RtpHeader};
use crate::time::{Instant, Moment, WallTime};

/// A session and the clock around it.
struct World {
    session: Session,
    out: Collector,
    now: Moment,
    buffer: PacketBuffer,
    parties: u16,
}

/// Somebody on the phone.
#[derive(Clone, Debug)]
struct Party {
    id: EndpointId,
    key: EndpointKey,
    address: SocketAddr,
    socket: SocketKey,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

const PCMU: &str = "0 101";

impl World {
    fn new() -> Self {
        Self::with(EngineConfig::default())
    }

    fn with(config: EngineConfig) -> Self {
        let now = Moment {
            at: Instant::from_nanos(1_000_000_000_000),
            wall: WallTime::from_nanos(1_700_000_000_000_000_000),
        };
        let id = SessionId::from_bytes([1; 16]);
        let entropy = Box::new(Seeded(7));
        Self {
            session: Session::new(id, 5, Arc::new(config), entropy, now.at),
            out: Collector::default(),
            now,
            buffer: PacketBuffer::new(),
            parties: 0,
        }
    }

    /// A party that offered these formats from 10.0.0.N:4000.
    fn join(&mut self, formats: &str, direction: Direction) -> Party {
        let address = SocketAddr::from(([10, 0, 0, self.parties as u8 + 1], 4000));
        let sdp = offer(address, formats, "sendrecv");
        self.join_with(sdp, address, direction)
    }

    /// A party that offered this.
    fn join_with(&mut self, sdp: String, address: SocketAddr, direction: Direction) -> Party {
        self.parties += 1;
        let n = self.parties;
        let request = CreateFromOffer {
            session: self.session.id(),
            endpoint: EndpointId::from_bytes([n as u8; 16]),
            sdp,
            direction,
            transport: None,
        };
        let prepared = self.session.prepare_from_offer(&request).expect("usable");
        let sockets = sockets(n);
        let created = self
            .session
            .create_endpoint(self.now, prepared, sockets, &mut self.out)
            .expect("room");
        Party {
            id: request.endpoint,
            key: created.key,
            address,
            socket: sockets.media.key,
            ssrc: 0x1000 + u32::from(n),
            sequence: 65_500,
            timestamp: u32::MAX - 3000,
        }
    }

    fn pair(&mut self) -> (Party, Party) {
        let one = self.join(PCMU, Direction::Sendrecv);
        (one, self.join(PCMU, Direction::Sendrecv))
    }

    /// Time passes, with the timers that are due on the way.
    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(due) = self.session.next_timeout().filter(|due| *due <= end.at) {
            if due > self.now.at {
                self.now = self.now + (due - self.now.at);
            }
            self.session.handle_timeout(self.now, &mut self.out);
            let next = self.session.next_timeout();
            assert!(
                next.is_none_or(|next| next > self.now.at),
                "timers make progress"
            );
        }
        if end.at > self.now.at {
            self.now = self.now + (end.at - self.now.at);
        }
    }

    fn receive_on(&mut self, key: EndpointKey, channel: Channel, from: SocketAddr, bytes: &[u8]) {
        self.buffer.space()[..bytes.len()].copy_from_slice(bytes);
        self.buffer.set_len(bytes.len());
        self.session.handle_packet(
            self.now,
            key,
            channel,
            from,
            &mut self.buffer,
            &mut self.out,
        );
    }

    fn receive(&mut self, party: &Party, bytes: &[u8]) {
        self.receive_on(party.key, Channel::Media, party.address, bytes);
    }

    /// The party says the next 20 ms.
    fn talk(&mut self, party: &mut Party) {
        let packet = party.next_packet();
        self.receive(party, &packet);
    }

    fn set_direction(&mut self, party: &Party, direction: Option<Direction>) {
        let request = UpdateDirection {
            session: self.session.id(),
            endpoint: party.id,
            direction,
        };
        self.session
            .update_direction(self.now, &request)
            .expect("it exists");
    }

    /// RTP that was sent to the party, and forgotten from now on.
    fn take_rtp(&mut self, party: &Party) -> Vec<(RtpHeader, Vec<u8>)> {
        let is_theirs =
            |sent: &Sent| sent.socket == party.socket && !(192..=223).contains(&sent.bytes[1]);
        let (theirs, others) = self.out.sent.drain(..).partition(is_theirs);
        self.out.sent = others;
        let read = |sent: Sent| {
            let header = RtpHeader::parse(&sent.bytes).expect("we send RTP");
            let payload = sent.bytes[header.payload.clone()].to_vec();
            (header, payload)
        };
        Vec::into_iter(theirs).map(read).collect()
    }

    fn events(&self) -> impl Iterator<Item = &Event> {
        self.out.events.iter().map(|(event, _)| &event.event)
    }

    fn digits(&self) -> String {
        let digit = |event: &Event| match event {
            Event::Dtmf { digit, .. } => Some(char::from(*digit)),
            _ => None,
        };
        self.events().filter_map(digit).collect()
    }
}

impl Party {
    fn packet(&self, payload_type: u8, marker: bool, payload: &[u8]) -> Vec<u8> {
        let header = OwnHeader {
            marker,
            payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        [&header.write()[..], payload].concat()
    }

    /// 20 ms of PCMU whose payload tells its sequence number.
    fn next_packet(&mut self) -> Vec<u8> {
        let mut payload = [0; 160];
        payload[..2].copy_from_slice(&self.sequence.to_be_bytes());
        let packet = self.packet(0, false, &payload);
        self.step();
        packet
    }

    fn step(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
    }
}

fn sockets(n: u16) -> EndpointSockets {
    let socket = |key: u16, port: u16| {
        let local = SocketAddr::from(([127, 0, 0, 1], port));
        LocalSocket {
            key: SocketKey(key.into()),
            local,
            advertised: local,
        }
    };
    EndpointSockets {
        media: socket(2 * n, 30_000 + 2 * n),
        second: Some(socket(2 * n + 1, 30_001 + 2 * n)),
    }
}

fn offer(address: SocketAddr, formats: &str, direction: &str) -> String {
    let (ip, port) = (address.ip(), address.port());
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {formats}\r\na={direction}\r\n"
    );
    for (payload_type, rtpmap) in [
        ("101", "telephone-event/8000"),
        ("96", "telephone-event/8000"),
        ("111", "opus/48000/2"),
        ("110", "telephone-event/48000"),
    ] {
        if formats.split(' ').any(|format| format == payload_type) {
            sdp += &format!("a=rtpmap:{payload_type} {rtpmap}\r\n");
        }
    }
    if formats.split(' ').any(|format| format == "111") {
        sdp += "a=fmtp:111 useinbandfec=1\r\n";
    }
    sdp
}
