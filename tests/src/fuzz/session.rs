//! Two sessions of the engine, driven by bytes: commands with descriptions of any kind, datagrams from
//! anybody, authentic ones among them, timers, handshakes, recordings, files and moves between the
//! two. After each step the books are balanced; what leaves is checked by [`Wire`].

mod commands;
mod party;
mod sounds;
mod wire;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use rtpbridge_core::entropy::Entropy;
use rtpbridge_core::sdp::{Fingerprint, FingerprintHash};
use rtpbridge_core::session::{
    Channel, EndpointSockets, EngineConfig, LocalSocket, PacketBuffer, Session, SocketKey,
};
use rtpbridge_core::time::{Instant, Moment, WallTime};
use rtpbridge_shared::id::{EndpointId, RecordingId, SessionId};

use party::Party;
use wire::Wire;

/// Steps of one run, so that long inputs take no longer than they are worth.
const MAX_STEPS: usize = 300;
/// Time that may pass in one run.
const MAX_PASSED: Duration = Duration::from_secs(120);
/// Timers that may fall due in any one second of it.
const MAX_TIMERS_PER_SEC: u64 = 2000;

/// Runs the script.
pub(super) fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut world = World::new();
    for _ in 0..MAX_STEPS {
        if bytes.0.is_empty() {
            break;
        }
        world.step(&mut bytes);
        world.check_books();
    }
    world.close();
}

/// The rest of the script; past its end there are zeros.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// As many bytes as the next one, or two, say.
    fn chunk(&mut self, is_long: bool) -> &'a [u8] {
        let len = if is_long {
            usize::from(self.word())
        } else {
            usize::from(self.byte())
        };
        let (chunk, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        chunk
    }
}

struct World {
    sessions: [Session; 2],
    wire: Wire,
    buffer: PacketBuffer,
    parties: Vec<Party>,
    recordings: Vec<(usize, RecordingId)>,
    passed: Duration,
    count: u16,
}

impl World {
    fn new() -> Self {
        let config = Arc::new(EngineConfig {
            fingerprint: Some(Fingerprint {
                hash: FingerprintHash::Sha256,
                digest: vec![7; 32],
            }),
            media_ip: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            session_idle_timeout: Some(Duration::from_secs(60)),
            ..EngineConfig::default()
        });
        let session = |n: u8| {
            let id = SessionId::from_bytes([n; 16]);
            let entropy = Box::new(Counting(n.into()));
            Session::new(
                id,
                0,
                Arc::clone(&config),
                entropy,
                moment(Duration::ZERO).at,
            )
        };
        Self {
            sessions: [session(1), session(2)],
            wire: Wire::default(),
            buffer: PacketBuffer::new(),
            parties: Vec::new(),
            recordings: Vec::new(),
            passed: Duration::ZERO,
            count: 0,
        }
    }

    fn now(&self) -> Moment {
        moment(self.passed)
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let operation = bytes.byte();
        if operation % 16 < 9 {
            self.command(operation, bytes);
            return;
        }
        match operation % 16 {
            9 => self.pass(bytes),
            10 => self.hear_anything(bytes),
            11 | 12 => self.hear_audio(bytes),
            13 => self.hear_report(bytes),
            14 => self.hear_check(bytes),
            _ => self.shake_hands(bytes),
        }
    }

    /// Time passes, with every timer that is due on the way.
    fn pass(&mut self, bytes: &mut Bytes<'_>) {
        let (unit, count) = (bytes.byte(), u32::from(bytes.byte()));
        let units = [1, 20, 200, 2000].map(Duration::from_millis);
        let end = self.passed + units[usize::from(unit) % 4] * count;
        self.pass_to(end.min(MAX_PASSED));
    }

    fn pass_to(&mut self, end: Duration) {
        let span = end.saturating_sub(self.passed);
        let mut left = MAX_TIMERS_PER_SEC * (span.as_secs() + 1);
        loop {
            let due = self.sessions.iter().filter_map(Session::next_timeout).min();
            let Some(due) = due.filter(|due| *due <= moment(end).at) else {
                break;
            };
            self.passed += due.saturating_duration_since(self.now().at);
            let now = self.now();
            for index in 0..2 {
                self.wire.turn_of(index);
                self.sessions[index].handle_timeout(now, &mut self.wire);
            }
            left = left.checked_sub(1).expect("timers make progress");
        }
        self.passed = self.passed.max(end);
    }

    /// Hands a datagram in.
    fn receive(
        &mut self,
        party: usize,
        channel: Channel,
        from: std::net::SocketAddr,
        datagram: &[u8],
    ) {
        let Some(party) = self.parties.get(party) else {
            return;
        };
        let Some(key) = party.key else {
            return;
        };
        let (session, now) = (party.session, self.now());
        let len = datagram.len().min(PacketBuffer::MAX_DATAGRAM);
        self.buffer.space()[..len].copy_from_slice(&datagram[..len]);
        self.buffer.set_len(len);
        self.wire.turn_of(session);
        let (buffer, wire) = (&mut self.buffer, &mut self.wire);
        self.sessions[session].handle_packet(now, key, channel, from, buffer, wire);
    }

    fn check_books(&mut self) {
        for (index, session) in self.sessions.iter().enumerate() {
            let details = session.details();
            let listed: Vec<EndpointId> = details.endpoints.iter().map(|e| e.endpoint).collect();
            let is_here = |party: &Party| party.session == index;
            // Files may end by themselves; nothing else may.
            self.parties.retain(|party| {
                !is_here(party) || party.key.is_some() || listed.contains(&party.id)
            });
            let here = self.parties.iter().filter(|party| is_here(party));
            assert_eq!(here.clone().count(), listed.len());
            assert!(here.clone().all(|party| listed.contains(&party.id)));
            assert_eq!(session.counts().endpoints as usize, listed.len());
            let open = self.recordings.iter().filter(|(of, _)| *of == index);
            assert_eq!(details.recordings.len(), open.count());
            assert_eq!(session.stats_rows(self.now().at).len(), listed.len());
            assert!(session.snapshot().last_event_number >= self.wire.last_event(index));
        }
    }

    fn close(mut self) {
        let now = self.now();
        for index in 0..2 {
            self.wire.turn_of(index);
            let closed = self.sessions[index].close(now, &mut self.wire);
            let mut sockets: Vec<_> = closed.sockets.iter().map(|s| s.media.key).collect();
            let here = self.parties.iter().filter(|party| party.session == index);
            let mut expected: Vec<_> = here
                .filter_map(|p| p.sockets)
                .map(|s| s.media.key)
                .collect();
            sockets.sort_unstable();
            expected.sort_unstable();
            assert_eq!(sockets, expected, "every socket is given back");
            assert_eq!(self.sessions[index].next_timeout(), None);
        }
    }

    /// A name and sockets for the next endpoint.
    fn next_birth(&mut self) -> (EndpointId, EndpointSockets) {
        self.count += 1;
        let count = self.count;
        let mut id = [9; 16];
        id[..2].copy_from_slice(&count.to_be_bytes());
        let socket = |n: u16| {
            let local = ([127, 0, 0, 1], 20_000 + n).into();
            LocalSocket {
                key: SocketKey(n.into()),
                local,
                advertised: local,
            }
        };
        let sockets = EndpointSockets {
            media: socket(2 * count),
            second: Some(socket(2 * count + 1)),
        };
        (EndpointId::from_bytes(id), sockets)
    }
}

fn moment(passed: Duration) -> Moment {
    let nanos = passed.as_nanos() as u64;
    Moment {
        at: Instant::from_nanos(1_000_000_000_000 + nanos),
        wall: WallTime::from_nanos(1_700_000_000_000_000_000 + nanos),
    }
}

/// The same for every run, and different for every draw.
struct Counting(u64);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = (self.0 >> 56) as u8;
        }
    }
}
