//! A worker without its thread, so that a test decides what comes before what.

use super::*;
use rtpbridge_shared::id::{EndpointId, RecordingId};
use rtpbridge_shared::ipc::Event;
use rtpbridge_shared::ipc::endpoint::{CreateFromOffer, CreateOffer, SrtpOffer};
use rtpbridge_shared::ipc::recording::RecordingStart;
use rtpbridge_shared::vocab::{Codec, Direction, StopReason, Transport};

use super::super::output::SocketEntry;
use crate::recorder::writer::Notice;

struct ByHand {
    worker: Worker,
    outbox: Arc<Outbox>,
    heard: Vec<ToControl>,
    number: u64,
    dir: tempfile::TempDir,
}

fn by_hand() -> ByHand {
    let dir = tempfile::tempdir().expect("a directory");
    let shared = shared(dir.path());
    let outbox = Arc::new(Outbox::new());
    shared.controller.install(Some(Arc::clone(&outbox)));
    let mut worker = Worker::new(0, shared).expect("starts");
    worker.read_clocks();
    ByHand {
        worker,
        outbox,
        heard: Vec::new(),
        number: 0,
        dir,
    }
}

/// A plain RTP party.
struct Party {
    socket: std::net::UdpSocket,
    to: std::net::SocketAddr,
    /// The worker's key of the socket at that address.
    key: u64,
    sequence: u16,
}

impl ByHand {
    /// Lets the worker handle the request; its answer may come later.
    fn ask(&mut self, request: Request) -> u64 {
        self.number += 1;
        let command = Command::Request {
            request,
            ticket: Ticket::new(Arc::clone(&self.outbox), self.number),
            term: self.worker.term,
        };
        self.worker.handle_command(command);
        self.number
    }

    /// The answer, with the commands that other threads send until then.
    async fn answer(&mut self, number: u64) -> Result<Reply, RequestError> {
        loop {
            self.listen().await;
            let answer = self.heard.iter().find_map(|message| match message {
                ToControl::Answer { number: of, result } if *of == number => Some(result.clone()),
                _ => None,
            });
            if let Some(answer) = answer {
                return answer;
            }
            let command = self.worker.commands.recv_timeout(PATIENCE);
            self.worker
                .handle_command(command.expect("something comes"));
        }
    }

    /// What the worker has told control so far.
    async fn listen(&mut self) {
        let mut bytes = Vec::new();
        let next = self.outbox.next(&mut bytes);
        if tokio::time::timeout(Duration::ZERO, next).await != Ok(true) {
            return;
        }
        let mut reader = frame::FrameReader::new(&bytes[..]);
        while let Some(message) = reader.read().await.expect("whole frames") {
            self.heard.push(message);
        }
    }

    async fn done(&mut self, request: Request) {
        let number = self.ask(request);
        assert_eq!(self.answer(number).await, Ok(Reply::Done));
    }

    async fn create(&mut self) -> SessionId {
        let session = SessionId::random();
        assert!(self.worker.shared.directory.reserve(session, 0));
        self.worker
            .handle
            .gauges
            .sessions
            .fetch_add(1, Ordering::Relaxed);
        self.done(Request::SessionCreate(SessionCreate {
            session,
            created_at_ms: 0,
        }))
        .await;
        session
    }

    /// A recording of the whole session; the worker's first has key 0.
    async fn record(&mut self, session: SessionId, name: &str) -> RecordingId {
        let recording = RecordingId::random();
        let path = self.dir.path().join(name);
        self.done(Request::RecordingStart(RecordingStart {
            session,
            recording,
            endpoint: None,
            file_path: path.to_str().expect("utf-8").to_owned(),
            record_outbound: true,
        }))
        .await;
        recording
    }

    /// An endpoint of this kind, which offers.
    async fn offer(&mut self, session: SessionId, transport: Transport) -> EndpointId {
        let endpoint = EndpointId::random();
        let number = self.ask(Request::EndpointCreateOffer(CreateOffer {
            session,
            endpoint,
            transport,
            direction: Direction::Sendrecv,
            srtp: SrtpOffer::Off,
            codecs: vec![Codec::Pcmu],
        }));
        let offered = self.answer(number).await;
        assert!(matches!(offered, Ok(Reply::Sdp(_))), "{offered:?}");
        endpoint
    }

    /// A party with a socket, connected by its offer, and where it is to send.
    async fn party(&mut self, session: SessionId) -> Party {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
        let port = socket.local_addr().expect("bound").port();
        let number = self.ask(Request::EndpointCreateFromOffer(CreateFromOffer {
            session,
            endpoint: EndpointId::random(),
            sdp: format!(
                "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                 m=audio {port} RTP/AVP 0\r\n"
            ),
            direction: Direction::Sendrecv,
            transport: None,
        }));
        let answered = self.answer(number).await;
        let Ok(Reply::Sdp(sdp)) = answered else {
            panic!("{answered:?}");
        };
        let port = sdp
            .split_once("m=audio ")
            .and_then(|(_, rest)| rest.split_once(' '));
        let port = port
            .and_then(|(port, _)| port.parse::<u16>().ok())
            .expect("a port");
        let to = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let of_party = |(_, entry): &(u64, &SocketEntry)| entry.socket.local() == to;
        let key = self.worker.out.sockets.iter().find(of_party);
        let key = key.map(|(key, _)| key).expect("a socket");
        Party {
            socket,
            to,
            key,
            sequence: 1,
        }
    }

    /// The party sends a packet and the worker receives it.
    fn say(&mut self, party: &mut Party) {
        let mut packet = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0xff];
        packet[2..4].copy_from_slice(&party.sequence.to_be_bytes());
        party.sequence += 1;
        party.socket.send_to(&packet, party.to).expect("sent");
        let deadline = Instant::now() + PATIENCE;
        while !self.worker.receive(party.key) {
            assert!(Instant::now() < deadline, "nothing arrives");
            std::thread::yield_now();
        }
    }

    fn stopped(&self) -> Vec<(RecordingId, StopReason)> {
        let stopped = |message: &ToControl| match message {
            ToControl::Event { event, .. } => match &event.event {
                Event::RecordingStopped(summary) => Some((summary.recording, summary.reason)),
                _ => None,
            },
            _ => None,
        };
        self.heard.iter().filter_map(stopped).collect()
    }
}

#[tokio::test]
async fn an_ending_session_waits_for_a_file_that_is_closing_after_a_write_error() {
    let mut desk = by_hand();
    let session = desk.create().await;
    let failed = desk.record(session, "failed.pcap").await;
    let (recording, notice) = (0, Notice::Failed);
    desk.worker
        .handle_command(Command::Recorder { recording, notice });
    let destroyed = desk.ask(Request::SessionDestroy { session });
    assert_eq!(desk.answer(destroyed).await, Ok(Reply::Recordings(vec![])));
    assert_eq!(desk.stopped(), [(failed, StopReason::WriteError)]);
    assert_eq!(
        (desk.worker.waits.len(), desk.worker.sessions.len()),
        (0, 0)
    );
}

#[tokio::test]
async fn a_file_that_takes_too_long_is_told_of_before_its_session_is_gone() {
    let mut desk = by_hand();
    let session = desk.create().await;
    let failed = desk.record(session, "failed.pcap").await;
    let (recording, notice) = (0, Notice::Failed);
    desk.worker
        .handle_command(Command::Recorder { recording, notice });
    let destroyed = desk.ask(Request::SessionDestroy { session });
    desk.worker.out.now_ns += Duration::from_secs(60).as_nanos() as u64;
    desk.worker.expire_waits();
    assert_eq!(desk.answer(destroyed).await, Ok(Reply::Recordings(vec![])));
    assert_eq!(desk.stopped(), [(failed, StopReason::WriteError)]);
    assert_eq!(desk.worker.sessions.len(), 0);
}

#[tokio::test]
async fn a_bug_leaves_no_socket_and_no_association_behind() {
    let mut desk = by_hand();
    let session = desk.create().await;
    desk.offer(session, Transport::Webrtc).await;
    desk.offer(session, Transport::Rtp).await;
    let Some((browser, _)) = desk.worker.out.sockets.at(0) else {
        panic!("a socket");
    };
    desk.worker.out.handshakes.push(browser, &[22]);
    assert_eq!(desk.worker.out.handshakes.associations.len(), 1);
    desk.worker.handle_command(Command::Panic(session));
    assert!(desk.worker.out.handshakes.associations.is_empty());
    assert_eq!(desk.worker.out.sockets.len(), 0);
}

#[tokio::test]
async fn forwarding_latency_is_that_of_packets_that_were_forwarded() {
    let mut desk = by_hand();
    let session = desk.create().await;
    let mut talker = desk.party(session).await;
    // The first datagram of a worker is a sample.
    desk.say(&mut talker);
    let observed = |desk: &ByHand| desk.worker.forward_latency.histogram().count;
    assert_eq!(observed(&desk), 0, "there was nobody to forward it to");
    let _listener = desk.party(session).await;
    desk.worker.received = 0;
    desk.say(&mut talker);
    assert_eq!(observed(&desk), 1);
}
