//! processes, "Shutdown and upgrade": the same lines through the supervisor, and both orders of
//! stopping the two processes.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rtpbridge_tests::harness::client::{Client, Refused};
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Server, procfs};
use rtpbridge_tests::peer::Party;
use rtpbridge_tests::peer::capture::Capture;
use serde_json::json;

fn supervised() -> Server {
    Server::builder().supervised().start()
}

fn wait_draining(server: &Server) {
    eventually("/health/ready says draining", SOON, || {
        let ready = server.get("/health/ready");
        (ready.status == 503 && ready.json() == json!({"status": "draining"})).then_some(())
    });
}

fn wait_for_log(server: &Server, text: &str) {
    eventually(&format!("the log says {text}"), SOON, || {
        server.logs().contains(text).then_some(())
    });
}

fn all_gone(pids: &[Pid]) -> bool {
    pids.iter().all(|pid| !procfs::is_alive(*pid))
}

/// A client whose session has a party, and a recording that has heard this many packets of it.
fn recorded_call(server: &Server, name: &str, frames: usize) -> (Client, Party) {
    let (mut client, _) = server.session();
    let mut party = Party::join(&mut client);
    let path = server.recording_path(name);
    client.call("recording.start", json!({"file_path": path}));
    party.talk(frames);
    eventually("all was recorded", SOON, || {
        let stats = client.call("stats.snapshot", json!({}));
        (stats["endpoints"][0]["inbound"]["packets"] == json!(frames)).then_some(())
    });
    (client, party)
}

fn assert_recorded(server: &Server, name: &str, frames: usize) {
    let capture = Capture::read(server.recording_path(name));
    assert_eq!((capture.rtp().count(), capture.torn_bytes), (frames, 0));
}

#[test]
fn a_drain_by_ctrl_c_serves_what_is_there_and_says_that_a_second_one_changes_nothing() {
    let mut server = supervised();
    let (mut client, session) = server.session();
    let party = Party::join(&mut client);
    let (orphaned, orphan) = server.session();
    let mut unbound = server.client();
    orphaned.close();
    eventually("orphaned", SOON, || {
        let sessions = server.sessions();
        let mut rows = sessions.iter().filter(|row| row["state"] == "orphaned");
        rows.next().map(|_| ())
    });
    let pids = [server.control_pid(), server.dataplane_pid()];
    server.supervisor().signal(Signal::SIGINT);
    wait_draining(&server);
    let refused = Client::try_connect(server.address(), "/", &[]).err();
    assert_eq!(refused, Some(Refused { status: 503 }));
    unbound.refuse("session.create", json!({}), "SHUTTING_DOWN");
    let back = Client::try_connect(server.address(), &format!("/?attach={orphan}"), &[]);
    back.unwrap().call("session.destroy", json!({}));
    server.supervisor().signal(Signal::SIGINT);
    wait_for_log(&server, "one more signal ends at once");
    assert_eq!(server.get("/metrics").status, 200);
    assert_eq!(server.sessions()[0]["session_id"], json!(session));
    client.call("endpoint.remove", json!({"endpoint_id": party.endpoint}));
    client.call("session.destroy", json!({}));
    assert_eq!(client.expect_close(), Some(1012));
    assert_eq!(server.supervisor().wait(SOON).code(), Some(0));
    assert!(all_gone(&pids));
}

#[test]
fn a_supervised_drain_that_takes_too_long_says_how_many_it_ended() {
    let mut server = Server::builder()
        .supervised()
        .set("shutdown_max_wait_secs", 1)
        .start();
    let (mut client, _party) = recorded_call(&server, "forced.pcap", 5);
    let (_other, _) = server.session();
    let pids = [server.control_pid(), server.dataplane_pid()];
    server.supervisor().signal(Signal::SIGTERM);
    let stopped = client.expect_event("recording.stopped");
    assert_eq!(stopped["reason"], json!("session_destroyed"));
    assert_eq!(server.supervisor().wait(2 * SOON).code(), Some(0));
    let logs = server.logs();
    let line = logs.lines().find(|line| line.contains("time is up"));
    assert!(line.unwrap().contains("sessions=2"), "{line:?}");
    assert!(all_gone(&pids));
    assert_recorded(&server, "forced.pcap", 5);
}

#[test]
fn a_third_signal_to_the_supervisor_ends_everything_at_once_and_keeps_the_recording() {
    let mut server = supervised();
    let (_client, _party) = recorded_call(&server, "hasty.pcap", 5);
    let pids = [server.control_pid(), server.dataplane_pid()];
    server.supervisor().signal(Signal::SIGTERM);
    wait_draining(&server);
    server.supervisor().signal(Signal::SIGTERM);
    wait_for_log(&server, "one more signal ends at once");
    server.supervisor().signal(Signal::SIGTERM);
    assert_eq!(server.supervisor().wait(SOON).code(), Some(1));
    assert!(all_gone(&pids));
    assert_recorded(&server, "hasty.pcap", 5);
}

#[test]
fn the_operator_hands_over_through_the_supervisor() {
    let server = supervised();
    let (mut client, session) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let (control, dataplane) = (server.control_pid(), server.dataplane_pid());
    assert!(server.ctl(&["handover"]).status.success());
    assert_eq!(client.expect_close(), Some(1012));
    alice.talk(5);
    eventually("a new control", SOON, || {
        server.try_control_pid().filter(|pid| *pid != control)
    });
    server.wait_healthy();
    let mut client = server.client();
    client.call("session.attach", json!({"session_id": session}));
    assert_eq!(server.dataplane_pid(), dataplane);
    bob.receive_exactly(5);
}

#[test]
fn a_dataplane_that_is_told_to_stop_waits_for_its_sessions() {
    let mut server = Server::start();
    let (mut client, party) = recorded_call(&server, "first.pcap", 3);
    server.dataplane().signal(Signal::SIGTERM);
    wait_for_log(&server, "draining");
    let mut late = server.client();
    eventually("new sessions are refused", SOON, || {
        let refused = late.request("session.create", json!({})).err();
        match refused {
            Some(error) => (error.code == "SHUTTING_DOWN").then_some(()),
            None => {
                late.call("session.destroy", json!({}));
                None
            }
        }
    });
    // What is there works on, new endpoints included.
    Party::join(&mut client);
    client.call("endpoint.remove", json!({"endpoint_id": party.endpoint}));
    assert!(server.dataplane().try_wait().is_none());
    client.call("session.destroy", json!({}));
    assert_eq!(server.dataplane().wait(SOON).code(), Some(0));
    assert_recorded(&server, "first.pcap", 3);
    // Control stays, says so, and ends by itself at once.
    eventually("/health notices", SOON, || {
        (server.get("/health").status == 503).then_some(())
    });
    server.control().signal(Signal::SIGTERM);
    assert_eq!(server.control().wait(SOON).code(), Some(0));
}

#[test]
fn a_stopping_dataplane_whose_controller_goes_away_ends_in_good_order() {
    let mut server = Server::start();
    let (_client, _party) = recorded_call(&server, "alone.pcap", 3);
    server.dataplane().signal(Signal::SIGTERM);
    wait_for_log(&server, "draining");
    assert!(server.dataplane().try_wait().is_none());
    server.kill_control();
    assert_eq!(server.dataplane().wait(2 * SOON).code(), Some(0));
    assert_recorded(&server, "alone.pcap", 3);
}

#[test]
fn a_dataplane_without_a_controller_stops_at_once_in_good_order() {
    let mut server = Server::start();
    let (_client, party) = recorded_call(&server, "orphan.pcap", 3);
    server.kill_control();
    server.dataplane().signal(Signal::SIGTERM);
    let bye = eventually("BYE is said", SOON, || {
        party.receive_rtcp(Duration::from_millis(100))
    });
    assert!(!bye.is_empty());
    assert_eq!(server.dataplane().wait(2 * SOON).code(), Some(0));
    assert_recorded(&server, "orphan.pcap", 3);
}

/// A container without an engine: own processes and mounts, nothing writable but the server's directory.
const CONTAINER: &str = "mount --make-rprivate / && mount --bind \"$1\" \"$1\" && \
    mount -o remount,ro,bind / && ! touch /usr/x 2>/dev/null && shift && exec \"$@\"";

#[test]
fn as_process_1_on_a_read_only_root_it_ends_in_its_time_with_a_call_up() {
    let isolation = ["--mount", "--pid", "--fork", "--mount-proc"];
    let mut probe = Command::new("unshare");
    if !probe
        .args(isolation)
        .arg("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: this machine does not allow namespaces");
        return;
    }
    let server = Server::builder().set("shutdown_max_wait_secs", 1).prepare();
    let mut container = Command::new("unshare");
    container
        .args(isolation)
        .args(["sh", "-c", CONTAINER, "container"])
        .arg(server.directory());
    let mut unshare = server.start_under(&mut container, "rtpbridge");
    server.wait_healthy();
    let health = server.ctl(&["health"]);
    assert!(health.status.success(), "{health:?}");
    let (mut client, _party) = recorded_call(&server, "contained.pcap", 3);
    let init = procfs::child_named(unshare.pid(), "rtpbridge").unwrap();
    let children = procfs::children(init);
    assert_eq!(children.len(), 2);
    nix::sys::signal::kill(init, Signal::SIGTERM).unwrap();
    client.expect_event("recording.stopped");
    assert_eq!(unshare.wait(2 * SOON).code(), Some(0));
    assert!(all_gone(&children));
    assert_recorded(&server, "contained.pcap", 3);
}
