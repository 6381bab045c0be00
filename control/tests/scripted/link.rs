//! Control between a scripted dataplane and a real WebSocket client: order, acknowledgement and
//! resumption of events, which a well-behaved dataplane alone cannot provoke at will.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rtpbridge_control::app::{App, Startup};
use rtpbridge_control::dataplane::{link, pending::Phase};
use rtpbridge_control::{api, session::orphan};
use rtpbridge_shared::config::{ConfigArgs, Scope, Sources};
use rtpbridge_shared::id::{EndpointId, InstanceId, SessionId};
use rtpbridge_shared::ipc::frame::{FrameReader, encode};
use rtpbridge_shared::ipc::hello::{Hello, PROTOCOL_VERSION};
use rtpbridge_shared::ipc::recording::RecordingSummary;
use rtpbridge_shared::ipc::session::{Attached, SessionDetails, SessionSnapshot};
use rtpbridge_shared::ipc::{Event, NumberedEvent, Reply, Request, Role, ToControl, ToDataplane};
use rtpbridge_shared::vocab::StopReason;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

const SOON: Duration = Duration::from_secs(20);

/// Control, serving; the directory goes with it.
struct Control {
    app: Arc<App>,
    address: std::net::SocketAddr,
    dataplanes: UnixListener,
    _dir: tempfile::TempDir,
}

impl Control {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["run", "rec", "cache"] {
            std::fs::create_dir(dir.path().join(name)).expect("directory");
        }
        let variable = |name: &str, path: &str| {
            let path = dir.path().join(path).to_string_lossy().into_owned();
            (format!("RTPBRIDGE_{name}"), path)
        };
        let sources = Sources {
            args: ConfigArgs {
                runtime_dir: Some(dir.path().join("run")),
                ..ConfigArgs::default()
            },
            environment: vec![
                variable("RECORDING_DIR", "rec"),
                variable("CACHE_DIR", "cache"),
            ],
        };
        let loaded = sources.load(Scope::Tool).expect("valid");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = listener.local_addr().expect("address");
        let dataplanes = UnixListener::bind(&loaded.config.ipc_socket).expect("socket");
        let app = App::new(Startup {
            config: loaded.config,
            settings: loaded.settings,
            log: None,
            token: None,
            bound: vec![address],
            takes_over: false,
            sandbox: Vec::new(),
        });
        tokio::spawn(link::run(Arc::clone(&app)));
        tokio::spawn(orphan::run(Arc::clone(&app)));
        tokio::spawn(api::serve(Arc::clone(&app), listener));
        Self {
            app,
            address,
            dataplanes,
            _dir: dir,
        }
    }

    /// Accepts control's connection and answers hello and snapshot.
    async fn dataplane(&self, instance: InstanceId, sessions: Vec<SessionSnapshot>) -> Dataplane {
        let (stream, _) = timeout(SOON, self.dataplanes.accept())
            .await
            .expect("control connects")
            .expect("accepted");
        let (receiving, sending) = stream.into_split();
        let mut dataplane = Dataplane {
            reader: FrameReader::new(receiving),
            writer: sending,
        };
        let hello = dataplane.read().await;
        assert!(matches!(hello, ToDataplane::Hello(_)));
        dataplane
            .write(ToControl::Hello(Hello {
                protocol_version: PROTOCOL_VERSION,
                program_version: "test".into(),
                role: Role::Dataplane,
                pid: 1,
                instance,
            }))
            .await;
        let (number, request) = dataplane.request().await;
        assert_eq!(request, Request::Snapshot);
        dataplane.write(ToControl::SnapshotBegin { number }).await;
        for session in sessions {
            dataplane
                .write(ToControl::SnapshotPart { number, session })
                .await;
        }
        dataplane.write(ToControl::SnapshotEnd { number }).await;
        dataplane.answer(number, Reply::Done).await;
        let mut phase = self.app.link.watch_phase();
        let up = phase.wait_for(|phase| *phase == Phase::Up);
        timeout(SOON, up).await.expect("in step").expect("watched");
        dataplane
    }

    async fn client(&self) -> Client {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
            head.push(byte.expect("an answer"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        Client {
            socket: WebSocketStream::from_raw_socket(stream, Side::Client, None).await,
        }
    }
}

struct Dataplane {
    reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Dataplane {
    async fn read(&mut self) -> ToDataplane {
        loop {
            let message = timeout(SOON, self.reader.read())
                .await
                .expect("a frame in time");
            match message.expect("readable").expect("not the end") {
                ToDataplane::Heartbeat => {}
                message => return message,
            }
        }
    }

    async fn request(&mut self) -> (u64, Request) {
        loop {
            if let ToDataplane::Request { number, request } = self.read().await {
                return (number, request);
            }
        }
    }

    async fn acknowledged(&mut self) -> u64 {
        loop {
            if let ToDataplane::Acknowledge { event_number, .. } = self.read().await {
                return event_number;
            }
        }
    }

    async fn write(&mut self, message: ToControl) {
        let mut bytes = Vec::new();
        encode(&message, &mut bytes).expect("encodes");
        self.writer.write_all(&bytes).await.expect("written");
    }

    async fn answer(&mut self, number: u64, reply: Reply) {
        let result = Ok(reply);
        self.write(ToControl::Answer { number, result }).await;
    }

    async fn event(&mut self, session: SessionId, number: u64, event: Event) {
        let event = NumberedEvent { number, event };
        self.write(ToControl::Event { session, event }).await;
    }
}

struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    async fn ask(&mut self, id: &str, method: &str, params: Value) {
        let text = json!({"id": id, "method": method, "params": params}).to_string();
        self.socket.send(Message::text(text)).await.expect("sent");
    }

    async fn next(&mut self) -> Value {
        let message = timeout(SOON, self.socket.next())
            .await
            .expect("a message in time");
        let message = message.expect("open").expect("readable");
        serde_json::from_str(message.to_text().expect("text")).expect("JSON")
    }
}

fn tone_finished(byte: u8) -> Event {
    Event::ToneFinished {
        endpoint: EndpointId::from_bytes([byte; 16]),
    }
}

fn speech(byte: u8) -> Event {
    Event::VadSpeechStarted {
        endpoint: EndpointId::from_bytes([byte; 16]),
    }
}

fn snapshot(session: SessionId, last_event_number: u64) -> SessionSnapshot {
    SessionSnapshot {
        details: SessionDetails {
            session,
            created_at_ms: 1,
            endpoints: Vec::new(),
            recordings: Vec::new(),
            vad_active: Vec::new(),
        },
        last_event_number,
    }
}

/// A client that has created a session.
async fn bound(control: &Control, dataplane: &mut Dataplane) -> (Client, SessionId) {
    let mut client = control.client().await;
    client.ask("c", "session.create", json!({})).await;
    let (number, request) = dataplane.request().await;
    let Request::SessionCreate(create) = request else {
        panic!("expected a creation, got {request:?}");
    };
    dataplane.answer(number, Reply::Done).await;
    let answer = client.next().await;
    assert_eq!(answer["result"]["session_id"], create.session.to_string());
    (client, create.session)
}

#[tokio::test]
async fn events_are_acknowledged_once_written_and_never_before() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let (mut client, session) = bound(&control, &mut dataplane).await;
    for number in 1..=3 {
        dataplane.event(session, number, tone_finished(1)).await;
    }
    for number in 1..=3 {
        assert_eq!(client.next().await["data"]["seq"], number);
    }
    let mut newest = 0;
    while newest < 3 {
        let number = dataplane.acknowledged().await;
        assert!(number > newest && number <= 3);
        newest = number;
    }
}

#[tokio::test]
async fn a_broken_link_orphans_nobody_and_repeats_nothing() {
    let control = Control::start().await;
    let instance = InstanceId::random();
    let mut dataplane = control.dataplane(instance, Vec::new()).await;
    let (mut client, session) = bound(&control, &mut dataplane).await;
    dataplane.event(session, 1, tone_finished(1)).await;
    assert_eq!(client.next().await["data"]["seq"], 1);
    drop(dataplane);

    let mut dataplane = control
        .dataplane(instance, vec![snapshot(session, 5)])
        .await;
    let (number, request) = dataplane.request().await;
    assert_eq!(request, Request::SessionAttach { session });
    // Events that overtake the answer are in the answer.
    dataplane.event(session, 5, speech(1)).await;
    let held = [1, 4].map(|number| NumberedEvent {
        number,
        event: tone_finished(1),
    });
    let attached = Attached {
        held: held.to_vec(),
        dropped: 3,
        last_event_number: 5,
    };
    dataplane.answer(number, Reply::Attached(attached)).await;
    dataplane.event(session, 6, speech(2)).await;
    let resumed = client.next().await;
    assert_eq!(resumed["data"]["seq"], 4);
    let dropped = client.next().await;
    assert_eq!(dropped["event"], "events.dropped");
    // 2, 3 and 5: number 1 had reached the client before the link broke.
    assert_eq!(dropped["data"]["count"], 3);
    assert_eq!(client.next().await["event"], "vad.speech_started");
}

#[tokio::test]
async fn an_attach_is_answered_before_its_backlog_and_the_loss_comes_last() {
    let control = Control::start().await;
    let session = SessionId::random();
    let mut dataplane = control
        .dataplane(InstanceId::random(), vec![snapshot(session, 9)])
        .await;
    let mut client = control.client().await;
    client
        .ask("a", "session.attach", json!({"session_id": session}))
        .await;
    let (number, request) = dataplane.request().await;
    assert_eq!(request, Request::SessionAttach { session });
    let held = vec![NumberedEvent {
        number: 7,
        event: tone_finished(1),
    }];
    let attached = Attached {
        held,
        dropped: 8,
        last_event_number: 9,
    };
    dataplane.answer(number, Reply::Attached(attached)).await;
    assert_eq!(client.next().await, json!({"id": "a", "result": {}}));
    assert_eq!(client.next().await["data"]["seq"], 7);
    assert_eq!(client.next().await["data"]["count"], 8);
}

#[tokio::test]
async fn stopped_recordings_precede_the_answer_that_stopped_them() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let (mut client, _) = bound(&control, &mut dataplane).await;
    let path = control.app.config.recording_dir.join("a.pcap");
    let path = path.to_string_lossy().into_owned();
    client
        .ask("r", "recording.start", json!({"file_path": path}))
        .await;
    let (number, request) = dataplane.request().await;
    let Request::RecordingStart(start) = request else {
        panic!("expected a recording, got {request:?}");
    };
    dataplane.answer(number, Reply::Done).await;
    assert_eq!(client.next().await["id"], "r");
    client.ask("d", "session.destroy", json!({})).await;
    let (number, _) = dataplane.request().await;
    let summary = RecordingSummary {
        recording: start.recording,
        file_path: path,
        duration_ms: 1,
        packets: 2,
        dropped_packets: 0,
        reason: StopReason::SessionDestroyed,
        flushed: true,
        streams: Vec::new(),
    };
    dataplane
        .answer(number, Reply::Recordings(vec![summary]))
        .await;
    let stopped = client.next().await;
    assert_eq!(stopped["event"], "recording.stopped");
    assert_eq!(stopped["data"]["reason"], "session_destroyed");
    assert_eq!(client.next().await, json!({"id": "d", "result": {}}));
    client.ask("i", "session.info", json!({})).await;
    assert_eq!(client.next().await["error"]["code"], "NO_SESSION");
}

#[tokio::test]
async fn another_dataplane_ends_the_sessions_of_the_last_one() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let (mut client, session) = bound(&control, &mut dataplane).await;
    client.ask("p", "stats.snapshot", json!({})).await;
    dataplane.request().await;
    drop(dataplane);
    let unanswered = client.next().await;
    assert_eq!(unanswered["error"]["code"], "DATAPLANE_UNAVAILABLE");
    let _next = control.dataplane(InstanceId::random(), Vec::new()).await;
    let lost = client.next().await;
    assert_eq!(lost["event"], "session.lost");
    assert_eq!(lost["data"]["session_id"], session.to_string());
    assert_eq!(lost["data"]["reason"], "dataplane_lost");
    assert_eq!(control.app.registry.population(), 0);
}

#[tokio::test]
async fn a_creation_whose_client_is_gone_is_undone() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let mut client = control.client().await;
    client.ask("c", "session.create", json!({})).await;
    let (number, request) = dataplane.request().await;
    let Request::SessionCreate(create) = request else {
        panic!("expected a creation, got {request:?}");
    };
    drop(client);
    timeout(SOON, control.app.connections.wait_until_empty())
        .await
        .expect("the connection ends");
    dataplane.answer(number, Reply::Done).await;
    let session = create.session;
    let (number, request) = dataplane.request().await;
    assert_eq!(request, Request::SessionDestroy { session });
    assert_eq!(control.app.registry.list(), []);
    dataplane
        .answer(number, Reply::Recordings(Vec::new()))
        .await;
    let mut population = control.app.registry.watch_population();
    let empty = population.wait_for(|sessions| *sessions == 0);
    timeout(SOON, empty)
        .await
        .expect("forgotten")
        .expect("watched");
}
