//! Sends each request where it is answered: those about a session to its worker, those about the
//! process to a small task here. Answers go straight from there into the peer's outbox.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rtpbridge_shared::config::LogLevel;
use rtpbridge_shared::id::{InstanceId, SessionId};
use rtpbridge_shared::ipc::process::{MetricsReport, StatusReport};
use rtpbridge_shared::ipc::session::SessionEndReason;
use rtpbridge_shared::ipc::{
    Hello, PROTOCOL_VERSION, Reply, Request, RequestError, Role, ToControl, permit,
};
use rtpbridge_shared::logging::LogHandle;
use tokio::sync::{Semaphore, oneshot};
use tracing::{info, warn};

use super::outbox::{Class, Ticket};
use super::placement;
use crate::sys::clock;
use crate::sys::process::ProcessReader;
use crate::worker::{self, Command, Gauges, Shared, WorkerHandle, WorkerTotals};

/// How long a worker may take for a report or a page of a snapshot.
const WORKER_PATIENCE: Duration = Duration::from_secs(3);
/// Pause before a full command queue is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// Snapshots and reports at a time.
const MAX_TASKS: usize = 32;

/// What the IPC thread knows of the process.
pub(crate) struct Dispatcher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) instance: InstanceId,
    pub(crate) draining: AtomicBool,
    started: Instant,
    log: LogHandle,
    process: Mutex<ProcessReader>,
    sandbox: Vec<(String, String)>,
    tasks: Arc<Semaphore>,
}

impl Dispatcher {
    pub(crate) fn new(
        shared: Arc<Shared>,
        workers: Vec<WorkerHandle>,
        log: LogHandle,
        process: ProcessReader,
        sandbox: Vec<(String, String)>,
    ) -> Self {
        Self {
            shared,
            workers,
            instance: InstanceId::random(),
            draining: AtomicBool::new(false),
            started: Instant::now(),
            log,
            process: Mutex::new(process),
            sandbox,
            tasks: Arc::new(Semaphore::new(MAX_TASKS)),
        }
    }

    /// How we introduce ourselves.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            role: Role::Dataplane,
            pid: std::process::id(),
            instance: self.instance,
        }
    }

    /// Sees to it that `request` is answered.
    pub(crate) fn handle_request(
        self: &Arc<Self>,
        role: Role,
        term: u64,
        request: Request,
        ticket: Ticket,
    ) {
        if !permit::permits(role, &request) {
            let role = role_name(role).to_owned();
            ticket.answer(Err(RequestError::NotPermitted { role }));
            return;
        }
        match request {
            Request::SessionCreate(create) => {
                self.place_session(create.session, Request::SessionCreate(create), ticket, term)
            }
            Request::Snapshot | Request::Metrics | Request::Status => {
                self.spawn_task(request, ticket);
            }
            Request::SetLogLevel { level } => ticket.answer(self.set_log_level(&level)),
            request => {
                let session = worker::session_of(&request);
                let worker = session.and_then(|session| self.worker_of(session));
                match worker {
                    Some(worker) => send_request(worker, request, ticket, term),
                    None => ticket.answer(Err(RequestError::SessionNotFound)),
                }
            }
        }
    }

    /// Passes an acknowledgement on; one that finds a full queue is repeated by the next.
    pub(crate) fn acknowledge(&self, session: SessionId, event_number: u64) {
        if let Some(worker) = self.worker_of(session) {
            let _ = worker.try_send(Command::Acknowledge {
                session,
                event_number,
            });
        }
    }

    /// Makes all workers notice a change that they read for themselves.
    pub(crate) fn wake_workers(&self) {
        self.workers.iter().for_each(WorkerHandle::wake);
    }

    /// Ends all sessions in good order.
    pub(crate) async fn end_all_sessions(&self, reason: SessionEndReason) {
        for worker in &self.workers {
            send_retrying(worker, Command::EndAll { reason }).await;
        }
    }

    /// Whether every worker has turned around within `patience`.
    pub(crate) fn workers_alive(&self, patience: Duration) -> bool {
        let now_ns = clock::monotonic_ns();
        let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        self.workers.iter().all(|worker| {
            let beat_ns = worker.gauges.heartbeat_ns.load(Ordering::Relaxed);
            now_ns.saturating_sub(beat_ns) < patience
        })
    }

    /// Whether a controller is connected.
    pub(crate) fn has_controller(&self) -> bool {
        self.shared.controller.current().is_some()
    }

    fn worker_of(&self, session: SessionId) -> Option<&WorkerHandle> {
        self.workers.get(self.shared.directory.worker(session)?)
    }

    fn place_session(&self, session: SessionId, request: Request, ticket: Ticket, term: u64) {
        if self.draining.load(Ordering::Relaxed) {
            ticket.answer(Err(RequestError::ShuttingDown));
            return;
        }
        let gauges = self.workers.iter().map(|worker| &*worker.gauges);
        let Some(index) = placement::choose(gauges) else {
            ticket.answer(Err(RequestError::Overloaded));
            return;
        };
        let Some(worker) = self.workers.get(index) else {
            return;
        };
        if !self.shared.directory.reserve(session, index) {
            ticket.answer(Err(RequestError::IdInUse));
            return;
        }
        let Gauges {
            sessions, placed, ..
        } = &*worker.gauges;
        sessions.fetch_add(1, Ordering::Relaxed);
        placed.fetch_add(1, Ordering::Relaxed);
        let command = Command::Request {
            request,
            ticket,
            term,
        };
        if let Err(refused) = worker.try_send(command) {
            self.shared.directory.remove(session);
            sessions.fetch_sub(1, Ordering::Relaxed);
            refuse_busy(*refused);
        }
    }

    fn set_log_level(&self, level: &str) -> Result<Reply, RequestError> {
        let level = LogLevel::from_text(level).ok_or_else(|| RequestError::InvalidParams {
            field: "level".to_owned(),
            problem: "must be error, warn, info, debug or trace".to_owned(),
        })?;
        if !self.log.set_level(level) {
            return Err(RequestError::Internal("logging is gone".to_owned()));
        }
        info!(%level, "log level changed");
        Ok(Reply::Done)
    }

    fn spawn_task(self: &Arc<Self>, request: Request, ticket: Ticket) {
        let Ok(permit) = Arc::clone(&self.tasks).try_acquire_owned() else {
            ticket.answer(Err(RequestError::Internal("too many at a time".to_owned())));
            return;
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            match request {
                Request::Snapshot => this.send_snapshot(ticket).await,
                Request::Metrics => {
                    let report = this.metrics().await;
                    ticket.answer(Ok(Reply::Metrics(Box::new(report))));
                }
                _ => {
                    let report = this.status().await;
                    ticket.answer(Ok(Reply::Status(Box::new(report))));
                }
            }
            drop(permit);
        });
    }

    async fn send_snapshot(&self, ticket: Ticket) {
        let (outbox, number) = (Arc::clone(ticket.outbox()), ticket.number());
        outbox.push(&ToControl::SnapshotBegin { number }, Class::MustArrive);
        let pass = self.shared.moves.begin_snapshot();
        let alone = async {
            while !pass.is_alone() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        };
        if tokio::time::timeout(WORKER_PATIENCE, alone).await.is_err() {
            warn!("a transfer takes too long for a snapshot");
        }
        for worker in &self.workers {
            let mut from = Some(0);
            while let Some(place) = from {
                let page = |reply| Command::Snapshot {
                    from: place,
                    outbox: Arc::clone(&outbox),
                    number,
                    reply,
                };
                let Some(next) = ask(worker, page).await else {
                    // Half a snapshot must not pass for a whole one.
                    ticket.answer(Err(RequestError::Unresponsive));
                    return;
                };
                from = next;
                outbox.drained().await;
            }
        }
        drop(pass);
        outbox.push(&ToControl::SnapshotEnd { number }, Class::MustArrive);
        ticket.answer(Ok(Reply::Done));
    }

    async fn totals(&self) -> Vec<Box<WorkerTotals>> {
        let mut totals = Vec::new();
        for worker in &self.workers {
            match ask(worker, |reply| Command::Report { reply }).await {
                Some(one) => totals.push(one),
                None => warn!("a worker does not report"),
            }
        }
        totals
    }

    async fn metrics(&self) -> MetricsReport {
        let totals = self.totals().await;
        let mut report = worker::merge(&totals);
        report.packets_recorded = self.shared.recorder.packets_written();
        report.extra_counters.push((
            "file_decodes".to_owned(),
            "Decodes of files begun; endpoints that share one count once".to_owned(),
            self.shared.files.pool.decodes_begun(),
        ));
        report.events_dropped += self.shared.controller.dropped();
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        report.process = process.report();
        report
    }

    async fn status(&self) -> StatusReport {
        let totals = self.totals().await;
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            instance: self.instance,
            uptime_secs: self.started.elapsed().as_secs(),
            sessions: self.shared.directory.len() as u64,
            endpoints: totals.iter().map(|worker| worker.endpoints).sum(),
            recordings: totals.iter().map(|worker| worker.recordings).sum(),
            draining: self.draining.load(Ordering::Relaxed),
            controller_connected: self.has_controller(),
            sandbox: self.sandbox.clone(),
            workers: totals.iter().map(|worker| worker.report.clone()).collect(),
        }
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Dataplane => "dataplane",
        Role::Controller { .. } => "controller",
        Role::Observer => "observer",
    }
}

fn send_request(worker: &WorkerHandle, request: Request, ticket: Ticket, term: u64) {
    let command = Command::Request {
        request,
        ticket,
        term,
    };
    if let Err(refused) = worker.try_send(command) {
        refuse_busy(*refused);
    }
}

fn refuse_busy(command: Command) {
    if let Command::Request { ticket, .. } = command {
        ticket.answer(Err(RequestError::SessionBusy));
    }
}

/// Queues a command that has to get there, without holding up the thread.
async fn send_retrying(worker: &WorkerHandle, command: Command) {
    let mut command = command;
    while let Err(refused) = worker.try_send(command) {
        command = *refused;
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn ask<T>(
    worker: &WorkerHandle,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        send_retrying(worker, command(reply)).await;
        answer.await.ok()
    };
    tokio::time::timeout(WORKER_PATIENCE, asked)
        .await
        .ok()
        .flatten()
}
