//! Command-line arguments that the server programs have in common.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// Flatten this into a program's own clap definition. Values stay text here: [`super::Sources`]
/// checks them with everything else, so that all faults are reported together.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Configuration")]
pub struct ConfigArgs {
    /// TCP address of the control plane, ip:port; repeatable or comma-separated
    #[arg(short, long, value_name = "ADDR")]
    pub listen: Vec<String>,

    /// Address that media sockets bind to, at most one per family; repeatable or comma-separated
    #[arg(short, long, value_name = "IP")]
    pub media_ip: Vec<String>,

    /// Configuration file (TOML); also RTPBRIDGE_CONFIG
    #[arg(short, long, value_name = "PATH")]
    pub config: Option<PathBuf>,

    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// Directory of the Unix sockets
    #[arg(long, value_name = "PATH")]
    pub runtime_dir: Option<PathBuf>,

    /// Run without Landlock, seccomp and dropped capabilities
    #[arg(long)]
    pub no_sandbox: bool,

    /// Process id of the supervisor that starts this program; it dies with it
    #[arg(long, value_name = "PID", hide = true)]
    pub supervised_by: Option<i32>,

    /// Print the effective configuration with the origin of each value, and exit
    #[arg(long)]
    pub print_config: bool,
}

impl ConfigArgs {
    /// The same arguments for a child program that this process supervises.
    pub fn to_argv(&self) -> Vec<OsString> {
        let mut argv = Vec::new();
        let mut push = |flag: &str, value: OsString| {
            argv.push(OsString::from(flag));
            argv.push(value);
        };
        for addr in &self.listen {
            push("--listen", addr.into());
        }
        for ip in &self.media_ip {
            push("--media-ip", ip.into());
        }
        if let Some(path) = &self.config {
            push("--config", path.into());
        }
        if let Some(level) = &self.log_level {
            push("--log-level", level.into());
        }
        if let Some(format) = &self.log_format {
            push("--log-format", format.into());
        }
        if let Some(path) = &self.runtime_dir {
            push("--runtime-dir", path.into());
        }
        push("--supervised-by", std::process::id().to_string().into());
        if self.no_sandbox {
            argv.push("--no-sandbox".into());
        }
        argv
    }
}
