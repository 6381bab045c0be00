//! The end of the process, and what watches over it until then: signals, the drain, a controller
//! that does not come back, and the service manager's watchdog.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rtpbridge_shared::config::Config;
use rtpbridge_shared::ipc::ToControl;
use rtpbridge_shared::ipc::session::SessionEndReason;
use rtpbridge_shared::service_manager;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time;
use tracing::{debug, error, info, warn};

use crate::ipc::dispatch::Dispatcher;
use crate::ipc::server::Server;

const TICK: Duration = Duration::from_millis(100);
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// A worker turns around at least once a second.
const WORKER_PATIENCE: Duration = Duration::from_secs(4);
/// Beyond the time that recordings may take to close.
const END_MARGIN: Duration = Duration::from_secs(2);

/// How the process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// No session was left.
    Well,
    /// So many were.
    SessionsLeft(usize),
}

/// The signals that mean something to us.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on they come here.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves with the next request to end.
    async fn ending(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => info!("SIGHUP means nothing to the dataplane"),
            }
        }
    }
}

/// Returns when the process has to end, all sessions ended if that was possible.
pub(crate) async fn run(
    config: &Config,
    server: &Arc<Server>,
    dispatcher: &Arc<Dispatcher>,
    mut signals: Signals,
) -> Ended {
    tell_ready();
    let mut watch = Watch::new(config, server, dispatcher);
    let mut tick = time::interval(TICK);
    let name = loop {
        tokio::select! {
            name = signals.ending() => break name,
            _ = tick.tick() => watch.on_tick().await,
        }
    };
    info!(
        signal = name,
        sessions = dispatcher.shared.directory.len(),
        "draining"
    );
    tell(NotifyState::Stopping);
    dispatcher.draining.store(true, Ordering::Relaxed);
    dispatcher.shared.controller.send(&ToControl::Draining);
    let mut drain = Drain::new(config, dispatcher);
    let mut repeats = 0;
    loop {
        tokio::select! {
            name = signals.ending() => {
                repeats += 1;
                if repeats >= 2 {
                    error!(signal = name, "ending at once");
                    return Ended::SessionsLeft(dispatcher.shared.directory.len());
                }
                warn!(signal = name, "draining already; once more ends at once");
            }
            _ = tick.tick() => {
                watch.on_tick().await;
                if let Some(ended) = drain.poll().await {
                    return ended;
                }
            }
        }
    }
}

struct Drain<'a> {
    dispatcher: &'a Dispatcher,
    /// When the sessions that are left are ended.
    deadline: Instant,
    /// How long that may take.
    patience: Duration,
    gave_up: Option<Instant>,
}

impl<'a> Drain<'a> {
    fn new(config: &Config, dispatcher: &'a Dispatcher) -> Self {
        Self {
            dispatcher,
            deadline: Instant::now() + config.shutdown_max_wait,
            patience: config.recording_flush_timeout + END_MARGIN,
            gave_up: None,
        }
    }

    async fn poll(&mut self) -> Option<Ended> {
        let sessions = self.dispatcher.shared.directory.len();
        if sessions == 0 {
            return Some(Ended::Well);
        }
        let now = Instant::now();
        match self.gave_up {
            Some(since) if now >= since + self.patience => Some(Ended::SessionsLeft(sessions)),
            Some(_) => None,
            None => {
                let alone = !self.dispatcher.has_controller();
                if alone || now >= self.deadline {
                    warn!(sessions, alone, "ending all sessions");
                    let reason = SessionEndReason::Shutdown;
                    self.dispatcher.end_all_sessions(reason).await;
                    self.gave_up = Some(now);
                }
                None
            }
        }
    }
}

/// What is looked after all the time.
struct Watch<'a> {
    server: &'a Server,
    dispatcher: &'a Dispatcher,
    control_loss_timeout: Duration,
    control_loss_handled: bool,
    watchdog_interval: Option<Duration>,
    last_ping: Instant,
    last_status: Option<Instant>,
}

impl<'a> Watch<'a> {
    fn new(config: &Config, server: &'a Server, dispatcher: &'a Dispatcher) -> Self {
        Self {
            server,
            dispatcher,
            control_loss_timeout: config.control_loss_timeout,
            control_loss_handled: false,
            watchdog_interval: sd_notify::watchdog_enabled().map(|limit| limit / 2),
            last_ping: Instant::now(),
            last_status: None,
        }
    }

    async fn on_tick(&mut self) {
        self.watch_controller().await;
        self.ping_watchdog();
        if self
            .last_status
            .is_none_or(|at| at.elapsed() >= STATUS_INTERVAL)
        {
            self.last_status = Some(Instant::now());
            let sessions = self.dispatcher.shared.directory.len();
            let control = match self.dispatcher.has_controller() {
                true => "control connected",
                false => "no control",
            };
            let text = format!("{sessions} sessions, {control}");
            tell(NotifyState::Status(&text));
        }
    }

    /// Sessions that no controller comes for are ended.
    async fn watch_controller(&mut self) {
        let absent = self.server.controller_absent_for();
        let lost = absent.is_some_and(|absent| absent >= self.control_loss_timeout);
        if lost && !self.control_loss_handled {
            let sessions = self.dispatcher.shared.directory.len();
            if sessions > 0 {
                warn!(sessions, "no controller came, ending all sessions");
                let reason = SessionEndReason::Shutdown;
                self.dispatcher.end_all_sessions(reason).await;
            }
        }
        self.control_loss_handled = lost;
    }

    /// The service manager hears from us only while the workers turn.
    fn ping_watchdog(&mut self) {
        let Some(interval) = self.watchdog_interval else {
            return;
        };
        if self.last_ping.elapsed() >= interval {
            if self.dispatcher.workers_alive(WORKER_PATIENCE.max(interval)) {
                tell(NotifyState::Watchdog);
            } else {
                error!("a worker does not turn, leaving the watchdog unanswered");
            }
            self.last_ping = Instant::now();
        }
    }
}

fn tell_ready() {
    if let Err(error) = service_manager::tell_ready() {
        warn!(%error, "cannot tell the service manager");
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = service_manager::tell(state) {
        debug!(%error, "the service manager could not be told");
    }
}
