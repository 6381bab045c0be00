//! A party of a call: an even/odd pair of sockets and one RTP stream.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

use super::rtcp::Rtcp;
use super::rtp::{Rtp, TelephoneEvent};
use super::sdp::{Description, Offer};
use crate::harness::Client;

/// Samples of a 20 ms frame at 8 kHz.
pub const FRAME_SAMPLES: u32 = 160;
/// Room for everything that a test lets pile up before it reads; the default holds 256 packets.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// The time a frame lasts.
pub const FRAME_TIME: Duration = Duration::from_millis(20);

/// One party.
#[derive(Debug)]
pub struct Party {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// Where the bridge wants this party's RTP.
    pub bridge: SocketAddr,
    /// The endpoint in the session.
    pub endpoint: String,
    /// The bridge's last description.
    pub description: Description,
    /// SSRC of what this party sends.
    pub ssrc: u32,
    /// Payload type of its audio.
    pub payload_type: u8,
    /// Next sequence number.
    pub sequence: u16,
    /// Next time stamp.
    pub timestamp: u32,
}

impl Party {
    /// A party on 127.0.0.1 that is in no session yet.
    pub fn bind() -> Self {
        Self::bind_at(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// A party on any local address.
    pub fn bind_at(ip: IpAddr) -> Self {
        let (rtp, rtcp) = socket_pair(ip);
        setsockopt(&rtp, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).expect("tests run as root");
        Self {
            rtp,
            rtcp,
            bridge: SocketAddr::new(ip, 9),
            endpoint: String::new(),
            description: Description::default(),
            ssrc: rand::random(),
            payload_type: 0,
            sequence: rand::random(),
            timestamp: rand::random(),
        }
    }

    /// A new party that offers PCMU into the client's session.
    pub fn join(client: &mut Client) -> Self {
        let mut party = Self::bind();
        let offer = Offer::pcmu(party.address());
        party.offer(client, &offer, json!({}));
        party
    }

    /// Offers itself into the client's session; `extra` members are added to the params.
    pub fn offer(&mut self, client: &mut Client, offer: &Offer, extra: serde_json::Value) {
        let mut params = json!({"sdp": offer.write()});
        for (key, value) in extra.as_object().expect("an object") {
            params[key] = value.clone();
        }
        let created = client.call("endpoint.create_from_offer", params);
        self.endpoint = created["endpoint_id"]
            .as_str()
            .expect("endpoint_id")
            .to_owned();
        self.take_description(created["sdp_answer"].as_str().expect("sdp_answer"));
    }

    /// Answers an offer made by the bridge.
    pub fn accept(client: &mut Client, extra: serde_json::Value) -> Self {
        let mut params = json!({"type": "rtp", "codecs": ["pcmu"]});
        for (key, value) in extra.as_object().expect("an object") {
            params[key] = value.clone();
        }
        let mut party = Self::bind();
        let created = client.call("endpoint.create_offer", params);
        party.endpoint = created["endpoint_id"]
            .as_str()
            .expect("endpoint_id")
            .to_owned();
        party.take_description(created["sdp_offer"].as_str().expect("sdp_offer"));
        let answer = Offer::pcmu(party.address()).write();
        client.call(
            "endpoint.accept_answer",
            json!({"endpoint_id": party.endpoint, "sdp": answer}),
        );
        party
    }

    /// Remembers where to send after a description of the bridge.
    pub fn take_description(&mut self, text: &str) {
        self.description = Description::parse(text);
        self.bridge = self.description.address();
    }

    /// Where it wants its RTP.
    pub fn address(&self) -> SocketAddr {
        self.rtp.local_addr().expect("bound")
    }

    /// Where it wants its RTCP.
    pub fn rtcp_address(&self) -> SocketAddr {
        self.rtcp.local_addr().expect("bound")
    }

    /// The bridge's RTCP address.
    pub fn bridge_rtcp(&self) -> SocketAddr {
        SocketAddr::new(self.bridge.ip(), self.bridge.port() + 1)
    }

    /// The next packet of its stream.
    pub fn next_packet(&mut self, payload: &[u8]) -> Rtp {
        let packet = Rtp {
            payload_type: self.payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            payload: payload.to_vec(),
            ..Rtp::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME_SAMPLES);
        packet
    }

    /// Sends the next packet of its stream.
    pub fn send(&mut self, payload: &[u8]) -> Rtp {
        let packet = self.next_packet(payload);
        self.send_packet(&packet);
        packet
    }

    /// Sends any packet to the bridge.
    pub fn send_packet(&self, packet: &Rtp) {
        self.send_bytes(&packet.write());
    }

    /// Sends any datagram to the bridge's RTP port.
    pub fn send_bytes(&self, bytes: &[u8]) {
        self.rtp
            .send_to(bytes, self.bridge)
            .expect("loopback takes it");
    }

    /// Sends any datagram to the bridge's RTCP port.
    pub fn send_rtcp(&self, bytes: &[u8]) {
        self.rtcp
            .send_to(bytes, self.bridge_rtcp())
            .expect("loopback takes it");
    }

    /// Sends frames of distinct content at the pace of a phone; gives what was sent.
    pub fn talk(&mut self, frames: usize) -> Vec<Rtp> {
        let start = Instant::now();
        let mut sent = Vec::with_capacity(frames);
        for index in 0..frames {
            let due = start + FRAME_TIME * u32::try_from(index).expect("few frames");
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let payload = self.distinct_frame();
            sent.push(self.send(&payload));
        }
        sent
    }

    /// Sends frames of distinct content as fast as the sockets take them, in small groups.
    pub fn burst(&mut self, frames: usize) -> Vec<Rtp> {
        let mut sent = Vec::with_capacity(frames);
        for index in 0..frames {
            let payload = self.distinct_frame();
            sent.push(self.send(&payload));
            if index % 8 == 7 {
                thread::sleep(Duration::from_millis(2));
            }
        }
        sent
    }

    /// 160 bytes that name the stream and the packet.
    pub fn distinct_frame(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(FRAME_SAMPLES as usize);
        let mut word = self.ssrc ^ u32::from(self.sequence).wrapping_mul(0x9e37_79b9);
        while payload.len() < FRAME_SAMPLES as usize {
            payload.extend(word.to_be_bytes());
            word = word
                .rotate_left(5)
                .wrapping_mul(0x85eb_ca6b)
                .wrapping_add(1);
        }
        payload
    }

    /// Plays one whole telephone-event: packets every 20 ms, the last one three times.
    pub fn press(&mut self, payload_type: u8, event: u8, packets: u16) -> Vec<Rtp> {
        self.press_paced(payload_type, event, packets, FRAME_TIME)
    }

    /// As [`press`](Self::press), without pauses: however busy the machine is, nothing in it can be
    /// taken for the silence that ends an event.
    pub fn press_at_once(&mut self, payload_type: u8, event: u8, packets: u16) -> Vec<Rtp> {
        self.press_paced(payload_type, event, packets, Duration::ZERO)
    }

    fn press_paced(
        &mut self,
        payload_type: u8,
        event: u8,
        packets: u16,
        pause: Duration,
    ) -> Vec<Rtp> {
        let timestamp = self.timestamp;
        let mut sent = Vec::new();
        for index in 0..packets + 2 {
            let number = index.min(packets - 1) + 1;
            let payload = TelephoneEvent {
                event,
                end: index + 1 >= packets,
                volume: 10,
                duration: number * FRAME_SAMPLES as u16,
            };
            let packet = Rtp {
                marker: index == 0,
                payload_type,
                timestamp,
                ..self.next_packet(&payload.write())
            };
            self.send_packet(&packet);
            sent.push(packet);
            if index < packets {
                thread::sleep(pause);
            }
        }
        sent
    }

    /// The next RTP packet for this party, RTCP left aside.
    pub fn receive(&self, within: Duration) -> Option<Rtp> {
        let deadline = Instant::now() + within;
        loop {
            let (bytes, _) = receive_from(&self.rtp, deadline)?;
            if bytes
                .get(1)
                .is_some_and(|second| (200..=207).contains(second))
            {
                continue;
            }
            return Some(
                Rtp::parse(&bytes).unwrap_or_else(|| panic!("sent something not RTP: {bytes:?}")),
            );
        }
    }

    /// Exactly this many RTP packets; panics when they do not come.
    pub fn receive_exactly(&self, count: usize) -> Vec<Rtp> {
        (0..count)
            .map(|index| {
                self.receive(Duration::from_secs(5))
                    .unwrap_or_else(|| panic!("packet {index} of {count} did not come"))
            })
            .collect()
    }

    /// Everything that is there now or comes until `quiet` has passed without a packet; what comes
    /// without end is left after a second.
    pub fn receive_all(&self, quiet: Duration) -> Vec<Rtp> {
        let end = Instant::now() + quiet + Duration::from_secs(1);
        let next = || (Instant::now() < end).then(|| self.receive(quiet))?;
        std::iter::from_fn(next).collect()
    }

    /// Fails when any RTP comes within `during`.
    pub fn expect_silence(&self, during: Duration) {
        if let Some(packet) = self.receive(during) {
            panic!("heard {packet:?} in what should be silence");
        }
    }

    /// The next RTCP compound for this party and where it came from.
    pub fn receive_rtcp(&self, within: Duration) -> Option<Vec<Rtcp>> {
        let bytes = self.receive_rtcp_bytes(within)?;
        Some(
            Rtcp::parse_compound(&bytes)
                .unwrap_or_else(|| panic!("sent something not RTCP: {bytes:?}")),
        )
    }

    /// The next RTCP datagram for this party, undecoded.
    pub fn receive_rtcp_bytes(&self, within: Duration) -> Option<Vec<u8>> {
        receive_from(&self.rtcp, Instant::now() + within).map(|(bytes, _)| bytes)
    }

    /// The RTP socket, for unusual uses.
    pub fn socket(&self) -> &UdpSocket {
        &self.rtp
    }
}

/// One datagram and its source, or none at the deadline.
pub fn receive_from(socket: &UdpSocket, deadline: Instant) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.max(Duration::from_micros(1));
        socket.set_read_timeout(Some(timeout)).expect("timeout");
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => return Some((buffer[..length].to_vec(), source)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    return None;
                }
            }
            // A port unreachable report of something sent earlier.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => panic!("receive: {error}"),
        }
    }
}

/// An even port and the odd one above it.
pub fn socket_pair(ip: IpAddr) -> (UdpSocket, UdpSocket) {
    for _ in 0..1000 {
        let first = UdpSocket::bind((ip, 0)).expect("a free port");
        let port = first.local_addr().expect("bound").port();
        if port.is_multiple_of(2)
            && let Ok(second) = UdpSocket::bind((ip, port + 1))
        {
            return (first, second);
        }
    }
    panic!("no free even/odd pair on {ip}");
}
