//! The real `rtpbridgectl` against the admin interface over a small backend, and against a socket that
//! speaks as the dataplane does.

use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rtpbridge_control::admin::{
    self, AdminBackend, AdminError, DrainAnswer, Health, LogTarget, RecordingRow, SessionRow,
    StatusAnswer,
};
use rtpbridge_shared::config::LogLevel;
use rtpbridge_shared::id::{InstanceId, SessionId};
use rtpbridge_shared::ipc::frame::{FrameReader, encode};
use rtpbridge_shared::ipc::process::StatusReport;
use rtpbridge_shared::ipc::session::{SessionDetails, SessionSnapshot};
use rtpbridge_shared::ipc::stats::StatsRow;
use rtpbridge_shared::ipc::{
    Hello, PROTOCOL_VERSION, Reply, Request, Role, ToControl, ToDataplane,
};
use rtpbridge_shared::vocab::SessionState;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

const KNOWN: SessionId = SessionId::from_bytes([0xab; 16]);

/// A control process with one session that goes away after a few looks while draining.
#[derive(Clone, Default)]
struct Backend {
    calls: Arc<Mutex<Vec<String>>>,
    unhealthy: bool,
    looks_left: Arc<AtomicU64>,
}

impl Backend {
    fn note(&self, call: String) {
        self.calls.lock().expect("not poisoned").push(call);
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("not poisoned").clone()
    }
}

impl AdminBackend for Backend {
    async fn status(&self) -> StatusAnswer {
        let look = |left: u64| left.checked_sub(1);
        let left = self
            .looks_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, look);
        let sessions = u64::from(left.is_ok());
        StatusAnswer::new(None, Some(dataplane_status(sessions)))
    }

    async fn sessions(&self) -> Vec<SessionRow> {
        vec![SessionRow {
            session_id: KNOWN,
            state: SessionState::Active,
            endpoint_count: 2,
            created_at: "2026-01-02T03:04:05.000Z".to_owned(),
        }]
    }

    async fn session(&self, id: SessionId) -> Result<Value, AdminError> {
        if id != KNOWN {
            return Err(AdminError::SessionNotFound(id));
        }
        Ok(json!({ "session_id": id, "state": "active", "endpoints": [], "recordings": [] }))
    }

    async fn stats(&self, _: SessionId) -> Result<Vec<StatsRow>, AdminError> {
        Ok(Vec::new())
    }

    async fn kick(&self, id: SessionId) -> Result<(), AdminError> {
        self.note(format!("kick {id}"));
        Ok(())
    }

    async fn recordings(&self) -> Result<Vec<RecordingRow>, AdminError> {
        Err(AdminError::DataplaneUnavailable)
    }

    async fn set_draining(&self, draining: bool) -> DrainAnswer {
        self.note(format!("draining {draining}"));
        let sessions = self.looks_left.load(Ordering::SeqCst);
        DrainAnswer { draining, sessions }
    }

    async fn hand_over(&self) {
        self.note("hand over".to_owned());
    }

    async fn set_log_level(&self, target: LogTarget, level: LogLevel) -> Result<(), AdminError> {
        self.note(format!("log {target:?} {level}"));
        Ok(())
    }

    async fn health(&self) -> Health {
        match self.unhealthy {
            true => Health::DataplaneUnavailable,
            false => Health::Ok,
        }
    }
}

fn dataplane_status(sessions: u64) -> StatusReport {
    StatusReport {
        version: "7.7.7".to_owned(),
        pid: 4242,
        instance: InstanceId::from_bytes([3; 16]),
        uptime_secs: 61,
        sessions,
        endpoints: 0,
        recordings: 0,
        draining: false,
        controller_connected: false,
        sandbox: Vec::new(),
        workers: Vec::new(),
    }
}

/// A runtime directory and whoever answers in it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        Self { dir }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn serve_control(&self, backend: &Backend) {
        let listener = UnixListener::bind(self.socket("admin.sock")).expect("bound");
        let router = admin::router(backend.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    fn serve_dataplane(&self) {
        let listener = UnixListener::bind(self.socket("dataplane.sock")).expect("bound");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(observe(stream));
            }
        });
    }

    async fn ctl(&self, line: &str) -> Answer {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rtpbridgectl"));
        command.arg("--runtime-dir").arg(self.dir.path());
        let output = command.args(line.split(' ')).output().await;
        Answer(output.expect("ran"))
    }
}

struct Answer(Output);

impl Answer {
    fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("UTF-8")
    }

    fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).expect("UTF-8")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out()).unwrap_or_else(|_| panic!("JSON: {}", self.out()))
    }
}

/// The dataplane's side of one observer's connection.
async fn observe(stream: UnixStream) {
    let (source, mut sink) = stream.into_split();
    let mut source = FrameReader::new(source);
    while let Ok(Some(message)) = source.read::<ToDataplane>().await {
        let replies = match message {
            ToDataplane::Hello(hello) => {
                assert_eq!(hello.role, Role::Observer);
                vec![ToControl::Hello(Hello {
                    protocol_version: PROTOCOL_VERSION,
                    program_version: "7.7.7".to_owned(),
                    role: Role::Dataplane,
                    pid: 4242,
                    instance: InstanceId::from_bytes([3; 16]),
                })]
            }
            ToDataplane::Request { number, request } => answers(number, &request),
            _ => Vec::new(),
        };
        let mut buffer = Vec::new();
        for reply in replies {
            encode(&reply, &mut buffer).expect("encodes");
        }
        if sink.write_all(&buffer).await.is_err() {
            return;
        }
    }
}

fn answers(number: u64, request: &Request) -> Vec<ToControl> {
    let details = SessionDetails {
        session: KNOWN,
        created_at_ms: 1_700_000_000_000,
        endpoints: Vec::new(),
        recordings: Vec::new(),
        vad_active: Vec::new(),
    };
    let answer = |reply| ToControl::Answer {
        number,
        result: Ok(reply),
    };
    match request {
        Request::Status => vec![
            ToControl::Heartbeat,
            answer(Reply::Status(Box::new(dataplane_status(1)))),
        ],
        Request::Snapshot => vec![
            ToControl::SnapshotBegin { number },
            ToControl::SnapshotPart {
                number,
                session: SessionSnapshot {
                    details,
                    last_event_number: 0,
                },
            },
            ToControl::SnapshotEnd { number },
            answer(Reply::Done),
        ],
        Request::SessionInfo { .. } => vec![answer(Reply::Session(details))],
        other => panic!("an observer does not ask {other:?}"),
    }
}

#[tokio::test]
async fn looking_at_a_running_instance() {
    let place = Place::new();
    place.serve_control(&Backend::default());
    let sessions = place.ctl("sessions").await;
    assert_eq!(sessions.code(), Some(0), "{}", sessions.err());
    assert!(
        sessions.out().contains(&KNOWN.to_string()),
        "{}",
        sessions.out()
    );
    assert_eq!(
        place.ctl("sessions --json").await.json()[0]["state"],
        "active"
    );
    let session = place.ctl(&format!("session {KNOWN} --json")).await;
    assert_eq!(session.json()["session_id"], KNOWN.to_string());
    let status = place.ctl("status").await;
    assert!(
        status.out().contains("version 7.7.7, pid 4242, up 1m01s"),
        "{}",
        status.out()
    );
    assert_eq!(
        place.ctl("version --json").await.json()["dataplane"],
        "7.7.7"
    );
}

#[tokio::test]
async fn orders_reach_control() {
    let place = Place::new();
    let backend = Backend::default();
    place.serve_control(&backend);
    let kick = format!("kick {KNOWN}");
    let orders = [
        kick.as_str(),
        "undrain",
        "handover",
        "log-level debug --process control",
    ];
    for order in orders {
        let answer = place.ctl(order).await;
        assert_eq!(
            (answer.code(), answer.out().as_str()),
            (Some(0), ""),
            "{order}"
        );
    }
    let expected = [&kick, "draining false", "hand over", "log Control debug"];
    assert_eq!(backend.calls(), expected);
}

#[tokio::test]
async fn draining_may_wait_for_the_last_session() {
    let place = Place::new();
    let backend = Backend::default();
    backend.looks_left.store(2, Ordering::SeqCst);
    place.serve_control(&backend);
    let now = place.ctl("drain").await;
    assert_eq!(now.out(), "draining, 2 sessions left\n");
    let answer = place.ctl("drain --wait --json").await;
    assert_eq!(answer.code(), Some(0), "{}", answer.err());
    assert_eq!(answer.json(), json!({ "draining": true, "sessions": 0 }));
    assert_eq!(backend.looks_left.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn exit_codes_tell_failure_usage_and_absence_apart() {
    let place = Place::new();
    let nobody = place.ctl("sessions").await;
    assert_eq!(nobody.code(), Some(3));
    assert!(nobody.err().contains("cannot reach"), "{}", nobody.err());
    assert_eq!(place.ctl("drain").await.code(), Some(3));
    assert_eq!(place.ctl("health").await.code(), Some(3));
    place.serve_control(&Backend::default());
    let unknown = place
        .ctl("session 00000000-0000-4000-8000-000000000000")
        .await;
    assert_eq!(unknown.code(), Some(1));
    assert!(unknown.err().contains("not found"), "{}", unknown.err());
    assert_eq!(place.ctl("recordings").await.code(), Some(1));
    assert_eq!(place.ctl("session nonsense").await.code(), Some(2));
    assert_eq!(place.ctl("frobnicate").await.code(), Some(2));
}

#[tokio::test]
async fn health_is_0_1_or_3() {
    let healthy = Place::new();
    healthy.serve_control(&Backend::default());
    let answer = healthy.ctl("health").await;
    assert_eq!((answer.code(), answer.out().as_str()), (Some(0), "ok\n"));
    let unhealthy = Place::new();
    unhealthy.serve_control(&Backend {
        unhealthy: true,
        ..Backend::default()
    });
    let answer = unhealthy.ctl("health --json").await;
    assert_eq!(answer.code(), Some(1));
    assert_eq!(answer.json(), json!({ "status": "dataplane_unavailable" }));
    let headless = Place::new();
    headless.serve_dataplane();
    let answer = headless.ctl("health").await;
    assert_eq!(
        (answer.code(), answer.out().as_str()),
        (Some(3), "control_unavailable\n")
    );
}

#[tokio::test]
async fn without_control_the_dataplane_is_asked() {
    let place = Place::new();
    place.serve_dataplane();
    // What a killed control leaves behind.
    drop(std::os::unix::net::UnixListener::bind(place.socket("admin.sock")).expect("bound"));
    let status = place.ctl("status --json").await;
    assert_eq!(status.code(), Some(0), "{}", status.err());
    assert_eq!(status.json()["dataplane"]["pid"], 4242);
    assert_eq!(status.json()["control"], Value::Null);
    let sessions = place.ctl("sessions --json").await.json();
    assert_eq!(sessions[0]["state"], "orphaned");
    assert_eq!(sessions[0]["created_at"], "2023-11-14T22:13:20.000Z");
    let session = place.ctl(&format!("session {KNOWN} --json")).await;
    assert_eq!(session.json()["session_id"], KNOWN.to_string());
    assert_eq!(place.ctl("recordings --json").await.json(), json!([]));
    assert_eq!(place.ctl("handover").await.code(), Some(3));
}

#[tokio::test]
async fn a_configuration_file_is_checked_with_all_its_faults() {
    let place = Place::new();
    let file = place.socket("rtpbridge.toml");
    let check = format!("config check {}", file.display());
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    let cache = format!("cache_dir = \"{}\"\n", place.socket("cache").display());
    write(&cache);
    let fine = place.ctl(&check).await;
    assert_eq!(fine.code(), Some(0), "{}", fine.out());
    write(&format!("{cache}media_dscp = 64\nmax_sesions = 1\n"));
    let faulty = place.ctl(&check).await;
    assert_eq!(faulty.code(), Some(1));
    assert!(
        faulty.out().contains("rtpbridge.toml:2: media_dscp = 64"),
        "{}",
        faulty.out()
    );
    assert!(
        faulty.out().contains("did you mean max_sessions?"),
        "{}",
        faulty.out()
    );
    assert!(
        faulty.err().contains("rtpbridge.toml: 2 faults"),
        "{}",
        faulty.err()
    );
    write(&format!("{cache}media_dscp = 64\n"));
    let faulty = place.ctl(&check).await;
    assert!(
        faulty.err().ends_with("rtpbridge.toml: 1 fault\n"),
        "{}",
        faulty.err()
    );
}

#[tokio::test]
async fn completions_and_man_page_come_from_the_definition() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.ctl(&format!("completions {shell}")).await.out();
        assert!(
            script.contains("handover") && script.contains("log-level"),
            "{shell}"
        );
    }
    let page = place.ctl("man").await.out();
    assert!(
        page.contains(".TH rtpbridgectl") && page.contains("handover"),
        "{page}"
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_of_use_is_no_crash() {
    let place = Place::new();
    let listener = UnixListener::bind(place.socket("admin.sock")).expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{{{")
                .await;
        }
    });
    let answer = place.ctl("status").await;
    assert_eq!(answer.code(), Some(3), "{}", answer.err());
}
