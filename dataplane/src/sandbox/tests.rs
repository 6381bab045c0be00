use super::*;
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

const MARKER: &str = "RTPBRIDGE_SANDBOX_CHILD";

/// The sandbox cannot be taken off again, so the test runs itself in a process of its own.
#[test]
fn a_confined_process_can_do_its_work_and_nothing_else() {
    if let Some(dir) = std::env::var_os(MARKER) {
        check_confined(Path::new(&dir));
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
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
