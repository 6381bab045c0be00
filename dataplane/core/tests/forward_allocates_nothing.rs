//! Forwarding a packet allocates nothing: counted by the allocator of this program, on the thread
//! that forwards.

use std::net::SocketAddr;
use std::sync::Arc;

use rtpbridge_core::entropy::Entropy;
use rtpbridge_core::sdp::{DtlsRole, Fingerprint};
use rtpbridge_core::session::{
    Channel, Counters, EndedRecording, EndpointKey, EndpointSockets, EngineConfig, LocalSocket,
    Outbox, PacketBuffer, RecordFrame, RecordingKey, Session, SocketKey,
};
use rtpbridge_core::time::{Instant, Moment, WallTime};
use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::NumberedEvent;
use rtpbridge_shared::ipc::endpoint::CreateFromOffer;
use rtpbridge_shared::ipc::session::SessionEndReason;
use rtpbridge_shared::vocab::Direction;

/// Counts what is sent, and keeps nothing.
#[derive(Default)]
struct Sink {
    sent: u64,
    counters: Counters,
}

impl Outbox for Sink {
    fn transmit(&mut self, _: SocketKey, _: SocketAddr, _: &[u8]) {
        self.sent += 1;
    }

    fn record(&mut self, _: RecordingKey, _: RecordFrame<'_>) {}

    fn record_leg(&mut self, _: RecordingKey, _: EndpointId) {}

    fn event(&mut self, _: NumberedEvent, _: bool) {}

    fn recordings_ended(&mut self, _: Vec<EndedRecording>) {}

    fn end(&mut self, _: SessionEndReason) {}

    fn handshake(&mut self, _: SocketKey, _: &[u8]) {}

    fn start_handshake(&mut self, _: SocketKey, _: DtlsRole, _: Vec<Fingerprint>) {}

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

struct Growing(u8);

impl Entropy for Growing {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(41);
            *byte = self.0;
        }
    }
}

fn moment(ms: u64) -> Moment {
    Moment {
        at: Instant::from_nanos(1_000_000_000 + ms * 1_000_000),
        wall: WallTime::from_nanos(1_700_000_000_000_000_000 + ms * 1_000_000),
    }
}

fn join(session: &mut Session, n: u8, suffix: &str, out: &mut Sink) -> EndpointKey {
    let profile = if suffix.is_empty() { "AVP" } else { "SAVP" };
    let request = CreateFromOffer {
        session: session.id(),
        endpoint: EndpointId::from_bytes([n; 16]),
        sdp: format!(
            "v=0\r\no=- 1 1 IN IP4 10.0.0.{n}\r\ns=-\r\nc=IN IP4 10.0.0.{n}\r\nt=0 0\r\n\
             m=audio 4000 RTP/{profile} 0 101\r\na=rtpmap:101 telephone-event/8000\r\n{suffix}"
        ),
        direction: match n {
            1 => Direction::Sendonly,
            _ => Direction::Recvonly,
        },
        transport: None,
    };
    let prepared = session.prepare_from_offer(&request).expect("usable");
    let local = SocketAddr::from(([127, 0, 0, 1], 30_000 + u16::from(n)));
    let media = LocalSocket {
        key: SocketKey(n.into()),
        local,
        advertised: local,
    };
    let sockets = EndpointSockets {
        media,
        second: None,
    };
    let created = session.create_endpoint(moment(0), prepared, sockets, out);
    created.expect("room").key
}

#[test]
fn forwarding_allocates_nothing() {
    let key =
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd\r\n";
    let mut out = Sink::default();
    let config = Arc::new(EngineConfig::default());
    let id = SessionId::from_bytes([1; 16]);
    let mut session = Session::new(id, 0, config, Box::new(Growing(1)), moment(0).at);
    let talker = join(&mut session, 1, "", &mut out);
    for n in 2..5 {
        join(&mut session, n, if n == 4 { key } else { "" }, &mut out);
    }
    let source = SocketAddr::from(([10, 0, 0, 1], 4000));
    let mut buffer = PacketBuffer::new();
    let mut forward = |session: &mut Session, out: &mut Sink, n: u16| {
        let packet = &mut buffer.space()[..172];
        packet[..12].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        packet[2..4].copy_from_slice(&n.to_be_bytes());
        packet[4..8].copy_from_slice(&(u32::from(n) * 160).to_be_bytes());
        buffer.set_len(172);
        let arrival = moment(u64::from(n));
        let channel = Channel::Media;
        session.handle_packet(arrival, talker, channel, source, &mut buffer, out);
    };
    for n in 0..10 {
        forward(&mut session, &mut out, n);
    }
    let sent = out.sent;
    let counted = allocation_counter::measure(|| {
        for n in 10..1010 {
            forward(&mut session, &mut out, n);
        }
    });
    assert_eq!(counted.count_total, 0);
    // The counter counts.
    let one = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(one.count_total, 1);
    assert_eq!(
        out.sent - sent,
        3000,
        "two plain listeners and one with SRTP"
    );
}
