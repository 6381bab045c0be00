//! Connections: who may connect, hello, one controller at a time, frames in and out, heartbeats.
//! Who closes what: a connection ends when its reader, its writer or the other side ends; the end of
//! the controller's connection releases all sessions and changes nothing else.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use interprocess::local_socket::tokio::prelude::*;
use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::os::unix::uds_local_socket::tokio::Listener as UdsListener;
use rtpbridge_shared::id::InstanceId;
use rtpbridge_shared::ipc::frame::{self, FrameError, FrameReader};
use rtpbridge_shared::ipc::hello::Refusal;
use rtpbridge_shared::ipc::{Hello, PROTOCOL_VERSION, Role, ToControl, ToDataplane};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::time::{self, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::dispatch::Dispatcher;
use super::outbox::{Class, Outbox, Ticket};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence after which the peer counts as gone.
const SILENCE: Duration = Duration::from_secs(5);
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Connections at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 32;
/// "nobody" in many systems, which several unrelated programs may run as.
const NOBODY: u32 = 65_534;

/// Who may connect beside root and our own user.
pub(crate) type AllowedUsers = BTreeSet<u32>;

/// Accepts connections.
pub(crate) struct Server {
    dispatcher: Arc<Dispatcher>,
    allowed: AllowedUsers,
    controller: Mutex<Controller>,
    connections: AtomicUsize,
}

struct Controller {
    current: Option<Current>,
    /// When the last one went, or the process started.
    absent_since: Instant,
}

struct Current {
    outbox: Arc<Outbox>,
    pid: u32,
    instance: InstanceId,
}

/// One of the connections that there may be. Given back whatever ends the connection, a bug too.
struct Place(Arc<Server>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A peer that was admitted; likewise gone in any case.
struct Presence<'a> {
    server: &'a Server,
    outbox: &'a Arc<Outbox>,
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.outbox.close();
        self.server.on_gone(self.outbox);
    }
}

/// Why a connection ended.
#[derive(Debug, Error)]
enum LinkError {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("nothing was heard for {} s", SILENCE.as_secs())]
    Silence,
    #[error("a second hello")]
    SecondHello,
}

impl Server {
    pub(crate) fn new(dispatcher: Arc<Dispatcher>, allowed: AllowedUsers) -> Self {
        Self {
            dispatcher,
            allowed,
            controller: Mutex::new(Controller {
                current: None,
                absent_since: Instant::now(),
            }),
            connections: AtomicUsize::new(0),
        }
    }

    /// Serves until dropped.
    pub(crate) async fn run(self: Arc<Self>, listener: OwnedFd) -> io::Result<()> {
        let listener = Listener::from(UdsListener::try_from(listener)?);
        loop {
            let stream = match listener.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of descriptors, usually; it passes.
                    warn!(%error, "cannot accept a connection");
                    time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                warn!("too many connections");
                continue;
            }
            let place = Place(Arc::clone(&self));
            tokio::spawn(async move { place.0.serve(stream).await });
        }
    }

    /// How long there has been no controller.
    pub(crate) fn controller_absent_for(&self) -> Option<Duration> {
        let controller = self.lock();
        let absent = controller.current.is_none();
        absent.then(|| controller.absent_since.elapsed())
    }

    async fn serve(&self, stream: Stream) {
        let uid = stream.peer_creds().ok().and_then(|peer| peer.euid());
        let mut reader = FrameReader::new(&stream);
        if !uid.is_some_and(|uid| self.is_allowed(uid)) {
            let uid = uid.unwrap_or(NOBODY);
            warn!(uid, "connection refused: user not allowed");
            refuse(&stream, Refusal::UserNotAllowed { uid }).await;
            return;
        }
        let hello = match time::timeout(HELLO_PATIENCE, reader.read()).await {
            Ok(Ok(Some(ToDataplane::Hello(hello)))) => hello,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Ok(Some(_)) | Err(_)) => {
                warn!("connection refused: not a hello");
                refuse(&stream, Refusal::NotAHello).await;
                return;
            }
        };
        let outbox = Arc::new(Outbox::new());
        match self.admit(&hello, &outbox) {
            Ok(term) => self.converse(hello, term, reader, &stream, outbox).await,
            Err(refusal) => {
                warn!(pid = hello.pid, ?refusal, "connection refused");
                refuse(&stream, refusal).await;
            }
        }
    }

    fn is_allowed(&self, uid: u32) -> bool {
        let own = nix::unistd::geteuid().as_raw();
        uid != NOBODY && (uid == own || uid == 0 || self.allowed.contains(&uid))
    }

    /// Decides whether a peer may come in; a controller gets its term.
    fn admit(&self, hello: &Hello, outbox: &Arc<Outbox>) -> Result<u64, Refusal> {
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(Refusal::Version {
                dataplane: PROTOCOL_VERSION,
                offered: hello.protocol_version,
            });
        }
        let welcome = ToControl::Hello(self.dispatcher.hello());
        match hello.role {
            Role::Dataplane => return Err(Refusal::NotAHello),
            Role::Observer => outbox.push(&welcome, Class::MustArrive),
            Role::Controller { take_over } => {
                let mut controller = self.lock();
                let living = controller
                    .current
                    .as_ref()
                    .filter(|c| !c.outbox.is_closed());
                if let Some(living) = living {
                    if !take_over {
                        return Err(Refusal::ControllerPresent { pid: living.pid });
                    }
                    let by = hello.instance;
                    info!(old = %living.instance, new = %by, "controller displaced");
                    living
                        .outbox
                        .push(&ToControl::Displaced { by }, Class::MustArrive);
                    living.outbox.close();
                }
                // Before the slot is filled: nothing may come before the hello.
                outbox.push(&welcome, Class::MustArrive);
                if self.dispatcher.draining.load(Ordering::Relaxed) {
                    outbox.push(&ToControl::Draining, Class::MustArrive);
                }
                let slot = &self.dispatcher.shared.controller;
                let term = slot.install(Some(Arc::clone(outbox)));
                controller.current = Some(Current {
                    outbox: Arc::clone(outbox),
                    pid: hello.pid,
                    instance: hello.instance,
                });
                self.dispatcher.wake_workers();
                return Ok(term);
            }
        }
        Ok(self.dispatcher.shared.controller.term())
    }

    async fn converse(
        &self,
        hello: Hello,
        term: u64,
        reader: FrameReader<&Stream>,
        stream: &Stream,
        outbox: Arc<Outbox>,
    ) {
        let Hello {
            role,
            pid,
            instance,
            ref program_version,
            ..
        } = hello;
        info!(?role, pid, %instance, version = program_version, "connected");
        let presence = Presence {
            server: self,
            outbox: &outbox,
        };
        let ended = tokio::select! {
            read = self.read_frames(role, term, reader, &outbox) => read,
            written = write_frames(stream, &outbox) => written,
        };
        drop(presence);
        match ended {
            Ok(()) => info!(?role, pid, "disconnected"),
            Err(error) => warn!(?role, pid, %error, "connection closed"),
        }
    }

    async fn read_frames<R: AsyncRead + Unpin>(
        &self,
        role: Role,
        term: u64,
        mut reader: FrameReader<R>,
        outbox: &Arc<Outbox>,
    ) -> Result<(), LinkError> {
        loop {
            let read = time::timeout(SILENCE, reader.read()).await;
            let Some(message) = read.map_err(|_| LinkError::Silence)?? else {
                return Ok(());
            };
            if outbox.is_closed() {
                // Whoever was displaced commands no more; what it had sent before is void.
                return Ok(());
            }
            match message {
                ToDataplane::Hello(_) => return Err(LinkError::SecondHello),
                ToDataplane::Heartbeat => {}
                ToDataplane::Request { number, request } => {
                    debug!(number, "request");
                    let ticket = Ticket::new(Arc::clone(outbox), number);
                    self.dispatcher.handle_request(role, term, request, ticket);
                }
                ToDataplane::Acknowledge {
                    session,
                    event_number,
                } => {
                    if matches!(role, Role::Controller { .. }) {
                        self.dispatcher.acknowledge(session, event_number);
                    }
                }
            }
        }
    }

    fn on_gone(&self, outbox: &Arc<Outbox>) {
        let mut controller = self.lock();
        let was_current = controller
            .current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(&current.outbox, outbox));
        if was_current {
            controller.current = None;
            controller.absent_since = Instant::now();
            self.dispatcher.shared.controller.install(None);
            self.dispatcher.wake_workers();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Controller> {
        self.controller
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn refuse(mut stream: &Stream, refusal: Refusal) {
    let mut bytes = Vec::new();
    if frame::encode(&ToControl::Refused(refusal), &mut bytes).is_ok() {
        // The peer may be gone already.
        let _ = time::timeout(HELLO_PATIENCE, stream.write_all(&bytes)).await;
    }
}

/// Writes what the outbox holds, and a heartbeat every second.
async fn write_frames(mut stream: &Stream, outbox: &Outbox) -> Result<(), LinkError> {
    let mut heartbeat = time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        tokio::select! {
            biased;
            more = outbox.next(&mut buffer) => if !more {
                return Ok(());
            },
            _ = heartbeat.tick() => frame::encode(&ToControl::Heartbeat, &mut buffer)?,
        }
        for chunk in buffer.chunks(64 * 1024) {
            let written = time::timeout(SILENCE, stream.write_all(chunk)).await;
            written.map_err(|_| LinkError::Silence)??;
        }
    }
}

#[cfg(test)]
mod tests {
    use rtpbridge_shared::config::{LogFormat, LogLevel};
    use rtpbridge_shared::id::SessionId;
    use rtpbridge_shared::ipc::Request;
    use rtpbridge_shared::ipc::session::SessionCreate;
    use rtpbridge_shared::logging::{self, LogHandle};
    use std::sync::OnceLock;

    use super::*;
    use crate::sys::process::ProcessReader;
    use crate::worker;

    const CONTROLLER: Role = Role::Controller { take_over: true };

    fn hello() -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            program_version: String::new(),
            role: CONTROLLER,
            pid: 1,
            instance: InstanceId::random(),
        }
    }

    /// With one worker.
    struct Desk {
        server: Server,
        thread: Option<std::thread::JoinHandle<()>>,
        _dir: tempfile::TempDir,
    }

    fn desk() -> Desk {
        static LOG: OnceLock<LogHandle> = OnceLock::new();
        let log = LOG
            .get_or_init(|| logging::init(LogLevel::Error, LogFormat::Text).expect("the only one"));
        let dir = tempfile::tempdir().expect("a directory");
        let shared = worker::shared_for_tests(dir.path());
        let (worker, thread) = worker::spawn(0, Arc::clone(&shared), None).expect("spawns");
        let process = ProcessReader::open().expect("opens");
        let dispatcher = Dispatcher::new(shared, vec![worker], log.clone(), process, Vec::new());
        Desk {
            server: Server::new(Arc::new(dispatcher), AllowedUsers::new()),
            thread: Some(thread),
            _dir: dir,
        }
    }

    impl Drop for Desk {
        fn drop(&mut self) {
            let worker = &self.server.dispatcher.workers[0];
            assert!(worker.try_send(worker::Command::Stop).is_ok());
            let ended = self.thread.take().map(std::thread::JoinHandle::join);
            assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking());
        }
    }

    fn create(session: SessionId) -> Vec<u8> {
        let request = Request::SessionCreate(SessionCreate {
            session,
            created_at_ms: 0,
        });
        let number = 1;
        let mut bytes = Vec::new();
        frame::encode(&ToDataplane::Request { number, request }, &mut bytes).expect("encodes");
        bytes
    }

    #[tokio::test]
    async fn what_a_displaced_controller_had_sent_is_void() {
        let desk = desk();
        let server = &desk.server;
        let outboxes = [(); 2].map(|()| Arc::new(Outbox::new()));
        let terms = [0, 1].map(|n| server.admit(&hello(), &outboxes[n]).expect("admitted"));
        assert!(terms[1] > terms[0]);
        let directory = &server.dispatcher.shared.directory;
        for (n, sessions) in [(0, 0), (1, 1)] {
            let bytes = create(SessionId::random());
            let reader = FrameReader::new(&bytes[..]);
            let read = server.read_frames(CONTROLLER, terms[n], reader, &outboxes[n]);
            assert!(read.await.is_ok());
            assert_eq!(directory.len(), sessions, "controller {n}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_a_bug_ended_is_gone_all_the_same() {
        let desk = desk();
        let server = &desk.server;
        let outbox = Arc::new(Outbox::new());
        server.admit(&hello(), &outbox).expect("admitted");
        assert_eq!(server.controller_absent_for(), None);
        let conversation = || {
            let _presence = Presence {
                server,
                outbox: &outbox,
            };
            panic!("a bug");
        };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(conversation));
        assert!(ended.is_err() && outbox.is_closed());
        assert!(server.controller_absent_for().is_some());
    }
}
