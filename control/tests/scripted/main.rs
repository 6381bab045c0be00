//! Control between a scripted dataplane and a real client: what a well-behaved dataplane alone cannot
//! provoke at will.

mod endings;
mod link;
mod mirror;
mod refusals;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rtpbridge_control::app::{App, Startup};
use rtpbridge_control::dataplane::{self, pending::Phase};
use rtpbridge_control::session::orphan;
use rtpbridge_control::{api, shutdown};
use rtpbridge_shared::config::{ConfigArgs, Scope, Sources};
use rtpbridge_shared::id::{EndpointId, InstanceId, SessionId};
use rtpbridge_shared::ipc::frame::{FrameReader, encode};
use rtpbridge_shared::ipc::hello::{Hello, PROTOCOL_VERSION};
use rtpbridge_shared::ipc::recording::{RecordingStart, RecordingSummary};
use rtpbridge_shared::ipc::session::{Attached, SessionDetails, SessionSnapshot};
use rtpbridge_shared::ipc::{
    Event, NumberedEvent, Reply, Request, RequestError, Role, ToControl, ToDataplane,
};
use rtpbridge_shared::vocab::StopReason;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

const SOON: Duration = Duration::from_secs(20);

/// Control, serving; the directory goes with it.
struct Control {
    app: Arc<App>,
    address: std::net::SocketAddr,
    /// The same listening socket, as another process would have it.
    successor: TcpListener,
    dataplanes: UnixListener,
    _dir: tempfile::TempDir,
}

impl Control {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With these environment variables, the prefix left out.
    async fn start_with(variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["run", "rec", "cache"] {
            std::fs::create_dir(dir.path().join(name)).expect("directory");
        }
        let variable = |name: &str, path: &str| {
            let path = dir.path().join(path).to_string_lossy().into_owned();
            (format!("RTPBRIDGE_{name}"), path)
        };
        let mut environment = vec![
            variable("RECORDING_DIR", "rec"),
            variable("CACHE_DIR", "cache"),
        ];
        for (name, value) in variables {
            environment.push((format!("RTPBRIDGE_{name}"), (*value).to_owned()));
        }
        let sources = Sources {
            args: ConfigArgs {
                runtime_dir: Some(dir.path().join("run")),
                ..ConfigArgs::default()
            },
            environment,
        };
        let loaded = sources.load(Scope::Tool).expect("valid");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = listener.local_addr().expect("address");
        let successor = listener.as_fd().try_clone_to_owned().expect("a descriptor");
        let successor = TcpListener::from_std(successor.into()).expect("a listener");
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
        tokio::spawn(dataplane::link::run(Arc::clone(&app)));
        tokio::spawn(orphan::run(Arc::clone(&app)));
        tokio::spawn(api::serve(Arc::clone(&app), listener));
        Self {
            app,
            address,
            successor,
            dataplanes,
            _dir: dir,
        }
    }

    /// Accepts control's connection and answers hello and snapshot.
    async fn dataplane(&self, instance: InstanceId, sessions: Vec<SessionSnapshot>) -> Dataplane {
        let (mut dataplane, number) = self.asked_for_snapshot(instance).await;
        dataplane.write(ToControl::SnapshotBegin { number }).await;
        for session in sessions {
            let part = ToControl::SnapshotPart { number, session };
            dataplane.write(part).await;
        }
        self.end_snapshot(&mut dataplane, number).await;
        dataplane
    }

    /// The snapshot is complete; control is in service from then on.
    async fn end_snapshot(&self, dataplane: &mut Dataplane, number: u64) {
        dataplane.write(ToControl::SnapshotEnd { number }).await;
        dataplane.answer(number, Reply::Done).await;
        let mut phase = self.app.link.watch_phase();
        let up = phase.wait_for(|phase| *phase == Phase::Up);
        timeout(SOON, up).await.expect("in step").expect("watched");
    }

    /// Accepts control's connection, answers the hello and takes the request for a snapshot.
    async fn asked_for_snapshot(&self, instance: InstanceId) -> (Dataplane, u64) {
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
        (dataplane, number)
    }

    /// Waits for a state of affairs that comes by itself.
    async fn eventually(&self, what: &str, is_so: impl Fn(&App) -> bool) {
        let waiting = async {
            while !is_so(&self.app) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, waiting).await.expect(what);
    }

    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.expect("connected");
        Client::upgraded(stream).await.expect("upgraded")
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

    async fn refuse(&mut self, number: u64, error: RequestError) {
        let result = Err(error);
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
    /// The HTTP status when it is not that of an upgrade.
    async fn upgraded(mut stream: TcpStream) -> Result<Self, String> {
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(SOON, stream.read_u8()).await.expect("in time");
            head.push(byte.expect("an answer"));
        }
        let head = String::from_utf8(head).expect("text");
        if !head.starts_with("HTTP/1.1 101") {
            return Err(head);
        }
        Ok(Self {
            socket: WebSocketStream::from_raw_socket(stream, Side::Client, None).await,
        })
    }

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

    /// The code that the server closes with.
    async fn closed(&mut self) -> u16 {
        loop {
            let message = timeout(SOON, self.socket.next())
                .await
                .expect("a message in time");
            if let Message::Close(frame) = message.expect("a close").expect("readable") {
                return frame.expect("a code").code.into();
            }
        }
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

/// A recording that this client started, under a name in the recording directory.
async fn recording(
    control: &Control,
    dataplane: &mut Dataplane,
    client: &mut Client,
    name: &str,
) -> RecordingStart {
    let path = control.app.config.recording_dir.join(name);
    let path = path.to_string_lossy().into_owned();
    let params = json!({"file_path": path});
    client.ask("r", "recording.start", params).await;
    let (number, request) = dataplane.request().await;
    let Request::RecordingStart(start) = request else {
        panic!("expected a recording, got {request:?}");
    };
    dataplane.answer(number, Reply::Done).await;
    assert_eq!(client.next().await["id"], "r");
    start
}

/// How that recording ended.
fn summary(start: &RecordingStart, reason: StopReason) -> RecordingSummary {
    RecordingSummary {
        recording: start.recording,
        file_path: start.file_path.clone(),
        duration_ms: 1,
        packets: 2,
        dropped_packets: 0,
        reason,
        flushed: true,
        streams: Vec::new(),
    }
}

#[tokio::test]
async fn creations_without_a_dataplane_leave_nothing_behind() {
    let control = Control::start().await;
    let mut client = control.client().await;
    for id in ["1", "2", "3"] {
        client.ask(id, "session.create", json!({})).await;
        let answer = client.next().await;
        assert_eq!(answer["error"]["code"], "DATAPLANE_UNAVAILABLE");
    }
    let remembered = format!("{:?}", control.app.registry);
    assert!(remembered.contains("condemned: {}"), "{remembered}");
}
