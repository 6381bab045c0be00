//! Paths that change between a check and the use: a directory, or the file itself, is a symbolic link
//! out of `recording_dir` every other moment. Nothing outside is written, read or deleted.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use rtpbridge_tests::harness::{Server, http};
use rtpbridge_tests::peer::Party;
use serde_json::json;

const ATTEMPTS: usize = 300;
const SECRET: &str = "somebody else's";

/// Does `change` again and again while `attempts` run.
fn while_changing<T>(change: impl Fn() + Sync, attempts: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                change();
            }
        });
        let outcome = attempts();
        done.store(true, Ordering::Relaxed);
        outcome
    })
}

fn swap(one: &Path, other: &Path) {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).unwrap();
}

/// A directory outside with a file in it that must stay as it is.
fn outside(server: &Server) -> PathBuf {
    let outside = server.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim.pcap"), SECRET).unwrap();
    outside
}

fn assert_untouched(outside: &Path) {
    let secret = fs::read_to_string(outside.join("victim.pcap")).expect("is still there");
    assert_eq!(secret, SECRET);
    assert_eq!(fs::read_dir(outside).unwrap().count(), 1, "nothing is new");
}

fn server_with_a_party() -> (Server, rtpbridge_tests::harness::Client) {
    let server = Server::builder()
        .set("max_recordings_per_session", 1000)
        .start();
    let (mut client, _) = server.session();
    Party::join(&mut client);
    (server, client)
}

#[test]
fn no_recording_is_made_through_a_directory_that_becomes_a_link() {
    let (server, mut client) = server_with_a_party();
    let (root, outside) = (server.path("recordings"), outside(&server));
    let (swapped, other) = (root.join("swapped"), root.join("other"));
    fs::create_dir(&swapped).unwrap();
    symlink(&outside, &other).unwrap();
    let granted = while_changing(
        || swap(&swapped, &other),
        || {
            let paths = (0..ATTEMPTS).map(|number| swapped.join(format!("{number}.pcap")));
            let granted = paths.filter(|path| {
                let params = json!({"file_path": path.to_string_lossy()});
                client.request("recording.start", params).is_ok()
            });
            granted.count()
        },
    );
    assert_untouched(&outside);
    let inside = if swapped.is_symlink() { other } else { swapped };
    let made = fs::read_dir(inside).unwrap().count();
    assert_eq!(made, granted, "a file for each success, none for a refusal");
    assert!(granted > 0, "the directory was there at times");
}

#[test]
fn no_recording_is_made_through_a_name_that_becomes_a_link() {
    let (server, mut client) = server_with_a_party();
    let (root, outside) = (server.path("recordings"), outside(&server));
    let (name, aside) = (root.join("call.pcap"), root.join("aside"));
    // Out by an absolute and by a relative way, to a file that exists and to one that does not.
    let ways = [
        outside.join("new.pcap"),
        outside.join("victim.pcap"),
        PathBuf::from("../outside/new.pcap"),
        PathBuf::from("../outside/victim.pcap"),
    ];
    let (mut granted, mut refused) = (0, 0);
    for way in ways {
        while_changing(
            || {
                // Whatever was made there is taken away; then the name is free for a moment.
                let _ = fs::rename(&name, &aside);
                let _ = symlink(&way, &name);
            },
            || {
                for _ in 0..ATTEMPTS / 3 {
                    let params = json!({"file_path": name.to_string_lossy()});
                    match client.request("recording.start", params) {
                        Err(_) => refused += 1,
                        Ok(started) => {
                            granted += 1;
                            let id = json!({"recording_id": started["recording_id"]});
                            client.call("recording.stop", id);
                        }
                    }
                }
            },
        );
        assert_untouched(&outside);
        let _ = fs::remove_file(&name);
    }
    assert!(refused > 0, "the link was in the way at times");
    assert_eq!(granted + refused, 4 * (ATTEMPTS / 3));
}

#[test]
fn nothing_outside_is_served_or_deleted_through_a_path_that_becomes_a_link() {
    let server = Server::start();
    let (root, outside) = (server.path("recordings"), outside(&server));
    let fresh = root.join("fresh");
    fs::write(&fresh, "ours").unwrap();
    let (swapped, other) = (root.join("swapped"), root.join("other"));
    fs::create_dir(&swapped).unwrap();
    symlink(&outside, &other).unwrap();
    let (last, link) = (root.join("last.pcap"), root.join("link.pcap"));
    // The real directory, wherever its name is.
    let directory = fs::File::open(&swapped).unwrap();
    let real = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let change = || {
        // What was deleted comes back; a hard link never goes through anything.
        let _ = fs::hard_link(&fresh, real.join("victim.pcap"));
        swap(&swapped, &other);
        let exchange = RenameFlags::RENAME_EXCHANGE;
        if renameat2(AT_FDCWD, &last, AT_FDCWD, &link, exchange).is_err() {
            let _ = fs::remove_file(&last);
            let _ = fs::remove_file(&link);
            let _ = fs::hard_link(&fresh, &last);
            let _ = symlink(outside.join("victim.pcap"), &link);
        }
    };
    change();
    let targets = ["/recordings/swapped/victim.pcap", "/recordings/last.pcap"];
    let statuses = while_changing(change, || {
        let mut statuses = Vec::new();
        for (attempt, target) in (0..2 * ATTEMPTS).zip(targets.iter().cycle()) {
            let got = http::get(server.address(), target);
            let is_fine = got.status != 200 || got.text() == "ours";
            assert!(is_fine && !got.text().contains(SECRET), "{target}: {got:?}");
            statuses.push(got.status);
            if attempt % 10 < 2 {
                let gone = http::request(server.address(), "DELETE", target, &[]);
                statuses.push(gone.status);
            }
        }
        statuses
    });
    assert_untouched(&outside);
    for expected in [200, 403] {
        assert!(statuses.contains(&expected), "{expected} never came");
    }
    let known = [200, 403, 404];
    let odd = statuses.iter().find(|status| !known.contains(status));
    assert_eq!(odd, None, "only these");
}
