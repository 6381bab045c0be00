//! `rtpbridge-control`: talks to clients. Checks its configuration before anything starts (exit
//! code 2), takes its sockets, confines itself, and only then starts threads.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rtpbridge_control::app::Startup;
use rtpbridge_control::listeners::Listeners;
use rtpbridge_control::{confine, serve};
use rtpbridge_shared::config::{ConfigArgs, Limit, Loaded, Scope};
use rtpbridge_shared::logging::LogHandle;
use rtpbridge_shared::runtime_dir;
use rtpbridge_shared::startup::{self, FAILED, Started};
use rtpbridge_shared::supervised::{DeathSignal, tie_to_supervisor};
use tikv_jemalloc_ctl::{Access, AsName, background_thread, max_background_threads};
use tracing::{error, info, warn};

/// WebRTC/RTP media bridge: the process that clients connect to
#[derive(Parser)]
#[command(name = "rtpbridge-control", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
}

const MAX_THREADS: usize = 4;
const UNUSED_PAGES_MS: isize = 1000;
/// Descriptors beside those of client connections.
const OTHER_DESCRIPTORS: u64 = 600;

/// Connections come and go by the thousand; what they held goes back, also when nothing else happens.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args = Cli::parse().config;
    let Started { loaded, log } = match startup::start(&args, Scope::Control) {
        Ok(started) => started,
        Err(code) => return code,
    };
    if let Some(supervisor) = args.supervised_by
        && let Err(problem) = tie_to_supervisor(supervisor, DeathSignal::Kill)
    {
        error!("{problem}");
        return ExitCode::from(FAILED);
    }
    match start(&args, loaded, log) {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            error!("{problem}");
            ExitCode::from(FAILED)
        }
    }
}

fn start(
    args: &ConfigArgs,
    loaded: Loaded,
    log: LogHandle,
) -> Result<u8, Box<dyn std::error::Error>> {
    let config = loaded.config;
    runtime_dir::create_private(&config.runtime_dir)?;
    runtime_dir::create_private(&config.cache_dir)?;
    confine::prepare_directory(&config.recording_dir);
    raise_descriptor_limit(config.max_connections);
    let token = config.auth_token_file.as_deref().map(read_token);
    let token = token.transpose()?;
    let listeners = Listeners::obtain(&config)?;
    let sandbox = confine::confine(&config, !args.no_sandbox);
    for (name, state) in &sandbox {
        info!(protection = name, state, "sandbox");
    }
    let startup = Startup {
        bound: listeners.bound(),
        takes_over: listeners.heir.is_some(),
        settings: loaded.settings,
        log: Some(log),
        token,
        sandbox,
        config,
    };
    if let Err(problem) = give_memory_back_soon() {
        warn!(%problem, "unused memory is given back late");
    }
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.min(MAX_THREADS))
        .max_blocking_threads(32)
        .thread_name("control")
        .enable_all()
        .build()?;
    let code = runtime.block_on(serve::run(startup, listeners))?;
    // Nothing that still runs has anything left to lose.
    runtime.shutdown_background();
    Ok(code)
}

/// Has the allocator return unused pages after a second instead of ten, from a thread of its own.
/// Arenas are made as threads start; so far there is the first.
fn give_memory_back_soon() -> Result<(), tikv_jemalloc_ctl::Error> {
    for name in ["arenas.dirty_decay_ms\0", "arena.0.dirty_decay_ms\0"] {
        name.name().write(UNUSED_PAGES_MS)?;
    }
    max_background_threads::write(1)?;
    background_thread::write(true)
}

fn read_token(path: &Path) -> Result<String, std::io::Error> {
    let text = std::fs::read_to_string(path)?;
    let token = text.trim();
    if token.is_empty() {
        let problem = format!("auth_token_file {} is empty", path.display());
        return Err(std::io::Error::other(problem));
    }
    Ok(token.to_owned())
}

fn raise_descriptor_limit(connections: Limit) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let needed = u64::from(connections.setting()) + OTHER_DESCRIPTORS;
    if limit < needed {
        warn!(
            limit,
            needed, "max_connections does not fit into the descriptor limit"
        );
    }
}
