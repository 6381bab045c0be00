//! Recordings on disk: paths that lead astray, disks that fail, and what HTTP shows of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rtpbridge_tests::harness::http::{get, request};
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::Party;
use rtpbridge_tests::peer::capture::Capture;
use serde_json::{Value, json};

fn start(client: &mut Client, path: &str) -> Value {
    client.call("recording.start", json!({"file_path": path}))["recording_id"].clone()
}

/// Every regular file beneath a directory.
fn files_beneath(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_beneath(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// Each refusal is in the log, in one line and without what steers a terminal.
fn assert_logged(server: &Server, refused: usize) {
    eventually("the refusals are logged", SOON, || {
        let logs = server.logs();
        let told = |line: &&str| {
            line.contains("recording path refused") || line.contains("recording not started")
        };
        (logs.lines().filter(told).count() == refused).then_some(())
    });
    let logs = server.logs();
    let raw = |byte: char| byte.is_control() && byte != '\n';
    assert!(!logs.contains(raw), "{logs:?}");
    assert!(logs.lines().all(|line| line.len() < 5000), "a path is cut");
}

#[test]
fn paths_that_lead_astray_are_refused_and_write_nothing() {
    let server = Server::start();
    let (mut client, _) = server.session();
    Party::join(&mut client);
    let root = server.path("recordings");
    let outside = server.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(root.join("inside")).unwrap();
    symlink(&outside, root.join("link")).unwrap();
    symlink("../outside", root.join("inside/relative")).unwrap();
    symlink(outside.join("new.pcap"), root.join("dangling.pcap")).unwrap();
    symlink(root.join("inside"), root.join("harmless")).unwrap();
    let before = files_beneath(server.directory()).len();
    let at = |name: &str| root.join(name).to_string_lossy().into_owned();

    let message = client.refuse(
        "recording.start",
        json!({"file_path": "a.pcap"}),
        "INVALID_PARAMS",
    );
    assert!(message.contains("absolute"), "{message}");
    let mut refused = 1;
    for bad in [
        at("../outside/x.pcap"),
        at("inside/../x.pcap"),
        at("inside/../../outside/x.pcap"),
        outside.join("x.pcap").to_string_lossy().into_owned(),
        format!("{}-evil/x.pcap", root.display()),
        "/etc/x.pcap".to_owned(),
        at("missing/x.pcap"),
        at("new\u{0}.pcap"),
        at("new\n.pcap"),
        at("new\u{1b}[2J.pcap"),
        at(&"a".repeat(4096)),
        at(&"a".repeat(300)),
        at(""),
        at("inside/"),
        at("."),
        "/".to_owned(),
        String::new(),
    ] {
        let answer = client.request("recording.start", json!({"file_path": bad}));
        let error = answer.expect_err(&bad);
        assert_eq!(error.code, "INVALID_PARAMS", "{bad:?}: {}", error.message);
        refused += 1;
    }
    for bad in [
        at("link/x.pcap"),
        at("inside/relative/x.pcap"),
        at("dangling.pcap"),
    ] {
        let error = client
            .request("recording.start", json!({"file_path": bad}))
            .expect_err(&bad);
        assert!(
            ["INVALID_PARAMS", "RECORDING_ERROR"].contains(&error.code.as_str()),
            "{bad}: {error:?}"
        );
        refused += 1;
    }
    for bad in [json!(5), json!(null), json!(["/x"])] {
        client.refuse(
            "recording.start",
            json!({"file_path": bad}),
            "INVALID_PARAMS",
        );
    }
    assert_eq!(
        files_beneath(server.directory()).len(),
        before,
        "nothing was written"
    );
    assert_logged(&server, refused);
    // And the directory itself still works, at any depth.
    start(&mut client, &at("inside/x.pcap"));
    assert!(root.join("inside/x.pcap").exists());
}

#[test]
fn what_cannot_be_recorded_is_refused_by_name() {
    let server = Server::builder()
        .set("max_recordings_per_session", 2)
        .start();
    let (mut client, _) = server.session();
    let existing = server.recording_path("existing.pcap");
    fs::write(&existing, "mine").unwrap();
    client.refuse(
        "recording.start",
        json!({"file_path": existing}),
        "RECORDING_ERROR",
    );
    assert_eq!(fs::read(&existing).unwrap(), b"mine", "never overwritten");
    let unknown = json!({"file_path": server.recording_path("u.pcap"),
        "endpoint_id": "00000000-0000-4000-8000-000000000000"});
    client.refuse("recording.start", unknown, "RECORDING_ERROR");
    assert!(!fs::exists(server.recording_path("u.pcap")).unwrap());
    client.refuse(
        "recording.stop",
        json!({"recording_id": "00000000-0000-4000-8000-000000000000"}),
        "RECORDING_ERROR",
    );
    let first = start(&mut client, &server.recording_path("1.pcap"));
    start(&mut client, &server.recording_path("2.pcap"));
    let third = json!({"file_path": server.recording_path("3.pcap")});
    let message = client.refuse("recording.start", third.clone(), "RECORDING_ERROR");
    assert!(
        message.contains("Maximum concurrent recordings"),
        "{message}"
    );
    assert!(!fs::exists(server.recording_path("3.pcap")).unwrap());
    client.call("recording.stop", json!({"recording_id": first}));
    client.refuse(
        "recording.stop",
        json!({"recording_id": first}),
        "RECORDING_ERROR",
    );
    client.call("recording.start", third);
    let mode = fs::metadata(server.recording_path("3.pcap"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
}

/// A small file system of its own, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, bytes: u32) -> Self {
        let options = format!("size={bytes}");
        mount(
            Some("tmpfs"),
            &at,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("tests may mount");
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_nothing_else() {
    let mut server = Server::builder().prepare();
    let _disk = SmallDisk::mount(server.path("recordings"), 32 * 1024);
    server.start_dataplane();
    server.start_control();
    server.wait_healthy();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let path = server.recording_path("full.pcap");
    let id = start(&mut client, &path);
    let sent = alice.burst(400);
    let heard = bob.receive_exactly(sent.len());
    assert!(
        heard
            .iter()
            .zip(&sent)
            .all(|(heard, sent)| heard.payload == sent.payload)
    );
    let stopped = client.expect_event("recording.stopped");
    assert_eq!(stopped["recording_id"], id);
    assert_eq!(stopped["reason"], json!("write_error"));
    let capture = Capture::read(&path);
    let kept = capture.rtp().count();
    assert!(kept > 50, "what fits is there: {kept}");
    assert_eq!(stopped["packets"], json!(capture.frames.len()));
    assert!(stopped["dropped_packets"].as_u64().unwrap() > 0);
    let info = client.call("session.info", json!({}));
    assert_eq!(info["recordings"], json!([]));
    assert_eq!(server.metric("rtpbridge_recordings_active"), 0.0);
    client.refuse(
        "recording.stop",
        json!({"recording_id": id}),
        "RECORDING_ERROR",
    );
    let complaints = server.logs().matches("full.pcap").count();
    assert!(complaints <= 2, "logged once, not per packet: {complaints}");
    // With room again, recording works again.
    fs::remove_file(&path).unwrap();
    let id = start(&mut client, &server.recording_path("again.pcap"));
    alice.burst(10);
    let stopped = client.call("recording.stop", json!({"recording_id": id}));
    assert_eq!(stopped["dropped_packets"], json!(0));
}

#[test]
fn a_directory_that_goes_away_costs_media_nothing() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let root = server.path("recordings");
    fs::create_dir(root.join("sub")).unwrap();
    let path = server.recording_path("sub/x.pcap");
    let id = start(&mut client, &path);
    alice.burst(10);
    fs::remove_dir_all(root.join("sub")).unwrap();
    alice.burst(10);
    assert_eq!(bob.receive_exactly(20).len(), 20);
    // The open file goes on without a name; a new one has nowhere to be.
    let stopped = client.call("recording.stop", json!({"recording_id": id}));
    assert_eq!(stopped["streams"][0]["packets"], json!(20));
    let again = client.request("recording.start", json!({"file_path": path}));
    assert!(again.is_err());
    fs::remove_dir_all(&root).unwrap();
    let top = json!({"file_path": server.recording_path("y.pcap")});
    assert!(client.request("recording.start", top).is_err());
    alice.burst(5);
    assert_eq!(bob.receive_exactly(5).len(), 5);
}

#[test]
fn a_directory_that_becomes_read_only_takes_nothing_new_and_loses_nothing() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let root = server.path("recordings");
    let path = server.recording_path("open.pcap");
    let id = start(&mut client, &path);
    alice.burst(10);
    // Root without capabilities, as the dataplane is, must heed this as well.
    fs::set_permissions(&root, fs::Permissions::from_mode(0o500)).unwrap();
    alice.burst(10);
    let new = json!({"file_path": server.recording_path("new.pcap")});
    client.refuse("recording.start", new.clone(), "RECORDING_ERROR");
    alice.burst(10);
    assert_eq!(bob.receive_exactly(30).len(), 30);
    let stopped = client.call("recording.stop", json!({"recording_id": id}));
    assert_eq!(stopped["streams"][0]["packets"], json!(30));
    assert_eq!(Capture::read(&path).rtp().count(), 30);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
    client.call("recording.start", new);
}

#[test]
fn http_lists_recordings_sorted_and_in_pages() {
    let server = Server::start();
    let root = server.path("recordings");
    fs::create_dir_all(root.join("b/c")).unwrap();
    for name in [
        "z.pcap",
        "a.pcap",
        "b/1.pcap",
        "b/c/2.pcap",
        "b/notes.txt",
        ".hidden",
    ] {
        fs::write(root.join(name), name).unwrap();
    }
    let deep = root.join("d/".repeat(12));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("deep.pcap"), "").unwrap();
    symlink("/etc", root.join("etc")).unwrap();
    let all = server.get("/recordings").json();
    assert_eq!(
        all["recordings"],
        json!(["a.pcap", "b/1.pcap", "b/c/2.pcap", "z.pcap"])
    );
    assert_eq!(
        (&all["total"], &all["skip"], &all["limit"]),
        (&json!(4), &json!(0), &json!(100))
    );
    let page = server.get("/recordings?skip=1&limit=2").json();
    assert_eq!(page["recordings"], json!(["b/1.pcap", "b/c/2.pcap"]));
    assert_eq!(page["total"], json!(4));
    let some = server.get("/recordings?startsWith=b/").json();
    assert_eq!(some["recordings"], json!(["b/1.pcap", "b/c/2.pcap"]));
    assert_eq!(some["total"], json!(2));
    for bad in ["limit=x", "skip=-1"] {
        assert_eq!(
            server.get(&format!("/recordings?{bad}")).status,
            400,
            "{bad}"
        );
    }
    let most = server.get("/recordings?limit=1001");
    assert!(most.status == 400 || most.json()["limit"] == json!(1000));
}

#[test]
fn http_serves_whole_files_and_ranges() {
    let server = Server::builder()
        .set("max_recording_download_bytes", 1000)
        .start();
    let to = server.address();
    let root = server.path("recordings");
    let body: Vec<u8> = (0..=255).collect();
    fs::create_dir(root.join("sub")).unwrap();
    fs::write(root.join("sub/x.pcap"), &body).unwrap();
    let whole = get(to, "/recordings/sub/x.pcap");
    assert_eq!(whole.status, 200);
    assert_eq!(whole.body, body);
    assert_eq!(whole.header("content-type"), "application/vnd.tcpdump.pcap");
    assert_eq!(whole.header("content-length"), "256");
    let etag = whole.header("etag").to_owned();
    assert!(etag.len() > 2, "{etag}");
    for (range, status, expected, content_range) in [
        ("bytes=0-9", 206, &body[..10], "bytes 0-9/256"),
        ("bytes=250-", 206, &body[250..], "bytes 250-255/256"),
        ("bytes=-6", 206, &body[250..], "bytes 250-255/256"),
        ("bytes=250-9999", 206, &body[250..], "bytes 250-255/256"),
        ("bytes=256-", 416, &[][..], "bytes */256"),
        ("lines=1-2", 200, &body[..], ""),
    ] {
        let part = request(to, "GET", "/recordings/sub/x.pcap", &[("Range", range)]);
        assert_eq!(part.status, status, "{range}");
        assert_eq!(part.header("content-range"), content_range, "{range}");
        if status != 416 {
            assert_eq!(part.body, expected, "{range}");
        }
    }
    let head = request(to, "HEAD", "/recordings/sub/x.pcap", &[]);
    assert_eq!((head.status, head.header("content-length")), (200, "256"));
    let unchanged = request(
        to,
        "GET",
        "/recordings/sub/x.pcap",
        &[("If-None-Match", etag.as_str())],
    );
    assert_eq!(unchanged.status, 304);
    fs::write(root.join("large.pcap"), vec![0; 1001]).unwrap();
    assert_eq!(get(to, "/recordings/large.pcap").status, 413);
    assert_eq!(get(to, "/recordings/none.pcap").status, 404);
}

#[test]
fn http_never_leaves_the_directory() {
    let server = Server::start();
    let to = server.address();
    let root = server.path("recordings");
    fs::write(server.path("secret.pcap"), "secret").unwrap();
    symlink(server.path("secret.pcap"), root.join("link.pcap")).unwrap();
    symlink(server.directory(), root.join("up")).unwrap();
    let long = format!("/recordings/{}secret.pcap", "../".repeat(4096 / 3));
    let mut outside = 0;
    for path in [
        "/recordings/../secret.pcap",
        "/recordings/%2e%2e/secret.pcap",
        "/recordings/..%2fsecret.pcap",
        "/recordings/%2e%2e%2fsecret.pcap",
        "/recordings/x/../../secret.pcap",
        "/recordings/link.pcap",
        "/recordings/up/secret.pcap",
        "/recordings//etc/passwd",
        "/recordings/%2fetc%2fpasswd",
        "/recordings/secret.pcap%00.pcap",
        "/recordings/..%5csecret.pcap",
        "/recordings/%252e%252e%252fsecret.pcap",
        "/recordings/%c0%ae%c0%ae%c0%afsecret.pcap",
        "/recordings/./%2e%2e/./secret.pcap",
        "/recordings/..;/secret.pcap",
        "/recordings/secret.pcap%0d%0aX-Evil:%201",
        "/recordings/%1b%5b2J%0asecret.pcap",
        "/recordings/%2e%2e",
        &long,
    ] {
        for method in ["GET", "DELETE"] {
            let answer = request(to, method, path, &[]);
            assert!(
                [400, 403, 404].contains(&answer.status),
                "{method} {path}: {}",
                answer.status
            );
            assert!(!answer.text().contains("secret\n") && answer.text() != "secret");
            assert_eq!(answer.header("x-evil"), "", "{path}");
            outside += usize::from(answer.status == 403);
        }
    }
    for path in ["/recordings/link.pcap", "/recordings/up/secret.pcap"] {
        assert_eq!(get(to, path).status, 403, "{path}");
        outside += 1;
    }
    assert_logged(&server, outside);
    assert_eq!(fs::read(server.path("secret.pcap")).unwrap(), b"secret");
}

#[test]
fn a_recording_in_progress_can_be_fetched_but_not_deleted() {
    let server = Server::start();
    let to = server.address();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let id = start(&mut client, &server.recording_path("live.pcap"));
    alice.talk(30);
    let live = eventually("something is on disk", SOON, || {
        let live = get(to, "/recordings/live.pcap");
        (live.status == 200 && live.body.len() > 1000).then_some(live)
    });
    assert_eq!(live.header("content-length"), live.body.len().to_string());
    let capture = Capture::parse(&live.body);
    assert_eq!(capture.torn_bytes, 0, "up to the last whole record");
    assert_eq!(
        request(to, "DELETE", "/recordings/live.pcap", &[]).status,
        409
    );
    assert!(fs::exists(server.recording_path("live.pcap")).unwrap());
    client.call("recording.stop", json!({"recording_id": id}));
    let deleted = request(to, "DELETE", "/recordings/live.pcap", &[]);
    assert_eq!(
        (deleted.status, deleted.json()),
        (200, json!({"deleted": true}))
    );
    assert_eq!(
        request(to, "DELETE", "/recordings/live.pcap", &[]).status,
        404
    );
    assert!(!fs::exists(server.recording_path("live.pcap")).unwrap());
    client.expect_no_event("recording.stopped", Duration::from_millis(50));
}
