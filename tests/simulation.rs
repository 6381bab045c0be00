//! Seeded calls on the engine itself, without sockets or clocks: hundreds of calls over an emulated
//! network, each checked packet by packet against what the network did to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rtpbridge_core::entropy::Entropy;
use rtpbridge_core::sdp::{DtlsRole, Fingerprint};
use rtpbridge_core::session::{
    Channel, Counters, EndedRecording, EndpointKey, EndpointSockets, EngineConfig, LocalSocket,
    Outbox, PacketBuffer, RecordFrame, RecordingKey, Session, SocketKey,
};
use rtpbridge_core::time::{Instant, Moment, WallTime};
use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::endpoint::CreateFromOffer;
use rtpbridge_shared::ipc::session::SessionEndReason;
use rtpbridge_shared::ipc::{Event, NumberedEvent};
use rtpbridge_shared::vocab::Direction;
use rtpbridge_tests::netem::Network;
use rtpbridge_tests::peer::rtp::TelephoneEvent;
use rtpbridge_tests::peer::{Offer, Rtp};

const CALLS: u64 = 300;
const PACKETS: usize = 500;
const TELEPHONE_EVENT: u8 = 101;

struct Seeded(StdRng);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// What left the engine.
#[derive(Default)]
struct Wire {
    sent: Vec<(SocketKey, SocketAddr, Vec<u8>)>,
    events: Vec<Event>,
    counters: Counters,
}

impl Outbox for Wire {
    fn transmit(&mut self, socket: SocketKey, to: SocketAddr, datagram: &[u8]) {
        self.sent.push((socket, to, datagram.to_vec()));
    }
    fn record(&mut self, _: RecordingKey, _: RecordFrame<'_>) {}
    fn record_leg(&mut self, _: RecordingKey, _: EndpointId) {}
    fn event(&mut self, event: NumberedEvent, _: bool) {
        self.events.push(event.event);
    }
    fn recordings_ended(&mut self, _: Vec<EndedRecording>) {}

    fn end(&mut self, _: SessionEndReason) {}
    fn handshake(&mut self, _: SocketKey, _: &[u8]) {}
    fn start_handshake(&mut self, _: SocketKey, _: DtlsRole, _: Vec<Fingerprint>) {}
    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

/// One session with its clock.
struct World {
    session: Session,
    wire: Wire,
    buffer: PacketBuffer,
    now: Duration,
}

/// One party: its endpoint and the stream it sends.
struct Leg {
    key: EndpointKey,
    id: EndpointId,
    address: SocketAddr,
    socket: SocketKey,
    next: Rtp,
}

impl World {
    fn new(seed: u64) -> Self {
        let session = Session::new(
            SessionId::random(),
            0,
            Arc::new(EngineConfig::default()),
            Box::new(Seeded(StdRng::seed_from_u64(seed))),
            Instant::ZERO,
        );
        Self {
            session,
            wire: Wire::default(),
            buffer: PacketBuffer::new(),
            now: Duration::from_secs(1),
        }
    }

    fn moment(&self) -> Moment {
        let nanos = self.now.as_nanos() as u64;
        Moment {
            at: Instant::from_nanos(nanos),
            wall: WallTime::from_nanos(1_700_000_000_000_000_000 + nanos),
        }
    }

    /// Lets time pass, with every timer at its own time.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1000 {
            let due = self
                .session
                .next_timeout()
                .map(|due| Duration::from_nanos(due.as_nanos()));
            let Some(due) = due.filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            let now = self.moment();
            self.session.handle_timeout(now, &mut self.wire);
        }
        panic!("timers never end");
    }

    fn join(&mut self, number: u16, dice: &mut StdRng) -> Leg {
        let address = SocketAddr::from(([192, 0, 2, 1], 20_000 + 2 * number));
        let id = EndpointId::random();
        let request = CreateFromOffer {
            session: self.session.id(),
            endpoint: id,
            sdp: Offer::pcmu(address).write(),
            direction: Direction::Sendrecv,
            transport: None,
        };
        let prepared = self
            .session
            .prepare_from_offer(&request)
            .expect("a good offer");
        let socket = |offset: u16| {
            let local = SocketAddr::from(([127, 0, 0, 1], 30_000 + 2 * number + offset));
            LocalSocket {
                key: SocketKey(u64::from(2 * number + offset)),
                local,
                advertised: local,
            }
        };
        let sockets = EndpointSockets {
            media: socket(0),
            second: Some(socket(1)),
        };
        let now = self.moment();
        let created = self
            .session
            .create_endpoint(now, prepared, sockets, &mut self.wire);
        Leg {
            key: created.expect("created").key,
            id,
            address,
            socket: sockets.media.key,
            next: Rtp {
                sequence: dice.random(),
                timestamp: dice.random(),
                ssrc: dice.random(),
                ..Rtp::default()
            },
        }
    }

    fn receive(&mut self, leg: &Leg, packet: &Rtp) {
        let bytes = packet.write();
        self.buffer.space()[..bytes.len()].copy_from_slice(&bytes);
        self.buffer.set_len(bytes.len());
        let now = self.moment();
        self.session.handle_packet(
            now,
            leg.key,
            Channel::Media,
            leg.address,
            &mut self.buffer,
            &mut self.wire,
        );
    }

    /// RTP that was sent to this leg, which must be all that left its socket.
    fn heard(&self, leg: &Leg) -> Vec<Rtp> {
        let own = self
            .wire
            .sent
            .iter()
            .filter(|(socket, _, _)| *socket == leg.socket);
        own.map(|(_, to, bytes)| {
            assert_eq!(*to, leg.address, "nobody else is ever sent anything");
            Rtp::parse(bytes).expect("RTP")
        })
        .collect()
    }
}

impl Leg {
    fn frame(&mut self, dice: &mut StdRng) -> Rtp {
        let mut payload = vec![0; 160];
        dice.fill_bytes(&mut payload);
        self.step(payload)
    }

    fn step(&mut self, payload: Vec<u8>) -> Rtp {
        let packet = Rtp {
            payload,
            ..self.next.clone()
        };
        self.next.sequence = self.next.sequence.wrapping_add(1);
        self.next.timestamp = self.next.timestamp.wrapping_add(160);
        packet
    }
}

#[test]
fn what_the_network_loses_is_lost_and_nothing_else() {
    for seed in 0..CALLS {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut world = World::new(seed);
        let (mut alice, bob) = (world.join(0, &mut dice), world.join(1, &mut dice));
        let sent: Vec<Rtp> = (0..PACKETS).map(|_| alice.frame(&mut dice)).collect();
        // The first and last arrive in their places, so that the ends of the stream are known.
        let network = Network {
            seed,
            loss_percent: dice.random_range(0.0..20.0),
            swap_percent: dice.random_range(0.0..10.0),
            duplicate_percent: 0.0,
        };
        let mut arriving = network.carry(&sent[1..PACKETS - 1]);
        arriving.insert(0, sent[0].clone());
        arriving.push(sent[PACKETS - 1].clone());
        for packet in &arriving {
            world.pass(Duration::from_micros(dice.random_range(0..40_000)));
            world.receive(&alice, packet);
        }
        let heard = world.heard(&bob);
        assert_eq!(heard.len(), arriving.len(), "seed {seed}");
        let base = heard[0].sequence.wrapping_sub(arriving[0].sequence);
        let clock = heard[0].timestamp.wrapping_sub(arriving[0].timestamp);
        for (heard, arrived) in heard.iter().zip(&arriving) {
            assert_eq!(heard.payload, arrived.payload, "seed {seed}");
            assert_eq!(
                heard.sequence.wrapping_sub(arrived.sequence),
                base,
                "seed {seed}"
            );
            assert_eq!(
                heard.timestamp.wrapping_sub(arrived.timestamp),
                clock,
                "seed {seed}"
            );
        }
        let now = world.moment();
        let rows = world.session.stats_rows(now.at);
        let row = rows
            .iter()
            .find(|row| row.endpoint_id == alice.id)
            .expect("a row");
        assert_eq!(row.inbound.packets, arriving.len() as u64, "seed {seed}");
        assert_eq!(
            row.inbound.packets_lost,
            (PACKETS - arriving.len()) as i64,
            "seed {seed}"
        );
        assert!(world.heard(&alice).is_empty());
    }
}

#[test]
fn every_digit_of_which_anything_arrives_is_reported_once() {
    for seed in 0..CALLS {
        let mut dice = StdRng::seed_from_u64(1_000_000 + seed);
        let mut world = World::new(seed);
        let mut alice = world.join(0, &mut dice);
        let mut expected = Vec::new();
        let first = alice.frame(&mut dice);
        world.receive(&alice, &first);
        for _ in 0..20 {
            let event = dice.random_range(0..16_u8);
            let timestamp = alice.next.timestamp;
            let packets: Vec<Rtp> = (1..=8_u16)
                .map(|number| {
                    let payload = TelephoneEvent {
                        event,
                        end: number > 5,
                        volume: 10,
                        duration: 160 * number.min(6),
                    };
                    Rtp {
                        marker: number == 1,
                        payload_type: TELEPHONE_EVENT,
                        timestamp,
                        ..alice.step(payload.write().to_vec())
                    }
                })
                .collect();
            let network = Network {
                seed: dice.random(),
                loss_percent: 40.0,
                swap_percent: 10.0,
                duplicate_percent: 10.0,
            };
            let arriving = network.carry(&packets);
            if !arriving.is_empty() {
                expected.push(event);
            }
            for packet in &arriving {
                world.pass(Duration::from_millis(20));
                world.receive(&alice, packet);
            }
            world.pass(Duration::from_millis(dice.random_range(100..400)));
            let audio = alice.frame(&mut dice);
            world.receive(&alice, &audio);
        }
        world.pass(Duration::from_secs(1));
        let digits = world.wire.events.iter().filter_map(|event| match event {
            Event::Dtmf { digit, .. } => Some(digit.event()),
            _ => None,
        });
        assert_eq!(digits.collect::<Vec<_>>(), expected, "seed {seed}");
        assert_eq!(world.wire.counters.dtmf_events, expected.len() as u64);
    }
}
