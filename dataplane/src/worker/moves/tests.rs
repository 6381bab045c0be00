//! Two workers driven by hand, letter by letter: whatever happens while an endpoint is between two
//! sessions, it ends up in one of them or is closed, and no datagram is lost or comes twice.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rtpbridge_core::session::EngineConfig;
use rtpbridge_shared::id::RecordingId;
use rtpbridge_shared::ipc::bridge::BridgeCreate;
use rtpbridge_shared::ipc::endpoint::CreateFromOffer;
use rtpbridge_shared::ipc::recording::RecordingStart;
use rtpbridge_shared::ipc::session::{SessionCreate, SessionDetails};
use rtpbridge_shared::ipc::{Event, Request, ToControl, frame};
use rtpbridge_shared::vocab::Direction;
use tokio::sync::oneshot;

use super::*;
use crate::ipc::outbox::Outbox;
use crate::ports::Ports;

const PATIENCE: Duration = Duration::from_secs(10);
const A: usize = 0;
const B: usize = 1;

/// Two workers on this thread.
struct Pair {
    workers: Vec<Worker>,
    outbox: Arc<Outbox>,
    heard: Vec<ToControl>,
    number: u64,
    dir: tempfile::TempDir,
}

/// A PCMU phone.
struct Phone {
    socket: UdpSocket,
    bridge: SocketAddr,
    endpoint: EndpointId,
    sequence: u16,
}

impl Pair {
    /// `ip` is a loopback address of this test alone.
    fn new(ip: &str, max_endpoints: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let address = ip.parse().expect("an address");
        let mut shared = crate::worker::tests::shared(dir.path());
        let own = Arc::get_mut(&mut shared).expect("not shared yet");
        own.ports = Ports::new(vec![address], (20_000, 29_999), None, 0, rand::random);
        own.engine = Arc::new(EngineConfig {
            media_ip: vec![address],
            max_endpoints_per_session: max_endpoints,
            ..EngineConfig::default()
        });
        own.settings.batch_window = Duration::ZERO;
        let outbox = Arc::new(Outbox::new());
        shared.controller.install(Some(Arc::clone(&outbox)));
        let build = |index| Worker::new(index, Arc::clone(&shared)).expect("builds");
        let workers = vec![build(0), build(1)];
        let handles = workers.iter().map(|worker| worker.handle.clone());
        assert!(shared.peers.set(handles.collect()).is_ok());
        Self {
            workers,
            outbox,
            heard: Vec::new(),
            number: 0,
            dir,
        }
    }

    /// One turn of one worker: its sockets, then its commands.
    fn turn(&mut self, worker: usize) {
        self.workers[worker].handle.wake();
        self.workers[worker].turn().expect("turns");
    }

    /// Commands only: sockets stay unread.
    fn letters(&mut self, worker: usize) {
        let worker = &mut self.workers[worker];
        worker.read_clocks();
        worker.more_commands = true;
        worker.run_commands();
    }

    /// Both work until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.turn(A);
            self.turn(B);
        }
    }

    fn send(&mut self, worker: usize, request: Request) -> u64 {
        self.number += 1;
        let command = Command::Request {
            request,
            ticket: Ticket::new(Arc::clone(&self.outbox), self.number),
            term: self.workers[worker].shared.controller.term(),
        };
        assert!(self.workers[worker].handle.try_send(command).is_ok());
        self.number
    }

    fn request(&mut self, worker: usize, request: Request) -> Result<Reply, RequestError> {
        let number = self.send(worker, request);
        self.settle();
        self.answer(number).expect("answered")
    }

    fn listen(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut bytes = Vec::new();
            let next = self.outbox.next(&mut bytes);
            let _ = tokio::time::timeout(Duration::ZERO, next).await;
            let mut reader = frame::FrameReader::new(&bytes[..]);
            while let Some(message) = reader.read().await.expect("whole frames") {
                self.heard.push(message);
            }
        });
    }

    fn answer(&mut self, wanted: u64) -> Option<Result<Reply, RequestError>> {
        self.listen();
        self.heard.iter().find_map(|message| match message {
            ToControl::Answer { number, result } if *number == wanted => Some(result.clone()),
            _ => None,
        })
    }

    /// Names of events, answers and ends, in order.
    fn story(&mut self) -> Vec<String> {
        self.listen();
        let story = self.heard.drain(..).filter_map(|message| match message {
            ToControl::Answer { .. } => Some("answer".to_owned()),
            ToControl::Event { event, .. } => Some(variant(&event.event)),
            _ => None,
        });
        story.collect()
    }

    fn session(&mut self, worker: usize) -> SessionId {
        let session = SessionId::random();
        let shared = &self.workers[worker].shared;
        assert!(shared.directory.reserve(session, worker));
        let gauges = &self.workers[worker].handle.gauges;
        gauges.sessions.fetch_add(1, Ordering::Relaxed);
        let create = Request::SessionCreate(SessionCreate {
            session,
            created_at_ms: 0,
        });
        assert_eq!(self.request(worker, create), Ok(Reply::Done));
        session
    }

    fn details(&mut self, worker: usize, session: SessionId) -> SessionDetails {
        match self.request(worker, Request::SessionInfo { session }) {
            Ok(Reply::Session(details)) => details,
            other => panic!("{other:?}"),
        }
    }

    fn endpoints(&mut self, worker: usize, session: SessionId) -> Vec<EndpointId> {
        let details = self.details(worker, session);
        details.endpoints.iter().map(|row| row.endpoint).collect()
    }

    fn phone(&mut self, worker: usize, session: SessionId) -> Phone {
        let (phone, created) = self.offer(worker, session);
        let Ok(Reply::Sdp(answer)) = created else {
            panic!("{created:?}");
        };
        let port = answer.split("m=audio ").nth(1).expect("audio");
        let port = port.split(' ').next().expect("a port").parse();
        let bridge = SocketAddr::new(phone.bridge.ip(), port.expect("a port"));
        Phone { bridge, ..phone }
    }

    fn offer(&mut self, worker: usize, session: SessionId) -> (Phone, Result<Reply, RequestError>) {
        let ip = self.workers[worker].shared.engine.media_ip[0];
        let socket = UdpSocket::bind((ip, 0)).expect("binds");
        let port = socket.local_addr().expect("bound").port();
        let endpoint = EndpointId::random();
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 0\r\na=rtcp-mux\r\n"
        );
        let created = self.request(
            worker,
            Request::EndpointCreateFromOffer(CreateFromOffer {
                session,
                endpoint,
                sdp,
                direction: Direction::Sendrecv,
                transport: None,
            }),
        );
        let phone = Phone {
            socket,
            bridge: SocketAddr::new(ip, 9),
            endpoint,
            sequence: 100,
        };
        (phone, created)
    }

    fn start_transfer(
        &mut self,
        worker: usize,
        phone: &Phone,
        session: SessionId,
        target_session: SessionId,
    ) -> u64 {
        let transfer = Transfer {
            session,
            endpoint: phone.endpoint,
            target_session,
        };
        self.send(worker, Request::EndpointTransfer(transfer))
    }

    /// The scene of most tests: on each worker a session with a listener, and a speaker in that of A.
    fn scene(&mut self) -> Scene {
        let here = self.session(A);
        let there = self.session(B);
        let scene = Scene {
            here,
            there,
            speaker: self.phone(A, here),
            near: self.phone(A, here),
            far: self.phone(B, there),
        };
        self.story();
        scene
    }

    /// Plays the scene up to the point at which the endpoint is in no session.
    fn take_off(&mut self, scene: &Scene) -> u64 {
        let number = self.start_transfer(A, &scene.speaker, scene.here, scene.there);
        self.letters(A);
        self.letters(B);
        self.letters(A);
        assert_eq!(self.answer(number), None, "it is on its way");
        number
    }

    fn open_sockets(&self) -> usize {
        self.workers.iter().map(|w| w.out.sockets.len()).sum()
    }
}

/// The name of an event's variant.
fn variant(event: &Event) -> String {
    let text = format!("{event:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

struct Scene {
    here: SessionId,
    there: SessionId,
    speaker: Phone,
    near: Phone,
    far: Phone,
}

impl Phone {
    fn say(&mut self, packets: u16) {
        for _ in 0..packets {
            let mut packet = vec![0x80, 0];
            packet.extend(self.sequence.to_be_bytes());
            packet.extend((u32::from(self.sequence) * 160).to_be_bytes());
            packet.extend(7_u32.to_be_bytes());
            packet.extend(self.sequence.to_be_bytes());
            packet.extend([0x55; 158]);
            self.socket.send_to(&packet, self.bridge).expect("sends");
            self.sequence += 1;
        }
    }

    /// What the speaker called the packets that came here, with our own numbers.
    fn heard(&self) -> Vec<(u16, u16)> {
        self.socket.set_nonblocking(true).expect("sets");
        let mut heard = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(bytes) = self.socket.recv(&mut buffer) {
            let number = |at: usize| u16::from_be_bytes([buffer[at], buffer[at + 1]]);
            if bytes == 172 {
                heard.push((number(2), number(12)));
            }
        }
        heard
    }

    fn names(&self) -> Vec<u16> {
        self.heard().into_iter().map(|(_, name)| name).collect()
    }

    /// Whether an RTCP BYE came.
    fn is_left(&self) -> bool {
        self.socket.set_nonblocking(true).expect("sets");
        let mut buffer = [0; 2048];
        while let Ok(bytes) = self.socket.recv(&mut buffer) {
            let goodbye = buffer[..bytes].windows(2).any(|at| at == [0x81, 203]);
            if goodbye {
                return true;
            }
        }
        false
    }
}

fn end_of_there(scene: &Scene) -> Request {
    Request::SessionDestroy {
        session: scene.there,
    }
}

#[test]
fn every_datagram_of_a_moving_endpoint_is_routed_once_in_order() {
    let mut pair = Pair::new("127.71.0.1", 0);
    let mut scene = pair.scene();
    scene.speaker.say(10);
    pair.settle();
    scene.speaker.say(5);
    let number = pair.start_transfer(A, &scene.speaker, scene.here, scene.there);
    pair.letters(A);
    scene.speaker.say(5);
    pair.letters(B);
    scene.speaker.say(5);
    pair.letters(A);
    scene.speaker.say(5);
    assert_eq!(
        pair.endpoints(B, scene.there).len(),
        2,
        "it settled meanwhile"
    );
    pair.settle();
    scene.speaker.say(5);
    pair.settle();
    assert_eq!(pair.answer(number), Some(Ok(Reply::Done)));
    let (near, far) = (scene.near.names(), scene.far.heard());
    let names: Vec<u16> = far.iter().map(|(_, name)| *name).collect();
    assert_eq!(near, (100..110).collect::<Vec<u16>>());
    assert_eq!(names, (110..135).collect::<Vec<u16>>());
    let numbers: Vec<u16> = far.iter().map(|(number, _)| *number).collect();
    let first = numbers[0];
    let expected: Vec<u16> = (0..25).map(|n| first.wrapping_add(n)).collect();
    assert_eq!(numbers, expected, "one stream to the new listener");
    assert_eq!(pair.endpoints(A, scene.here), [scene.near.endpoint]);
}

#[test]
fn until_it_has_arrived_the_endpoint_is_listed_where_it_was() {
    let mut pair = Pair::new("127.71.0.2", 0);
    let scene = pair.scene();
    let number = pair.take_off(&scene);
    // Asked in flight, of each worker alone.
    let info = |session| Request::SessionInfo { session };
    let here = pair.send(A, info(scene.here));
    pair.letters(A);
    let Some(Ok(Reply::Session(details))) = pair.answer(here) else {
        panic!("no details");
    };
    assert_eq!(details.endpoints.len(), 2);
    pair.settle();
    assert_eq!(pair.answer(number), Some(Ok(Reply::Done)));
    let there = pair.endpoints(B, scene.there);
    assert_eq!(there, [scene.far.endpoint, scene.speaker.endpoint]);
    assert_eq!(pair.endpoints(A, scene.here), [scene.near.endpoint]);
}

#[test]
fn a_refused_endpoint_never_left() {
    let mut pair = Pair::new("127.71.0.3", 2);
    let mut scene = pair.scene();
    let other = pair.phone(B, scene.there);
    for target in [scene.there, SessionId::random()] {
        let number = pair.start_transfer(A, &scene.speaker, scene.here, target);
        scene.speaker.say(3);
        pair.settle();
        let expected = if target == scene.there {
            RequestError::TargetFull { limit: 2 }
        } else {
            RequestError::TargetSessionNotFound
        };
        assert_eq!(pair.answer(number), Some(Err(expected)));
    }
    assert_eq!(scene.near.names(), (100..106).collect::<Vec<u16>>());
    assert_eq!(scene.far.names().len() + other.names().len(), 0);
    let nobody = Phone {
        endpoint: EndpointId::random(),
        ..other
    };
    let number = pair.start_transfer(A, &nobody, scene.here, scene.there);
    pair.settle();
    let unknown = Some(Err(RequestError::EndpointNotFound));
    assert_eq!(pair.answer(number), unknown);
}

#[test]
fn an_endpoint_whose_new_session_ended_goes_on_in_its_old_one() {
    for (ip, panics) in [("127.71.0.4", false), ("127.71.0.5", true)] {
        let mut pair = Pair::new(ip, 0);
        let mut scene = pair.scene();
        scene.speaker.say(3);
        pair.settle();
        let number = pair.start_transfer(A, &scene.speaker, scene.here, scene.there);
        pair.letters(A);
        pair.letters(B);
        if panics {
            let panic = Command::Panic(scene.there);
            assert!(pair.workers[B].handle.try_send(panic).is_ok());
        } else {
            pair.send(B, end_of_there(&scene));
        }
        pair.letters(A);
        scene.speaker.say(4);
        pair.settle();
        assert!(
            matches!(
                pair.answer(number),
                Some(Err(RequestError::TransferFailed(_)))
            ),
            "{:?}",
            pair.answer(number)
        );
        assert_eq!(pair.endpoints(A, scene.here).len(), 2);
        scene.speaker.say(3);
        pair.settle();
        assert_eq!(scene.near.names(), (100..110).collect::<Vec<u16>>());
        assert_eq!(pair.open_sockets(), 4);
    }
}

#[test]
fn an_endpoint_on_its_way_outlives_its_old_session() {
    for (ip, panics) in [("127.71.0.6", false), ("127.71.0.7", true)] {
        let mut pair = Pair::new(ip, 0);
        let mut scene = pair.scene();
        let number = pair.take_off(&scene);
        if panics {
            let panic = Command::Panic(scene.here);
            assert!(pair.workers[A].handle.try_send(panic).is_ok());
        } else {
            let session = scene.here;
            pair.send(A, Request::SessionDestroy { session });
        }
        pair.letters(A);
        pair.settle();
        assert_eq!(pair.answer(number), Some(Ok(Reply::Done)));
        scene.speaker.say(3);
        pair.settle();
        assert_eq!(scene.far.names(), [100, 101, 102]);
        assert_eq!(pair.open_sockets(), 4);
        assert_eq!(pair.workers[A].sessions.len(), 0);
    }
}

#[test]
fn an_endpoint_between_two_sessions_that_ended_is_closed() {
    let mut pair = Pair::new("127.71.0.8", 0);
    let scene = pair.scene();
    let number = pair.take_off(&scene);
    let session = scene.here;
    pair.send(A, Request::SessionDestroy { session });
    pair.letters(A);
    // B finds the parcel first in its queue; its session has to be gone before.
    let key = pair.workers[B].find_session(scene.there).expect("there");
    let number_there = pair.number + 1;
    let ticket = Ticket::new(Arc::clone(&pair.outbox), number_there);
    pair.workers[B].close_session(key, After::Destroyed(key, ticket));
    pair.settle();
    assert!(matches!(
        pair.answer(number),
        Some(Err(RequestError::TransferFailed(_)))
    ));
    assert!(scene.speaker.is_left(), "it was told goodbye");
    assert_eq!(pair.open_sockets(), 0);
}

#[test]
fn what_is_removed_or_moved_on_in_time_is_not_moved() {
    let mut pair = Pair::new("127.71.0.9", 2);
    let scene = pair.scene();
    let first = pair.start_transfer(A, &scene.speaker, scene.here, scene.there);
    let second = pair.start_transfer(A, &scene.speaker, scene.here, scene.there);
    let removed = pair.send(
        A,
        Request::EndpointRemove {
            session: scene.here,
            endpoint: scene.near.endpoint,
        },
    );
    let third = pair.start_transfer(A, &scene.near, scene.here, scene.there);
    pair.settle();
    assert_eq!(pair.answer(first), Some(Ok(Reply::Done)));
    assert!(matches!(
        pair.answer(second),
        Some(Err(
            RequestError::TargetFull { .. } | RequestError::TransferFailed(_)
        ))
    ));
    assert!(matches!(pair.answer(removed), Some(Ok(_))));
    assert_eq!(
        pair.answer(third),
        Some(Err(RequestError::EndpointNotFound))
    );

    // Removed when the place is kept already: the place is free again.
    let mut pair = Pair::new("127.71.0.10", 2);
    let scene = pair.scene();
    let transfer = pair.start_transfer(A, &scene.speaker, scene.here, scene.there);
    let remove = Request::EndpointRemove {
        session: scene.here,
        endpoint: scene.speaker.endpoint,
    };
    pair.send(A, remove);
    pair.settle();
    assert_eq!(
        pair.answer(transfer),
        Some(Err(RequestError::EndpointNotFound))
    );
    pair.phone(B, scene.there);
    assert_eq!(pair.endpoints(B, scene.there).len(), 2);
}

#[test]
fn two_endpoints_swap_sessions() {
    let mut pair = Pair::new("127.71.0.11", 3);
    let mut scene = pair.scene();
    let mut far = pair.phone(B, scene.there);
    let there = pair.start_transfer(A, &scene.speaker, scene.here, scene.there);
    let here = pair.start_transfer(B, &far, scene.there, scene.here);
    pair.settle();
    for number in [there, here] {
        assert_eq!(pair.answer(number), Some(Ok(Reply::Done)));
    }
    scene.speaker.say(2);
    far.say(2);
    pair.settle();
    assert_eq!(scene.far.names(), [100, 101]);
    assert_eq!(scene.near.names(), [100, 101]);
    // Within one worker, too.
    let third = pair.session(A);
    let number = pair.start_transfer(A, &far, scene.here, third);
    pair.settle();
    assert_eq!(pair.answer(number), Some(Ok(Reply::Done)));
    assert_eq!(pair.endpoints(A, third), [far.endpoint]);
    assert_eq!(pair.endpoints(A, scene.here), [scene.near.endpoint]);
}

#[test]
fn a_full_queue_delays_an_endpoint_and_loses_nothing() {
    let mut pair = Pair::new("127.71.0.12", 0);
    let mut scene = pair.scene();
    let number = pair.start_transfer(A, &scene.speaker, scene.here, scene.there);
    pair.letters(A);
    pair.letters(B);
    let mut ignored = Vec::new();
    loop {
        let (reply, answer) = oneshot::channel();
        let filler = Command::Report { reply };
        if pair.workers[B].handle.try_send(filler).is_err() {
            break;
        }
        ignored.push(answer);
    }
    scene.speaker.say(3);
    for _ in 0..3 {
        pair.turn(A);
    }
    assert_eq!(pair.workers[A].letters.len(), 1, "it waits");
    scene.speaker.say(3);
    pair.settle();
    pair.settle();
    assert_eq!(pair.answer(number), Some(Ok(Reply::Done)));
    let heard = [scene.near.names(), scene.far.names()].concat();
    assert_eq!(heard, (100..106).collect::<Vec<u16>>());
}

#[test]
fn a_snapshot_goes_first() {
    let mut pair = Pair::new("127.71.0.13", 0);
    let scene = pair.scene();
    let snapshot = pair.workers[A].shared.moves.begin_snapshot();
    let number = pair.start_transfer(A, &scene.speaker, scene.here, scene.there);
    pair.settle();
    assert_eq!(pair.answer(number), None);
    assert!(snapshot.is_alone());
    drop(snapshot);
    pair.settle();
    assert_eq!(pair.answer(number), Some(Ok(Reply::Done)));
    let alone = pair.workers[A].shared.moves.begin_snapshot();
    assert!(alone.is_alone(), "the move is over");
    // A snapshot that takes too long does not hold calls up.
    let back = pair.start_transfer(B, &scene.speaker, scene.there, scene.here);
    let deadline = Instant::now() + PATIENCE;
    while pair.answer(back).is_none() {
        assert!(Instant::now() < deadline);
        pair.settle();
    }
}

#[test]
fn a_recording_of_the_endpoint_ends_with_its_stay() {
    let mut pair = Pair::new("127.71.0.14", 0);
    let mut scene = pair.scene();
    let recording = RecordingId::random();
    let path = pair.dir.path().join("leg.pcap");
    let start = Request::RecordingStart(RecordingStart {
        session: scene.here,
        recording,
        endpoint: Some(scene.speaker.endpoint),
        file_path: path.to_str().expect("text").to_owned(),
        record_outbound: false,
    });
    let number = pair.send(A, start);
    let deadline = Instant::now() + PATIENCE;
    while pair.answer(number).is_none() {
        assert!(Instant::now() < deadline);
        pair.settle();
    }
    assert_eq!(pair.answer(number), Some(Ok(Reply::Done)));
    scene.speaker.say(3);
    pair.settle();
    pair.story();
    pair.start_transfer(A, &scene.speaker, scene.here, scene.there);
    let mut stopped = None;
    while stopped.is_none() {
        assert!(Instant::now() < deadline);
        pair.settle();
        pair.listen();
        stopped = pair.heard.iter().find_map(|message| match message {
            ToControl::Event { session, event } => match &event.event {
                Event::RecordingStopped(summary) => Some((*session, summary.clone())),
                _ => None,
            },
            _ => None,
        });
    }
    let (session, summary) = stopped.expect("just seen");
    assert_eq!((session, summary.packets), (scene.here, 3));
    assert_eq!(summary.reason, StopReason::EndpointTransferred);
    let expected = [
        "TransferredIn",
        "answer",
        "TransferredOut",
        "RecordingStopped",
    ];
    assert_eq!(pair.story(), expected);
}

impl Pair {
    fn start_bridge(&mut self, session: SessionId, target_session: SessionId) -> Joint {
        let joint = Joint {
            number: self.number + 1,
            near: EndpointId::random(),
            far: EndpointId::random(),
        };
        let request = BridgeCreate {
            session,
            endpoint: joint.near,
            target_session,
            target_endpoint: joint.far,
            direction: Direction::Sendrecv,
        };
        self.send(A, Request::BridgeCreate(request));
        joint
    }

    fn remove(&mut self, worker: usize, session: SessionId, endpoint: EndpointId) {
        let removed = self.request(worker, Request::EndpointRemove { session, endpoint });
        assert!(matches!(removed, Ok(Reply::Recordings(_))), "{removed:?}");
    }

    fn counts(&mut self, scene: &Scene) -> (usize, usize) {
        let here = self.endpoints(A, scene.here).len();
        (here, self.endpoints(B, scene.there).len())
    }
}

struct Joint {
    number: u64,
    near: EndpointId,
    far: EndpointId,
}

#[test]
fn a_bridge_is_made_on_both_sides_and_goes_from_both() {
    let mut pair = Pair::new("127.71.0.20", 0);
    let scene = pair.scene();
    let joint = pair.start_bridge(scene.here, scene.there);
    pair.settle();
    assert_eq!(pair.answer(joint.number), Some(Ok(Reply::Done)));
    assert_eq!(pair.counts(&scene), (3, 2));
    pair.remove(A, scene.here, joint.near);
    assert_eq!(pair.counts(&scene), (2, 1));
    let joint = pair.start_bridge(scene.here, scene.there);
    pair.settle();
    pair.remove(B, scene.there, joint.far);
    assert_eq!(pair.counts(&scene), (2, 1));
    // Of a session that ends, the other ends go before the answer.
    pair.start_bridge(scene.here, scene.there);
    pair.start_bridge(scene.here, scene.there);
    pair.settle();
    assert_eq!(pair.counts(&scene), (4, 3));
    let destroyed = pair.request(B, end_of_there(&scene));
    assert!(
        matches!(destroyed, Ok(Reply::Recordings(_))),
        "{destroyed:?}"
    );
    assert_eq!(pair.endpoints(A, scene.here).len(), 2);
    assert_eq!(
        pair.workers[A].farewells.len() + pair.workers[B].farewells.len(),
        0
    );
}

#[test]
fn a_bridge_that_one_side_has_no_room_for_leaves_nothing_in_the_other() {
    let mut pair = Pair::new("127.71.0.21", 3);
    let scene = pair.scene();
    let third = pair.phone(A, scene.here);
    let joint = pair.start_bridge(scene.here, scene.there);
    pair.settle();
    let full = RequestError::TooManyEndpoints { limit: 3 };
    assert_eq!(pair.answer(joint.number), Some(Err(full)));
    pair.remove(A, scene.here, third.endpoint);
    for _ in 0..2 {
        pair.phone(B, scene.there);
    }
    let joint = pair.start_bridge(scene.here, scene.there);
    pair.settle();
    let full = RequestError::TargetFull { limit: 3 };
    assert_eq!(pair.answer(joint.number), Some(Err(full)));
    assert_eq!(pair.counts(&scene), (2, 3));
    let joint = pair.start_bridge(scene.here, SessionId::random());
    pair.settle();
    let unknown = RequestError::TargetSessionNotFound;
    assert_eq!(pair.answer(joint.number), Some(Err(unknown)));
    pair.phone(A, scene.here);
    assert_eq!(pair.counts(&scene), (3, 3), "no place is kept for nothing");
}

#[test]
fn a_bridge_whose_session_ends_while_it_is_made_is_not_half_there() {
    // The target ends when its place is kept; then the source, when the far end has joined.
    for (ip, panics) in [("127.71.0.22", false), ("127.71.0.23", true)] {
        let mut pair = Pair::new(ip, 0);
        let scene = pair.scene();
        let joint = pair.start_bridge(scene.here, scene.there);
        pair.letters(A);
        pair.letters(B);
        if panics {
            let panic = Command::Panic(scene.there);
            assert!(pair.workers[B].handle.try_send(panic).is_ok());
        } else {
            pair.send(B, end_of_there(&scene));
        }
        pair.settle();
        assert!(
            matches!(
                pair.answer(joint.number),
                Some(Err(RequestError::Endpoint(_)))
            ),
            "{:?}",
            pair.answer(joint.number)
        );
        assert_eq!(pair.endpoints(A, scene.here).len(), 2);

        let there = pair.session(B);
        let joint = pair.start_bridge(scene.here, there);
        pair.letters(A);
        pair.letters(B);
        pair.letters(A);
        let session = scene.here;
        let end = if panics {
            Command::Panic(session)
        } else {
            let ticket = Ticket::new(Arc::clone(&pair.outbox), 9999);
            let term = pair.workers[A].shared.controller.term();
            let request = Request::SessionDestroy { session };
            Command::Request {
                request,
                ticket,
                term,
            }
        };
        assert!(pair.workers[A].handle.try_send(end).is_ok());
        pair.letters(A);
        pair.settle();
        assert_eq!(
            pair.answer(joint.number),
            Some(Err(RequestError::SessionGone))
        );
        let deadline = Instant::now() + PATIENCE;
        while !pair.endpoints(B, there).is_empty() {
            assert!(Instant::now() < deadline, "the far end notices");
        }
    }
}

#[test]
fn the_other_end_of_a_session_that_a_bug_ended_goes_too() {
    let mut pair = Pair::new("127.71.0.24", 0);
    let scene = pair.scene();
    let joint = pair.start_bridge(scene.here, scene.there);
    pair.settle();
    assert_eq!(pair.answer(joint.number), Some(Ok(Reply::Done)));
    let panic = Command::Panic(scene.there);
    assert!(pair.workers[B].handle.try_send(panic).is_ok());
    let deadline = Instant::now() + PATIENCE;
    while pair.endpoints(A, scene.here).len() > 2 {
        assert!(Instant::now() < deadline, "the near end notices");
    }
}

#[test]
fn an_end_of_a_bridge_moves_but_not_to_its_counterpart() {
    let mut pair = Pair::new("127.71.0.25", 0);
    let scene = pair.scene();
    let joint = pair.start_bridge(scene.here, scene.there);
    pair.settle();
    let end = Phone {
        endpoint: joint.near,
        ..pair.phone(A, scene.here)
    };
    let number = pair.start_transfer(A, &end, scene.here, scene.there);
    pair.settle();
    assert!(matches!(
        pair.answer(number),
        Some(Err(RequestError::Endpoint(_)))
    ));
    let third = pair.session(B);
    let number = pair.start_transfer(A, &end, scene.here, third);
    pair.settle();
    assert_eq!(pair.answer(number), Some(Ok(Reply::Done)));
    assert_eq!(pair.endpoints(B, third), [joint.near]);
    // Its counterpart is still known where it is.
    pair.remove(B, scene.there, joint.far);
    assert_eq!(pair.endpoints(B, third), []);
}
