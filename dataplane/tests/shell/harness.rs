//! Starts the program in a directory of its own and speaks to its socket.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtpbridge_shared::id::{InstanceId, SessionId};
use rtpbridge_shared::ipc::session::SessionCreate;
use rtpbridge_shared::ipc::{
    Event, Hello, PROTOCOL_VERSION, Reply, Request, RequestError, Role, ToControl, ToDataplane,
    frame,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const CONTROLLER: Role = Role::Controller { take_over: false };

/// A running dataplane; killed and its directory removed when dropped.
pub(crate) struct Dataplane {
    child: Child,
    dir: tempfile::TempDir,
}

impl Dataplane {
    /// Starts it on a loopback address of its own, with further settings.
    pub(crate) fn start(media_ip: &str, settings: &[(&str, &str)]) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_rtpbridge-dataplane"));
        Self::launch(program, media_ip, settings)
    }

    /// Starts it with a limit on the size of its files (`RLIMIT_FSIZE`, a multiple of 1 KiB).
    pub(crate) fn start_limited(media_ip: &str, file_kib: u32) -> Self {
        let mut shell = Command::new("/bin/bash");
        shell
            .arg("-c")
            .arg(format!("ulimit -f {file_kib} && exec \"$0\" \"$@\""))
            .arg(env!("CARGO_BIN_EXE_rtpbridge-dataplane"));
        Self::launch(shell, media_ip, &[])
    }

    fn launch(mut command: Command, media_ip: &str, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["rec", "cache"] {
            std::fs::create_dir(dir.path().join(name)).expect("creates");
        }
        command
            .env_clear()
            .arg("--runtime-dir")
            .arg(dir.path().join("run"))
            .args(["--media-ip", media_ip])
            .env("RTPBRIDGE_RECORDING_DIR", dir.path().join("rec"))
            .env("RTPBRIDGE_CACHE_DIR", dir.path().join("cache"))
            .env("RTPBRIDGE_MEDIA_WORKERS", "2")
            // A machine that is busy with other tests must not refuse this one's sessions.
            .env("RTPBRIDGE_MAX_LATENESS_MS", "0")
            .stderr(Stdio::null());
        for (name, value) in settings {
            command.env(format!("RTPBRIDGE_{}", name.to_uppercase()), value);
        }
        let child = command.spawn().expect("starts");
        let this = Self { child, dir };
        wait_for("the socket", || UnixStream::connect(this.socket()).is_ok());
        this
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/dataplane.sock")
    }

    pub(crate) fn recording(&self, name: &str) -> PathBuf {
        self.dir.path().join("rec").join(name)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn controller(&self) -> Link {
        Link::open(&self.socket(), CONTROLLER)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signals");
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the end of the process", || {
            status = self.child.try_wait().expect("waits");
            status.is_some()
        });
        status.expect("just seen")
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to the dataplane. Everything that is not an answer is kept in `heard`.
pub(crate) struct Link {
    stream: UnixStream,
    buffer: Vec<u8>,
    number: u64,
    last_sent: Instant,
    pub(crate) heard: Vec<ToControl>,
}

impl Link {
    /// Connects without a word.
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("connects");
        let short = Some(Duration::from_millis(50));
        stream.set_read_timeout(short).expect("sets");
        Self {
            stream,
            buffer: Vec::new(),
            number: 0,
            last_sent: Instant::now(),
            heard: Vec::new(),
        }
    }

    /// Connects and is welcomed.
    pub(crate) fn open(socket: &Path, role: Role) -> Self {
        let mut link = Self::connect(socket);
        link.send(&hello(role));
        let welcome = link.receive();
        assert!(matches!(welcome, Some(ToControl::Hello(_))), "{welcome:?}");
        link
    }

    pub(crate) fn send(&mut self, message: &ToDataplane) {
        let mut bytes = Vec::new();
        frame::encode(message, &mut bytes).expect("encodes");
        // The other side may have closed; what it said last is still to be read.
        let _ = self.stream.write_all(&bytes);
        self.last_sent = Instant::now();
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("writes");
    }

    /// The next frame but heartbeats, none at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<ToControl> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.receive_any(deadline, true)?;
            if message != ToControl::Heartbeat {
                return Some(message);
            }
        }
    }

    /// The next frame, heartbeats included; keeps the connection alive meanwhile if asked to.
    pub(crate) fn receive_any(&mut self, deadline: Instant, alive: bool) -> Option<ToControl> {
        loop {
            if let Some(message) = self.take_frame() {
                return Some(message);
            }
            assert!(Instant::now() < deadline, "nothing came; {:?}", self.heard);
            if alive && self.last_sent.elapsed() > Duration::from_secs(1) {
                self.send(&ToDataplane::Heartbeat);
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(bytes) => self.buffer.extend_from_slice(&chunk[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn take_frame(&mut self) -> Option<ToControl> {
        let length = u32::from_le_bytes(*self.buffer.first_chunk()?) as usize;
        let body = self.buffer.get(4..4 + length)?;
        let message = frame::decode(body).expect("a message");
        self.buffer.drain(..4 + length);
        Some(message)
    }

    /// Sends a request without waiting for its answer.
    pub(crate) fn start(&mut self, request: Request) -> u64 {
        self.number += 1;
        let number = self.number;
        self.send(&ToDataplane::Request { number, request });
        number
    }

    pub(crate) fn answer_to(&mut self, wanted: u64) -> Result<Reply, RequestError> {
        loop {
            match self.receive().expect("the connection lives") {
                ToControl::Answer { number, result } if number == wanted => return result,
                other => self.heard.push(other),
            }
        }
    }

    pub(crate) fn request(&mut self, request: Request) -> Result<Reply, RequestError> {
        let number = self.start(request);
        self.answer_to(number)
    }

    /// A new session.
    pub(crate) fn create_session(&mut self) -> SessionId {
        let session = SessionId::random();
        let created = self.request(Request::SessionCreate(SessionCreate {
            session,
            created_at_ms: 1_700_000_000_000,
        }));
        assert_eq!(created, Ok(Reply::Done));
        session
    }

    /// Waits for an event of the session that `wanted` accepts.
    pub(crate) fn event(
        &mut self,
        session: SessionId,
        wanted: impl Fn(&Event) -> bool,
    ) -> (u64, Event) {
        let mut seen = 0;
        loop {
            while let Some(message) = self.heard.get(seen) {
                seen += 1;
                if let ToControl::Event { session: of, event } = message
                    && *of == session
                    && wanted(&event.event)
                {
                    return (event.number, event.event.clone());
                }
            }
            let message = self.receive().expect("the connection lives");
            self.heard.push(message);
        }
    }
}

pub(crate) fn hello(role: Role) -> ToDataplane {
    ToDataplane::Hello(Hello {
        protocol_version: PROTOCOL_VERSION,
        program_version: "test".to_owned(),
        role,
        pid: std::process::id(),
        instance: InstanceId::random(),
    })
}

/// Waits for a condition, at most `PATIENCE`.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
