//! The life of the process (processes.md, "Shutdown and upgrade"):
//!
//! ```text
//! Running ──signal, drain──► Draining ──a signal came; last session, or time is up──► exit 0
//!    ▲──undrain, unless a signal came──┘
//! Running, Draining ──handover──► exit 75      ──displaced──► exit 0
//! ```
//!
//! Signals and the admin socket send the same commands. The first SIGTERM or SIGINT drains, the
//! second is logged, the third ends at once. From the moment it leaves, the process accepts no
//! connection: those that come belong to whoever holds the listening socket next.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use crate::app::App;
use crate::event::Body;
use crate::event::queue::Close;
use crate::lock::lock;
use crate::session::orphan;

/// Exit code that asks systemd (`RestartForceExitStatus`) or the supervisor to start anew at once.
pub const EXIT_UPGRADE: u8 = 75;

const EXIT_FORCED: u8 = 1;
/// For close frames to reach clients that read.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the process is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// No new sessions. The process stays until a signal comes as well.
    Drain,
    /// Back to normal.
    Undrain,
    /// Leave now, sessions stay in the dataplane, and be started again.
    Handover,
    /// Another control process has taken over.
    Displaced,
    /// SIGTERM or SIGINT.
    Terminate,
}

/// Where the process is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Normal.
    Running,
    /// Waiting for the sessions to end.
    Draining {
        /// Signals received so far.
        signals: u8,
    },
    /// About to exit with this code.
    Leaving {
        /// Exit code.
        code: u8,
    },
}

impl Stage {
    /// Whether nothing but time keeps the process from ending.
    #[must_use]
    pub const fn is_ending(self) -> bool {
        match self {
            Stage::Running | Stage::Draining { signals: 0 } => false,
            Stage::Draining { .. } | Stage::Leaving { .. } => true,
        }
    }

    /// What `command` makes of this stage.
    #[must_use]
    pub const fn after(self, command: Command) -> Stage {
        match (self, command) {
            (Stage::Leaving { code }, _) => Stage::Leaving { code },
            (_, Command::Handover) => Stage::Leaving { code: EXIT_UPGRADE },
            (_, Command::Displaced) => Stage::Leaving { code: 0 },
            (Stage::Running, Command::Drain) => Stage::Draining { signals: 0 },
            (Stage::Running, Command::Terminate) => Stage::Draining { signals: 1 },
            (Stage::Running | Stage::Draining { signals: 0 }, Command::Undrain) => Stage::Running,
            // Whoever sent the signal waits for the end.
            (Stage::Draining { signals }, Command::Undrain) => Stage::Draining { signals },
            (Stage::Draining { signals }, Command::Drain) => Stage::Draining { signals },
            (Stage::Draining { signals }, Command::Terminate) if signals < 2 => Stage::Draining {
                signals: signals + 1,
            },
            (Stage::Draining { .. }, Command::Terminate) => Stage::Leaving { code: EXIT_FORCED },
        }
    }
}

/// The stage, and the way to change it.
#[derive(Debug)]
pub struct Lifecycle {
    stage: watch::Sender<Stage>,
    commands: mpsc::Sender<Command>,
    inbox: Mutex<Option<mpsc::Receiver<Command>>>,
    /// Admin connections, which get their answers before the process ends.
    admins: watch::Sender<usize>,
}

/// An admin connection that the process does not end without.
#[derive(Debug)]
pub struct AdminGuest<'a>(&'a Lifecycle);

impl Drop for AdminGuest<'_> {
    fn drop(&mut self) {
        self.0.admins.send_modify(|admins| *admins -= 1);
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// Running.
    pub fn new() -> Self {
        let (commands, inbox) = mpsc::channel(16);
        Self {
            stage: watch::Sender::new(Stage::Running),
            commands,
            inbox: Mutex::new(Some(inbox)),
            admins: watch::Sender::new(0),
        }
    }

    /// Asks for a change; carried out by [`run`].
    pub fn command(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            warn!(?command, "too many life cycle commands at once");
        }
    }

    /// The stage now.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Follows the stage.
    pub fn watch(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Whether new sessions are refused.
    pub fn is_draining(&self) -> bool {
        self.stage() != Stage::Running
    }

    /// Whether the process is about to exit.
    pub fn is_leaving(&self) -> bool {
        matches!(self.stage(), Stage::Leaving { .. })
    }

    /// Keeps the process until this is dropped, for a little while at most.
    pub fn admit_admin(&self) -> AdminGuest<'_> {
        self.admins.send_modify(|admins| *admins += 1);
        AdminGuest(self)
    }

    /// Resolves when the process is about to exit.
    pub async fn leaving(&self) {
        let mut stage = self.watch();
        let leaves = stage.wait_for(|stage| matches!(stage, Stage::Leaving { .. }));
        // The sender is `self`, so waiting cannot fail.
        let _ = leaves.await;
    }
}

/// Runs the process's life to its end and returns the exit code.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub async fn run(app: &Arc<App>) -> std::io::Result<u8> {
    let mut signals = Signals::install()?;
    let Some(mut inbox) = lock(&app.lifecycle.inbox).take() else {
        return Ok(EXIT_FORCED);
    };
    let mut deadline: Option<Instant> = None;
    loop {
        let stopping = deadline.is_some();
        tokio::select! {
            command = signals.next() => app.lifecycle.command(command),
            Some(command) = inbox.recv() => {
                let stage = advance(app, command);
                deadline = match stage {
                    Stage::Leaving { code } => return Ok(leave(app, code).await),
                    Stage::Running | Stage::Draining { signals: 0 } => None,
                    Stage::Draining { .. } => deadline
                        .or_else(|| Some(Instant::now() + app.config.shutdown_max_wait)),
                };
            }
            () = app.registry.wait_until_empty(), if stopping => {
                info!("the last session has ended");
                return Ok(leave(app, 0).await);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if stopping => {
                end_the_rest(app).await;
                return Ok(leave(app, 0).await);
            }
        }
    }
}

fn advance(app: &App, command: Command) -> Stage {
    let before = app.lifecycle.stage();
    let stage = before.after(command);
    match (before, stage) {
        (Stage::Running, Stage::Draining { .. }) => info!(
            sessions = app.registry.population(),
            "draining: waiting for the sessions to end"
        ),
        (Stage::Draining { signals: 0 }, Stage::Draining { signals: 1 }) => {
            info!("draining: leaving when the sessions have ended");
        }
        (Stage::Draining { signals: 1 }, Stage::Draining { signals: 2 }) => {
            warn!("still draining; one more signal ends at once");
        }
        (Stage::Draining { .. }, Stage::Draining { .. }) => {}
        (_, Stage::Leaving { code }) => info!(code, ?command, "leaving"),
        (_, Stage::Running) => info!("not draining"),
        (Stage::Leaving { .. }, _) => {}
    }
    app.lifecycle.stage.send_replace(stage);
    stage
}

async fn end_the_rest(app: &Arc<App>) {
    let rest = app.registry.all();
    warn!(
        sessions = rest.len(),
        "time is up, ending the sessions that are left"
    );
    for session in rest {
        if app.registry.begin_end(session, Body::Unbound) {
            orphan::destroy(app, session);
        }
    }
    tokio::select! {
        () = app.registry.wait_until_empty() => return,
        // Without the dataplane there is nothing to wait for.
        () = app.link.wait_until_down() => {}
        () = sleep(app.flush_patience()) => {}
    }
    let sessions = app.registry.population();
    warn!(sessions, "sessions did not end in time");
}

async fn leave(app: &App, code: u8) -> u8 {
    app.lifecycle.stage.send_replace(Stage::Leaving { code });
    if code == EXIT_FORCED {
        return code;
    }
    app.connections.close_all(Close::Restart);
    let mut admins = app.lifecycle.admins.subscribe();
    let farewell = async {
        app.connections.wait_until_empty().await;
        // The sender is in `app`, so waiting cannot fail.
        let _ = admins.wait_for(|admins| *admins == 0).await;
    };
    if timeout(FAREWELL, farewell).await.is_err() {
        let connections = app.connections.count();
        info!(connections, "not all clients took their leave");
    }
    code
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Command {
        tokio::select! {
            _ = self.terminate.recv() => Command::Terminate,
            _ = self.interrupt.recv() => Command::Terminate,
            _ = self.hangup.recv() => Command::Handover,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_answers_every_command() {
        use Command::{Displaced, Drain, Handover, Terminate, Undrain};
        let draining = |signals| Stage::Draining { signals };
        let leaving = |code| Stage::Leaving { code };
        let table = [
            (Stage::Running, Drain, draining(0)),
            (Stage::Running, Undrain, Stage::Running),
            (Stage::Running, Handover, leaving(75)),
            (Stage::Running, Displaced, leaving(0)),
            (Stage::Running, Terminate, draining(1)),
            (draining(1), Drain, draining(1)),
            (draining(0), Undrain, Stage::Running),
            (draining(1), Undrain, draining(1)),
            (draining(2), Undrain, draining(2)),
            (draining(1), Handover, leaving(75)),
            (draining(1), Displaced, leaving(0)),
            (draining(0), Terminate, draining(1)),
            (draining(1), Terminate, draining(2)),
            (draining(2), Terminate, leaving(1)),
            (leaving(75), Drain, leaving(75)),
            (leaving(75), Undrain, leaving(75)),
            (leaving(0), Handover, leaving(0)),
            (leaving(0), Displaced, leaving(0)),
            (leaving(0), Terminate, leaving(0)),
        ];
        for (stage, command, next) in table {
            assert_eq!(stage.after(command), next, "{stage:?} after {command:?}");
        }
    }
}
