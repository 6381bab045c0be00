//! `rtpbridge`: starts and supervises `rtpbridge-dataplane` and `rtpbridge-control`, which lie beside
//! it. Checks the configuration before anything starts: exit code 2 when it is wrong.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use rtpbridge_control::supervise::{self, Plan, Program, SuperviseError};
use rtpbridge_shared::config::{ConfigArgs, Loaded, Scope};
use rtpbridge_shared::runtime_dir;
use rtpbridge_shared::startup::{self, FAILED};
use tracing::{error, info};

/// WebRTC/RTP media bridge: both processes under one supervisor
#[derive(Parser)]
#[command(name = "rtpbridge", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args = Cli::parse().config;
    let loaded = match startup::start(&args, Scope::Both) {
        Ok(started) => started.loaded,
        Err(code) => return code,
    };
    match supervise(&args, loaded) {
        Ok(()) => {
            info!("both processes ended well");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            error!("{problem}");
            ExitCode::from(FAILED)
        }
    }
}

fn supervise(args: &ConfigArgs, loaded: Loaded) -> Result<(), SuperviseError> {
    let start_error = |problem: String| SuperviseError::Start(problem);
    let config = loaded.config;
    runtime_dir::create_private(&config.runtime_dir).map_err(|e| start_error(e.to_string()))?;
    let own = std::env::current_exe().map_err(|e| start_error(e.to_string()))?;
    let beside = own.parent().unwrap_or(Path::new("/")).to_path_buf();
    let program = |name: &'static str, file: &str| Program {
        name,
        path: PathBuf::from(&beside).join(file),
        args: args.to_argv(),
    };
    supervise::run(Plan {
        dataplane: program("dataplane", "rtpbridge-dataplane"),
        control: program("control", "rtpbridge-control"),
        runtime_dir: config.runtime_dir,
        log_format: config.log_format,
        shutdown_max_wait: config.shutdown_max_wait,
        recording_flush_timeout: config.recording_flush_timeout,
    })
}
