use super::*;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::socket::{Backlog, MsgFlags, SockaddrIn, bind, connect, listen, sendto};

const MARKER: &str = "RTPBRIDGE_SANDBOX_CHILD";
/// The address of a TCP listener outside the sandbox.
const PEER: &str = "RTPBRIDGE_SANDBOX_PEER";
const IPPROTO_MPTCP: libc::c_int = 262;

/// The sandbox cannot be taken off again, so the test runs itself in a process of its own.
#[test]
fn a_confined_process_can_do_its_work_and_nothing_else() {
    if let Some(dir) = std::env::var_os(MARKER) {
        check_confined(Path::new(&dir));
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let peer = listener.local_addr().expect("bound").to_string();
    for (name, outcome) in tcp_roads(&peer) {
        let possible = outcome == Ok(()) || (name == "mptcp" && outcome != Err(Errno::EACCES));
        assert!(
            possible,
            "{name} leads to TCP without a sandbox: {outcome:?}"
        );
    }
    for name in ["rec", "media", "other"] {
        fs::create_dir(dir.path().join(name)).expect("creates");
        fs::write(dir.path().join(name).join("file"), "text").expect("writes");
    }
    let this = std::env::current_exe().expect("a program");
    let status = Command::new(this)
        .args([
            "--exact",
            "sandbox::tests::a_confined_process_can_do_its_work_and_nothing_else",
        ])
        .args(["--nocapture", "--test-threads=1"])
        .env(MARKER, dir.path())
        .env(PEER, &peer)
        .status()
        .expect("runs");
    assert!(status.success(), "{status}");
}

fn check_confined(dir: &Path) {
    let (rec, media, other) = (dir.join("rec"), dir.join("media"), dir.join("other"));
    let lines = confine(&Needs {
        recording_dir: &rec,
        readable: vec![&media],
    });
    let state = |name: &str| {
        let line = lines.iter().find(|(known, _)| known == name);
        line.map(|(_, state)| state.clone())
            .expect("a line for each")
    };
    assert!(state("capabilities").contains("all dropped"), "{lines:?}");
    assert_eq!(state("no_new_privs"), "on");
    assert!(state("seccomp").contains("udp"), "{lines:?}");

    UdpSocket::bind("127.0.0.1:0").expect("udp is our work");
    UnixDatagram::unbound().expect("unix sockets are how we are told to stop");
    let refused = TcpListener::bind("127.0.0.1:0").expect_err("no tcp");
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    for (name, outcome) in tcp_roads(&std::env::var(PEER).expect("a peer")) {
        assert_eq!(outcome, Err(Errno::EACCES), "{name}");
    }
    for (family, kind, protocol) in [
        (libc::AF_NETLINK, libc::SOCK_RAW, 0),
        (libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0),
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
    ] {
        // SAFETY: a plain system call without pointers.
        let socket = unsafe { libc::socket(family, kind, protocol) };
        assert_eq!(socket, -1, "{family} {kind} {protocol}");
    }
    if state("landlock").contains("enforced") && !state("landlock").starts_with("not") {
        fs::write(rec.join("new"), "x").expect("recordings can be made");
        fs::read(media.join("file")).expect("media can be read");
        for (path, what) in [
            (other.join("file"), "elsewhere"),
            (rec.join("file"), "recordings"),
        ] {
            let refused = fs::read(path).expect_err(what);
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{what}");
        }
        fs::write(media.join("new"), "x").expect_err("media is not ours to change");
        fs::remove_file(rec.join("file")).expect_err("recordings are never deleted");
    }
}

type Road = (&'static str, nix::Result<()>);

/// Every way to have a TCP conversation, each with a socket of its own.
fn tcp_roads(peer: &str) -> Vec<Road> {
    let peer: SocketAddrV4 = peer.parse().expect("an IPv4 address");
    let peer = SockaddrIn::from(peer);
    let any = SockaddrIn::new(127, 0, 0, 1, 0);
    let one = Backlog::new(1).expect("small");
    let fast_open = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
    vec![
        (
            "connect",
            stream_socket(0).and_then(|socket| connect(socket.as_raw_fd(), &peer)),
        ),
        (
            "listen",
            stream_socket(libc::IPPROTO_TCP).and_then(|socket| {
                bind(socket.as_raw_fd(), &any)?;
                listen(&socket, one)
            }),
        ),
        (
            "listen without bind",
            stream_socket(0).and_then(|socket| listen(&socket, one)),
        ),
        (
            "fast open",
            stream_socket(0).and_then(|socket| {
                sendto(socket.as_raw_fd(), b"hello", &peer, fast_open).map(|_| ())
            }),
        ),
        (
            "mptcp",
            stream_socket(IPPROTO_MPTCP).and_then(|socket| connect(socket.as_raw_fd(), &peer)),
        ),
    ]
}

fn stream_socket(protocol: libc::c_int) -> nix::Result<OwnedFd> {
    // SAFETY: a plain system call without pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, protocol) };
    Errno::result(socket)?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}
