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

use std::process::ExitCode;

use clap::Parser;
use rtpbridge_shared::config::{ConfigArgs, Scope};
use rtpbridge_shared::startup::{self, FAILED, Started};
use rtpbridge_shared::supervised::{DeathSignal, tie_to_supervisor};
use tracing::{error, info};

/// Media process of rtpbridge; `rtpbridge` starts it together with control
#[derive(Parser)]
#[command(name = "rtpbridge-dataplane", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args = Cli::parse().config;
    let Started { loaded, log } = match startup::start(&args, Scope::Dataplane) {
        Ok(started) => started,
        Err(code) => return code,
    };
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
