//! Errors of the HTTP API: a status and `{"error": "…"}`.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

/// An answer that is an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpError {
    status: StatusCode,
    message: String,
}

impl HttpError {
    /// With this status and text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// 401, naming the scheme (RFC 6750 section 3).
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "a bearer token is required")
    }

    /// 503 because the dataplane cannot be asked.
    pub fn dataplane_unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the dataplane is not connected",
        )
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response<Body> {
        let mut answer = json_answer(self.status, &json!({ "error": self.message }));
        if self.status == StatusCode::UNAUTHORIZED {
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

/// A JSON answer.
pub fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut answer = Response::new(Body::from(value.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}
