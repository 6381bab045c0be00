//! The command line of `rtpbridgectl`: one definition for parsing, help, completions and the man page.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Looks after a running rtpbridge: what it does, and what only its operator may do
///
/// Speaks HTTP to the control process over its admin socket. When control is not running, the
/// commands that only look ask the dataplane instead.
#[derive(Parser, Debug)]
#[command(name = "rtpbridgectl", version, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 not reachable")]
pub struct Cli {
    #[command(flatten)]
    pub(super) target: Target,

    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub(super) json: bool,

    #[command(subcommand)]
    pub(super) command: Command,
}

/// Which instance is meant.
#[derive(Args, Debug)]
pub(super) struct Target {
    /// The configuration file of the instance; also RTPBRIDGE_CONFIG
    #[arg(short, long, value_name = "PATH", global = true)]
    pub(super) config: Option<PathBuf>,

    /// The directory of its Unix sockets
    #[arg(long, value_name = "PATH", global = true)]
    pub(super) runtime_dir: Option<PathBuf>,

    /// Its admin socket, when it is elsewhere
    #[arg(long, value_name = "PATH", global = true)]
    pub(super) admin_socket: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Both processes: versions, uptime, sessions, sandbox, load, room for more calls
    Status,
    /// All sessions
    Sessions {
        /// Show them again every second until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Everything about one session
    Session {
        /// Session id
        id: String,
    },
    /// Destroy a session; its client is told
    Kick {
        /// Session id
        id: String,
    },
    /// Refuse new sessions, let the present ones end
    Drain {
        /// Return only when the last session has ended
        #[arg(long)]
        wait: bool,
    },
    /// Accept new sessions again
    Undrain,
    /// Replace the control process by its newest version; no session is lost
    Handover,
    /// Recordings that are being written, or a look into one of them
    Recordings {
        #[command(subcommand)]
        command: Option<RecordingsCommand>,
    },
    /// Statistics of a session's endpoints
    Stats {
        /// Session id
        id: String,
    },
    /// Change the log level of the running processes
    LogLevel {
        /// error, warn, info, debug or trace
        #[arg(value_parser = ["error", "warn", "info", "debug", "trace"])]
        level: String,
        /// Whose
        #[arg(long, value_enum, default_value_t = Process::All)]
        process: Process,
    },
    /// Questions about configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Whether both processes serve; for health checks of containers
    Health,
    /// Versions of this program and of the running processes
    Version,
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print this program's man page (roff)
    Man,
}

#[derive(Subcommand, Debug)]
pub(super) enum RecordingsCommand {
    /// Read a recording: its streams, what they miss, and whether the tail is whole
    Verify {
        /// The PCAP file
        file: PathBuf,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Check a file as the programs would, with all faults at once
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum Process {
    /// Both
    All,
    /// rtpbridge-control
    Control,
    /// rtpbridge-dataplane
    Dataplane,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_documented_command_parses() {
        let lines = [
            "status",
            "status --json",
            "sessions --watch",
            "session 6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "kick 6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "drain --wait",
            "undrain",
            "handover",
            "recordings",
            "recordings verify call.pcap --json",
            "stats 6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "log-level debug --process dataplane",
            "config check /etc/rtpbridge.toml",
            "health",
            "version",
            "completions bash",
            "man",
        ];
        for line in lines {
            let words = std::iter::once("rtpbridgectl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        let loud = ["rtpbridgectl", "log-level", "loud"];
        let refused = Cli::try_parse_from(loud).expect_err("refused");
        assert_eq!(refused.exit_code(), 2);
    }
}
