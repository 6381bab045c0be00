//! processes, systemd: what the programs ask of the kernel, while they do all that they are there for,
//! is within the system call filters of their units.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtpbridge_tests::harness::process::Process;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Server, http, procfs};
use rtpbridge_tests::peer::{Offer, Party};
use rtpbridge_tests::shipped::allowed_calls;
use serde_json::json;

/// A program under strace, which counts its system calls until it ends.
fn traced(server: &Server, program: &str) -> Process {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-c", "-o"])
        .arg(server.path(&format!("{program}.calls")));
    server.start_under(&mut strace, program)
}

/// Names in the last column of strace's table; beside it there may be notes on interrupted calls.
fn calls_in(table: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(table).unwrap();
    let is_name = |word: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        word != "total" && word.bytes().all(plain)
    };
    let rows = text.lines().filter(|line| {
        let share = line.split_whitespace().next().unwrap_or_default();
        share.contains('.') && share.parse::<f64>().is_ok()
    });
    rows.filter_map(|line| line.split_whitespace().last())
        .filter(|word| is_name(word))
        .map(str::to_owned)
        .collect()
}

/// A call with digits, a recording, statistics and a commanded change; then the operator's and the
/// HTTP side of it.
fn live_a_life(server: &Server) {
    let (mut client, session) = server.session();
    let mut alice = Party::join(&mut client);
    let mut bob = Party::bind();
    let offer = Offer::pcmu(bob.address());
    bob.offer(&mut client, &offer, json!({}));
    Party::accept(&mut client, json!({}));
    let path = server.recording_path("filtered.pcap");
    let started = client.call("recording.start", json!({"file_path": path}));
    alice.talk(10);
    alice.press(101, 7, 3);
    client.expect_event("dtmf");
    client.call(
        "endpoint.dtmf.inject",
        json!({"endpoint_id": bob.endpoint, "digit": "5"}),
    );
    bob.receive_exactly(10);
    bob.send_rtcp(&[0x80, 201, 0, 1, 0, 0, 0, 1]);
    client.call("stats.snapshot", json!({}));
    client.call(
        "recording.stop",
        json!({"recording_id": started["recording_id"]}),
    );
    for path in ["/health", "/sessions", "/metrics", "/recordings"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let recording = server.get("/recordings/filtered.pcap");
    assert_eq!(recording.status, 200);
    let address = server.address();
    let deleted = http::request(address, "DELETE", "/recordings/filtered.pcap", &[]);
    assert!((200..300).contains(&deleted.status), "{deleted:?}");
    for words in [
        &["status"][..],
        &["sessions"],
        &["recordings"],
        &["log-level", "debug"],
        &["stats", &session],
        &["kick", &session],
    ] {
        let output = server.ctl(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
    client.expect_event("session.lost");
    client.call("session.create", json!({}));
}

fn child(strace: Pid, program: &str) -> Pid {
    procfs::child_named(strace, program).expect("runs under strace")
}

#[test]
fn neither_program_uses_a_system_call_that_its_unit_forbids() {
    let units = ["rtpbridge-dataplane.service", "rtpbridge-control.service"];
    let allowed = units.map(allowed_calls);
    let strace = Command::new("strace").arg("--version").output();
    let (Ok(_), [Some(of_dataplane), Some(of_control)]) = (strace, allowed) else {
        eprintln!("skipped: strace or systemd-analyze is not installed");
        return;
    };
    let mut server = Server::builder().prepare();
    let dataplane = traced(&server, "rtpbridge-dataplane");
    let control = traced(&server, "rtpbridge-control");
    server.adopt(dataplane, control);
    server.wait_healthy();
    live_a_life(&server);
    // Control upgrades with a session left, the dataplane then ends that.
    let pid = child(server.control_pid(), "rtpbridge-control");
    kill(pid, Signal::SIGHUP).unwrap();
    assert_eq!(server.control().wait(SOON).code(), Some(75));
    let pid = child(server.dataplane_pid(), "rtpbridge-dataplane");
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(server.dataplane().wait(2 * SOON).code(), Some(0));
    for (program, allowed, typical) in [
        (
            "rtpbridge-dataplane",
            of_dataplane,
            "landlock_restrict_self",
        ),
        ("rtpbridge-control", of_control, "accept4"),
    ] {
        let table = server.path(&format!("{program}.calls"));
        let used = eventually("strace has written its table", SOON, || {
            let used = calls_in(&table);
            (!used.is_empty()).then_some(used)
        });
        assert!(used.contains(typical) && used.len() > 30, "{used:?}");
        let forbidden: Vec<_> = used.difference(&allowed).collect();
        assert!(forbidden.is_empty(), "{program} needs {forbidden:?}");
    }
}
