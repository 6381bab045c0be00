//! GET /metrics.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, header};
use tracing::error;

use super::error::HttpError;
use crate::app::App;
use crate::metrics::scrape;

const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The Prometheus text format.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response<Body>, HttpError> {
    let text = scrape(&app).await.map_err(|error| {
        error!(%error, "metrics could not be written");
        HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics failed")
    })?;
    let mut answer = Response::new(Body::from(text));
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
    Ok(answer)
}
