//! `rtpbridgectl`: asks control over its admin socket, and, for what only looks, the dataplane as an
//! observer when control is down. Prints tables or JSON; exit codes 0 ok, 1 failed, 2 usage, 3 not
//! reachable.

mod cli;
mod command;
mod error;
mod http;
mod observer;
mod table;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

pub use cli::Cli;
use command::Session;
use error::CtlError;

/// Carries out one command line.
pub fn run(cli: Cli) -> ExitCode {
    let outcome = start(cli);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "rtpbridgectl: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(cli: Cli) -> Result<(), CtlError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CtlError::Failed(error.to_string()))?;
    runtime.block_on(Session::new(cli.target, cli.json).run(cli.command))
}

/// Writes to standard output; a reader that has gone is no failure.
fn print(text: &str) -> Result<(), CtlError> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CtlError::Failed(error.to_string()))
        }
        _ => Ok(()),
    }
}
