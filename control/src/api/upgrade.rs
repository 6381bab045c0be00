//! The WebSocket handshake (RFC 6455 section 4.2) on any path: checked here, carried out by hyper,
//! then the bare TCP stream goes to [`super::ws`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::vocab::SessionState;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::debug;

use super::error::HttpError;
use super::patient::Patient;
use super::ws;
use crate::app::App;

/// How long the switch may take once the answer is on its way.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(10);

/// Whether the request asks for a WebSocket.
pub(super) fn is_requested<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has_token(headers, &header::CONNECTION, "upgrade")
        && has_token(headers, &header::UPGRADE, "websocket")
}

/// `GET /` without an upgrade.
pub(super) async fn expected() -> Response<Body> {
    let mut answer =
        HttpError::new(StatusCode::UPGRADE_REQUIRED, "a WebSocket is served here").into_response();
    let websocket = HeaderValue::from_static("websocket");
    answer.headers_mut().insert(header::UPGRADE, websocket);
    answer
}

/// Answers the handshake and starts the connection's task.
pub(super) fn accept(
    app: &Arc<App>,
    local: Option<SocketAddr>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let headers = request.headers();
    if !app.access.allows_origin(headers, local) {
        return HttpError::new(StatusCode::FORBIDDEN, "origin is not allowed").into_response();
    }
    if !has_token(headers, &header::SEC_WEBSOCKET_VERSION, "13") {
        let mut answer = HttpError::new(
            StatusCode::UPGRADE_REQUIRED,
            "WebSocket version 13 is needed",
        )
        .into_response();
        let version = HeaderValue::from_static("13");
        answer
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_VERSION, version);
        return answer;
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return HttpError::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing")
            .into_response();
    };
    let accept_key = derive_accept_key(key.as_bytes());
    let attach = requested_session(request.uri().query().unwrap_or_default());
    let orphan = attach.filter(|session| {
        let view = app.registry.view(*session);
        view.is_some_and(|view| view.state == SessionState::Orphaned)
    });
    if app.lifecycle.is_leaving() {
        return HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "restarting").into_response();
    }
    if app.lifecycle.is_draining() && orphan.is_none() {
        return HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "draining").into_response();
    }
    let Some(slot) = app.connections.admit() else {
        return HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections")
            .into_response();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let upgraded = match tokio::time::timeout(UPGRADE_PATIENCE, upgrade).await {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => return debug!(%error, "upgrade failed"),
            Err(_) => return debug!("upgrade took too long"),
        };
        if let Ok(parts) = upgraded.downcast::<TokioIo<Patient<TcpStream>>>() {
            let stream = parts.io.into_inner().into_inner();
            tokio::spawn(ws::serve(app, stream, parts.read_buf, slot, orphan));
        }
    });
    switching(&accept_key)
}

fn switching(accept_key: &str) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(value) = HeaderValue::from_str(accept_key) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, value);
    }
    answer
}

/// The session of `?attach=SESSION_ID`.
fn requested_session(query: &str) -> Option<SessionId> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(name, _)| *name == "attach");
    named.next().and_then(|(_, id)| id.parse().ok())
}

fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attach_parameter_is_found_among_others() {
        let id = SessionId::from_bytes([9; 16]);
        assert_eq!(requested_session(&format!("x=1&attach={id}&y")), Some(id));
        assert_eq!(requested_session("attach=nonsense"), None);
        assert_eq!(requested_session(""), None);
    }

    #[test]
    fn header_tokens_are_found_in_lists_of_any_case() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_static("keep-alive, Upgrade");
        headers.insert(header::CONNECTION, value);
        assert!(has_token(&headers, &header::CONNECTION, "upgrade"));
        assert!(!has_token(&headers, &header::CONNECTION, "up"));
    }
}
