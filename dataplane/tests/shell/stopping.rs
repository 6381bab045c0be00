//! How the process ends, and what it does when its controller does not come back.

use std::time::Duration;

use nix::sys::signal::Signal;
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::session::{SessionCreate, SessionEndReason};
use rtpbridge_shared::ipc::{Reply, Request, RequestError, Role, ToControl};

use crate::harness::{Dataplane, Link, wait_for};

#[test]
fn without_a_controller_sigterm_ends_all_sessions_and_the_process() {
    let mut dataplane = Dataplane::start("127.4.1.1", &[]);
    let mut link = dataplane.controller();
    link.create_session();
    drop(link);
    dataplane.signal(Signal::SIGTERM);
    assert_eq!(dataplane.end().code(), Some(0));
}

#[test]
fn with_a_controller_sigterm_waits_for_the_sessions() {
    let mut dataplane = Dataplane::start("127.4.1.2", &[]);
    let mut link = dataplane.controller();
    let session = link.create_session();
    dataplane.signal(Signal::SIGTERM);
    assert_eq!(link.receive(), Some(ToControl::Draining));
    let refused = link.request(Request::SessionCreate(SessionCreate {
        session: SessionId::random(),
        created_at_ms: 0,
    }));
    assert_eq!(refused, Err(RequestError::ShuttingDown));
    let info = link.request(Request::SessionInfo { session });
    assert!(info.is_ok(), "everything else works on: {info:?}");
    let destroyed = link.request(Request::SessionDestroy { session });
    assert_eq!(destroyed, Ok(Reply::Recordings(Vec::new())));
    assert_eq!(dataplane.end().code(), Some(0));
}

#[test]
fn a_drain_ends_at_its_time_limit() {
    let mut dataplane = Dataplane::start("127.4.1.3", &[("shutdown_max_wait_secs", "1")]);
    let mut link = dataplane.controller();
    let session = link.create_session();
    dataplane.signal(Signal::SIGTERM);
    assert_eq!(link.receive(), Some(ToControl::Draining));
    let ended = link.receive();
    let reason = SessionEndReason::Shutdown;
    assert_eq!(ended, Some(ToControl::SessionEnded { session, reason }));
    assert_eq!(dataplane.end().code(), Some(0));
}

#[test]
fn the_third_signal_ends_at_once() {
    let mut dataplane = Dataplane::start("127.4.1.4", &[]);
    let mut link = dataplane.controller();
    link.create_session();
    dataplane.signal(Signal::SIGTERM);
    assert_eq!(link.receive(), Some(ToControl::Draining));
    dataplane.signal(Signal::SIGTERM);
    // Two signals of one kind that are pending together are one.
    std::thread::sleep(Duration::from_millis(50));
    dataplane.signal(Signal::SIGINT);
    assert_eq!(dataplane.end().code(), Some(1));
}

#[test]
fn sessions_outlive_their_controller_but_not_for_ever() {
    let dataplane = Dataplane::start("127.4.1.5", &[("control_loss_timeout_secs", "2")]);
    let mut link = dataplane.controller();
    let session = link.create_session();
    drop(link);
    let mut observer = Link::open(&dataplane.socket(), Role::Observer);
    let info = observer.request(Request::SessionInfo { session });
    assert!(info.is_ok(), "{info:?}");
    wait_for("the end of the session", || {
        observer.request(Request::SessionInfo { session }).is_err()
    });
    let mut link = dataplane.controller();
    link.create_session();
}

#[test]
fn a_second_dataplane_on_the_same_socket_refuses_to_start() {
    let dataplane = Dataplane::start("127.4.1.6", &[]);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_rtpbridge-dataplane"))
        .env_clear()
        .arg("--runtime-dir")
        .arg(dataplane.dir().join("run"))
        .env("RTPBRIDGE_RECORDING_DIR", dataplane.recording(""))
        .output()
        .expect("runs");
    assert_eq!(second.status.code(), Some(1));
    let log = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(log.contains("another process listens"), "{log}");
}

#[test]
fn a_wrong_configuration_is_exit_code_2() {
    let wrong = std::process::Command::new(env!("CARGO_BIN_EXE_rtpbridge-dataplane"))
        .env_clear()
        .env("RTPBRIDGE_RTP_PORT_RANGE", "5,4")
        .output()
        .expect("runs");
    assert_eq!(wrong.status.code(), Some(2));
}
