//! One supervised program: how it is started, what it has reached, and when it is started again.
//! Must be driven from one thread that lives as long as the supervisor: the kernel's parent-death
//! signal goes by the thread that spawned.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::lines::{LastLines, LineSink};
use super::notify::ReadySocket;
use super::restart::{Reached, RestartPolicy, Verdict};

/// What a child's environment must not inherit: it is about our own process.
const OWN_VARIABLES: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "MAINPID",
];

/// A program to keep running.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name in log lines.
    pub name: &'static str,
    /// Its file.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    reached: Reached,
}

/// How a child ended.
#[derive(Debug)]
pub(super) struct Death {
    pub(super) reached: Reached,
    pub(super) status: ExitStatus,
}

impl Death {
    pub(super) fn was_clean(&self) -> bool {
        self.status.success()
    }

    /// Killed or panicked, as opposed to having decided to exit.
    pub(super) fn was_crash(&self) -> bool {
        const PANIC: i32 = 101;
        self.status.code().is_none_or(|code| code == PANIC)
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "exited with code {code}")?,
            (None, Some(number)) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "was ended by {signal}")?,
                Err(_) => write!(f, "was ended by signal {number}")?,
            },
            (None, None) => f.write_str("ended")?,
        }
        match self.reached {
            Reached::Ready => Ok(()),
            Reached::Start => f.write_str(" before it was ready"),
        }
    }
}

/// A program with its present process, if any.
pub(super) struct Child {
    program: Program,
    ready: ReadySocket,
    sink: LineSink,
    running: Option<Running>,
    policy: RestartPolicy,
    start_at: Option<Instant>,
    ever_ready: bool,
    last: LastLines,
    readers: Vec<JoinHandle<()>>,
}

impl Child {
    pub(super) fn new(program: Program, ready: ReadySocket, sink: LineSink) -> Self {
        Self {
            program,
            ready,
            sink,
            running: None,
            policy: RestartPolicy::new(),
            start_at: None,
            ever_ready: false,
            last: LastLines::default(),
            readers: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.program.name
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.running.as_ref().map(|running| running.pid)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn is_ready(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.reached == Reached::Ready)
    }

    /// Whether any process of this program was ready, the present one or one before.
    pub(super) const fn was_ever_ready(&self) -> bool {
        self.ever_ready
    }

    /// When it is due to be started.
    pub(super) const fn start_at(&self) -> Option<Instant> {
        self.start_at
    }

    pub(super) const fn schedule(&mut self, at: Instant) {
        self.start_at = Some(at);
    }

    pub(super) const fn cancel_start(&mut self) {
        self.start_at = None;
    }

    /// Resolves when the child says that it is ready. Cancel-safe.
    pub(super) async fn wait_ready(&self) {
        self.ready.ready().await;
    }

    /// Returns whether this is news.
    pub(super) fn on_ready(&mut self) -> bool {
        let Some(running) = self.running.as_mut() else {
            return false;
        };
        if running.reached == Reached::Ready {
            return false;
        }
        running.reached = Reached::Ready;
        self.ever_ready = true;
        self.policy.on_ready();
        info!(pid = running.pid.as_raw(), "{} is ready", self.program.name);
        true
    }

    /// Starts the program. A program that cannot be started counts as one that failed to start.
    pub(super) fn start(&mut self, now: Instant) -> Option<Verdict> {
        self.start_at = None;
        // What a process before this one still had to say is not about this one.
        self.ready.was_ready();
        self.last = LastLines::default();
        self.readers.clear();
        match self.spawn() {
            Ok(pid) => {
                info!(pid = pid.as_raw(), "started {}", self.program.name);
                let reached = Reached::Start;
                self.running = Some(Running { pid, reached });
                None
            }
            Err(error) => {
                let path = self.program.path.display();
                warn!("cannot start {path}: {error}");
                Some(self.policy.on_death(now, Reached::Start, None))
            }
        }
    }

    fn spawn(&mut self) -> io::Result<Pid> {
        let mut command = Command::new(&self.program.path);
        for name in OWN_VARIABLES {
            command.env_remove(name);
        }
        let mut process = command
            .args(&self.program.args)
            .env("NOTIFY_SOCKET", self.ready.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A terminal's Ctrl-C reaches only the supervisor, which drains in order.
            .process_group(0)
            .spawn()?;
        let outputs = [
            process.stdout.take().map(OwnedFd::from),
            process.stderr.take().map(OwnedFd::from),
        ];
        for output in outputs.into_iter().flatten() {
            self.read_lines(output)?;
        }
        // Process ids of a running system fit.
        i32::try_from(process.id())
            .map(Pid::from_raw)
            .map_err(io::Error::other)
    }

    fn read_lines(&mut self, output: OwnedFd) -> io::Result<()> {
        let pipe = pipe::Receiver::from_owned_fd(output)?;
        let forward = self
            .sink
            .clone()
            .forward(self.program.name, pipe, self.last.clone());
        self.readers.push(tokio::spawn(forward));
        Ok(())
    }

    /// The process was reaped. `None` when it was not this child's.
    pub(super) fn on_reaped(&mut self, pid: Pid, status: ExitStatus) -> Option<Death> {
        if self.pid() != Some(pid) {
            return None;
        }
        // It may have said so in its last moment.
        if self.ready.was_ready() {
            self.on_ready();
        }
        let reached = self.running.take()?.reached;
        Some(Death { reached, status })
    }

    pub(super) fn verdict(&mut self, now: Instant, death: &Death) -> Verdict {
        self.policy
            .on_death(now, death.reached, death.status.code())
    }

    /// Sends a signal to the present process, if there is one.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid()
            && let Err(error) = kill(pid, signal)
        {
            warn!("cannot send {signal} to {}: {error}", self.program.name);
        }
    }

    /// The last lines of the process that ended, once its pipes are read to their end.
    pub(super) async fn last_lines(&mut self) -> Vec<String> {
        const PATIENCE: Duration = Duration::from_millis(500);
        for reader in self.readers.drain(..) {
            // A grandchild may hold the pipe open.
            let _ = tokio::time::timeout(PATIENCE, reader).await;
        }
        self.last.all()
    }
}
