//! A worker: one OS thread, one io_uring (or epoll set), and the sessions that live on it from birth
//! to death. Nothing it owns is shared; commands reach it by a bounded queue. It must never wait for
//! anything but its sockets: no file, no lock that is held for long, no full queue.
//!
//! One turn: wait ► ready sockets ► due timers ► commands ► duties ► sleep for the batching window.
//! Every step is bounded, so that no session starves the others.

mod bridges;
mod budget;
mod commands;
mod endpoints;
mod gate;
mod handshakes;
mod moves;
mod output;
mod parcel;
mod playback;
mod recordings;
mod report;
mod sessions;
mod slab;
mod sockets;
mod timers;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rtpbridge_core::session::{EngineConfig, PacketBuffer};
use rtpbridge_core::time::Moment;
use rtpbridge_shared::ipc::session::SessionEndReason;
use tracing::error;

use crate::decoder::{DecoderPool, MediaDirectory};
use crate::directory::Directory;
use crate::handshake::HandshakeService;
use crate::ipc::outbox::ControllerSlot;
use crate::ports::Ports;
use crate::recorder::progress::Progress;
use crate::recorder::writer::Recorder;
use crate::sys::clock;
use crate::sys::epoll::{Poller, Waker};
use crate::sys::ring::PreparedRing;
use bridges::Farewell;
use budget::{Budget, Observations};
use handshakes::Handshakes;
use moves::{Deferred, Letter, Move};
use output::Output;
use recordings::Wait;
use sessions::Slot;
use slab::Slab;
use sockets::Sample;
use timers::Timers;

pub(crate) use bridges::Bridges;
pub(crate) use commands::{Command, session_of};
pub(crate) use gate::MoveGate;
pub(crate) use report::{WorkerTotals, merge};

/// Commands that may wait for one worker.
const QUEUE_PLACES: usize = 1024;
/// Key of the eventfd; no socket key gets there.
const WAKER_KEY: u64 = u64::MAX;

/// What all workers use.
pub(crate) struct Shared {
    /// Sessions and where they live.
    pub(crate) directory: Directory,
    /// Who is told about events.
    pub(crate) controller: ControllerSlot,
    /// Sockets for new endpoints.
    pub(crate) ports: Ports,
    /// The writer threads.
    pub(crate) recorder: Arc<Recorder>,
    /// Opens and decodes files.
    pub(crate) files: Files,
    /// Runs DTLS handshakes; without it there is no WebRTC.
    pub(crate) handshakes: Option<Arc<HandshakeService>>,
    /// All workers, once they are started.
    pub(crate) peers: OnceLock<Vec<WorkerHandle>>,
    /// Keeps transfers out of snapshots.
    pub(crate) moves: Arc<MoveGate>,
    /// Where the ends of bridges are.
    pub(crate) bridges: Bridges,
    /// Settings of the engine.
    pub(crate) engine: Arc<EngineConfig>,
    /// Settings of the shell.
    pub(crate) settings: Settings,
}

/// Where files come from.
pub(crate) struct Files {
    /// Opens and decodes them.
    pub(crate) pool: DecoderPool,
    /// `media_dir`
    pub(crate) media: Arc<MediaDirectory>,
    /// `cache_dir`
    pub(crate) cache: Arc<MediaDirectory>,
}

/// Settings of the shell itself.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long a worker may sleep before it looks again.
    pub(crate) batch_window: Duration,
    /// Lateness above which a worker takes no new session.
    pub(crate) max_lateness: Option<Duration>,
    /// How long closing a recording may take.
    pub(crate) recording_flush_timeout: Duration,
    /// Packets in a recording's queue.
    pub(crate) recording_channel_size: usize,
    /// Shown in SDP instead of the bound addresses.
    pub(crate) media_advertise_ip: Option<rtpbridge_shared::config::MediaIp>,
}

/// What a worker shows of itself at any time.
#[derive(Default)]
pub(crate) struct Gauges {
    /// Sessions on it, those just being placed included.
    pub(crate) sessions: AtomicU32,
    /// Busy share in thousandths.
    pub(crate) load_permille: AtomicU32,
    /// Sessions placed since the load was last measured.
    pub(crate) placed: AtomicU32,
    /// Too late to take another session.
    pub(crate) late: AtomicBool,
    /// Monotonic nanoseconds of the last turn.
    pub(crate) heartbeat_ns: AtomicU64,
}

/// How others reach a worker.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    commands: SyncSender<Command>,
    waker: Waker,
    /// Its load.
    pub(crate) gauges: Arc<Gauges>,
}

impl WorkerHandle {
    /// Queues a command; a full queue gives it back.
    pub(crate) fn try_send(&self, command: Command) -> Result<(), Box<Command>> {
        match self.commands.try_send(command) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => {
                Err(Box::new(command))
            }
        }
    }

    /// Queues a command, waiting for a place. Not from a worker, and not from the IPC thread.
    fn send_waiting(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }

    /// Makes it look around.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }
}

/// Starts worker `index`, which uses the ring if it gets one that works.
///
/// # Errors
/// No descriptors or threads are left.
pub(crate) fn spawn(
    index: u32,
    shared: Arc<Shared>,
    ring: Option<PreparedRing>,
) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
    let worker = Worker::new(index, shared)?;
    let handle = worker.handle.clone();
    let named = std::thread::Builder::new().name(format!("worker-{index}"));
    let thread = named.spawn(move || run_or_abort(worker, ring))?;
    Ok((handle, thread))
}

/// A bug outside of any session's turn leaves nothing to go on with: a worker that is silently gone
/// would keep its calls without media. So the process ends, and its supervisor starts another.
fn run_or_abort(worker: Worker, ring: Option<PreparedRing>) {
    let index = worker.index;
    if catch_unwind(AssertUnwindSafe(|| worker.run(ring))).is_err() {
        error!(
            worker = index,
            "a bug ended this worker, and so the process"
        );
        std::process::abort();
    }
}

struct Worker {
    index: u32,
    shared: Arc<Shared>,
    handle: WorkerHandle,
    commands: Receiver<Command>,
    poller: Poller,
    buffer: PacketBuffer,
    out: Output,
    sessions: Slab<Slot>,
    timers: Timers,
    waits: Slab<Wait>,
    /// Transfers begun here.
    moves: Slab<Move>,
    /// Stops that wait for other ends of bridges.
    farewells: Slab<Farewell>,
    /// Letters that found the queue of their worker full.
    letters: VecDeque<(u32, Letter)>,
    /// Transfers that let a snapshot go first.
    deferred: VecDeque<Deferred>,
    /// For the writers of its recordings.
    progress: Progress,
    budget: Budget,
    load: budget::Load,
    forward_latency: Observations,
    sessions_total: u64,
    endpoints_total: u64,
    now: Moment,
    turn_number: u32,
    received: u64,
    /// The packet whose latency is being measured.
    sampled: Option<Sample>,
    more_commands: bool,
    /// The controller's term whose sessions are attached.
    term: u64,
    ending_all: Option<SessionEndReason>,
    stopping: bool,
}

impl Worker {
    fn new(index: u32, shared: Arc<Shared>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_PLACES);
        let poller = Poller::new()?;
        let waker = Waker::new()?;
        poller.add(waker.source(), WAKER_KEY)?;
        let handle = WorkerHandle {
            commands: sender,
            waker,
            gauges: Arc::default(),
        };
        let now_ns = clock::monotonic_ns();
        handle.gauges.heartbeat_ns.store(now_ns, Ordering::Relaxed);
        Ok(Self {
            index,
            out: Output::new(
                Arc::clone(&shared.recorder),
                Handshakes::new(shared.handshakes.clone(), handle.waker.clone()),
            ),
            term: shared.controller.term(),
            shared,
            handle,
            commands: receiver,
            poller,
            buffer: PacketBuffer::new(),
            sessions: Slab::new(),
            timers: Timers::default(),
            waits: Slab::new(),
            moves: Slab::new(),
            farewells: Slab::new(),
            letters: VecDeque::new(),
            deferred: VecDeque::new(),
            progress: Progress::default(),
            budget: Budget::new(now_ns),
            load: budget::Load::default(),
            forward_latency: Observations::default(),
            sessions_total: 0,
            endpoints_total: 0,
            now: Moment::default(),
            turn_number: 1,
            received: 0,
            sampled: None,
            more_commands: false,
            ending_all: None,
            stopping: false,
        })
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::shared as shared_for_tests;
