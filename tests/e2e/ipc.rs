//! processes: who may speak on the socket between them, and what they may say.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::frame;
use rtpbridge_shared::ipc::hello::{PROTOCOL_VERSION, Refusal, Role};
use rtpbridge_shared::ipc::message::{Reply, Request, ToControl, ToDataplane};
use rtpbridge_shared::ipc::session::SessionCreate;
use rtpbridge_tests::harness::Server;
use rtpbridge_tests::harness::ipc::{Link, hello};
use rtpbridge_tests::peer::Party;

fn ask(link: &mut Link, number: u64, request: Request) -> Vec<ToControl> {
    link.send(&ToDataplane::Request { number, request });
    let mut messages = Vec::new();
    while let Some(message) = link.receive_message() {
        let last = matches!(&message, ToControl::Answer { number: of, .. } if *of == number);
        messages.push(message);
        if last {
            break;
        }
    }
    messages
}

#[test]
fn another_version_and_a_second_controller_are_refused_by_name() {
    let server = Server::start();
    let socket = server.ipc_socket();
    let (_, answer) = Link::open(&socket, Role::Observer, PROTOCOL_VERSION + 1);
    assert_eq!(
        answer,
        Some(ToControl::Refused(Refusal::Version {
            dataplane: PROTOCOL_VERSION,
            offered: PROTOCOL_VERSION + 1
        }))
    );
    let (_, answer) = Link::open(
        &socket,
        Role::Controller { take_over: false },
        PROTOCOL_VERSION,
    );
    let pid = u32::try_from(server.control_pid().as_raw()).unwrap();
    assert_eq!(
        answer,
        Some(ToControl::Refused(Refusal::ControllerPresent { pid }))
    );
    let (_, answer) = Link::open(&socket, Role::Dataplane, PROTOCOL_VERSION);
    assert!(
        matches!(answer, None | Some(ToControl::Refused(Refusal::NotAHello))),
        "{answer:?}"
    );
    server.session();
}

#[test]
fn an_observer_sees_everything_and_changes_nothing() {
    let server = Server::start();
    let (mut client, session) = server.session();
    Party::join(&mut client);
    let (mut observer, hello) = Link::observe(&server.ipc_socket());
    let Some(ToControl::Hello(hello)) = hello else {
        panic!("{hello:?}");
    };
    assert_eq!(hello.role, Role::Dataplane);
    assert_eq!(
        i64::from(hello.pid),
        i64::from(server.dataplane_pid().as_raw())
    );

    let snapshot = ask(&mut observer, 1, Request::Snapshot);
    let [
        ToControl::SnapshotBegin { number: 1 },
        ToControl::SnapshotPart {
            number: 1,
            session: part,
        },
        ToControl::SnapshotEnd { number: 1 },
        ToControl::Answer {
            number: 1,
            result: Ok(Reply::Done),
        },
    ] = &snapshot[..]
    else {
        panic!("{snapshot:?}");
    };
    assert_eq!(part.details.session.to_string(), session);
    assert_eq!(part.details.endpoints.len(), 1);

    let create = SessionCreate {
        session: SessionId::random(),
        created_at_ms: 0,
    };
    for request in [
        Request::SessionCreate(create),
        Request::SessionDestroy {
            session: part.details.session,
        },
        Request::SessionAttach {
            session: part.details.session,
        },
        Request::SetLogLevel {
            level: "trace".to_owned(),
        },
    ] {
        let answers = ask(&mut observer, 2, request.clone());
        assert!(
            matches!(
                answers.last(),
                Some(ToControl::Answer { result: Err(_), .. })
            ),
            "{request:?}: {answers:?}"
        );
    }
    assert_eq!(server.sessions().len(), 1);
    client.call("session.info", serde_json::json!({}));
}

#[test]
fn a_controller_that_takes_over_displaces_the_other() {
    let mut server = Server::builder().prepare();
    server.start_dataplane();
    let socket = server.ipc_socket();
    rtpbridge_tests::harness::eventually(
        "the dataplane listens",
        rtpbridge_tests::harness::wait::SOON,
        || std::os::unix::net::UnixStream::connect(&socket).ok(),
    );
    let controller =
        |take_over| Link::open(&socket, Role::Controller { take_over }, PROTOCOL_VERSION);
    let (mut first, hello) = controller(false);
    assert!(matches!(hello, Some(ToControl::Hello(_))), "{hello:?}");
    let create = SessionCreate {
        session: SessionId::random(),
        created_at_ms: 7,
    };
    let answers = ask(&mut first, 1, Request::SessionCreate(create.clone()));
    assert!(matches!(
        answers.last(),
        Some(ToControl::Answer {
            result: Ok(Reply::Done),
            ..
        })
    ));
    let (mut second, hello) = controller(true);
    assert!(matches!(hello, Some(ToControl::Hello(_))), "{hello:?}");
    assert!(matches!(
        first.receive_message(),
        Some(ToControl::Displaced { .. })
    ));
    assert_eq!(first.receive_message(), None);
    let info = ask(
        &mut second,
        1,
        Request::SessionInfo {
            session: create.session,
        },
    );
    assert!(
        matches!(
            info.last(),
            Some(ToControl::Answer {
                result: Ok(Reply::Session(_)),
                ..
            })
        ),
        "{info:?}"
    );
}

/// The first answer to a proper hello from this user.
fn answer_to(server: &Server, uid: u32) -> ToControl {
    const CONNECT: &str = "import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
try:
    peer.sendall(sys.stdin.buffer.read())
except OSError:
    pass
sys.stdout.buffer.write(peer.recv(65536))";
    let mut frames = Vec::new();
    frame::encode(&hello(Role::Observer, PROTOCOL_VERSION), &mut frames).unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", CONNECT]).arg(server.ipc_socket());
    command.current_dir("/").uid(uid).gid(uid);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&frames).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "user {uid}");
    frame::decode(output.stdout.get(4..).unwrap()).unwrap()
}

#[test]
fn only_users_who_are_named_may_connect_and_nobody_never() {
    const DAEMON: u32 = 1;
    const BIN: u32 = 2;
    const NOBODY: u32 = 65_534;
    let users = r#"["daemon", "nobody"]"#;
    let server = Server::builder().set("ipc_allow_users", users).start();
    let socket = server.ipc_socket();
    for socket in [&socket, &socket.with_file_name("admin.sock")] {
        let mode = fs::metadata(socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "{}", socket.display());
    }
    // The file's own protection is not what the rest is about.
    for (path, mode) in [
        (server.directory(), 0o755),
        (socket.parent().unwrap(), 0o755),
        (&socket, 0o666),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    for uid in [0, DAEMON] {
        let answer = answer_to(&server, uid);
        assert!(matches!(answer, ToControl::Hello(_)), "{uid}: {answer:?}");
    }
    for uid in [BIN, NOBODY] {
        let refused = ToControl::Refused(Refusal::UserNotAllowed { uid });
        assert_eq!(answer_to(&server, uid), refused);
    }
}
