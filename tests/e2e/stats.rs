//! control-protocol: statistics, timeouts, and the order of events.

use std::time::{Duration, Instant};

use rtpbridge_tests::harness::Server;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::peer::Party;
use serde_json::{Value, json};

#[test]
fn a_snapshot_has_a_row_per_endpoint() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let offered = client.call("endpoint.create_offer", json!({"type": "rtp"}));
    alice.talk(10);
    bob.receive_exactly(10);
    let rows = client.call("stats.snapshot", json!({}));
    let rows = rows["endpoints"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["endpoint_id"], json!(alice.endpoint));
    assert_eq!(rows[0]["inbound"]["packets"], json!(10));
    assert_eq!(rows[0]["inbound"]["bytes"], json!(1600));
    assert_eq!(rows[0]["inbound"]["packets_lost"], json!(0));
    assert!(rows[0]["inbound"]["jitter_ms"].as_f64().unwrap() >= 0.0);
    assert!(rows[0]["inbound"]["last_received_ms_ago"].as_u64().unwrap() < 5000);
    assert_eq!(rows[0]["codec"], json!("PCMU"));
    assert_eq!(rows[0]["state"], json!("connected"));
    assert_eq!(rows[1]["outbound"], json!({"packets": 10, "bytes": 1600}));
    assert_eq!(rows[1]["inbound"]["last_received_ms_ago"], json!(0));
    assert_eq!(rows[2]["endpoint_id"], offered["endpoint_id"]);
    assert_eq!(rows[2]["codec"], json!(""));
    assert_eq!(rows[2]["state"], json!("connecting"));
    assert_eq!(rows[2]["rtt_ms"], Value::Null);
}

#[test]
fn subscribed_statistics_come_every_interval_until_unsubscribed() {
    let server = Server::start();
    let (mut client, _) = server.session();
    Party::join(&mut client);
    for interval in [json!(499), json!(3_600_001), json!("fast"), json!(-1)] {
        client.refuse(
            "stats.subscribe",
            json!({"interval_ms": interval}),
            "INVALID_PARAMS",
        );
    }
    let start = Instant::now();
    client.call("stats.subscribe", json!({"interval_ms": 500}));
    let first = client.expect_event("stats");
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "one full interval first"
    );
    assert_eq!(first["endpoints"].as_array().unwrap().len(), 1);
    client.expect_event("stats");
    client.call("stats.unsubscribe", json!({}));
    client.drain_events(Duration::from_millis(100));
    client.expect_no_event("stats", Duration::from_millis(1200));
}

#[test]
fn silence_is_reported_once_and_armed_again_by_the_next_packet() {
    let server = Server::builder().set("media_timeout_secs", 1).start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    for _ in 0..2 {
        alice.burst(2);
        let event = client.expect_event("endpoint.media_timeout");
        assert_eq!(event["endpoint_id"], json!(alice.endpoint));
        assert!(event["duration_ms"].as_u64().unwrap() >= 1000);
        client.expect_no_event("endpoint.media_timeout", Duration::from_millis(1500));
    }
}

#[test]
fn an_idle_session_ends_and_the_connection_goes_on() {
    let server = Server::builder()
        .set("session_idle_timeout_secs", 1)
        .start();
    let (mut client, session) = server.session();
    let mut alice = Party::join(&mut client);
    let recording = server.recording_path("idle.pcap");
    client.call("recording.start", json!({"file_path": recording}));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1800) {
        alice.talk(5);
    }
    assert_eq!(server.sessions().len(), 1, "packets are activity");
    let idle = client.expect_event("session.idle_timeout");
    assert_eq!(idle["session_id"], json!(session));
    assert_eq!(idle["idle_timeout_secs"], json!(1));
    let stopped = client.expect_event("recording.stopped");
    assert_eq!(stopped["reason"], json!("session_destroyed"));
    assert!(idle["seq"].as_u64() < stopped["seq"].as_u64());
    eventually("it is unlisted", SOON, || {
        server.sessions().is_empty().then_some(())
    });
    client.refuse("session.info", json!({}), "NO_SESSION");
    client.call("session.create", json!({}));
}

#[test]
fn a_session_without_endpoints_ends_when_that_is_asked_for() {
    let server = Server::builder()
        .set("empty_session_timeout_secs", 1)
        .start();
    let (mut client, session) = server.session();
    let alice = Party::join(&mut client);
    client.expect_no_event("session.empty_timeout", Duration::from_millis(1500));
    client.call("endpoint.remove", json!({"endpoint_id": alice.endpoint}));
    let empty = client.expect_event("session.empty_timeout");
    assert_eq!(empty["session_id"], json!(session));
    assert_eq!(empty["empty_timeout_secs"], json!(1));
    client.refuse("session.info", json!({}), "NO_SESSION");
}

#[test]
fn a_slow_client_loses_events_and_is_told_how_many() {
    let server = Server::builder().set("event_channel_size", 4).start();
    let (mut client, _) = server.session();
    let mut parties: Vec<Party> = (0..4).map(|_| Party::join(&mut client)).collect();
    // The client reads nothing; its socket fills with requests' answers until events must queue.
    let filler = json!({"id": "x", "method": "endpoint.create_offer", "params": {"type": "rtp", "codecs": ["nonsense"]}});
    let filler = filler.to_string();
    client
        .stream()
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    while client.try_send(tungstenite::Message::text(filler.clone())) {}
    let before = server.metric("rtpbridge_dtmf_events_total");
    for party in &mut parties {
        for digit in 0..10 {
            party.press(101, digit, 1);
        }
    }
    eventually("all digits were detected", SOON, || {
        (server.metric("rtpbridge_dtmf_events_total") - before >= 40.0).then_some(())
    });
    let mut received = 0;
    let mut dropped = 0;
    let deadline = Instant::now() + 2 * SOON;
    while received + dropped < 40 && Instant::now() < deadline {
        use rtpbridge_tests::harness::client::Incoming;
        match client.receive(deadline) {
            Some(Incoming::Json(message)) if message["event"] == "dtmf" => received += 1,
            Some(Incoming::Json(message)) if message["event"] == "events.dropped" => {
                dropped += message["data"]["count"].as_u64().unwrap();
            }
            Some(Incoming::Json(_)) => {}
            Some(Incoming::Closed(_)) | None => break,
        }
    }
    assert!(dropped > 0, "{received} received, none dropped");
    assert_eq!(
        received + dropped,
        40,
        "every event is delivered or counted"
    );
    assert!(server.metric("rtpbridge_events_dropped_total") >= dropped as f64);
}

#[test]
fn critical_events_are_numbered_in_order() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut last = 0;
    for _ in 0..5 {
        Party::accept(&mut client, json!({}));
        let seq = client.expect_event("endpoint.state_changed")["seq"]
            .as_u64()
            .unwrap();
        assert!(seq > last);
        last = seq;
    }
}
