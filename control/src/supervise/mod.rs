//! The supervisor: keeps the dataplane and control running, and stops them in order.
//!
//! ```text
//! running ──TERM/INT──► stopping control ──it ended──► stopping the dataplane ──it ended──► done
//!    └─────10 failed starts of one child──────────────────────▲
//! ```
//! While running, a child that dies is started again (`restart`). While control is being stopped it
//! still is, when it crashed: its sessions must end in order. It drains for `shutdown_max_wait_secs`;
//! then, and after a third signal, patience ends. Everything runs on the thread that calls [`run`],
//! which must be the process's main thread.

mod child;
mod lines;
mod notify;
mod restart;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rtpbridge_shared::config::LogFormat;
use rtpbridge_shared::service_manager;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tracing::{error, info, warn};

use child::{Child, Death};
use lines::{LineSink, LineWriter};
use notify::ReadySocket;
use restart::Verdict;

pub use child::Program;
pub use restart::EXIT_RESTART;

/// How long control's first start waits for the dataplane.
const DATAPLANE_HEAD_START: Duration = Duration::from_secs(2);
/// Beyond the time that orderly ends may take.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// What remains after a third signal.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// Signals after which nothing is waited for any more.
const INSISTENT: u32 = 3;

/// What to supervise.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The media process; started first, stopped last.
    pub dataplane: Program,
    /// The process that talks to clients.
    pub control: Program,
    /// An existing private directory.
    pub runtime_dir: PathBuf,
    /// Form of the children's log lines.
    pub log_format: LogFormat,
    /// How long control may drain.
    pub shutdown_max_wait: Duration,
    /// How long either may take to flush recordings.
    pub recording_flush_timeout: Duration,
}

/// Why supervision ended other than by a clean stop.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The supervisor itself could not start.
    #[error("cannot supervise: {0}")]
    Start(String),
    /// One child never came up.
    #[error("{name} failed to start 10 times within 60 s; its last lines:\n{}", .last_lines.join("\n"))]
    CrashLoop {
        /// Which child.
        name: &'static str,
        /// What it wrote last.
        last_lines: Vec<String>,
    },
    /// A child did not end well after being told to.
    #[error("not all processes ended well")]
    UncleanStop,
}

/// Runs until both children have ended, on the calling thread.
///
/// # Errors
/// See [`SuperviseError`]; the process should exit with code 1.
pub fn run(plan: Plan) -> Result<(), SuperviseError> {
    let start_error = |error: io::Error| SuperviseError::Start(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(start_error)?;
    let (sink, writer) = lines::start(plan.log_format).map_err(start_error)?;
    let outcome = runtime.block_on(async {
        let mut supervisor = Supervisor::new(plan, sink)?;
        supervisor.run().await
    });
    finish(runtime, writer);
    outcome
}

/// Lets the last lines out; readers that a grandchild keeps alive are dropped.
fn finish(runtime: tokio::runtime::Runtime, writer: LineWriter) {
    drop(runtime);
    writer.close();
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Running,
    StoppingControl,
    StoppingDataplane,
}

struct Supervisor {
    plan: Plan,
    dataplane: Child,
    control: Child,
    signals: Signals,
    phase: Phase,
    /// TERM and INT received.
    stops: u32,
    /// The stop signal that control gets as soon as it is ready.
    pending: Option<Signal>,
    /// When patience with the child being stopped ends.
    kill_at: Option<Instant>,
    clean: bool,
    announced: bool,
    crash_loop: Option<SuperviseError>,
}

struct Signals {
    terminate: SignalStream,
    interrupt: SignalStream,
    hangup: SignalStream,
    child: SignalStream,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
        })
    }
}

enum Event {
    Stop(Signal),
    HandOver,
    ChildDied,
    DataplaneReady,
    ControlReady,
    Tick,
}

impl Supervisor {
    fn new(plan: Plan, sink: LineSink) -> Result<Self, SuperviseError> {
        let signals = Signals::new().map_err(|error| SuperviseError::Start(error.to_string()))?;
        let socket = |name: &str| {
            ReadySocket::bind(plan.runtime_dir.join(name))
                .map_err(|error| SuperviseError::Start(error.to_string()))
        };
        let dataplane = Child::new(
            plan.dataplane.clone(),
            socket("dataplane.up")?,
            sink.clone(),
        );
        let control = Child::new(plan.control.clone(), socket("control.up")?, sink);
        Ok(Self {
            plan,
            dataplane,
            control,
            signals,
            phase: Phase::Running,
            stops: 0,
            pending: None,
            kill_at: None,
            clean: true,
            announced: false,
            crash_loop: None,
        })
    }

    async fn run(&mut self) -> Result<(), SuperviseError> {
        let now = Instant::now();
        self.dataplane.schedule(now);
        self.control.schedule(now + DATAPLANE_HEAD_START);
        self.start_what_is_due().await;
        while !self.is_done() {
            match self.next_event().await {
                Event::Stop(signal) => self.on_stop(signal),
                Event::HandOver => self.on_hand_over(),
                Event::ChildDied => self.reap().await,
                Event::DataplaneReady => self.on_dataplane_ready(),
                Event::ControlReady => self.on_control_ready(),
                Event::Tick => {}
            }
            self.kill_what_overstays();
            self.start_what_is_due().await;
        }
        // What they wrote last may still be in the pipes.
        self.control.last_lines().await;
        self.dataplane.last_lines().await;
        match self.crash_loop.take() {
            Some(error) => Err(error),
            None if self.clean => Ok(()),
            None => Err(SuperviseError::UncleanStop),
        }
    }

    fn is_done(&self) -> bool {
        self.phase == Phase::StoppingDataplane
            && !self.dataplane.is_running()
            && !self.control.is_running()
    }

    async fn next_event(&mut self) -> Event {
        let starts = [self.dataplane.start_at(), self.control.start_at()];
        let due = starts.into_iter().chain([self.kill_at]).flatten().min();
        let tick = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.signals.terminate.recv() => Event::Stop(Signal::SIGTERM),
            _ = self.signals.interrupt.recv() => Event::Stop(Signal::SIGINT),
            _ = self.signals.hangup.recv() => Event::HandOver,
            _ = self.signals.child.recv() => Event::ChildDied,
            () = self.dataplane.wait_ready() => Event::DataplaneReady,
            () = self.control.wait_ready() => Event::ControlReady,
            () = tick => Event::Tick,
        }
    }

    fn on_stop(&mut self, signal: Signal) {
        self.stops += 1;
        info!("received {signal}");
        if self.stops >= INSISTENT {
            self.pending = None;
            self.kill_at = Some(Instant::now() + LAST_PATIENCE);
        }
        match self.phase {
            Phase::Running => self.stop_control(signal),
            Phase::StoppingControl => match self.pending {
                Some(_) => info!("control is told as soon as it is up"),
                None => self.control.signal(signal),
            },
            Phase::StoppingDataplane => self.dataplane.signal(signal),
        }
    }

    /// Sessions outlive control, so one that is just being restarted is brought up to drain them.
    fn stop_control(&mut self, signal: Signal) {
        self.phase = Phase::StoppingControl;
        let _ = service_manager::tell(NotifyState::Stopping);
        let patience = self.plan.shutdown_max_wait + self.orderly_end();
        self.kill_at = Some(Instant::now() + patience);
        if self.control.is_ready() || !self.control.was_ever_ready() {
            self.control.cancel_start();
            self.control.signal(signal);
        } else {
            self.pending = Some(signal);
            if !self.control.is_running() {
                self.control.schedule(Instant::now());
            }
        }
        if !self.control.is_running() && self.pending.is_none() {
            self.stop_dataplane();
        }
    }

    fn stop_dataplane(&mut self) {
        self.phase = Phase::StoppingDataplane;
        self.control.cancel_start();
        self.dataplane.cancel_start();
        self.dataplane.signal(Signal::SIGTERM);
        let patience = match self.stops >= INSISTENT {
            true => LAST_PATIENCE,
            false => self.orderly_end(),
        };
        self.kill_at = Some(Instant::now() + patience);
    }

    fn orderly_end(&self) -> Duration {
        self.plan.recording_flush_timeout + STOP_MARGIN
    }

    fn on_hand_over(&mut self) {
        if self.control.is_ready() {
            info!("control is asked to hand over to its next version");
            self.control.signal(Signal::SIGHUP);
        } else {
            info!("control is about to start anyway, no hand-over is needed");
        }
    }

    fn on_dataplane_ready(&mut self) {
        if self.dataplane.on_ready() {
            self.control_need_not_wait();
            self.announce();
        }
    }

    fn on_control_ready(&mut self) {
        if !self.control.on_ready() {
            return;
        }
        self.announce();
        if let Some(signal) = self.pending.take() {
            self.control.signal(signal);
        }
    }

    /// Control's head-start delay ends with the dataplane's first sign of life or death.
    fn control_need_not_wait(&mut self) {
        let waits = !self.control.was_ever_ready() && !self.control.is_running();
        if waits && self.phase == Phase::Running {
            let now = Instant::now();
            let at = self.control.start_at().map_or(now, |at| at.min(now));
            self.control.schedule(at);
        }
    }

    /// Tells whoever supervises us, once.
    fn announce(&mut self) {
        if !self.announced && self.control.is_ready() && self.dataplane.is_ready() {
            self.announced = true;
            let _ = service_manager::tell_ready();
        }
    }

    /// Reaps everything that has ended: as process 1 that includes strangers.
    async fn reap(&mut self) {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(status) => match ended(status) {
                    Some((pid, status)) => self.on_reaped(pid, status).await,
                    None if status == WaitStatus::StillAlive => return,
                    None => {}
                },
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    async fn on_reaped(&mut self, pid: Pid, status: ExitStatus) {
        if let Some(death) = self.dataplane.on_reaped(pid, status) {
            self.on_dataplane_death(&death).await;
        } else if let Some(death) = self.control.on_reaped(pid, status) {
            self.on_control_death(&death).await;
        }
    }

    async fn on_dataplane_death(&mut self, death: &Death) {
        if self.phase == Phase::StoppingDataplane {
            self.clean &= death.was_clean();
            report_end(self.dataplane.name(), death);
            return;
        }
        // Also while control drains: it learns at once that its sessions are gone.
        warn!("{} {death}", self.dataplane.name());
        let verdict = self.dataplane.verdict(Instant::now(), death);
        self.follow(Which::Dataplane, verdict).await;
        self.control_need_not_wait();
    }

    async fn on_control_death(&mut self, death: &Death) {
        let asked = death.status.code() == Some(EXIT_RESTART);
        match self.phase {
            Phase::Running => {
                if asked {
                    info!("{} {death} to be started again", self.control.name());
                } else {
                    warn!("{} {death}", self.control.name());
                }
                let verdict = self.control.verdict(Instant::now(), death);
                self.follow(Which::Control, verdict).await;
            }
            Phase::StoppingControl => {
                let was_ready = death.reached == restart::Reached::Ready;
                let patient = self.stops < INSISTENT && self.kill_at > Some(Instant::now());
                if was_ready && patient && (asked || death.was_crash()) {
                    warn!(
                        "{} {death} while it drained; it goes on",
                        self.control.name()
                    );
                    self.pending = Some(Signal::SIGTERM);
                    self.control.schedule(Instant::now());
                } else {
                    self.clean &= death.was_clean();
                    report_end(self.control.name(), death);
                    self.stop_dataplane();
                }
            }
            Phase::StoppingDataplane => report_end(self.control.name(), death),
        }
    }

    async fn follow(&mut self, which: Which, verdict: Verdict) {
        let child = match which {
            Which::Dataplane => &mut self.dataplane,
            Which::Control => &mut self.control,
        };
        match verdict {
            Verdict::RestartAfter(delay) => child.schedule(Instant::now() + delay),
            Verdict::GiveUp => {
                self.crash_loop = Some(SuperviseError::CrashLoop {
                    name: child.name(),
                    last_lines: child.last_lines().await,
                });
                error!("giving up on {}", child.name());
                self.give_up();
            }
        }
    }

    /// Without one of the two there is no service: the other one ends, and nothing is waited for.
    fn give_up(&mut self) {
        let _ = service_manager::tell(NotifyState::Stopping);
        self.clean = false;
        self.stop_dataplane();
        self.control.signal(Signal::SIGTERM);
    }

    fn kill_what_overstays(&mut self) {
        if self.kill_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.kill_at = None;
        for child in [&self.control, &self.dataplane] {
            let stopped = match self.phase {
                Phase::Running => false,
                Phase::StoppingControl => child.name() == self.control.name(),
                Phase::StoppingDataplane => true,
            };
            if stopped && child.is_running() {
                warn!("{} did not end in time and is killed", child.name());
                child.signal(Signal::SIGKILL);
            }
        }
        if self.phase == Phase::StoppingControl && !self.control.is_running() {
            self.clean = false;
            self.stop_dataplane();
        }
    }

    async fn start_what_is_due(&mut self) {
        let now = Instant::now();
        if self.dataplane.start_at().is_some_and(|at| at <= now)
            && let Some(verdict) = self.dataplane.start(now)
        {
            self.follow(Which::Dataplane, verdict).await;
        }
        if self.control.start_at().is_some_and(|at| at <= now)
            && let Some(verdict) = self.control.start(now)
        {
            self.follow(Which::Control, verdict).await;
        }
    }
}

#[derive(Clone, Copy)]
enum Which {
    Dataplane,
    Control,
}

fn report_end(name: &str, death: &Death) {
    if death.was_clean() {
        info!("{name} {death}");
    } else {
        warn!("{name} {death}");
    }
}

/// Process and exit status of a wait status that is an end.
fn ended(status: WaitStatus) -> Option<(Pid, ExitStatus)> {
    match status {
        WaitStatus::Exited(pid, code) => Some((pid, ExitStatus::from_raw((code & 0xff) << 8))),
        WaitStatus::Signaled(pid, signal, _) => Some((pid, ExitStatus::from_raw(signal as i32))),
        _ => None,
    }
}
