//! processes, systemd: what the programs ask of the kernel, while they do all that they are there for,
//! is within the system call filters of their units.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rtpbridge_tests::harness::filtered::under_filter;
use rtpbridge_tests::harness::process::Process;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::web::Answer;
use rtpbridge_tests::harness::{Client, Server, WebServer, http, procfs};
use rtpbridge_tests::peer::audio::make;
use rtpbridge_tests::peer::{DtlsParty, Offer, Party, Script, SdesParty};
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

/// A call with digits, a recording, statistics and a commanded change; secured and WebRTC parties; then
/// the operator's and the HTTP side of it.
fn live_a_life(server: &Server) {
    live_with_keys(server);
    play_and_move(server);
    let (mut client, session) = server.session();
    let mut alice = Party::join(&mut client);
    let mut bob = Party::bind();
    let offer = Offer::pcmu(bob.address());
    bob.offer(&mut client, &offer, json!({}));
    Party::accept(&mut client, json!({}));
    play_and_listen(server, &mut client, &alice);
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
    let address = server.address();
    for (range, status) in [("", 200), ("bytes=0-99", 206), ("bytes=-24", 206)] {
        let headers = [("Range", range)];
        let headers = if range.is_empty() { &[][..] } else { &headers };
        let part = http::request(address, "GET", "/recordings/filtered.pcap", headers);
        assert_eq!(part.status, status, "{range}");
    }
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

/// SDES against libsrtp, a rekey; WebRTC with its handshakes, a recording of that, an ICE restart, and
/// endpoints that go in every way.
fn live_with_keys(server: &Server) {
    let libsrtp = Rc::new(Script::aiortc());
    let (mut client, _) = server.session();
    let mut secured = SdesParty::join(&libsrtp, &mut client, "AES_CM_128_HMAC_SHA1_80");
    let plain = Party::join(&mut client);
    secured.talk(5);
    plain.receive_exactly(5);
    client.call(
        "endpoint.srtp_rekey",
        json!({"endpoint_id": secured.party.endpoint}),
    );
    let (mut client, _) = server.session();
    let path = server.recording_path("webrtc.pcap");
    client.call("recording.start", json!({"file_path": path}));
    let mut parties = [DtlsParty::join(&mut client), DtlsParty::join(&mut client)];
    for (talks, listens) in [(0, 1), (1, 0)] {
        parties[talks].send(&[7; 80]);
        parties[listens].receive(SOON).expect("is heard");
    }
    let endpoint = json!({"endpoint_id": parties[0].endpoint});
    client.call("endpoint.ice_restart", endpoint.clone());
    client.call("endpoint.remove", endpoint);
    client.call("session.destroy", json!({}));
}

/// A file, a tone, a voice detector, and a party that moves to another session.
fn play_and_move(server: &Server) {
    let (mut client, _) = server.session();
    let (mut other, target) = server.session();
    let mut party = Party::join(&mut client);
    let wav = server.path("media").join("tone.wav");
    fs::write(&wav, self::wav()).unwrap();
    for (method, params) in [
        ("endpoint.create_with_file", json!({"source": wav})),
        ("endpoint.create_with_file", json!({"source": web_server()})),
        ("endpoint.create_tone", json!({"tone": "busy"})),
    ] {
        let created = client.call(method, params);
        party.receive_exactly(10);
        let endpoint = json!({"endpoint_id": created["endpoint_id"]});
        client.call("endpoint.remove", endpoint);
    }
    client.call("vad.start", json!({"endpoint_id": party.endpoint}));
    party.talk(10);
    client.call("vad.stop", json!({"endpoint_id": party.endpoint}));
    let params = json!({"endpoint_id": party.endpoint, "target_session_id": target});
    client.call("endpoint.transfer", params);
    other.expect_event("endpoint.transferred_in");
    party.talk(2);
}

/// Two seconds of a sawtooth, 8 kHz, 16 bit.
fn wav() -> Vec<u8> {
    let samples = (0..16_000_u32).flat_map(|n| (((n % 80) * 300) as i16).to_le_bytes());
    let data: Vec<u8> = samples.collect();
    let bytes = data.len() as u32;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
    file.extend(bytes.to_le_bytes());
    file.extend(data);
    file
}

/// A URL that is good for one download.
fn web_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).unwrap();
        let body = wav();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
    });
    format!("http://{address}/tone.wav")
}

/// Files from the disk and from a web server, played to their ends, and somebody listened to.
fn play_and_listen(server: &Server, client: &mut Client, party: &Party) {
    let listen = json!({"endpoint_id": party.endpoint, "silence_interval_ms": 100});
    client.call("vad.start", listen);
    client.expect_event("vad.silence");
    let graph = "sine=frequency=440:sample_rate=44100:duration=0.3";
    let media = server.path("media");
    let web = WebServer::start();
    for name in ["tone.wav", "tone.mp3", "tone.ogg", "tone.flac"] {
        let file = make(&media, name, graph, &[]);
        let url = web.answer(&format!("/{name}"), Answer::Whole(fs::read(file).unwrap()));
        for source in [name, &url] {
            let played = client.call("endpoint.create_with_file", json!({"source": source}));
            let finished = client.expect_event("endpoint.file.finished");
            assert_eq!(finished["reason"], "completed", "{source}");
            client.call("endpoint.remove", played);
        }
    }
    let missing = json!({"source": "missing.wav"});
    client.refuse("endpoint.create_with_file", missing, "ENDPOINT_ERROR");
    client.call("vad.stop", json!({"endpoint_id": party.endpoint}));
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

#[test]
fn both_programs_do_all_that_they_are_there_for_under_the_filters_of_their_units() {
    let units = ["rtpbridge-dataplane.service", "rtpbridge-control.service"];
    let [Some(of_dataplane), Some(of_control)] = units.map(allowed_calls) else {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    };
    let mut server = Server::builder().prepare();
    under_filter(&of_dataplane, || server.start_dataplane());
    under_filter(&of_control, || server.start_control());
    server.wait_healthy();
    let pids = [server.dataplane_pid(), server.control_pid()];
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
    live_a_life(&server);
    assert_eq!(pids, [server.dataplane_pid(), server.control_pid()]);
    server.control().signal(Signal::SIGHUP);
    assert_eq!(server.control().wait(SOON).code(), Some(75));
    server.dataplane().signal(Signal::SIGTERM);
    assert_eq!(server.dataplane().wait(2 * SOON).code(), Some(0));
}
