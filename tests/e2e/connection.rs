//! control-protocol: connections, sessions that outlive them, and who may connect at all.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rtpbridge_tests::harness::client::{Client, Refused};
use rtpbridge_tests::harness::http;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Server, never};
use rtpbridge_tests::peer::Party;
use serde_json::{Value, json};

fn state_of(server: &Server, session: &str) -> Option<String> {
    let sessions = server.sessions();
    let found = sessions.iter().find(|row| row["session_id"] == session)?;
    Some(found["state"].as_str().unwrap().to_owned())
}

fn wait_for_state(server: &Server, session: &str, state: &str) {
    eventually(&format!("{session} is {state}"), SOON, || {
        (state_of(server, session).as_deref() == Some(state)).then_some(())
    });
}

#[test]
fn media_flows_on_without_a_client_and_another_connection_attaches() {
    let server = Server::start();
    let (mut client, session) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    drop(client);
    wait_for_state(&server, &session, "orphaned");

    let sent = alice.talk(10);
    let heard = bob.receive_exactly(10);
    assert!(
        sent.iter()
            .zip(&heard)
            .all(|(sent, heard)| sent.payload == heard.payload)
    );

    let mut next = server.client();
    assert_eq!(
        next.call("session.attach", json!({"session_id": session})),
        json!({})
    );
    assert_eq!(state_of(&server, &session).as_deref(), Some("active"));
    let info = next.call("session.info", json!({}));
    assert_eq!(info["session_id"], json!(session));
    assert_eq!(info["state"], json!("active"));
    assert_eq!(info["endpoints"].as_array().unwrap().len(), 2);
    // Saying goodbye properly orphans it just the same.
    next.close();
    wait_for_state(&server, &session, "orphaned");
}

#[test]
fn what_a_client_asked_for_before_it_left_is_done() {
    let server = Server::start();
    // With a goodbye, and by closing the socket with answers unread, which resets it.
    for (round, says_goodbye) in [true, false].into_iter().enumerate() {
        let mut other = server.client();
        let (mut client, session) = server.session();
        let tone = json!({"id": "t", "method": "endpoint.create_tone", "params": {"tone": "busy"}});
        // More than the server reads ahead of what it is working off.
        let question = json!({"id": "q", "method": "session.info"});
        let last = json!({"id": "d", "method": "session.destroy"});
        let mut requests = vec![question; 200];
        requests.extend(vec![tone; 10]);
        requests.push(last);
        // At once, as a reset throws away what our side still holds back.
        client.send_all(&requests);
        if says_goodbye {
            client.close();
        } else {
            drop(client);
        }
        // Well before its time as an orphan is over.
        eventually("the session is gone", SOON, || {
            let gone = other.call("session.list", json!({}))["sessions"] == json!([]);
            gone.then_some(())
        });
        other.refuse(
            "session.attach",
            json!({"session_id": session}),
            "SESSION_NOT_FOUND",
        );
        let made = 10.0 * (round as f64 + 1.0);
        assert_eq!(server.metric("rtpbridge_endpoints_total"), made);
    }
}

#[test]
fn an_orphan_that_nobody_claims_ends() {
    let server = Server::builder().set("disconnect_timeout_secs", 1).start();
    let (mut client, session) = server.session();
    Party::join(&mut client);
    drop(client);
    eventually("the session is gone", SOON, || {
        server.sessions().is_empty().then_some(())
    });
    let mut late = server.client();
    late.refuse(
        "session.attach",
        json!({"session_id": session}),
        "SESSION_NOT_FOUND",
    );
    assert_eq!(server.metric("rtpbridge_sessions_active"), 0.0);
    assert_eq!(server.metric("rtpbridge_endpoints_active"), 0.0);
}

#[test]
fn a_held_session_is_taken_only_by_force() {
    let server = Server::start();
    let (mut holder, session) = server.session();
    let mut other = server.client();
    other.refuse(
        "session.attach",
        json!({"session_id": session}),
        "SESSION_NOT_ORPHANED",
    );
    other.refuse(
        "session.attach",
        json!({"session_id": session, "force": false}),
        "SESSION_NOT_ORPHANED",
    );
    other.refuse(
        "session.attach",
        json!({"session_id": session, "force": 1}),
        "INVALID_PARAMS",
    );
    other.refuse(
        "session.attach",
        json!({"session_id": "nonsense"}),
        "INVALID_PARAMS",
    );
    other.refuse(
        "session.attach",
        json!({"session_id": "00000000-0000-4000-8000-000000000000"}),
        "SESSION_NOT_FOUND",
    );
    other.call(
        "session.attach",
        json!({"session_id": session, "force": true}),
    );
    assert_eq!(holder.expect_close(), Some(4001));
    other.call("endpoint.create_offer", json!({"type": "rtp"}));
    never(
        "losing the old connection orphans it",
        Duration::from_millis(300),
        || state_of(&server, &session).as_deref() != Some("active"),
    );
}

#[test]
fn a_silent_connection_is_dropped_and_an_answering_one_stays() {
    let server = Server::builder().set("ws_ping_interval_secs", 1).start();
    let (mut answering, alive) = server.session();
    let (silent, abandoned) = server.session();
    // Reading answers the pings; the silent one never reads.
    answering.drain_events(Duration::from_secs(5));
    assert!(!answering.is_closed());
    wait_for_state(&server, &abandoned, "orphaned");
    assert_eq!(state_of(&server, &alive).as_deref(), Some("active"));
    drop(silent);
}

#[test]
fn origins_other_than_our_own_are_refused() {
    let server = Server::builder()
        .set("allowed_origins", r#"["https://console.example"]"#)
        .start();
    let own = server.address();
    let cases = [
        (None, None),
        (Some("https://console.example".to_owned()), None),
        (Some(format!("http://{own}")), None),
        (Some(format!("http://localhost:{}", own.port())), None),
        (Some("https://evil.example".to_owned()), Some(403)),
        (Some("null".to_owned()), Some(403)),
        (Some(format!("http://{own}.evil.example")), Some(403)),
        (Some("http://localhost".to_owned()), Some(403)),
    ];
    for (origin, refused) in cases {
        let headers: Vec<(&str, &str)> = origin
            .iter()
            .map(|origin| ("Origin", origin.as_str()))
            .collect();
        let outcome = Client::try_connect(own, "/", &headers).map(|_| ());
        assert_eq!(
            outcome.err(),
            refused.map(|status| Refused { status }),
            "{origin:?}"
        );
    }
    // The Host header cannot make an origin our own.
    let rebound = "GET / HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\
        Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = http::raw(own, rebound.as_bytes(), Duration::from_millis(500)).unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 403"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[test]
fn a_configured_token_is_demanded_everywhere_but_for_health() {
    let server = Server::builder();
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    fs::write(&token_file, "correct-horse\n").unwrap();
    let server = server
        .set_text("auth_token_file", token_file.to_string_lossy())
        .start();
    let to = server.address();
    let good = ("Authorization", "Bearer correct-horse");
    for wrong in [
        None,
        Some(("Authorization", "Bearer wrong")),
        Some(("Authorization", "correct-horse")),
        Some(("Authorization", "Bearer correct-horse-and-more")),
        Some(("Authorization", "Basic correct-horse")),
    ] {
        let headers: Vec<(&str, &str)> = wrong.into_iter().collect();
        for path in ["/sessions", "/metrics", "/recordings", "/nowhere"] {
            assert_eq!(
                http::request(to, "GET", path, &headers).status,
                401,
                "{path} {wrong:?}"
            );
        }
        assert_eq!(
            Client::try_connect(to, "/", &headers).err(),
            Some(Refused { status: 401 })
        );
        for path in ["/health", "/health/live", "/health/ready"] {
            assert_eq!(
                http::request(to, "GET", path, &headers).status,
                200,
                "{path}"
            );
        }
    }
    assert_eq!(http::request(to, "GET", "/sessions", &[good]).status, 200);
    let mut client = Client::try_connect(to, "/", &[good]).expect("the token is right");
    client.call("session.create", json!({}));
}

#[test]
fn connections_are_limited_and_slots_come_back() {
    let server = Server::builder().set("max_connections", 2).start();
    let first = server.client();
    let _second = server.client();
    let refused = Client::try_connect(server.address(), "/", &[]).err();
    assert_eq!(refused, Some(Refused { status: 503 }));
    // Plain HTTP does not need a slot.
    assert_eq!(server.get("/health").status, 200);
    drop(first);
    eventually("the slot is free", SOON, || {
        Client::try_connect(server.address(), "/", &[]).ok()
    });
}

#[test]
fn sessions_are_limited() {
    let server = Server::builder().set("max_sessions", 1).start();
    let (mut first, _) = server.session();
    let mut second = server.client();
    second.refuse("session.create", json!({}), "MAX_SESSIONS_REACHED");
    assert_eq!(server.metric("rtpbridge_sessions_limit"), 1.0);
    first.call("session.destroy", json!({}));
    second.call("session.create", json!({}));
    assert_eq!(server.sessions().len(), 1);
}

#[test]
fn endpoints_of_a_session_are_limited() {
    let server = Server::builder()
        .set("max_endpoints_per_session", 2)
        .start();
    let (mut client, _) = server.session();
    Party::join(&mut client);
    let offered = client.call("endpoint.create_offer", json!({"type": "rtp"}));
    let message = client.refuse(
        "endpoint.create_offer",
        json!({"type": "rtp"}),
        "ENDPOINT_ERROR",
    );
    assert!(message.contains("MAX_ENDPOINTS_REACHED"), "{message}");
    client.call(
        "endpoint.remove",
        json!({"endpoint_id": offered["endpoint_id"]}),
    );
    client.call("endpoint.create_offer", json!({"type": "rtp"}));
}

#[test]
fn any_path_is_accepted_for_the_upgrade() {
    let server = Server::start();
    for path in ["/", "/ws", "/some/where?x=y"] {
        let mut client = Client::try_connect(server.address(), path, &[]).expect(path);
        client.call("server.info", json!({}));
    }
}

#[test]
fn a_request_head_that_never_ends_is_dropped() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .unwrap();
    stream.set_read_timeout(Some(2 * SOON)).unwrap();
    let mut rest = Vec::new();
    // Either a clean end or a reset, but no waiting for ever.
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn events_of_a_session_reach_whoever_holds_it() {
    let server = Server::start();
    let (mut first, session) = server.session();
    let mut alice = Party::join(&mut first);
    first.close();
    wait_for_state(&server, &session, "orphaned");
    // Normal events while nobody holds the session are counted to the next holder.
    alice.press(101, 3, 3);
    eventually("the digit was detected", SOON, || {
        (server.metric("rtpbridge_dtmf_events_total") >= 1.0).then_some(())
    });
    let mut second = server.client();
    second.call("session.attach", json!({"session_id": session}));
    let dropped = second.expect_event("events.dropped");
    assert_eq!(dropped["count"], json!(1));
    alice.press(101, 4, 3);
    let digit = second.expect_event("dtmf");
    assert_eq!(digit["digit"], json!("4"));
    assert_eq!(digit["endpoint_id"], Value::from(alice.endpoint.clone()));
}
