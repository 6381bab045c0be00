//! What the engine itself costs per packet: from the datagram to the datagram, without sockets.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
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

#[derive(Default)]
struct Sink {
    sent: u64,
    counters: Counters,
}

impl Outbox for Sink {
    fn transmit(&mut self, _: SocketKey, _: SocketAddr, datagram: &[u8]) {
        self.sent += 1;
        black_box(datagram);
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

struct Call {
    session: Session,
    talker: EndpointKey,
    source: SocketAddr,
    buffer: PacketBuffer,
    out: Sink,
    count: u32,
}

impl Call {
    /// One talker and this many listeners, the last of them with SRTP where asked for.
    fn new(listeners: u8, srtp: bool) -> Self {
        let config = Arc::new(EngineConfig::default());
        let id = SessionId::from_bytes([1; 16]);
        let entropy = Box::new(Growing(1));
        let mut call = Self {
            session: Session::new(id, 0, config, entropy, moment(0).at),
            talker: EndpointKey(0),
            source: SocketAddr::from(([10, 0, 0, 1], 4000)),
            buffer: PacketBuffer::new(),
            out: Sink::default(),
            count: 0,
        };
        call.talker = call.join(1, Direction::Sendonly, false);
        for n in 0..listeners {
            call.join(n + 2, Direction::Recvonly, srtp && n + 1 == listeners);
        }
        call
    }

    fn join(&mut self, n: u8, direction: Direction, srtp: bool) -> EndpointKey {
        let (profile, key) = if srtp {
            (
                "SAVP",
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd\r\n",
            )
        } else {
            ("AVP", "")
        };
        let request = CreateFromOffer {
            session: self.session.id(),
            endpoint: EndpointId::from_bytes([n; 16]),
            sdp: format!(
                "v=0\r\no=- 1 1 IN IP4 10.0.0.{n}\r\ns=-\r\nc=IN IP4 10.0.0.{n}\r\nt=0 0\r\n\
                 m=audio 4000 RTP/{profile} 0\r\n{key}"
            ),
            direction,
            transport: None,
        };
        let prepared = self.session.prepare_from_offer(&request).expect("usable");
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
        let created = self
            .session
            .create_endpoint(moment(0), prepared, sockets, &mut self.out);
        created.expect("room").key
    }

    fn forward(&mut self) {
        self.count += 1;
        let packet = &mut self.buffer.space()[..172];
        packet[..12].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        packet[2..4].copy_from_slice(&(self.count as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&self.count.wrapping_mul(160).to_be_bytes());
        self.buffer.set_len(172);
        let arrival = moment(u64::from(self.count) * 20);
        self.session.handle_packet(
            arrival,
            self.talker,
            Channel::Media,
            self.source,
            &mut self.buffer,
            &mut self.out,
        );
    }
}

fn moment(ms: u64) -> Moment {
    Moment {
        at: Instant::from_nanos(1_000_000_000 + ms * 1_000_000),
        wall: WallTime::from_nanos(1_700_000_000_000_000_000 + ms * 1_000_000),
    }
}

fn forward(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward");
    group.throughput(Throughput::Elements(1));
    for (name, listeners, srtp) in [
        ("one_listener", 1, false),
        ("ten_listeners", 10, false),
        ("one_srtp_listener", 1, true),
    ] {
        let mut call = Call::new(listeners, srtp);
        group.bench_function(name, |bencher| bencher.iter(|| call.forward()));
        assert_eq!(call.out.sent, u64::from(call.count) * u64::from(listeners));
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
