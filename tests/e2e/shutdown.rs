//! processes: drain, upgrade, and the end of everything.

use std::time::Duration;

use nix::sys::signal::Signal;
use rtpbridge_tests::harness::client::{Client, Refused};
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Server, procfs};
use rtpbridge_tests::peer::Party;
use serde_json::json;

#[test]
fn draining_serves_what_is_there_and_takes_nothing_new() {
    let mut server = Server::start();
    let (mut client, session) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let mut unbound = server.client();
    let (orphaned, orphan) = server.session();
    drop(orphaned);
    server.control().signal(Signal::SIGTERM);
    eventually("/health/ready says draining", SOON, || {
        let ready = server.get("/health/ready");
        (ready.status == 503 && ready.json() == json!({"status": "draining"})).then_some(())
    });
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/metrics").status, 200);
    let refused = Client::try_connect(server.address(), "/", &[]).err();
    assert_eq!(refused, Some(Refused { status: 503 }));
    unbound.refuse("session.create", json!({}), "SHUTTING_DOWN");
    assert_eq!(
        unbound.call("server.info", json!({}))["draining"],
        json!(true)
    );
    // A holder that comes back is let in and bound at once.
    let mut back =
        Client::try_connect(server.address(), &format!("/?attach={orphan}"), &[]).expect("let in");
    assert_eq!(
        back.call("session.info", json!({}))["session_id"],
        json!(orphan)
    );
    let held = Client::try_connect(server.address(), &format!("/?attach={session}"), &[]).err();
    assert_eq!(held, Some(Refused { status: 503 }), "only orphans");
    drop(back);
    eventually("orphaned again", SOON, || {
        let sessions = server.sessions();
        let row = sessions
            .iter()
            .find(|row| row["session_id"] == json!(orphan))?;
        (row["state"] == json!("orphaned")).then_some(())
    });
    unbound.call("session.attach", json!({"session_id": orphan}));
    // Calls go on as ever.
    alice.talk(5);
    bob.receive_exactly(5);
    Party::join(&mut client);
    unbound.call("session.destroy", json!({}));
    assert!(server.control().try_wait().is_none());
    client.call("session.destroy", json!({}));
    let status = server.control().wait(SOON);
    assert_eq!(status.code(), Some(0));
    // The dataplane has no controller and nothing to wait for.
    server.dataplane().signal(Signal::SIGTERM);
    assert_eq!(server.dataplane().wait(SOON).code(), Some(0));
}

#[test]
fn a_drain_that_takes_too_long_is_ended_in_good_order() {
    let mut server = Server::builder().set("shutdown_max_wait_secs", 1).start();
    let (mut client, _) = server.session();
    let party = Party::join(&mut client);
    let recording = server.recording_path("drained.pcap");
    client.call("recording.start", json!({"file_path": recording}));
    server.control().signal(Signal::SIGTERM);
    let stopped = client.expect_event("recording.stopped");
    assert_eq!(stopped["reason"], json!("session_destroyed"));
    assert_eq!(server.control().wait(SOON).code(), Some(0));
    let bye = eventually("BYE is said", SOON, || {
        party.receive_rtcp(Duration::from_millis(100))
    });
    assert!(!bye.is_empty());
    assert!(server.dataplane().try_wait().is_none());
}

#[test]
fn the_third_signal_ends_at_once() {
    let mut server = Server::start();
    let (_client, _) = server.session();
    for _ in 0..2 {
        server.control().signal(Signal::SIGTERM);
        std::thread::sleep(Duration::from_millis(200));
        assert!(server.control().try_wait().is_none());
    }
    server.control().signal(Signal::SIGINT);
    server.control().wait(SOON);
}

#[test]
fn an_upgrade_keeps_every_session() {
    let mut server = Server::builder().set("disconnect_timeout_secs", 20).start();
    let (mut client, session) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    server.control().signal(Signal::SIGHUP);
    assert_eq!(client.expect_close(), Some(1012));
    let orphaned = client.expect_event("session.orphaned");
    assert_eq!(orphaned, json!({"timeout_remaining_ms": 20_000}));
    assert_eq!(server.control().wait(SOON).code(), Some(75));
    alice.talk(5);
    server.start_control();
    server.wait_healthy();
    let mut next = server.client();
    next.call("session.attach", json!({"session_id": session}));
    assert_eq!(bob.receive_exactly(5).len(), 5);
}

#[test]
fn the_supervisor_upgrades_control_and_ends_both_in_order() {
    let mut server = Server::builder().supervised().start();
    let (mut client, session) = server.session();
    let party = Party::join(&mut client);
    let (control, dataplane) = (server.control_pid(), server.dataplane_pid());
    server.supervisor().signal(Signal::SIGHUP);
    assert_eq!(client.expect_close(), Some(1012));
    let next = eventually("a new control", SOON, || {
        server.try_control_pid().filter(|pid| *pid != control)
    });
    server.wait_healthy();
    let mut client = server.client();
    client.call("session.attach", json!({"session_id": session}));
    server.supervisor().signal(Signal::SIGTERM);
    eventually("draining", SOON, || {
        (server.get("/health/ready").status == 503).then_some(())
    });
    client.call("endpoint.remove", json!({"endpoint_id": party.endpoint}));
    client.call("session.destroy", json!({}));
    assert_eq!(server.supervisor().wait(SOON).code(), Some(0));
    assert!(!procfs::is_alive(next) && !procfs::is_alive(dataplane));
}

#[test]
fn the_children_do_not_outlive_a_killed_supervisor() {
    let mut server = Server::builder().supervised().start();
    let (mut client, _) = server.session();
    Party::join(&mut client);
    let (control, dataplane) = (server.control_pid(), server.dataplane_pid());
    server.supervisor().kill();
    eventually("both are gone", SOON, || {
        (!procfs::is_alive(control) && !procfs::is_alive(dataplane)).then_some(())
    });
}

#[test]
fn a_child_that_cannot_start_ends_the_supervisor_with_its_words() {
    let mut server = Server::builder().supervised().prepare();
    // The address is taken by somebody else.
    let _taken = std::net::TcpListener::bind(server.address()).unwrap();
    server.start_supervisor();
    let status = server.supervisor().wait(6 * SOON);
    assert!(!status.success());
    let log = server.supervisor().log();
    assert!(log.contains(&server.address().to_string()), "{log}");
}
