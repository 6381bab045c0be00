mod by_hand;

use super::*;
use crate::handshake::HandshakeService;
use crate::ipc::outbox::{Outbox, Ticket};
use crate::recorder::directory::RecordingDirectory;
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::session::SessionCreate;
use rtpbridge_shared::ipc::{Reply, Request, RequestError, ToControl, frame};
use std::time::Instant;
use tokio::sync::oneshot;

const PATIENCE: Duration = Duration::from_secs(10);

struct Fixture {
    shared: Arc<Shared>,
    worker: WorkerHandle,
    thread: Option<JoinHandle<()>>,
    outbox: Arc<Outbox>,
    heard: Vec<ToControl>,
    number: u64,
    _dir: tempfile::TempDir,
}

/// With ports on 127.0.0.1.
pub(crate) fn shared(recordings: &std::path::Path) -> Arc<Shared> {
    let recordings = RecordingDirectory::open(recordings).0;
    let local = std::net::IpAddr::from([127, 0, 0, 1]);
    let handshakes = Arc::new(HandshakeService::start().expect("starts"));
    Arc::new(Shared {
        directory: Directory::default(),
        controller: ControllerSlot::default(),
        ports: Ports::new(vec![local], (20_000, 29_999), None, 0, rand::random),
        recorder: Arc::new(Recorder::start(recordings).expect("starts")),
        files: Files {
            pool: DecoderPool::new(),
            media: Arc::new(MediaDirectory::open(None)),
            cache: Arc::new(MediaDirectory::open(None)),
        },
        engine: Arc::new(EngineConfig {
            media_ip: vec![local],
            fingerprint: Some(handshakes.fingerprint().clone()),
            ..EngineConfig::default()
        }),
        handshakes: Some(handshakes),
        peers: OnceLock::new(),
        moves: Arc::default(),
        bridges: Bridges::default(),
        settings: Settings {
            batch_window: Duration::from_micros(500),
            max_lateness: None,
            recording_flush_timeout: Duration::from_secs(5),
            recording_channel_size: 10,
            media_advertise_ip: None,
        },
    })
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let shared = shared(dir.path());
    let outbox = Arc::new(Outbox::new());
    shared.controller.install(Some(Arc::clone(&outbox)));
    let (worker, thread) =
        spawn(0, Arc::clone(&shared), PreparedRing::new(64).ok()).expect("spawns");
    Fixture {
        shared,
        worker,
        thread: Some(thread),
        outbox,
        heard: Vec::new(),
        number: 0,
        _dir: dir,
    }
}

impl Fixture {
    async fn request(&mut self, request: Request) -> Result<Reply, RequestError> {
        self.number += 1;
        let wanted = self.number;
        let command = Command::Request {
            request,
            ticket: Ticket::new(Arc::clone(&self.outbox), wanted),
            term: self.shared.controller.term(),
        };
        assert!(self.worker.try_send(command).is_ok());
        loop {
            let answer = self.heard.iter().find_map(|message| match message {
                ToControl::Answer { number, result } if *number == wanted => Some(result.clone()),
                _ => None,
            });
            match answer {
                Some(result) => return result,
                None => self.listen().await,
            }
        }
    }

    async fn listen(&mut self) {
        let mut bytes = Vec::new();
        let next = self.outbox.next(&mut bytes);
        let more = tokio::time::timeout(PATIENCE, next).await;
        assert!(more.expect("something comes"), "the outbox is closed");
        let mut reader = frame::FrameReader::new(&bytes[..]);
        while let Some(message) = reader.read().await.expect("whole frames") {
            self.heard.push(message);
        }
    }

    fn parts(&self) -> Vec<SessionId> {
        let parts = self.heard.iter().filter_map(|message| match message {
            ToControl::SnapshotPart {
                number: 77,
                session,
            } => Some(session.details.session),
            _ => None,
        });
        parts.collect()
    }

    async fn create(&mut self) -> SessionId {
        let session = SessionId::random();
        assert!(self.shared.directory.reserve(session, 0));
        self.worker.gauges.sessions.fetch_add(1, Ordering::Relaxed);
        let created = self.request(Request::SessionCreate(SessionCreate {
            session,
            created_at_ms: 0,
        }));
        assert_eq!(created.await, Ok(Reply::Done));
        session
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        assert!(self.worker.try_send(Command::Stop).is_ok());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

#[tokio::test]
async fn a_bug_costs_one_session_and_not_the_others() {
    let mut fixture = fixture();
    let doomed = fixture.create().await;
    let other = fixture.create().await;
    assert!(fixture.worker.try_send(Command::Panic(doomed)).is_ok());
    let ended = ToControl::SessionEnded {
        session: doomed,
        reason: SessionEndReason::InternalError,
    };
    while !fixture.heard.contains(&ended) {
        fixture.listen().await;
    }
    let gone = fixture.request(Request::SessionInfo { session: doomed });
    assert_eq!(gone.await, Err(RequestError::SessionNotFound));
    let info = fixture.request(Request::SessionInfo { session: other });
    assert!(matches!(info.await, Ok(Reply::Session(_))));
    assert_eq!(fixture.shared.directory.len(), 1);
    assert_eq!(fixture.worker.gauges.sessions.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn pages_of_a_snapshot_are_small_and_complete() {
    let mut fixture = fixture();
    let mut expected = Vec::new();
    for _ in 0..50 {
        expected.push(fixture.create().await);
    }
    let mut from = Some(0);
    while let Some(place) = from {
        let (reply, page) = oneshot::channel();
        let before = fixture.parts().len();
        let command = Command::Snapshot {
            from: place,
            outbox: Arc::clone(&fixture.outbox),
            number: 77,
            reply,
        };
        assert!(fixture.worker.try_send(command).is_ok());
        from = page.await.expect("a page");
        fixture.listen().await;
        assert!(fixture.parts().len() - before <= 16);
    }
    let seen = fixture.parts();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn an_idle_worker_shows_that_it_lives() {
    let fixture = fixture();
    let beat = || fixture.worker.gauges.heartbeat_ns.load(Ordering::Relaxed);
    let (first, deadline) = (beat(), Instant::now() + PATIENCE);
    while beat() == first {
        assert!(Instant::now() < deadline, "no turn");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn ending_all_sessions_tells_of_each() {
    let mut fixture = fixture();
    for _ in 0..70 {
        fixture.create().await;
    }
    let reason = SessionEndReason::Shutdown;
    assert!(fixture.worker.try_send(Command::EndAll { reason }).is_ok());
    let told = |heard: &[ToControl]| {
        let ended = heard.iter();
        let ended = ended.filter(|m| matches!(m, ToControl::SessionEnded { .. }));
        ended.count()
    };
    while told(&fixture.heard) < 70 {
        fixture.listen().await;
    }
    assert_eq!(fixture.shared.directory.len(), 0);
}

/// Runs itself again in a process that may die.
#[tokio::test]
async fn a_bug_outside_of_any_session_ends_the_process() {
    const CHILD: &str = "RTPBRIDGE_TEST_DIES";
    let name = "worker::tests::a_bug_outside_of_any_session_ends_the_process";
    if std::env::var_os(CHILD).is_some() {
        let mut fixture = fixture();
        assert!(fixture.worker.try_send(Command::Die).is_ok());
        // With the thread gone and the process alive, the parent sees a good end.
        let thread = fixture.thread.take().expect("a thread");
        let _ = thread.join();
        std::process::exit(0);
    }
    let child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    let signal = std::os::unix::process::ExitStatusExt::signal(&child.expect("runs"));
    assert_eq!(signal, Some(libc::SIGABRT));
}
