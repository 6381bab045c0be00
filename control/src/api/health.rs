//! GET /health, /health/live: answered from what is known. GET /health/ready also asks the dataplane
//! whether it is overloaded, as long as a scrape would.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use serde_json::json;

use super::error::json_answer;
use crate::app::App;
use crate::metrics::dataplane_report;

/// Whether calls can be served.
pub(super) async fn health(State(app): State<Arc<App>>) -> Response<Body> {
    if app.link.is_up() {
        status(StatusCode::OK, "ok")
    } else {
        status(StatusCode::SERVICE_UNAVAILABLE, "dataplane_unavailable")
    }
}

/// Whether the process runs.
pub(super) async fn live() -> Response<Body> {
    status(StatusCode::OK, "ok")
}

/// Whether new calls should be sent here.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response<Body> {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    if app.lifecycle.is_draining() || app.link.peer_is_draining() {
        status(unavailable, "draining")
    } else if !app.link.is_up() {
        status(unavailable, "dataplane_unavailable")
    } else if dataplane_report(&app).await.0.overloaded {
        status(unavailable, "overloaded")
    } else {
        status(StatusCode::OK, "ok")
    }
}

fn status(code: StatusCode, text: &str) -> Response<Body> {
    json_answer(code, &json!({ "status": text }))
}
