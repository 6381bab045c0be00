//! control-protocol: messages, their errors and the order of checks.

use std::time::Duration;

use rtpbridge_tests::harness::Server;
use rtpbridge_tests::harness::client::{RpcError, result_of};
use serde_json::{Value, json};
use tungstenite::Message;

fn error_of(answer: &Value) -> RpcError {
    result_of(answer).expect_err("an error")
}

#[test]
fn what_is_no_request_is_a_parse_error_with_the_id_that_could_be_read() {
    let server = Server::start();
    let mut client = server.client();
    for (text, id) in [
        ("not json", ""),
        ("[]", ""),
        ("\"text\"", ""),
        ("null", ""),
        ("{}", ""),
        (r#"{"method":"server.info"}"#, ""),
        (r#"{"id":7,"method":"server.info"}"#, ""),
        (r#"{"id":"a"}"#, "a"),
        (r#"{"id":"b","method":5}"#, "b"),
        (r#"{"id":"c","method":null,"params":{}}"#, "c"),
    ] {
        client.send_text(text);
        let answer = client.answer();
        assert_eq!(error_of(&answer).code, "PARSE_ERROR", "{text}");
        assert_eq!(answer["id"], json!(id), "{text}");
    }
    client.send(Message::binary(
        b"{\"id\":\"1\",\"method\":\"server.info\"}".to_vec(),
    ));
    assert_eq!(error_of(&client.answer()).code, "PARSE_ERROR");
    client.call("server.info", json!({}));
}

#[test]
fn ids_have_bounds() {
    let server = Server::start();
    let mut client = server.client();
    client.send_text(r#"{"id":"","method":"server.info"}"#);
    assert_eq!(error_of(&client.answer()).code, "INVALID_REQUEST");

    let longest = "x".repeat(1024);
    client.send_text(&json!({"id": longest, "method": "server.info"}).to_string());
    let answer = client.answer();
    assert_eq!(answer["id"], json!(longest));
    assert!(answer.get("result").is_some());

    // 1023 bytes and then characters of two bytes: the cut falls inside one.
    let long = format!("{}{}", "x".repeat(1023), "é".repeat(10));
    client.send_text(&json!({"id": long, "method": "server.info"}).to_string());
    let answer = client.answer();
    let error = error_of(&answer);
    assert_eq!(error.code, "INVALID_PARAMS");
    assert!(error.message.contains("1024"), "{}", error.message);
    let echoed = answer["id"].as_str().unwrap();
    assert!(echoed.len() <= 1024 && long.starts_with(echoed) && echoed.len() >= 1020);
}

#[test]
fn checks_come_in_their_order() {
    let server = Server::start();
    let mut client = server.client();
    // Unknown method before everything else.
    client.refuse("no.such.method", json!("not an object"), "UNKNOWN_METHOD");
    // No session before wrong params.
    let message = client.refuse("endpoint.remove", json!({"endpoint_id": 5}), "NO_SESSION");
    assert!(message.contains("No session"), "{message}");
    client.call("session.create", json!({}));
    // Wrong params before unknown objects.
    client.refuse(
        "endpoint.remove",
        json!({"endpoint_id": 5}),
        "INVALID_PARAMS",
    );
    client.refuse("endpoint.remove", json!({}), "INVALID_PARAMS");
    client.refuse("endpoint.remove", json!([]), "INVALID_PARAMS");
    client.refuse(
        "endpoint.remove",
        json!({"endpoint_id": "nonsense"}),
        "INVALID_PARAMS",
    );
    let message = client.refuse(
        "endpoint.remove",
        json!({"endpoint_id": "00000000-0000-4000-8000-000000000000"}),
        "ENDPOINT_ERROR",
    );
    assert!(message.contains("not found"), "{message}");
}

#[test]
fn absent_null_and_extra_members_are_no_error() {
    let server = Server::start();
    let mut client = server.client();
    for text in [
        r#"{"id":"1","method":"server.info"}"#,
        r#"{"id":"1","method":"server.info","params":null}"#,
        r#"{"id":"1","method":"server.info","params":{"session_id":"x"},"jsonrpc":"2.0"}"#,
    ] {
        client.send_text(text);
        let answer = client.answer();
        let info = result_of(&answer).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert!(info["hostname"].is_string());
        assert_eq!(info["media_ip"], json!(["127.0.0.1"]));
        assert!(info["version"].is_string());
        assert_eq!(info["sessions_active"], json!(0));
        assert_eq!(info["draining"], json!(false));
    }
}

#[test]
fn requests_of_one_connection_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.client();
    for number in 0..200 {
        let method = ["server.info", "session.list", "no.such", "session.info"][number % 4];
        client.send_text(&json!({"id": number.to_string(), "method": method}).to_string());
    }
    for number in 0..200 {
        assert_eq!(client.answer()["id"], json!(number.to_string()));
    }
}

#[test]
fn deep_nesting_and_large_messages_harm_nobody() {
    let server = Server::builder().set("ws_max_message_size_kb", 64).start();
    let mut client = server.client();
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 5000;
        let nested = format!("{}0{}", open.repeat(depth), close.repeat(depth));
        client.send_text(&nested);
        assert_eq!(error_of(&client.answer()).code, "PARSE_ERROR");
        client.send_text(&format!(
            r#"{{"id":"1","method":"server.info","params":{nested}}}"#
        ));
        client.answer();
    }
    let (mut other, session) = server.session();
    let _ = client.try_send(Message::text("x".repeat(65 * 1024)));
    client.expect_close();
    let info = other.call("session.info", json!({}));
    assert_eq!(info["session_id"], json!(session));
    other.expect_no_event("session.lost", Duration::from_millis(50));
}

#[test]
fn a_bound_connection_binds_no_second_session() {
    let server = Server::start();
    let (mut client, first) = server.session();
    client.refuse("session.create", json!({}), "SESSION_ALREADY_BOUND");
    client.refuse(
        "session.attach",
        json!({"session_id": first}),
        "SESSION_ALREADY_BOUND",
    );
    client.call("session.destroy", json!({}));
    client.refuse("session.info", json!({}), "NO_SESSION");
    let second = client.call("session.create", json!({}));
    assert_ne!(second["session_id"], json!(first));
    let listed = client.call("session.list", json!({}));
    let listed = listed["sessions"].as_array().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["session_id"], second["session_id"]);
    assert_eq!(listed[0]["state"], json!("active"));
    assert_eq!(listed[0]["endpoint_count"], json!(0));
    assert!(listed[0]["created_at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn what_fits_no_message_between_the_processes_is_refused_as_too_large() {
    let server = Server::builder()
        .set("max_sdp_size_kb", 10_000)
        .set("ws_max_message_size_kb", 20_000)
        .start();
    let (mut client, _) = server.session();
    let params = json!({"sdp": "x".repeat(5 * 1024 * 1024)});
    let told = client.refuse("endpoint.create_from_offer", params, "INVALID_PARAMS");
    assert!(told.contains("too large"), "{told}");
    client.call("session.info", json!({}));
}
