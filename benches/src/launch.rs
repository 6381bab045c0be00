//! A server of a run's own, started from a directory of programs and ended with the run.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtpbridge_tests::harness::http;

use crate::processes;

const START_LIMIT: Duration = Duration::from_secs(20);

/// What the server shall be like.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The core of both processes.
    pub core: Option<usize>,
    /// Connections that it must take.
    pub connections: u32,
    /// Where recordings may go, when not to a place of its own.
    pub recordings: Option<PathBuf>,
    /// Further lines for its configuration.
    pub settings: Vec<String>,
    /// A library that its processes load first.
    pub preload: Option<PathBuf>,
}

/// A server of this run's own.
#[derive(Debug)]
pub struct Launched {
    supervisor: Child,
    /// Its control address.
    pub address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Launched {
    /// Starts it pinned: a child inherits the core of the thread that starts it, so that the server
    /// also counts just that core when it decides how many workers it needs.
    pub fn start(programs: &Path, wanted: &Wanted) -> Result<Self, Box<dyn std::error::Error>> {
        let directory = tempfile::TempDir::with_prefix("rtpbridge-bench-")?;
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let recordings = wanted.recordings.as_deref().unwrap_or(directory.path());
        let config = directory.path().join("rtpbridge.toml");
        let text = format!(
            "listen = \"{address}\"\nmax_connections = {}\nruntime_dir = {:?}\n\
             cache_dir = {:?}\nrecording_dir = {recordings:?}\nlog_level = \"warn\"\n{}\n",
            wanted.connections,
            directory.path().join("run"),
            directory.path().join("cache"),
            wanted.settings.join("\n"),
        );
        fs::write(&config, text)?;
        let mut command = Command::new(programs.join("rtpbridge"));
        command.arg("--config").arg(&config).stdin(Stdio::null());
        if let Some(library) = &wanted.preload {
            command.env("LD_PRELOAD", library);
        }
        let supervisor = processes::on_core(wanted.core, || command.spawn())?;
        let launched = Self {
            supervisor,
            address,
            directory,
        };
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match http::try_request(address, "GET", "/health", &[]) {
                Ok(health) if health.status == 200 => return Ok(launched),
                _ if Instant::now() > deadline => return Err("the server does not start".into()),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.supervisor.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.supervisor.wait();
        let _ = fs::remove_dir_all(self.directory.path());
    }
}
