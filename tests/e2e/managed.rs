//! processes, systemd and Privilege: what the service manager hears from the running programs, what the
//! operator sees of them, and how little they are able to do.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rtpbridge_tests::harness::Server;
use rtpbridge_tests::harness::process::Process;
use rtpbridge_tests::harness::server::binary;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::peer::Party;
use serde_json::{Value, json};

/// Fields of /proc/PID/status.
fn process_status(pid: nix::unistd::Pid) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn the_running_dataplane_has_nothing_to_steal() {
    let server = Server::builder().supervised().start();
    let (mut client, _) = server.session();
    Party::join(&mut client);
    let status = process_status(server.dataplane_pid());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Seccomp"], "2");
    // Every thread of it.
    let tasks = fs::read_dir(format!("/proc/{}/task", server.dataplane_pid())).unwrap();
    for task in tasks.flatten() {
        let text = fs::read_to_string(task.path().join("status")).unwrap();
        assert!(text.contains("Seccomp:\t2") && text.contains("NoNewPrivs:\t1"));
    }
    assert_eq!(process_status(server.control_pid())["NoNewPrivs"], "1");

    let shown = server.ctl(&["--json", "status"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let state = |process: &str, name: &str| {
        let lines = shown[process]["sandbox"].as_array().unwrap().clone();
        let line = lines.into_iter().find(|line| line[0] == name).unwrap();
        line[1].as_str().unwrap().to_owned()
    };
    assert_eq!(state("dataplane", "capabilities"), "all dropped");
    assert_eq!(state("dataplane", "no_new_privs"), "on");
    assert!(state("dataplane", "seccomp").contains("udp only"));
    for process in ["control", "dataplane"] {
        let landlock = state(process, "landlock");
        let logged = server.logs().lines().any(|line| {
            line.contains("sandbox") && line.contains("landlock") && line.contains(&landlock)
        });
        assert!(logged, "{process}: {landlock}\n{}", server.logs());
    }
}

#[test]
fn the_sandbox_can_be_left_off() {
    let server = Server::builder().argument("--no-sandbox").start();
    for pid in [server.dataplane_pid(), server.control_pid()] {
        assert_eq!(process_status(pid)["Seccomp"], "0");
        assert_eq!(process_status(pid)["NoNewPrivs"], "0");
    }
    let shown = String::from_utf8(server.ctl(&["status"]).stdout).unwrap();
    assert_eq!(shown.matches("--no-sandbox").count(), 2, "{shown}");
}

/// Reads messages until one of them contains `text`.
fn hear(manager: &UnixDatagram, text: &str) {
    let deadline = Instant::now() + SOON;
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while Instant::now() < deadline {
        let Ok(length) = manager.recv(&mut buffer) else {
            continue;
        };
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if message.contains(text) {
            return;
        }
        heard.push(message);
    }
    panic!("no {text} in {heard:?}");
}

#[test]
fn the_service_manager_hears_from_both_programs() {
    let mut server = Server::builder().prepare();
    let manager = |name: &str| {
        let path = server.path(name);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        (socket, path)
    };
    let (of_dataplane, dataplane_path) = manager("dataplane.notify");
    let (of_control, control_path) = manager("control.notify");
    let start = |path: &std::path::Path, program: &str| {
        let mut wrapper = std::process::Command::new("env");
        wrapper
            .arg(format!("NOTIFY_SOCKET={}", path.display()))
            .arg("WATCHDOG_USEC=400000");
        server.start_under(&mut wrapper, program)
    };
    let dataplane = start(&dataplane_path, "rtpbridge-dataplane");
    hear(&of_dataplane, "READY=1");
    let control = start(&control_path, "rtpbridge-control");
    hear(&of_control, "READY=1");
    server.adopt(dataplane, control);
    server.wait_healthy();
    let (mut client, _) = server.session();
    for manager in [&of_dataplane, &of_control] {
        hear(manager, "WATCHDOG=1");
        hear(manager, "STATUS=1 sessions");
    }
    // A manager that does not read holds nobody up.
    let ours = UnixDatagram::unbound().unwrap();
    ours.set_nonblocking(true).unwrap();
    for path in [&dataplane_path, &control_path] {
        while ours.send_to(b"X=1", path).is_ok() {}
    }
    // Some pings fall into this time.
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        client.call("session.info", serde_json::json!({}));
        thread::sleep(Duration::from_millis(50));
    }
    hear(&of_dataplane, "WATCHDOG=1");
    hear(&of_control, "WATCHDOG=1");
    // A process that does not turn is not defended.
    server.signal_control(Signal::SIGSTOP);
    eventually("silence", SOON, || {
        let mut buffer = [0; 4096];
        of_control.recv(&mut buffer).err().map(|_| ())
    });
    server.signal_control(Signal::SIGCONT);
    hear(&of_control, "WATCHDOG=1");
    client.call("session.destroy", serde_json::json!({}));
    server.control().signal(Signal::SIGTERM);
    hear(&of_control, "STOPPING=1");
    assert_eq!(server.control().wait(SOON).code(), Some(0));
    // What finds no room is not said.
    eventually("silence", SOON, || {
        let mut buffer = [0; 4096];
        of_dataplane.recv(&mut buffer).err().map(|_| ())
    });
    server.dataplane().signal(Signal::SIGTERM);
    hear(&of_dataplane, "STOPPING=1");
    assert_eq!(server.dataplane().wait(SOON).code(), Some(0));
}

#[test]
fn the_operators_live_table_follows_what_happens_until_ctrl_c() {
    let server = Server::start();
    let (mut client, session) = server.session();
    let watch = format!(
        "exec {} --runtime-dir {} sessions --watch",
        binary("rtpbridgectl").display(),
        server.path("run").display()
    );
    // `script` is the terminal.
    let mut terminal = Command::new("script");
    terminal.args([
        "--quiet",
        "--flush",
        "--return",
        "--command",
        &watch,
        "/dev/null",
    ]);
    let (keys, mut keyboard) = std::io::pipe().unwrap();
    let log = server.path("terminal.log");
    let mut terminal = Process::start_with_input("script", terminal, log, keys.into());
    let shows = |terminal: &Process, text: &str| {
        let shown = terminal.log();
        let last = shown.rsplit("\u{1b}[H\u{1b}[2J").next();
        last.is_some_and(|last| last.contains(text))
    };
    for (id, count) in [(session.as_str(), "1 session"), ("", "0 sessions")] {
        eventually(count, SOON, || {
            (shows(&terminal, id) && shows(&terminal, count)).then_some(())
        });
        if !id.is_empty() {
            client.call("session.destroy", json!({}));
        }
    }
    keyboard.write_all(b"\x03").unwrap();
    let ended_by_ctrl_c = 128 + Signal::SIGINT as i32;
    assert_eq!(terminal.wait(SOON).code(), Some(ended_by_ctrl_c));
}
