//! Puts the process together, in the order that the sandbox dictates: first all that needs rights
//! (descriptors, the socket file, user names, directories), then the sandbox, then threads.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use nix::unistd::User;
use rtpbridge_core::sdp::Fingerprint;
use rtpbridge_core::session::EngineConfig;
use rtpbridge_shared::config::{Config, Limit};
use rtpbridge_shared::logging::LogHandle;
use rtpbridge_shared::runtime_dir;
use thiserror::Error;
use tracing::{info, warn};

use crate::decoder::{DecoderPool, MediaDirectory};
use crate::directory::Directory;
use crate::handshake::{HandshakeError, HandshakeService};
use crate::ipc::dispatch::Dispatcher;
use crate::ipc::listen::{self, ListenError};
use crate::ipc::outbox::ControllerSlot;
use crate::ipc::server::{AllowedUsers, Server};
use crate::ports::Ports;
use crate::recorder::directory::RecordingDirectory;
use crate::recorder::writer::Recorder;
use crate::sandbox::{self, Needs};
use crate::shutdown::{self, Ended};
use crate::sys::process::{ProcessReader, file_limit, raise_file_limit};
use crate::sys::ring::PreparedRing;
use crate::worker::{self, Bridges, Command, Files, Settings, Shared, WorkerHandle};

/// The kernel keeps eight bytes for each, used or not.
const MAX_SOCKETS_PER_RING: u32 = 1 << 17;
/// Descriptors that are not sockets of calls.
const OWN_DESCRIPTORS: u64 = 200;
/// Descriptors of a two-party call over plain RTP.
const DESCRIPTORS_PER_CALL: u64 = 4;

/// Why the process cannot run, or did not end well.
#[derive(Debug, Error)]
pub(crate) enum AppError {
    /// The socket.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// The directory of the socket.
    #[error("{0}")]
    RuntimeDir(#[from] runtime_dir::RuntimeDirError),
    /// `ipc_allow_users`
    #[error("ipc_allow_users: no user named {0:?}")]
    UnknownUser(String),
    /// `recording_dir`
    #[error("recording_dir {0} cannot be used: {1}")]
    RecordingDir(String, io::Error),
    /// Threads, descriptors.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    /// The certificate or its thread.
    #[error(transparent)]
    Handshakes(#[from] HandshakeError),
    /// The end came before everything was in order.
    #[error("{0} sessions could not be ended in time")]
    SessionsLeft(usize),
}

/// Runs the process to its end.
pub(crate) fn run(config: Config, log: LogHandle, no_sandbox: bool) -> Result<(), AppError> {
    check_descriptors(&config);
    let process = ProcessReader::open()?;
    let allowed = resolve_users(&config.ipc_allow_users)?;
    if config.ipc_socket.parent() == Some(config.runtime_dir.as_path()) {
        runtime_dir::create_private(&config.runtime_dir)?;
    }
    let listener = listen::listen(&config.ipc_socket)?;
    let directory = open_recording_dir(&config)?;
    if let Err(error) = runtime_dir::create_private(&config.cache_dir) {
        info!(%error, "cache_dir is left to control");
    }
    let files = open_files(&config);
    let worker_count = config.worker_count().get();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // The sandbox forbids to make rings; those made before it are restricted for themselves.
    let (rings, ring_state) = prepare_rings(worker_count);
    let mut sandbox = confine(&config, no_sandbox);
    sandbox.push(("io_uring".to_owned(), ring_state));

    let recorder = Arc::new(Recorder::start(directory)?);
    let handshakes = Arc::new(HandshakeService::start()?);
    let shared = Arc::new(share(&config, recorder, handshakes, files));
    let (workers, threads) = start_workers(rings, &shared)?;
    let dispatcher = Dispatcher::new(shared, workers.clone(), log, process, sandbox);
    let dispatcher = Arc::new(dispatcher);
    let server = Arc::new(Server::new(Arc::clone(&dispatcher), allowed));
    let ended = runtime.block_on(serve(&config, &server, &dispatcher, listener))?;
    // Connections hold the dispatcher; with them gone the recorder's threads can end.
    drop((runtime, server, dispatcher));
    stop_workers(&workers, threads);
    match ended {
        Ended::Well => Ok(()),
        Ended::SessionsLeft(count) => Err(AppError::SessionsLeft(count)),
    }
}

async fn serve(
    config: &Config,
    server: &Arc<Server>,
    dispatcher: &Arc<Dispatcher>,
    listener: OwnedFd,
) -> io::Result<Ended> {
    // A limit of file size must be an error of one recording, not the end of the process.
    let too_large = tokio::signal::unix::SignalKind::from_raw(libc::SIGXFSZ);
    let _ignored = tokio::signal::unix::signal(too_large)?;
    let signals = shutdown::Signals::new()?;
    info!(socket = %config.ipc_socket.display(), instance = %dispatcher.instance, "ready");
    let mut accepting = tokio::spawn(Arc::clone(server).run(listener));
    tokio::select! {
        ended = shutdown::run(config, server, dispatcher, signals) => Ok(ended),
        failed = &mut accepting => match failed {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Ok(Ended::Well),
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

fn check_descriptors(config: &Config) {
    match raise_file_limit() {
        Err(error) => warn!(%error, "cannot raise the limit of open files"),
        Ok(limit) => {
            let sessions = match config.max_sessions {
                Limit::Unlimited => return,
                Limit::AtMost(sessions) => u64::from(sessions),
            };
            let needed = sessions * DESCRIPTORS_PER_CALL + OWN_DESCRIPTORS;
            if needed > limit {
                warn!(limit, needed, "too few open files allowed for max_sessions");
            }
        }
    }
}

fn resolve_users(names: &[String]) -> Result<AllowedUsers, AppError> {
    let resolved = names.iter().map(|name| match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) | Err(_) => Err(AppError::UnknownUser(name.clone())),
    });
    resolved.collect()
}

/// The default directory may be missing, which disables recording; a configured one may not.
fn open_recording_dir(config: &Config) -> Result<RecordingDirectory, AppError> {
    let path = &config.recording_dir;
    let is_default = config.recording_dir_is_default();
    let mut builder = DirBuilder::new();
    let made = builder.recursive(is_default).mode(0o750).create(path);
    let (directory, problem) = RecordingDirectory::open(path);
    let Some(problem) = problem else {
        return Ok(directory);
    };
    let problem = made.err().unwrap_or(problem);
    if !is_default {
        let path = path.display().to_string();
        return Err(AppError::RecordingDir(path, problem));
    }
    warn!(path = %path.display(), %problem, "recording is disabled");
    Ok(directory)
}

fn confine(config: &Config, no_sandbox: bool) -> Vec<sandbox::Line> {
    if no_sandbox {
        warn!("running without a sandbox");
        return sandbox::switched_off();
    }
    let mut readable = vec![config.cache_dir.as_path()];
    readable.extend(config.media_dir.as_deref());
    let lines = sandbox::confine(&Needs {
        recording_dir: &config.recording_dir,
        readable,
    });
    for (name, state) in &lines {
        info!("sandbox: {name}: {state}");
    }
    lines
}

fn open_files(config: &Config) -> Files {
    let media = MediaDirectory::open(config.media_dir.as_deref());
    let cache = MediaDirectory::open(Some(&config.cache_dir));
    for (directory, name) in [(&media, "media_dir"), (&cache, "cache_dir")] {
        if let Some(problem) = directory.problem() {
            warn!(problem, "{name} cannot be used");
        }
    }
    Files {
        pool: DecoderPool::new(),
        media: Arc::new(media),
        cache: Arc::new(cache),
    }
}

fn share(
    config: &Config,
    recorder: Arc<Recorder>,
    handshakes: Arc<HandshakeService>,
    files: Files,
) -> Shared {
    let range = (config.rtp_port_range.start(), config.rtp_port_range.end());
    let webrtc = config.webrtc_port_range.map(|r| (r.start(), r.end()));
    let addresses = config.media_ip.iter().collect();
    Shared {
        directory: Directory::default(),
        controller: ControllerSlot::default(),
        ports: Ports::new(addresses, range, webrtc, config.media_dscp, rand::random),
        recorder,
        files,
        peers: OnceLock::new(),
        moves: Arc::default(),
        bridges: Bridges::default(),
        engine: Arc::new(engine_config(config, handshakes.fingerprint().clone())),
        handshakes: Some(handshakes),
        settings: Settings {
            batch_window: config.batch_window,
            max_lateness: config.max_lateness,
            recording_flush_timeout: config.recording_flush_timeout,
            recording_channel_size: config.recording_channel_size,
            media_advertise_ip: config.media_advertise_ip,
        },
    }
}

fn engine_config(config: &Config, fingerprint: Fingerprint) -> EngineConfig {
    EngineConfig {
        media_ip: config.media_ip.iter().collect(),
        media_timeout: config.media_timeout,
        session_idle_timeout: config.session_idle_timeout,
        empty_session_timeout: config.empty_session_timeout,
        max_endpoints_per_session: config.max_endpoints_per_session.setting(),
        max_recordings_per_session: config.max_recordings_per_session,
        held_events: config.critical_event_channel_size,
        rtp_learning: config.rtp_learning,
        rtp_wait_for_inbound: config.rtp_wait_for_inbound,
        srtp_suites: config.srtp_suites.clone(),
        fingerprint: Some(fingerprint),
        opus_bitrate: config.opus_bitrate,
        opus_complexity: config.opus_complexity,
        transcode_cache_size: config.transcode_cache_size,
    }
}

type Workers = (Vec<WorkerHandle>, Vec<JoinHandle<()>>);

/// One for each worker, or none where io_uring is not to be had; and which it is.
fn prepare_rings(worker_count: usize) -> (Vec<Option<PreparedRing>>, String) {
    let sockets = file_limit().min(MAX_SOCKETS_PER_RING);
    let prepared = (0..worker_count).map(|_| PreparedRing::new(sockets));
    match prepared.collect::<io::Result<Vec<_>>>() {
        Ok(rings) => {
            let rings = rings.into_iter().map(Some).collect();
            (
                rings,
                "media; receive, send, poll and cancel only".to_owned(),
            )
        }
        Err(error) => {
            info!(%error, "no io_uring here, media goes through epoll");
            let none = (0..worker_count).map(|_| None).collect();
            (none, format!("not used: {error}"))
        }
    }
}

fn start_workers(rings: Vec<Option<PreparedRing>>, shared: &Arc<Shared>) -> io::Result<Workers> {
    let mut workers = (Vec::new(), Vec::new());
    for (index, ring) in (0..).zip(rings) {
        let (handle, thread) = worker::spawn(index, Arc::clone(shared), ring)?;
        workers.0.push(handle);
        workers.1.push(thread);
    }
    // The first and only time.
    let _ = shared.peers.set(workers.0.clone());
    Ok(workers)
}

fn stop_workers(workers: &[WorkerHandle], threads: Vec<JoinHandle<()>>) {
    for worker in workers {
        let mut stop = Command::Stop;
        while let Err(refused) = worker.try_send(stop) {
            stop = *refused;
            std::thread::yield_now();
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}
