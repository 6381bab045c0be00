//! The first steps of every program: read the configuration, print it when that is all that was
//! asked for, start logging. Nothing has been opened or started when these fail.

use std::io::Write;
use std::process::ExitCode;

use tracing::warn;

use crate::config::{ConfigArgs, Loaded, Scope, Sources};
use crate::logging::{self, LogHandle};

/// Exit code of a program that could not start, or did not end well.
pub const FAILED: u8 = 1;
/// Exit code for wrong configuration or arguments.
pub const BAD_CONFIG: u8 = 2;

/// A program that may go on.
pub struct Started {
    /// The configuration.
    pub loaded: Loaded,
    /// Changes the log level.
    pub log: LogHandle,
}

/// Loads what `scope` needs and starts logging; warnings about the configuration are logged first.
///
/// # Errors
/// The code to exit with, whatever there was to say being said: the configuration was only to be
/// printed, it is wrong, or logging does not start.
pub fn start(args: &ConfigArgs, scope: Scope) -> Result<Started, ExitCode> {
    let loaded = Sources::of_process(args.clone())
        .load(scope)
        .map_err(|faults| complain(BAD_CONFIG, &faults.to_string()))?;
    if args.print_config {
        let printed = std::io::stdout().write_all(loaded.to_toml().as_bytes());
        return Err(ExitCode::from(if printed.is_ok() { 0 } else { FAILED }));
    }
    let log = logging::init(loaded.config.log_level, loaded.config.log_format)
        .map_err(|problem| complain(FAILED, &format!("cannot start logging: {problem}")))?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    Ok(Started { loaded, log })
}

/// On standard error, which is all there is before logging.
fn complain(code: u8, text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}
