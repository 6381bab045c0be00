//! One started program: its log is a file, and it ends when the value is dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::procfs;
use super::wait::eventually;

const LOG_TAIL_LINES: usize = 80;

/// A running program. Dropping it kills it and what it started; a panicking test shows its log.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with both outputs going to `log`.
    pub fn start(name: &str, command: Command, log: PathBuf) -> Self {
        Self::start_with_input(name, command, log, Stdio::null())
    }

    /// As [`Self::start`], with something on descriptor 0.
    pub fn start_with_input(name: &str, mut command: Command, log: PathBuf, input: Stdio) -> Self {
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("log file");
        let child = command
            .stdin(input)
            .stdout(output.try_clone().expect("log handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
            exited: None,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("pids fit an i32"))
    }

    /// Sends a signal; the process must still run.
    pub fn signal(&self, signal: Signal) {
        assert!(self.exited.is_none(), "{} has ended already", self.name);
        kill(self.pid(), signal)
            .unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// Kills it with -9 and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait(Duration::from_secs(10));
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().expect("own child can be waited for");
        }
        self.exited
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), within, || self.try_wait())
    }

    /// Everything it has printed.
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.try_wait().is_none() {
            let children = procfs::children(self.pid());
            let _ = self.child.kill();
            let _ = self.child.wait();
            end_orphans(&children);
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
            eprintln!(
                "--- log of {} ---\n{}\n--- end ---",
                self.name,
                tail.join("\n")
            );
        }
    }
}

/// What a killed supervisor leaves behind ends by itself (its parent-death signal); what does not
/// within a second is killed.
fn end_orphans(children: &[Pid]) {
    for _ in 0..100 {
        if children.iter().all(|pid| !procfs::is_alive(*pid)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    for pid in children.iter().filter(|pid| procfs::is_alive(**pid)) {
        let _ = kill(*pid, Signal::SIGKILL);
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
