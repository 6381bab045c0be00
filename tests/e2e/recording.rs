//! media and control-protocol: what a recording holds and how it accounts for itself.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server, tool};
use rtpbridge_tests::netem::Network;
use rtpbridge_tests::peer::capture::{Capture, Frame, bridge, leg};
use rtpbridge_tests::peer::rtcp::Rtcp;
use rtpbridge_tests::peer::{Offer, Party, Rtp, Wiretap};
use serde_json::{Value, json};

fn start(client: &mut Client, params: Value) -> Value {
    client.call("recording.start", params)["recording_id"].clone()
}

fn stop(client: &mut Client, recording: &Value) -> Value {
    client.call("recording.stop", json!({"recording_id": recording}))
}

fn bytes(packets: &[Rtp]) -> Vec<Vec<u8>> {
    packets.iter().map(Rtp::write).collect()
}

/// Legs are numbered as they first appear, and a report of ours to a party may come before its first
/// packet: the address under which this party is recorded.
fn leg_of(capture: &Capture, party: &Party) -> std::net::SocketAddrV4 {
    let heard = capture.rtp().find(|(_, packet)| packet.ssrc == party.ssrc);
    heard.expect("the party was recorded").0.source
}

#[test]
fn every_packet_of_every_leg_is_there_byte_for_byte_and_tshark_reads_it() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let mut bob = Party::join(&mut client);
    let silent = Party::join(&mut client);
    client.call(
        "endpoint.update_direction",
        json!({"endpoint_id": silent.endpoint, "direction": "sendonly"}),
    );
    let path = server.recording_path("call.pcap");
    let id = start(&mut client, json!({"file_path": path}));
    assert!(
        fs::exists(&path).unwrap(),
        "the file exists when the answer comes"
    );
    let info = client.call("session.info", json!({}));
    assert_eq!(
        info["recordings"],
        json!([{"recording_id": id, "endpoint_id": null, "file_path": path, "state": "active"}])
    );
    assert_eq!(server.metric("rtpbridge_recordings_active"), 1.0);

    let mut from_alice = Vec::new();
    for shape in 0..3_u8 {
        let packet = Rtp {
            marker: shape == 0,
            csrc: vec![7; usize::from(shape)],
            extension: (shape == 2).then(|| (0xbede, vec![0x10, 9, 0, 0])),
            ..alice.next_packet(&[shape; 160])
        };
        alice.send_packet(&packet);
        from_alice.push(packet);
    }
    from_alice.extend(alice.talk(10));
    let from_bob = bob.talk(10);
    from_alice.extend(alice.press(101, 6, 4));
    let report = Rtcp::compound(&[
        Rtcp::ReceiverReport {
            ssrc: alice.ssrc,
            blocks: Vec::new(),
        },
        Rtcp::SourceDescription {
            ssrc: alice.ssrc,
            cname: "alice".to_owned(),
        },
    ]);
    alice.send_rtcp(&report);
    // Our own first report comes within a second or so; it belongs into the file as well.
    alice.receive_rtcp(SOON).expect("a report of ours");

    let stopped = stop(&mut client, &id);
    assert_eq!(stopped["file_path"], json!(path));
    assert_eq!(stopped["dropped_packets"], json!(0));
    assert_eq!(server.metric("rtpbridge_recordings_active"), 0.0);
    let capture = Capture::read(&path);
    assert_eq!(capture.torn_bytes, 0);
    assert_eq!(stopped["packets"], json!(capture.frames.len()));
    let alices_leg = leg_of(&capture, &alice);
    assert_eq!(capture.rtp_from(alices_leg), bytes(&from_alice));
    assert_eq!(capture.rtp_from(leg_of(&capture, &bob)), bytes(&from_bob));
    assert!(
        capture
            .rtp()
            .all(|(frame, _)| frame.destination == bridge())
    );
    assert!(
        capture
            .rtcp()
            .any(|(frame, _)| frame.source == alices_leg && frame.payload == report)
    );
    assert!(capture.rtcp().any(|(frame, _)| frame.source == bridge()));

    let streams = stopped["streams"].as_array().unwrap();
    let row = |party: &Party| {
        let mut rows = streams
            .iter()
            .filter(|row| row["endpoint_id"] == json!(party.endpoint));
        let row = rows.next().expect("a row per leg");
        assert!(rows.next().is_none(), "{streams:?}");
        row
    };
    assert_eq!(row(&alice)["ssrc"], json!(alice.ssrc));
    assert_eq!(row(&alice)["direction"], json!("inbound"));
    assert_eq!(row(&alice)["packets"], json!(from_alice.len()));
    assert_eq!(row(&alice)["gaps"], json!(0));
    assert_eq!(row(&alice)["dropped"], json!(0));
    assert_eq!(
        row(&alice)["payload_types"],
        json!({"0": "PCMU", "101": "telephone-event"})
    );
    assert!(row(&alice)["first_ms"].as_u64() <= row(&alice)["last_ms"].as_u64());
    assert!(row(&alice)["last_ms"].as_u64() <= stopped["duration_ms"].as_u64());
    assert_eq!(row(&bob)["packets"], json!(10));
    assert_eq!(row(&silent)["packets"], json!(0));

    tool::run("capinfos", &[&path]);
    let rows = tool::run(
        "tshark",
        &[
            "-r",
            &path,
            "--enable-heuristic",
            "rtp_udp",
            "--enable-heuristic",
            "rtcp_udp",
            "-o",
            "ip.check_checksum:TRUE",
            "-T",
            "fields",
            "-e",
            "rtp.ssrc",
            "-e",
            "rtp.seq",
            "-e",
            "rtcp.pt",
            "-e",
            "ip.checksum.status",
            "-e",
            "_ws.malformed",
        ],
    );
    let fields: Vec<Vec<&str>> = rows.lines().map(|row| row.split('\t').collect()).collect();
    assert_eq!(fields.len(), capture.frames.len());
    for party in [&alice, &bob] {
        let ssrc = format!("0x{:08x}", party.ssrc);
        let seen = fields.iter().filter(|row| row[0] == ssrc).count();
        assert_eq!(json!(seen), row(party)["packets"]);
    }
    assert!(
        fields.iter().any(|row| row[2].starts_with("20")),
        "RTCP is seen"
    );
    assert!(
        fields.iter().all(|row| row[3] == "1" || row[3] == "Good"),
        "checksums: {rows}"
    );
    assert!(
        fields.iter().all(|row| row[4].is_empty()),
        "malformed: {rows}"
    );
}

/// Checked against a control capture, whose times are the kernel's own.
#[test]
fn time_stamps_are_the_kernels_arrival_times_also_while_the_worker_is_stalled() {
    const ROUNDS: usize = 100;
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut parties: Vec<Party> = (0..3).map(|_| Party::join(&mut client)).collect();
    let ports = parties.iter().map(|party| party.bridge.port()).collect();
    let path = server.recording_path("stall.pcap");
    let id = start(&mut client, json!({"file_path": path}));
    let tap = Wiretap::start(ports);
    for round in 0..ROUNDS {
        // Ten stalls of 50 ms each.
        match round % 10 {
            3 => server.signal_dataplane(Signal::SIGSTOP),
            8 => server.signal_dataplane(Signal::SIGCONT),
            _ => {}
        }
        for party in &mut parties {
            let payload = party.distinct_frame();
            party.send(&payload);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let stopped = stop(&mut client, &id);
    assert_eq!(stopped["dropped_packets"], json!(0));
    let control = tap.finish();
    let arrivals: HashMap<&[u8], Duration> = control
        .iter()
        .map(|heard| (heard.payload.as_slice(), heard.at))
        .collect();
    let capture = Capture::read(&path);
    assert_eq!(capture.rtp().count(), ROUNDS * parties.len());
    let off = |frame: &Frame| frame.at.abs_diff(arrivals[frame.payload.as_slice()]);
    let worst = capture.rtp().map(|(frame, _)| off(frame)).max();
    assert!(worst < Some(Duration::from_millis(1)), "{worst:?}");
}

#[test]
fn single_legs_and_whole_sessions_are_recorded_side_by_side() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let whole_path = server.recording_path("whole.pcap");
    let whole = start(
        &mut client,
        json!({"file_path": whole_path, "endpoint_id": null}),
    );
    let first = alice.talk(3);
    let leg_path = server.recording_path("leg.pcap");
    start(
        &mut client,
        json!({"file_path": leg_path, "endpoint_id": alice.endpoint}),
    );
    let mut bob = Party::join(&mut client);
    let second = alice.talk(3);
    let from_bob = bob.talk(3);
    client.call("endpoint.remove", json!({"endpoint_id": alice.endpoint}));
    let stopped = client.expect_event("recording.stopped");
    assert_eq!(stopped["reason"], json!("endpoint_removed"));
    assert_eq!(stopped["file_path"], json!(leg_path));
    assert!(stopped["seq"].as_u64().is_some());
    let more = bob.talk(3);
    let result = stop(&mut client, &whole);
    client.expect_no_event("recording.stopped", Duration::from_millis(100));

    let single = Capture::read(&leg_path);
    assert_eq!(single.rtp().count(), 3);
    assert_eq!(single.rtp_from(leg(0)), bytes(&second));
    let all = Capture::read(&whole_path);
    let from_alice = [first, second].concat();
    assert_eq!(all.rtp_from(leg_of(&all, &alice)), bytes(&from_alice));
    let from_bob = [from_bob, more].concat();
    assert_eq!(all.rtp_from(leg_of(&all, &bob)), bytes(&from_bob));
    assert_eq!(result["streams"].as_array().unwrap().len(), 2);
}

#[test]
fn destroying_the_session_closes_its_recordings_before_the_answer() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let path = server.recording_path("destroyed.pcap");
    let id = start(&mut client, json!({"file_path": path}));
    let sent = alice.talk(5);
    client.send_text(r#"{"id":"last","method":"session.destroy"}"#);
    let stopped = client.expect_event("recording.stopped");
    assert_eq!(stopped["recording_id"], id);
    assert_eq!(stopped["reason"], json!("session_destroyed"));
    assert_eq!(client.answer()["id"], json!("last"));
    assert_eq!(Capture::read(&path).rtp_from(leg(0)), bytes(&sent));
    assert_eq!(server.metric("rtpbridge_recordings_active"), 0.0);
}

#[test]
fn missing_sequence_numbers_are_counted_exactly() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let path = server.recording_path("gaps.pcap");
    let id = start(&mut client, json!({"file_path": path}));
    let all: Vec<Rtp> = (0..300).map(|_| alice.next_packet(&[7; 160])).collect();
    let mut arriving = Network::lossy(5, 8.0, 3.0).carry(&all[1..299]);
    arriving.insert(0, all[0].clone());
    arriving.push(all[299].clone());
    for (index, packet) in arriving.iter().enumerate() {
        alice.send_packet(packet);
        if index % 8 == 7 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let stopped = stop(&mut client, &id);
    let row = &stopped["streams"][0];
    assert_eq!(row["packets"], json!(arriving.len()));
    assert_eq!(row["gaps"], json!(300 - arriving.len()));
    assert_eq!(Capture::read(&path).rtp_from(leg(0)), bytes(&arriving));
}

#[test]
fn what_was_sent_is_recorded_when_that_is_asked_for() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let path = server.recording_path("both.pcap");
    let id = start(
        &mut client,
        json!({"file_path": path, "record_outbound": true}),
    );
    let sent = alice.talk(10);
    let heard = bob.receive_exactly(10);
    let stopped = stop(&mut client, &id);
    let capture = Capture::read(&path);
    let alices_leg = leg_of(&capture, &alice);
    assert_eq!(capture.rtp_from(alices_leg), bytes(&sent));
    assert_eq!(capture.rtp_from(bridge()), bytes(&heard));
    let to_bob = capture
        .rtp()
        .filter(|(frame, _)| frame.source == bridge() && frame.destination != alices_leg)
        .count();
    assert_eq!(to_bob, 10);
    let streams = stopped["streams"].as_array().unwrap();
    let outbound = streams
        .iter()
        .find(|row| row["direction"] == "outbound")
        .expect("a row");
    assert_eq!(outbound["endpoint_id"], json!(bob.endpoint));
    assert_eq!(outbound["ssrc"], json!(heard[0].ssrc));
    assert_eq!(outbound["packets"], json!(10));
}

#[test]
fn sensitive_digits_are_left_out() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let path = server.recording_path("sensitive.pcap");
    let id = start(
        &mut client,
        json!({"file_path": path, "record_outbound": true}),
    );
    let press = |client: &mut Client, alice: &mut Party, enabled: bool| {
        client.call(
            "endpoint.dtmf.set_sensitive",
            json!({"endpoint_id": alice.endpoint, "enabled": enabled}),
        );
        alice.press(101, 1, 3);
        client.expect_event("dtmf");
        alice.talk(2);
        bob.receive_all(Duration::from_millis(100)).len()
    };
    assert_eq!(
        press(&mut client, &mut alice, true),
        7,
        "the other party hears it all the same"
    );
    let recorded = |path: &str, payload_type: u8| {
        let capture = Capture::read(path);
        capture
            .rtp()
            .filter(|(_, packet)| packet.payload_type == payload_type)
            .count()
    };
    press(&mut client, &mut alice, false);
    stop(&mut client, &id);
    assert_eq!(recorded(&path, 0), 2 * 2 * 2);
    assert_eq!(
        recorded(&path, 101),
        2 * 5,
        "only the digit that is not sensitive, both ways"
    );
}

#[test]
fn a_control_crash_costs_a_recording_nothing() {
    let mut server = Server::start();
    let (mut client, session) = server.session();
    let mut alice = Party::join(&mut client);
    let path = server.recording_path("crash.pcap");
    let id = start(&mut client, json!({"file_path": path}));
    let mut sent = alice.talk(5);
    server.kill_control();
    sent.extend(alice.talk(10));
    server.start_control();
    server.wait_healthy();
    assert_eq!(server.metric("rtpbridge_recordings_active"), 1.0);
    let mut client = server.client();
    client.call("session.attach", json!({"session_id": session}));
    let info = client.call("session.info", json!({}));
    assert_eq!(info["recordings"][0]["recording_id"], id);
    sent.extend(alice.talk(5));
    let stopped = stop(&mut client, &id);
    assert_eq!(stopped["streams"][0]["packets"], json!(sent.len()));
    assert_eq!(Capture::read(&path).rtp_from(leg(0)), bytes(&sent));
}

#[test]
fn a_dataplane_crash_leaves_a_readable_file_and_a_report() {
    let server = Server::builder().supervised().start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let path = server.recording_path("killed.pcap");
    let id = start(&mut client, json!({"file_path": path}));
    // Long enough for control to learn how far it has come.
    let sent = alice.talk(300);
    server.signal_dataplane(Signal::SIGKILL);
    let stopped = client.expect_event("recording.stopped");
    assert_eq!(stopped["recording_id"], id);
    let known = stopped["packets"].as_u64().unwrap();
    assert!((1..=300).contains(&known), "as last known: {stopped}");
    assert_eq!(stopped["reason"], json!("dataplane_lost"));
    let capture = Capture::read(&path);
    let kept = capture.rtp_from(leg(0)).len();
    assert!(kept > 280, "{kept} of {} packets", sent.len());
    assert_eq!(capture.rtp_from(leg(0)), bytes(&sent[..kept]));
}

#[test]
fn verify_says_what_is_in_a_file_and_whether_its_tail_is_whole() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let path = server.recording_path("verify.pcap");
    let id = start(&mut client, json!({"file_path": path}));
    alice.talk(10);
    alice.sequence = alice.sequence.wrapping_add(3);
    alice.talk(10);
    let stopped = stop(&mut client, &id);
    let verify = |path: &str| {
        let output = rtpbridge_tests::harness::server::program_command("rtpbridgectl")
            .args(["recordings", "verify", path, "--json"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = verify(&path);
    assert_eq!(code, Some(0), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    let capture = Capture::read(&path);
    assert_eq!(report["records"], json!(capture.frames.len()));
    assert_eq!(report["rtcp"], json!(capture.rtcp().count()));
    assert_eq!(
        (&report["foreign"], &report["out_of_order"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(report["tail"], json!({"state": "whole"}));
    let (first, last) = (&capture.frames[0], capture.frames.last().unwrap());
    let duration = last.at.as_millis() - first.at.as_millis();
    assert!(
        report["duration_ms"]
            .as_u64()
            .unwrap()
            .abs_diff(duration as u64)
            <= 1
    );
    let [stream] = &report["streams"].as_array().unwrap()[..] else {
        panic!("one stream: {text}");
    };
    for member in ["ssrc", "packets", "gaps"] {
        let recorded = &stopped["streams"][0][member];
        assert_eq!(
            &stream[member], recorded,
            "as the server counts it: {member}"
        );
    }
    assert_eq!(
        (&stream["packets"], &stream["gaps"]),
        (&json!(20), &json!(3))
    );
    let table = server.ctl(&["recordings", "verify", &path]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    for word in [
        "10.1.0.1:10000",
        "inbound",
        "3 (13.04 %)",
        "tail       whole",
    ] {
        assert!(table.contains(word), "{word} in:\n{table}");
    }
    let whole = fs::read(&path).unwrap();
    let torn = server.recording_path("torn.pcap");
    fs::write(&torn, &whole[..whole.len() - 5]).unwrap();
    let (code, text) = verify(&torn);
    assert_eq!(code, Some(1), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["records"], json!(capture.frames.len() - 1));
    let left = last.payload.len() + 16 + 42 - 5;
    assert_eq!(report["tail"], json!({"state": "cut", "bytes": left}));
    fs::write(&torn, b"not a recording at all, only text").unwrap();
    assert_eq!(verify(&torn).0, Some(1));
}

#[test]
fn recordings_of_many_codecs_name_them() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::bind();
    let offer = Offer::with_codecs(alice.address(), &[(97, "opus/48000/2"), (8, "PCMA/8000")]);
    alice.offer(&mut client, &offer, json!({}));
    let path = server.recording_path("codecs.pcap");
    let id = start(&mut client, json!({"file_path": path}));
    alice.payload_type = 97;
    alice.burst(2);
    alice.payload_type = 8;
    alice.burst(2);
    let stopped = stop(&mut client, &id);
    let types = &stopped["streams"][0]["payload_types"];
    assert_eq!(types, &json!({"97": "opus", "8": "PCMA"}));
    eventually("it is counted", SOON, || {
        (server.metric("rtpbridge_packets_recorded_total") >= 4.0).then_some(())
    });
}
