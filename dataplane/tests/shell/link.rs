//! Hello, roles, heartbeats, snapshots, and what a bad peer can do.

use std::time::{Duration, Instant};

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::hello::Refusal;
use rtpbridge_shared::ipc::{
    PROTOCOL_VERSION, Reply, Request, RequestError, Role, ToControl, ToDataplane,
};

use crate::harness::{CONTROLLER, Dataplane, Link, PATIENCE, hello, wait_for};

fn refusal(dataplane: &Dataplane, first: &ToDataplane) -> Refusal {
    let mut link = Link::connect(&dataplane.socket());
    link.send(first);
    let Some(ToControl::Refused(refusal)) = link.receive() else {
        panic!("not refused");
    };
    assert_eq!(link.receive(), None, "the connection closes after it");
    refusal
}

#[test]
fn strangers_and_other_versions_are_refused_with_the_reason() {
    let dataplane = Dataplane::start("127.4.0.1", &[]);
    assert_eq!(
        refusal(&dataplane, &ToDataplane::Heartbeat),
        Refusal::NotAHello
    );
    assert_eq!(
        refusal(&dataplane, &hello(Role::Dataplane)),
        Refusal::NotAHello
    );
    let ToDataplane::Hello(mut other) = hello(CONTROLLER) else {
        unreachable!("hello makes hellos");
    };
    other.protocol_version += 1;
    let offered = other.protocol_version;
    assert_eq!(
        refusal(&dataplane, &ToDataplane::Hello(other)),
        Refusal::Version {
            dataplane: PROTOCOL_VERSION,
            offered
        }
    );
}

#[test]
fn there_is_one_controller_until_another_takes_over() {
    let dataplane = Dataplane::start("127.4.0.2", &[]);
    let mut first = dataplane.controller();
    let session = first.create_session();
    assert_eq!(
        refusal(&dataplane, &hello(CONTROLLER)),
        Refusal::ControllerPresent {
            pid: std::process::id()
        }
    );
    let take_over = Role::Controller { take_over: true };
    let mut second = Link::open(&dataplane.socket(), take_over);
    assert!(matches!(first.receive(), Some(ToControl::Displaced { .. })));
    assert_eq!(first.receive(), None);
    let attached = second.request(Request::SessionAttach { session });
    assert!(matches!(attached, Ok(Reply::Attached(_))), "{attached:?}");
    drop(second);
    wait_for("the place of the controller", || {
        let mut link = Link::connect(&dataplane.socket());
        link.send(&hello(CONTROLLER));
        matches!(link.receive(), Some(ToControl::Hello(_)))
    });
}

#[test]
fn observers_read_and_change_nothing() {
    let dataplane = Dataplane::start("127.4.0.3", &[]);
    let mut controller = dataplane.controller();
    let session = controller.create_session();
    let mut observer = Link::open(&dataplane.socket(), Role::Observer);
    let refused = observer.request(Request::SessionDestroy { session });
    assert!(matches!(refused, Err(RequestError::NotPermitted { .. })));
    let info = observer.request(Request::SessionInfo { session });
    assert!(matches!(info, Ok(Reply::Session(details)) if details.session == session));
    let Ok(Reply::Status(status)) = observer.request(Request::Status) else {
        panic!("no status");
    };
    assert_eq!((status.sessions, status.controller_connected), (1, true));
    assert_eq!(status.workers.len(), 2);
    assert!(status.sandbox.iter().any(|(name, _)| name == "landlock"));
    let Ok(Reply::Metrics(metrics)) = observer.request(Request::Metrics) else {
        panic!("no metrics");
    };
    assert_eq!((metrics.sessions_total, metrics.sessions_active), (1, 1));
    assert!(metrics.process.open_fds > 5 && metrics.process.resident_bytes > 0);
}

#[test]
fn sessions_are_found_by_their_id_alone() {
    let dataplane = Dataplane::start("127.4.0.4", &[]);
    let mut link = dataplane.controller();
    let session = link.create_session();
    let again = Request::SessionCreate(rtpbridge_shared::ipc::session::SessionCreate {
        session,
        created_at_ms: 0,
    });
    assert_eq!(link.request(again), Err(RequestError::IdInUse));
    let destroyed = link.request(Request::SessionDestroy { session });
    assert_eq!(destroyed, Ok(Reply::Recordings(Vec::new())));
    let gone = link.request(Request::SessionInfo { session });
    assert_eq!(gone, Err(RequestError::SessionNotFound));
    let level = |level: &str| Request::SetLogLevel {
        level: level.to_owned(),
    };
    assert_eq!(link.request(level("debug")), Ok(Reply::Done));
    let refused = link.request(level("loud"));
    assert!(matches!(refused, Err(RequestError::InvalidParams { .. })));
}

#[test]
fn a_snapshot_holds_every_session_once() {
    let dataplane = Dataplane::start("127.4.0.5", &[]);
    let mut link = dataplane.controller();
    let mut expected: Vec<SessionId> = (0..600).map(|_| link.create_session()).collect();
    let number = link.start(Request::Snapshot);
    assert_eq!(link.answer_to(number), Ok(Reply::Done));
    let heard = std::mem::take(&mut link.heard);
    assert_eq!(heard.first(), Some(&ToControl::SnapshotBegin { number }));
    assert_eq!(heard.last(), Some(&ToControl::SnapshotEnd { number }));
    let parts = heard.iter().filter_map(|message| match message {
        ToControl::SnapshotPart { session, .. } => Some(session.details.session),
        _ => None,
    });
    let mut seen: Vec<SessionId> = parts.collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn heartbeats_come_and_silence_closes_the_connection() {
    let dataplane = Dataplane::start("127.4.0.6", &[]);
    let mut link = dataplane.controller();
    let opened = Instant::now();
    let mut beats = 0;
    while let Some(message) = link.receive_any(opened + PATIENCE, false) {
        assert_eq!(message, ToControl::Heartbeat);
        beats += 1;
    }
    assert!(beats >= 3, "{beats} heartbeats");
    assert!(opened.elapsed() >= Duration::from_secs(4));
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let dataplane = Dataplane::start("127.4.0.7", &[]);
    let mut good = dataplane.controller();
    let session = good.create_session();
    let frames: [&[u8]; 5] = [
        &[0xff, 0xff, 0xff, 0xff, 0],
        &[1, 0, 0, 0, 0xee],
        &[0, 0, 0, 0],
        &[5, 0, 0, 0, 3, 3, 3, 3, 3],
        &[2, 0, 0, 0, 3, 9],
    ];
    for bytes in frames {
        let mut bad = Link::open(&dataplane.socket(), Role::Observer);
        bad.send_raw(bytes);
        assert_eq!(bad.receive(), None, "{bytes:?}");
        let mut rude = Link::connect(&dataplane.socket());
        rude.send_raw(bytes);
        assert!(matches!(rude.receive(), Some(ToControl::Refused(_)) | None));
    }
    let info = good.request(Request::SessionInfo { session });
    assert!(info.is_ok(), "{info:?}");
}
