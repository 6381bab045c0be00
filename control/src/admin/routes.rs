//! Paths and status codes of the admin interface. Errors are JSON `{"error": …}` as on the control
//! address.

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::json;

use super::report::{DrainAnswer, Health, LogLevelOrder, VersionAnswer};
use super::{AdminBackend, AdminError};

/// Largest request body; the only body is a log level.
const MAX_BODY_BYTES: usize = 4096;

/// The admin interface over `backend`.
pub fn router<B: AdminBackend>(backend: B) -> Router {
    Router::new()
        .route("/status", get(status::<B>))
        .route("/sessions", get(sessions::<B>))
        .route("/sessions/{id}", get(session::<B>).delete(kick::<B>))
        .route("/sessions/{id}/stats", get(stats::<B>))
        .route("/recordings", get(recordings::<B>))
        .route("/drain", post(drain::<B>))
        .route("/undrain", post(undrain::<B>))
        .route("/handover", post(hand_over::<B>))
        .route("/log-level", put(set_log_level::<B>))
        .route("/health", get(health::<B>))
        .route("/version", get(version::<B>))
        .fallback(async || error(StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(async || {
            error(StatusCode::METHOD_NOT_ALLOWED, "wrong method for this path")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(backend)
}

async fn status<B: AdminBackend>(State(backend): State<B>) -> Response {
    Json(backend.status().await).into_response()
}

async fn sessions<B: AdminBackend>(State(backend): State<B>) -> Response {
    Json(backend.sessions().await).into_response()
}

async fn session<B: AdminBackend>(State(backend): State<B>, Path(id): Path<String>) -> Response {
    match id.parse() {
        Ok(id) => answer(backend.session(id).await),
        Err(_) => bad_id(),
    }
}

async fn stats<B: AdminBackend>(State(backend): State<B>, Path(id): Path<String>) -> Response {
    match id.parse() {
        Ok(id) => answer(backend.stats(id).await),
        Err(_) => bad_id(),
    }
}

async fn kick<B: AdminBackend>(State(backend): State<B>, Path(id): Path<String>) -> Response {
    match id.parse() {
        Ok(id) => answer(backend.kick(id).await.map(|()| json!({}))),
        Err(_) => bad_id(),
    }
}

async fn recordings<B: AdminBackend>(State(backend): State<B>) -> Response {
    answer(backend.recordings().await)
}

async fn drain<B: AdminBackend>(State(backend): State<B>) -> Json<DrainAnswer> {
    Json(backend.set_draining(true).await)
}

async fn undrain<B: AdminBackend>(State(backend): State<B>) -> Json<DrainAnswer> {
    Json(backend.set_draining(false).await)
}

async fn hand_over<B: AdminBackend>(State(backend): State<B>) -> Response {
    backend.hand_over().await;
    (StatusCode::ACCEPTED, Json(json!({}))).into_response()
}

async fn set_log_level<B: AdminBackend>(
    State(backend): State<B>,
    order: Result<Json<LogLevelOrder>, JsonRejection>,
) -> Response {
    match order {
        Ok(Json(order)) => {
            let outcome = backend.set_log_level(order.process, order.level).await;
            answer(outcome.map(|()| json!({})))
        }
        Err(rejection) => error(StatusCode::BAD_REQUEST, &rejection.body_text()),
    }
}

async fn health<B: AdminBackend>(State(backend): State<B>) -> Response {
    let health = backend.health().await;
    let code = match health {
        Health::Ok => StatusCode::OK,
        Health::DataplaneUnavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(health)).into_response()
}

async fn version<B: AdminBackend>(State(backend): State<B>) -> Json<VersionAnswer> {
    let dataplane = backend.status().await.dataplane;
    Json(VersionAnswer {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        dataplane: dataplane.map(|dataplane| dataplane.version),
    })
}

fn bad_id() -> Response {
    error(StatusCode::BAD_REQUEST, "a session id is a UUID")
}

fn answer<T: serde::Serialize>(outcome: Result<T, AdminError>) -> Response {
    match outcome {
        Ok(value) => Json(value).into_response(),
        Err(problem) => error(code_of(&problem), &problem.to_string()),
    }
}

fn code_of(problem: &AdminError) -> StatusCode {
    match problem {
        AdminError::SessionNotFound(_) => StatusCode::NOT_FOUND,
        AdminError::DataplaneUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        AdminError::Unresponsive(_) => StatusCode::GATEWAY_TIMEOUT,
        AdminError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn error(code: StatusCode, text: &str) -> Response {
    (code, Json(json!({ "error": text }))).into_response()
}

#[cfg(test)]
mod tests;
