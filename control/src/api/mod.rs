//! The control address: accepts TCP, serves HTTP, and hands WebSocket upgrades (any path) to
//! [`ws`]. A slow or silent peer costs one small task and is dropped: 5 s for a request head, 10 s
//! for an upgrade, 30 s behind with reading an answer.

pub mod access;
pub mod error;

mod health;
mod metrics;
mod patient;
mod recordings;
pub mod sessions;
mod upgrade;
pub mod ws;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{delete, get};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::{debug, warn};

use self::error::HttpError;
use self::patient::Patient;
use crate::app::App;

/// How long a request head may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long a peer may be behind with reading.
const READER_PATIENCE: Duration = Duration::from_secs(30);
/// Connections that are not WebSockets (yet); more wait in the listener's backlog.
const HTTP_CONNECTIONS: usize = 1024;
const READ_BUFFER_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The routes of the HTTP API.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/sessions", get(sessions::list))
        .route("/sessions/{id}", get(sessions::one))
        .route("/recordings", get(recordings::list))
        .route(
            "/recordings/{*path}",
            get(recordings::download).merge(delete(recordings::delete)),
        )
        .route("/", get(upgrade::expected))
        .fallback(not_found)
        .with_state(app)
}

/// Accepts connections on `listener` until the process leaves. What comes then is left in the socket
/// for whoever else holds it.
pub async fn serve(app: Arc<App>, listener: TcpListener) {
    tokio::select! {
        () = accept(&app, listener) => {}
        () = app.lifecycle.leaving() => {}
    }
}

async fn accept(app: &Arc<App>, listener: TcpListener) {
    let router = router(Arc::clone(app));
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = serve_connection(Arc::clone(app), router.clone(), stream, peer);
        tokio::spawn(async move {
            connection.await;
            drop(place);
        });
    }
}

async fn serve_connection(app: Arc<App>, router: Router, stream: TcpStream, peer: SocketAddr) {
    // Answers and events are small and wait for nothing.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().ok();
    let service = service_fn(move |request: Request<Incoming>| {
        let app = Arc::clone(&app);
        let router = router.clone();
        async move {
            let mut answer = answer(&app, router, local, request).await;
            let stays_http = answer.status() != StatusCode::SWITCHING_PROTOCOLS;
            if stays_http && app.lifecycle.is_leaving() {
                // The next request is for our successor.
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(READ_BUFFER_BYTES * 2)
        .max_headers(MAX_HEADERS)
        .half_close(false)
        .serve_connection(TokioIo::new(Patient::new(stream, READER_PATIENCE)), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        debug!(%peer, %error, "HTTP connection ended");
    }
}

async fn answer(
    app: &Arc<App>,
    router: Router,
    local: Option<SocketAddr>,
    request: Request<Incoming>,
) -> Response<Body> {
    let public = request.uri().path().starts_with("/health");
    let wants_upgrade = upgrade::is_requested(&request);
    if (!public || wants_upgrade) && !app.access.has_token(request.headers()) {
        return HttpError::unauthorized().into_response();
    }
    if wants_upgrade {
        return upgrade::accept(app, local, request);
    }
    let answer = match router.oneshot(request.map(Body::new)).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    with_json_error(answer)
}

/// Axum refuses wrong methods and bad extractions by itself, in plain text; clients get JSON.
fn with_json_error(answer: Response<Body>) -> Response<Body> {
    let status = answer.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_json = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_error || is_json {
        return answer;
    }
    let allow = answer.headers().get(header::ALLOW).cloned();
    let reason = status.canonical_reason().unwrap_or("error").to_lowercase();
    let mut replaced = HttpError::new(status, reason).into_response();
    if let Some(allow) = allow {
        replaced.headers_mut().insert(header::ALLOW, allow);
    }
    replaced
}

async fn not_found(method: Method) -> HttpError {
    debug!(%method, "unknown path");
    HttpError::new(StatusCode::NOT_FOUND, "not found")
}
