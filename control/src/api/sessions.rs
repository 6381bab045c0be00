//! GET /sessions and /sessions/{id}: what `session.list` and `session.info` show, and the JSON both
//! ways share.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::session::{EndpointDetails, SessionDetails};
use rtpbridge_shared::ipc::{Reply, Request, RequestError};
use rtpbridge_shared::vocab::SessionState;
use serde_json::{Map, Value, json};

use super::error::{HttpError, json_answer};
use crate::app::App;
use crate::clock::rfc3339;
use crate::dataplane::pending::LinkError;
use crate::session::registry::SessionView;

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn list(State(app): State<Arc<App>>) -> Response<Body> {
    let rows: Vec<Value> = app.registry.list().iter().map(row).collect();
    json_answer(StatusCode::OK, &Value::Array(rows))
}

pub(super) async fn one(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response<Body>, HttpError> {
    let session: SessionId = id
        .parse()
        .map_err(|_| HttpError::new(StatusCode::BAD_REQUEST, "the session id is not a UUID"))?;
    let not_found = || HttpError::new(StatusCode::NOT_FOUND, "session not found");
    let view = app.registry.view(session).ok_or_else(not_found)?;
    let request = Request::SessionInfo { session };
    match app.link.call(request, PATIENCE).await {
        Some(Ok(Reply::Session(details))) => {
            Ok(json_answer(StatusCode::OK, &info(&details, view.state)))
        }
        Some(Err(LinkError::Refused(RequestError::SessionNotFound))) => Err(not_found()),
        Some(Err(LinkError::Unavailable)) => Err(HttpError::dataplane_unavailable()),
        Some(Err(LinkError::Refused(error))) => Err(HttpError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error.to_string(),
        )),
        Some(Ok(_)) => Err(HttpError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unexpected answer of the dataplane",
        )),
        None => Err(HttpError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the session did not answer in time",
        )),
    }
}

/// One row of the lists.
pub fn row(view: &SessionView) -> Value {
    json!({
        "session_id": view.session,
        "state": view.state,
        "endpoint_count": view.endpoint_count,
        "created_at": rfc3339(view.created_at_ms),
    })
}

/// The details of one session.
pub fn info(details: &SessionDetails, state: SessionState) -> Value {
    let endpoints: Vec<Value> = details.endpoints.iter().map(endpoint).collect();
    let recordings: Vec<Value> = details
        .recordings
        .iter()
        .map(|recording| {
            json!({
                "recording_id": recording.recording,
                "endpoint_id": recording.endpoint,
                "file_path": recording.file_path,
                "state": "active",
            })
        })
        .collect();
    json!({
        "session_id": details.session,
        "state": state,
        "created_at": rfc3339(details.created_at_ms),
        "endpoints": endpoints,
        "recordings": recordings,
        "vad_active": details.vad_active,
    })
}

fn endpoint(details: &EndpointDetails) -> Value {
    let mut row = Map::new();
    row.insert("endpoint_id".to_owned(), json!(details.endpoint));
    row.insert("endpoint_type".to_owned(), json!(details.endpoint_type));
    row.insert("direction".to_owned(), json!(details.direction));
    row.insert("state".to_owned(), json!(details.state));
    row.insert("codec".to_owned(), json!(details.codec));
    let optional = [
        (
            "local_rtp_addr",
            details.local_rtp_addr.map(|addr| addr.to_string()),
        ),
        (
            "remote_rtp_addr",
            details.remote_rtp_addr.map(|addr| addr.to_string()),
        ),
        ("shared_playback_id", details.shared_playback_id.clone()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            row.insert(name.to_owned(), Value::String(value));
        }
    }
    Value::Object(row)
}
