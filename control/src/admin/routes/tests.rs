//! Every path against a backend with one session.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use rtpbridge_shared::config::LogLevel;
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::stats::StatsRow;
use rtpbridge_shared::vocab::SessionState;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::admin::{LogTarget, RecordingRow, SessionRow, StatusAnswer};

const KNOWN: SessionId = SessionId::from_bytes([1; 16]);
const OTHER: SessionId = SessionId::from_bytes([2; 16]);

#[derive(Clone, Default)]
struct OneSession {
    calls: Arc<Mutex<Vec<String>>>,
    dataplane_gone: bool,
}

impl OneSession {
    fn note(&self, call: String) {
        self.calls.lock().expect("not poisoned").push(call);
    }

    fn known<T>(&self, id: SessionId, value: T) -> Result<T, AdminError> {
        if self.dataplane_gone {
            Err(AdminError::DataplaneUnavailable)
        } else if id == KNOWN {
            Ok(value)
        } else {
            Err(AdminError::SessionNotFound(id))
        }
    }
}

impl AdminBackend for OneSession {
    async fn status(&self) -> StatusAnswer {
        StatusAnswer::new(None, None)
    }

    async fn sessions(&self) -> Vec<SessionRow> {
        vec![SessionRow {
            session_id: KNOWN,
            state: SessionState::Orphaned,
            endpoint_count: 2,
            created_at: "2026-01-01T00:00:00Z".to_owned(),
        }]
    }

    async fn session(&self, id: SessionId) -> Result<Value, AdminError> {
        self.known(id, json!({ "session_id": id }))
    }

    async fn stats(&self, id: SessionId) -> Result<Vec<StatsRow>, AdminError> {
        self.known(id, Vec::new())
    }

    async fn kick(&self, id: SessionId) -> Result<(), AdminError> {
        self.note(format!("kick {id}"));
        self.known(id, ())
    }

    async fn recordings(&self) -> Result<Vec<RecordingRow>, AdminError> {
        self.known(KNOWN, Vec::new())
    }

    async fn set_draining(&self, draining: bool) -> DrainAnswer {
        let sessions = 1;
        DrainAnswer { draining, sessions }
    }

    async fn hand_over(&self) {
        self.note("hand over".to_owned());
    }

    async fn set_log_level(&self, target: LogTarget, level: LogLevel) -> Result<(), AdminError> {
        self.note(format!("{target:?} {level}"));
        Ok(())
    }

    async fn health(&self) -> Health {
        if self.dataplane_gone {
            Health::DataplaneUnavailable
        } else {
            Health::Ok
        }
    }
}

async fn ask(backend: &OneSession, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .expect("request");
    let response = router(backend.clone())
        .oneshot(request)
        .await
        .expect("infallible");
    let code = response.status();
    let bytes = response.into_body().collect().await.expect("body");
    let value = serde_json::from_slice(&bytes.to_bytes()).expect("always JSON");
    (code, value)
}

#[tokio::test]
async fn each_path_answers_json_with_its_code() {
    let backend = OneSession::default();
    let known = format!("/sessions/{KNOWN}");
    let known_stats = format!("/sessions/{KNOWN}/stats");
    let other = format!("/sessions/{OTHER}");
    let cases = [
        ("GET", "/status", 200),
        ("GET", "/sessions", 200),
        ("GET", known.as_str(), 200),
        ("GET", known_stats.as_str(), 200),
        ("DELETE", known.as_str(), 200),
        ("GET", other.as_str(), 404),
        ("DELETE", other.as_str(), 404),
        ("GET", "/sessions/not-an-id", 400),
        ("GET", "/recordings", 200),
        ("POST", "/drain", 200),
        ("POST", "/undrain", 200),
        ("POST", "/handover", 202),
        ("GET", "/handover", 405),
        ("GET", "/health", 200),
        ("GET", "/version", 200),
        ("GET", "/nothing", 404),
        ("PUT", "/log-level", 400),
    ];
    for (method, path, expected) in cases {
        let (code, value) = ask(&backend, method, path, "").await;
        assert_eq!(code.as_u16(), expected, "{method} {path}");
        assert_eq!(value.get("error").is_some(), expected >= 400, "{path}");
    }
    let calls = backend.calls.lock().expect("not poisoned").clone();
    let expected = [
        format!("kick {KNOWN}"),
        format!("kick {OTHER}"),
        "hand over".to_owned(),
    ];
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn a_log_level_goes_to_the_named_process_or_to_both() {
    let backend = OneSession::default();
    let ok = |body: &'static str| ask(&backend, "PUT", "/log-level", body);
    let (code, _) = ok(r#"{"level":"debug"}"#).await;
    assert_eq!(code, StatusCode::OK);
    let (code, _) = ok(r#"{"level":"warn","process":"dataplane"}"#).await;
    assert_eq!(code, StatusCode::OK);
    let (code, _) = ok(r#"{"level":"loud"}"#).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    let calls = backend.calls.lock().expect("not poisoned").clone();
    assert_eq!(calls, ["All debug", "Dataplane warn"]);
}

#[tokio::test]
async fn a_missing_dataplane_is_503() {
    let backend = OneSession {
        dataplane_gone: true,
        ..OneSession::default()
    };
    for path in [
        "/health".to_owned(),
        format!("/sessions/{KNOWN}"),
        "/recordings".to_owned(),
    ] {
        let (code, _) = ask(&backend, "GET", &path, "").await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
}

#[tokio::test]
async fn a_large_body_is_refused() {
    let body = format!("{{\"level\":\"{}\"}}", "x".repeat(10_000));
    let (code, _) = ask(&OneSession::default(), "PUT", "/log-level", &body).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
}
