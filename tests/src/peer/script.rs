//! A peer program of `tests/peers/`: started as a child, spoken to in JSON lines, gone when dropped.
//! What the programs need is installed by `tests/run`.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::procfs;

/// The scripts give up after 20 s themselves; this is for one that hangs.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(45);
/// A browser tidies up when it is told to end.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(10);

/// The Python that has the packages of `tests/peers/requirements.txt`.
pub fn python() -> PathBuf {
    directory().join(".venv/bin/python")
}

/// A running peer program.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    child: RefCell<Child>,
    input: RefCell<Option<ChildStdin>>,
    answers: Receiver<String>,
    next_id: Cell<u64>,
    /// The process that holds the sockets: the browser, or the script itself.
    pid: Cell<Option<Pid>>,
}

impl Script {
    /// Debian's Chromium, driven over its debugging pipe.
    pub fn browser() -> Self {
        let mut command = Command::new("node");
        command.arg(directory().join("peers/browser.mjs"));
        Self::start("browser", command, &directory().join("peers/node_modules"))
    }

    /// aiortc, and libsrtp beside it.
    pub fn aiortc() -> Self {
        let python = python();
        let mut command = Command::new(&python);
        command.arg(directory().join("peers/aiortc_party.py"));
        Self::start("aiortc", command, &python)
    }

    /// GStreamer's webrtcbin.
    pub fn gstreamer() -> Self {
        let python = Path::new("/usr/bin/python3");
        let mut command = Command::new(python);
        command.arg(directory().join("peers/gstreamer_party.py"));
        Self::start("gstreamer", command, python)
    }

    fn start(name: &'static str, mut command: Command, needs: &Path) -> Self {
        assert!(
            needs.exists(),
            "{} is missing: `tests/run` installs it",
            needs.display()
        );
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let output = child.stdout.take().expect("piped");
        let (lines, answers) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let script = Self {
            name,
            input: RefCell::new(child.stdin.take()),
            child: RefCell::new(child),
            answers,
            next_id: Cell::new(1),
            pid: Cell::new(None),
        };
        let about = script.call("about", json!({}));
        let pid = about["pid"].as_i64().expect("a pid");
        script
            .pid
            .set(Some(Pid::from_raw(i32::try_from(pid).expect("a pid"))));
        script
    }

    /// A request that must succeed.
    pub fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params)
            .unwrap_or_else(|error| panic!("{}: {method}: {error}", self.name))
    }

    /// A request and its result or what the script says went wrong.
    pub fn try_call(&self, method: &str, params: Value) -> Result<Value, String> {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let request = json!({"id": id, "method": method, "params": params});
        let mut input = self.input.borrow_mut();
        let input = input.as_mut().expect("the script runs");
        writeln!(input, "{request}")
            .unwrap_or_else(|error| panic!("{} is gone: {error}", self.name));
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.answers.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => panic!("{}: {method} hangs", self.name),
                Err(RecvTimeoutError::Disconnected) => panic!("{} ended in {method}", self.name),
            };
            let mut answer: Value = serde_json::from_str(&line).expect("scripts speak JSON lines");
            if answer["id"] == json!(id) {
                return match answer["error"].as_str() {
                    Some(error) => Err(error.to_owned()),
                    None => Ok(answer["result"].take()),
                };
            }
        }
    }

    /// Kills the process that holds the sockets with -9, as a crash or a power cut would.
    pub fn kill(&self) {
        let pid = self.pid.take().expect("it has not been killed yet");
        kill(pid, Signal::SIGKILL).expect("own descendant");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.input.borrow_mut().take();
        let mut child = self.child.borrow_mut();
        let deadline = Instant::now() + FAREWELL_TIME_MAX;
        while Instant::now() < deadline {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        if let Some(pid) = self.pid.take().filter(|pid| procfs::is_alive(*pid)) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
