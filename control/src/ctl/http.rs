//! One request over the admin socket: HTTP/1.1, JSON both ways, in bounded time and memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::error::CtlError;

const PATIENCE: Duration = Duration::from_secs(15);
/// Ten thousand sessions with all their details fit many times over.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// The control process, by its admin socket.
#[derive(Clone, Debug)]
pub(super) struct AdminClient {
    socket: PathBuf,
}

impl AdminClient {
    pub(super) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The JSON of a successful answer.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CtlError> {
        self.call(Method::GET, path, None).await
    }

    /// As [`Self::get`], with any method and an optional JSON body.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, CtlError> {
        let (status, value) = self.exchange(method, path, body).await?;
        if !status.is_success() {
            let reason = value.get("error").and_then(Value::as_str);
            let reason = reason.unwrap_or(status.canonical_reason().unwrap_or("refused"));
            return Err(CtlError::Failed(reason.to_owned()));
        }
        let unknown = |error| CtlError::Failed(format!("unknown answer of control: {error}"));
        serde_json::from_value(value).map_err(unknown)
    }

    /// Status and JSON of whatever was answered.
    pub(super) async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value), CtlError> {
        let exchange = exchange(&self.socket, method, path, body);
        match timeout(PATIENCE, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(reason)) => Err(self.unreachable(reason)),
            Err(_) => Err(self.unreachable(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    fn unreachable(&self, reason: String) -> CtlError {
        CtlError::Unreachable {
            socket: self.socket.clone(),
            reason,
        }
    }
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<(StatusCode, Value), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = UnixStream::connect(socket).await.map_err(|e| text(&e))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|e| text(&e))?;
    tokio::spawn(connection);
    let body = body.map_or_else(Bytes::new, |value| Bytes::from(value.to_string()));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "admin")
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(|e| text(&e))?;
    let response = sender.send_request(request).await.map_err(|e| text(&e))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER);
    let bytes = body.collect().await.map_err(|e| text(&e))?.to_bytes();
    let value = serde_json::from_slice(&bytes).map_err(|e| text(&e))?;
    Ok((status, value))
}
