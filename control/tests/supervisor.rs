//! The real `rtpbridge` with children that do only what these tests tell them: they are this test
//! program again, started through a script that lies where the real children would.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgrp, getpid, getppid};
use rtpbridge_shared::supervised::{DeathSignal, tie_to_supervisor};
use tokio::signal::unix::{SignalKind, signal};

const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with the supervisor, its children, and a journal of what the children saw.
struct Stage {
    dir: tempfile::TempDir,
    supervisor: Option<Child>,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::copy(
            env!("CARGO_BIN_EXE_rtpbridge"),
            dir.path().join("rtpbridge"),
        )
        .expect("copied");
        let own = std::env::current_exe().expect("own path");
        for name in ["control", "dataplane"] {
            let script = format!(
                "#!/bin/sh\nFAKE_CHILD={name} FAKE_ARGS=\"$*\" FAKE_DIR={} \\\n\
                 exec {} --exact fake_child --nocapture\n",
                dir.path().display(),
                own.display()
            );
            let path = dir.path().join(format!("rtpbridge-{name}"));
            fs::write(&path, script).expect("script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
        }
        let supervisor = None;
        Self { dir, supervisor }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// From the next start on, the child does this instead of coming up.
    fn tell(&self, child: &str, what: &str) {
        fs::write(self.path(&format!("{child}.mode")), what).expect("mode file");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.path("rtpbridge"));
        command
            .args(["--log-level", "info", "--runtime-dir"])
            .arg(self.path("run"))
            .env("RTPBRIDGE_CACHE_DIR", self.path("cache"))
            .env("RTPBRIDGE_RECORDING_DIR", self.path("recordings"))
            .env_remove("NOTIFY_SOCKET")
            .stderr(fs::File::create(self.path("stderr")).expect("file"));
        command
    }

    fn start(&mut self) {
        self.supervisor = Some(self.command().spawn().expect("started"));
    }

    fn up(&mut self) {
        self.start();
        self.wait_for("both ready", |lines| {
            count(lines, "control ready") == 1 && count(lines, "dataplane ready") == 1
        });
        self.wait_for_log("control is ready");
    }

    fn journal(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("journal")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&[String]) -> bool) {
        wait_until(
            || condition(&self.journal()),
            || format!("{what}: {:#?}\n{}", self.journal(), self.log()),
        );
    }

    fn wait_for_log(&self, text: &str) {
        wait_until(
            || self.log().contains(text),
            || format!("{text}: {}", self.log()),
        );
    }

    fn signal(&self, signal: Signal) {
        let supervisor = self.supervisor.as_ref().expect("started");
        let pid = i32::try_from(supervisor.id()).expect("pid");
        kill(Pid::from_raw(pid), signal).expect("signalled");
    }

    /// The pid in the newest line of this kind: `control start 123`.
    fn pid_of(&self, child: &str) -> Pid {
        let start = format!("{child} start ");
        let journal = self.journal();
        let mut pids = journal
            .iter()
            .rev()
            .filter_map(|line| line.strip_prefix(&start));
        let fields = pids
            .next()
            .expect("started")
            .split(' ')
            .next()
            .expect("pid");
        Pid::from_raw(fields.parse().expect("number"))
    }

    fn end(&mut self) -> ExitStatus {
        let mut supervisor = self.supervisor.take().expect("started");
        let mut status = None;
        wait_until(
            || {
                status = supervisor.try_wait().expect("waited");
                status.is_some()
            },
            || format!("the supervisor ends: {:#?}\n{}", self.journal(), self.log()),
        );
        status.expect("just seen")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            let _ = supervisor.kill();
            let _ = supervisor.wait();
        }
        // Fake children end by themselves when their directory is gone.
    }
}

fn wait_until(mut condition: impl FnMut() -> bool, describe: impl Fn() -> String) {
    let deadline = Instant::now() + 2 * PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "gave up waiting: {}", describe());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn count(lines: &[String], start: &str) -> usize {
    lines.iter().filter(|line| line.starts_with(start)).count()
}

fn position(lines: &[String], start: &str) -> usize {
    let found = lines.iter().position(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("{start} in {lines:#?}"))
}

fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie that nobody reaps yet has ended.
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn the_dataplane_starts_first_and_stops_last_each_in_its_own_process_group() {
    let mut stage = Stage::new();
    stage.up();
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.end().code(), Some(0), "{}", stage.log());
    let lines = stage.journal();
    assert!(position(&lines, "dataplane ready") < position(&lines, "control start"));
    assert!(position(&lines, "control exit") < position(&lines, "dataplane SIGTERM"));
    assert_eq!(count(&lines, "control SIGTERM"), 1);
    for start in ["control start", "dataplane start"] {
        let fields: Vec<&str> = lines[position(&lines, start)].split(' ').collect();
        assert_eq!(fields[2], fields[3], "process group of {start}");
        assert!(lines[position(&lines, start)].contains("--log-level info --runtime-dir"));
    }
    assert!(stage.log().contains("control   | ") && stage.log().contains("dataplane | "));
    assert!(!stage.path("run/control.up").exists());
}

#[test]
fn a_killed_control_comes_back_beside_the_same_dataplane() {
    let mut stage = Stage::new();
    stage.up();
    for round in 2..5 {
        kill(stage.pid_of("control"), Signal::SIGKILL).expect("killed");
        let ready = |lines: &[String]| count(lines, "control ready") == round;
        stage.wait_for("control is ready again", ready);
    }
    stage.signal(Signal::SIGINT);
    assert_eq!(stage.end().code(), Some(0), "{}", stage.log());
    let lines = stage.journal();
    assert_eq!(count(&lines, "dataplane start"), 1);
    assert_eq!(count(&lines, "control SIGINT"), 1);
}

#[test]
fn a_killed_dataplane_comes_back_beside_the_same_control() {
    let mut stage = Stage::new();
    stage.up();
    kill(stage.pid_of("dataplane"), Signal::SIGKILL).expect("killed");
    stage.wait_for("again", |lines| count(lines, "dataplane ready") == 2);
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.end().code(), Some(0), "{}", stage.log());
    assert_eq!(count(&stage.journal(), "control start"), 1);
}

#[test]
fn a_hangup_replaces_control_alone() {
    let mut stage = Stage::new();
    stage.up();
    stage.signal(Signal::SIGHUP);
    stage.wait_for("again", |lines| count(lines, "control ready") == 2);
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.end().code(), Some(0), "{}", stage.log());
    let lines = stage.journal();
    assert_eq!(count(&lines, "control SIGHUP"), 1);
    assert_eq!(count(&lines, "dataplane start"), 1);
    assert_eq!(count(&lines, "dataplane SIGHUP"), 0);
}

#[test]
fn a_control_that_crashes_while_it_drains_is_started_again_to_go_on() {
    let mut stage = Stage::new();
    stage.tell("control", "drain");
    stage.up();
    stage.signal(Signal::SIGTERM);
    stage.wait_for("drains", |lines| count(lines, "control SIGTERM") == 1);
    stage.tell("control", "");
    kill(stage.pid_of("control"), Signal::SIGKILL).expect("killed");
    assert_eq!(stage.end().code(), Some(0), "{}", stage.log());
    let lines = stage.journal();
    assert_eq!(count(&lines, "control start"), 2);
    assert_eq!(count(&lines, "control SIGTERM"), 2);
    assert!(position(&lines, "control exit") < position(&lines, "dataplane SIGTERM"));
}

#[test]
fn further_signals_reach_control_and_the_third_ends_waiting() {
    let mut stage = Stage::new();
    stage.tell("control", "drain");
    stage.up();
    for sent in 1..=3 {
        stage.signal(Signal::SIGTERM);
        stage.wait_for("passed on", |lines| count(lines, "control SIGTERM") == sent);
    }
    assert_eq!(stage.end().code(), Some(1), "{}", stage.log());
    assert!(!is_alive(stage.pid_of("control")));
    assert_eq!(count(&stage.journal(), "dataplane exit"), 1);
}

#[test]
fn a_child_that_ends_badly_makes_the_exit_code_1() {
    let mut stage = Stage::new();
    stage.tell("dataplane", "exit badly");
    stage.up();
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.end().code(), Some(1), "{}", stage.log());
}

#[test]
fn a_crash_loop_ends_with_the_childs_last_words() {
    let mut stage = Stage::new();
    stage.tell("control", "fail");
    stage.start();
    assert_eq!(stage.end().code(), Some(1));
    let lines = stage.journal();
    assert_eq!(count(&lines, "control start"), 10);
    assert_eq!(count(&lines, "dataplane start"), 1);
    assert_eq!(count(&lines, "dataplane exit"), 1);
    let log = stage.log();
    let (_, obituary) = log.split_once("its last lines:").expect("an obituary");
    assert!(obituary.contains("these are my last words"), "{log}");
}

#[test]
fn a_killed_supervisor_leaves_no_child_behind() {
    let mut stage = Stage::new();
    stage.up();
    let (control, dataplane) = (stage.pid_of("control"), stage.pid_of("dataplane"));
    stage.signal(Signal::SIGKILL);
    stage.end();
    let gone = || !is_alive(control) && !is_alive(dataplane);
    wait_until(gone, || stage.log());
    let lines = stage.journal();
    assert_eq!(
        count(&lines, "dataplane SIGTERM"),
        1,
        "it closes in good order"
    );
    assert_eq!(count(&lines, "control SIGTERM"), 0);
}

/// Children of a process, as (pid, state).
fn children_of(parent: u32) -> Vec<(u32, String)> {
    let processes = fs::read_dir("/proc").expect("proc").flatten();
    let stats = processes.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit(") ").next()?.split(' ').map(str::to_owned);
        let (state, ppid) = (fields.next()?, fields.next()?);
        (ppid == parent.to_string()).then_some((pid, state))
    });
    stats.collect()
}

#[test]
fn as_process_1_it_reaps_orphans_and_ends_well() {
    const UNSHARE: [&str; 5] = [
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
    ];
    let probe = Command::new("unshare").args(UNSHARE).arg("true").status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine does not allow PID namespaces");
        return;
    }
    let mut stage = Stage::new();
    stage.tell("control", "leave an orphan");
    let inner = stage.command();
    let mut outer = Command::new("unshare");
    outer
        .args(UNSHARE)
        .arg(inner.get_program())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    let log = fs::File::create(stage.path("stderr")).expect("file");
    let unshare = outer.stderr(log).spawn().expect("started");
    let outer_pid = unshare.id();
    stage.supervisor = Some(unshare);
    stage.wait_for("the orphan ends", |lines| count(lines, "orphan ended") == 1);
    stage.wait_for_log("control is ready");
    let (init, _) = children_of(outer_pid).pop().expect("process 1");
    let reaped = || {
        let children = children_of(init);
        children.len() == 2 && children.iter().all(|(_, state)| state != "Z")
    };
    wait_until(reaped, || format!("{:?}", children_of(init)));
    kill(Pid::from_raw(init.cast_signed()), Signal::SIGTERM).expect("signalled");
    assert_eq!(stage.end().code(), Some(0), "{}", stage.log());
}

#[test]
fn a_faulty_configuration_starts_nothing() {
    let stage = Stage::new();
    let faulty = stage.command().env("RTPBRIDGE_MEDIA_DSCP", "99").status();
    assert_eq!(faulty.expect("ran").code(), Some(2));
    let fault = "environment RTPBRIDGE_MEDIA_DSCP: media_dscp = 99";
    assert!(stage.log().contains(fault), "{}", stage.log());
    assert!(stage.journal().is_empty());
    let mut command = stage.command();
    let printed = command
        .arg("--print-config")
        .stdout(Stdio::piped())
        .output();
    let printed = printed.expect("ran");
    assert_eq!(printed.status.code(), Some(0));
    let text = String::from_utf8(printed.stdout).expect("UTF-8");
    assert!(text.contains("# argument --runtime-dir"), "{text}");
    assert!(stage.journal().is_empty());
}

#[test]
fn two_supervisors_do_not_share_a_runtime_directory() {
    let mut stage = Stage::new();
    stage.up();
    let mut second = stage.command();
    let second = second.stderr(Stdio::piped()).output().expect("ran");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another supervisor"));
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.end().code(), Some(0), "{}", stage.log());
}

/// Not a test by itself: what a child of the tests above does.
#[test]
fn fake_child() {
    let (Ok(name), Ok(dir)) = (std::env::var("FAKE_CHILD"), std::env::var("FAKE_DIR")) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let code = runtime.block_on(act(&name, Path::new(&dir)));
    std::process::exit(code);
}

async fn act(name: &str, dir: &Path) -> i32 {
    let note = |what: &str| {
        let journal = OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("journal"));
        // Gone once the test is over.
        let _ = journal.and_then(|mut file| writeln!(file, "{name} {what}"));
    };
    let args = std::env::var("FAKE_ARGS").unwrap_or_default();
    note(&format!("start {} {} {args}", getpid(), getpgrp()));
    let mode = fs::read_to_string(dir.join(format!("{name}.mode"))).unwrap_or_default();
    if mode == "fail" {
        eprintln!("these are my last words");
        return 1;
    }
    if mode == "leave an orphan" {
        let script = "(sleep 0.2; echo orphan ended >> journal) < /dev/null > /dev/null 2>&1 &";
        let mut shell = Command::new("sh");
        let status = shell.args(["-c", script]).current_dir(dir).status();
        assert!(status.expect("ran").success());
    }
    let mut terminate = signal(SignalKind::terminate()).expect("handler");
    let mut interrupt = signal(SignalKind::interrupt()).expect("handler");
    let mut hangup = signal(SignalKind::hangup()).expect("handler");
    let on_death = match name {
        "control" => DeathSignal::Kill,
        _ => DeathSignal::Terminate,
    };
    let words: Vec<&str> = args.split(' ').collect();
    let flag = words
        .iter()
        .position(|word| *word == "--supervised-by")
        .expect("flag");
    tie_to_supervisor(words[flag + 1].parse().expect("pid"), on_death).expect("tied");
    note("ready");
    println!("up, child of {}", getppid());
    let socket = UnixDatagram::unbound().expect("socket");
    let notify = std::env::var("NOTIFY_SOCKET").expect("told where");
    socket.send_to(b"STATUS=up\nREADY=1", notify).expect("sent");
    loop {
        let gone = tokio::time::sleep(Duration::from_secs(1));
        tokio::select! {
            _ = terminate.recv() => note("SIGTERM"),
            _ = interrupt.recv() => note("SIGINT"),
            _ = hangup.recv() => {
                note("SIGHUP");
                return 75;
            }
            () = gone => {
                if dir.exists() {
                    continue;
                }
            }
        }
        match mode.as_str() {
            "drain" if dir.exists() => {}
            "exit badly" => return 3,
            _ => break,
        }
    }
    note("exit");
    0
}
