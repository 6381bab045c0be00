//! `rtpbridge-dataplane`: the process that touches media. Exit codes: 0 ended in good order, 1 could
//! not start or had to give up sessions, 2 wrong configuration or arguments.

mod app;
mod decoder;
mod directory;
mod handshake;
mod ipc;
mod ports;
mod recorder;
mod sandbox;
mod shutdown;
mod sys;
mod worker;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use rtpbridge_shared::config::{ConfigArgs, Scope, Sources};
use rtpbridge_shared::logging;
use rtpbridge_shared::supervised::{DeathSignal, tie_to_supervisor};
use tracing::{error, info, warn};

/// Media process of rtpbridge; `rtpbridge` starts it together with control
#[derive(Parser)]
#[command(name = "rtpbridge-dataplane", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
}

const FAILED: u8 = 1;
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let args = Cli::parse().config;
    let loaded = match Sources::of_process(args.clone()).load(Scope::Dataplane) {
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
    let log = match logging::init(loaded.config.log_level, loaded.config.log_format) {
        Ok(log) => log,
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "cannot start logging: {problem}");
            return ExitCode::from(FAILED);
        }
    };
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    log_panics();
    if let Some(supervisor) = args.supervised_by
        && let Err(problem) = tie_to_supervisor(supervisor, DeathSignal::Terminate)
    {
        error!("{problem}");
        return ExitCode::from(FAILED);
    }
    match app::run(loaded.config, log, args.no_sandbox) {
        Ok(()) => {
            info!("ended");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            error!("{problem}");
            ExitCode::from(FAILED)
        }
    }
}

/// A panic that costs a session must be found in the log, in the log's own form.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let at = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("(no text)");
        error!(
            thread = thread.name().unwrap_or("?"),
            at = at.as_deref().unwrap_or("?"),
            "panic: {message}"
        );
    }));
}
