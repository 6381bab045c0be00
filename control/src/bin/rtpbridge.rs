//! `rtpbridge`: starts and supervises `rtpbridge-dataplane` and `rtpbridge-control`, which lie beside
//! it. Checks the configuration before anything starts: exit code 2 when it is wrong.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use rtpbridge_control::supervise::{self, Plan, Program, SuperviseError};
use rtpbridge_shared::config::{ConfigArgs, Loaded, Scope, Sources};
use rtpbridge_shared::{logging, runtime_dir};
use tracing::{error, info, warn};

/// WebRTC/RTP media bridge: both processes under one supervisor
#[derive(Parser)]
#[command(name = "rtpbridge", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
}

const FAILED: u8 = 1;
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let args = Cli::parse().config;
    let loaded = match Sources::of_process(args.clone()).load(Scope::Both) {
        Ok(loaded) => loaded,
        Err(faults) => {
            let _ = writeln!(std::io::stderr(), "{faults}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    if args.print_config {
        let printed = std::io::stdout().write_all(loaded.to_toml().as_bytes());
        return ExitCode::from(if printed.is_ok() { 0 } else { FAILED });
    }
    if let Err(problem) = logging::init(loaded.config.log_level, loaded.config.log_format) {
        let _ = writeln!(std::io::stderr(), "cannot start logging: {problem}");
        return ExitCode::from(FAILED);
    }
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
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
