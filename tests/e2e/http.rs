//! control-protocol: the HTTP side.

use std::io::Write;
use std::process::{Command, Stdio};

use rtpbridge_tests::harness::Server;
use rtpbridge_tests::harness::http::{get, request};
use rtpbridge_tests::peer::Party;
use serde_json::json;

const METRICS: &[(&str, &str)] = &[
    ("rtpbridge_sessions_total", "counter"),
    ("rtpbridge_endpoints_total", "counter"),
    ("rtpbridge_sessions_active", "gauge"),
    ("rtpbridge_endpoints_active", "gauge"),
    ("rtpbridge_recordings_active", "gauge"),
    ("rtpbridge_packets_routed_total", "counter"),
    ("rtpbridge_packets_recorded_total", "counter"),
    ("rtpbridge_srtp_errors_total", "counter"),
    ("rtpbridge_transcode_errors_total", "counter"),
    ("rtpbridge_dtmf_events_total", "counter"),
    ("rtpbridge_events_dropped_total", "counter"),
    ("rtpbridge_packets_rejected_total", "counter"),
    ("rtpbridge_dataplane_up", "gauge"),
    ("rtpbridge_dataplane_restarts_total", "counter"),
    ("rtpbridge_build_info", "gauge"),
    ("rtpbridge_sessions_limit", "gauge"),
    ("rtpbridge_forward_latency_seconds", "histogram"),
    ("rtpbridge_mixer_lateness_seconds", "histogram"),
    ("rtpbridge_command_seconds", "histogram"),
];

#[test]
fn health_has_three_faces() {
    let server = Server::start();
    assert_eq!(server.get("/health").json(), json!({"status": "ok"}));
    assert_eq!(server.get("/health/live").status, 200);
    assert_eq!(server.get("/health/ready").status, 200);
}

#[test]
fn unknown_paths_and_wrong_methods_are_told_apart() {
    let server = Server::start();
    let to = server.address();
    for path in ["/nowhere", "/health/x", "/sessions/a/b"] {
        let answer = get(to, path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()["error"].is_string(), "{path}");
    }
    for (method, path) in [
        ("POST", "/health"),
        ("DELETE", "/sessions"),
        ("PUT", "/metrics"),
        ("POST", "/recordings/x.pcap"),
    ] {
        let answer = request(to, method, path, &[]);
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(answer.header("allow").contains("GET"), "{method} {path}");
    }
    for path in ["/health", "/metrics", "/sessions", "/recordings"] {
        let answer = request(to, "HEAD", path, &[]);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.is_empty());
    }
}

#[test]
fn sessions_are_listed_as_soon_as_the_answer_is_out() {
    let server = Server::start();
    assert_eq!(server.get("/sessions").json(), json!([]));
    let (mut client, session) = server.session();
    let party = Party::join(&mut client);
    let listed = server.sessions();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["session_id"], json!(session));
    assert_eq!(listed[0]["state"], json!("active"));
    assert_eq!(listed[0]["endpoint_count"], json!(1));
    assert_eq!(server.metric("rtpbridge_sessions_active"), 1.0);
    assert_eq!(server.metric("rtpbridge_endpoints_active"), 1.0);

    let info = client.call("session.info", json!({}));
    let shown = server.get(&format!("/sessions/{session}"));
    assert_eq!(shown.json(), info);
    let endpoint = &info["endpoints"][0];
    assert_eq!(endpoint["endpoint_id"], json!(party.endpoint));
    assert_eq!(endpoint["endpoint_type"], json!("rtp"));
    assert_eq!(endpoint["direction"], json!("sendrecv"));
    assert_eq!(endpoint["state"], json!("connected"));
    assert_eq!(endpoint["codec"], json!("PCMU"));
    assert_eq!(
        endpoint["remote_rtp_addr"],
        json!(party.address().to_string())
    );
    assert_eq!(endpoint["local_rtp_addr"], json!(party.bridge.to_string()));
    assert_eq!(info["recordings"], json!([]));
    assert_eq!(info["vad_active"], json!([]));

    assert_eq!(server.get("/sessions/nonsense").status, 400);
    let unknown = server.get("/sessions/00000000-0000-4000-8000-000000000000");
    assert_eq!(unknown.status, 404);

    client.call("endpoint.remove", json!({"endpoint_id": party.endpoint}));
    assert_eq!(server.metric("rtpbridge_endpoints_active"), 0.0);
    client.call("session.destroy", json!({}));
    assert_eq!(server.metric("rtpbridge_sessions_active"), 0.0);
    assert_eq!(server.metric("rtpbridge_sessions_total"), 1.0);
    assert_eq!(server.metric("rtpbridge_endpoints_total"), 1.0);
    assert_eq!(server.get("/sessions").json(), json!([]));
}

fn assert_has_every_metric(text: &str) {
    for (name, kind) in METRICS {
        let kind = format!("# TYPE {name} {kind}\n");
        assert!(text.contains(&kind), "{name} in:\n{text}");
        // A type alone is no metric: there is a value as well, 0 where nothing has happened.
        let is_sample =
            |line: &str| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ', '_']);
        assert!(text.lines().any(is_sample), "{name} in:\n{text}");
    }
}

#[test]
fn every_metric_is_there_from_the_start_and_promtool_agrees() {
    let server = Server::start();
    assert_has_every_metric(&server.get("/metrics").text());
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    alice.talk(5);
    bob.receive_exactly(5);
    let answer = server.get("/metrics");
    assert!(answer.header("content-type").starts_with("text/plain"));
    let text = answer.text();
    assert_has_every_metric(&text);
    for process in ["control", "dataplane"] {
        let open = format!("process_open_fds{{process=\"{process}\"}}");
        assert!(text.contains(&open), "{open} in:\n{text}");
    }
    assert_eq!(server.metric("rtpbridge_dataplane_up"), 1.0);
    assert_eq!(server.metric("rtpbridge_packets_routed_total"), 5.0);

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let verdict = promtool.wait_with_output().unwrap();
    assert!(
        verdict.status.success(),
        "{}{}",
        String::from_utf8_lossy(&verdict.stdout),
        String::from_utf8_lossy(&verdict.stderr)
    );
}
