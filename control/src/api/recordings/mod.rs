//! /recordings: list, download, delete. Paths are resolved beneath `recording_dir` by the kernel, so
//! neither `..` nor a symlink leads out. All disk access happens on the blocking pool.

mod range;
mod tree;
mod whole;

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::stream;
use rtpbridge_shared::ipc::{Reply, Request};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tracing::warn;

use self::range::Wanted;
use super::error::{HttpError, json_answer};
use crate::app::App;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
const CHUNK_BYTES: usize = 64 * 1024;
const MEDIA_TYPE: &str = "application/vnd.tcpdump.pcap";
/// How long a deletion waits for the dataplane to say whether the file is being written.
const WRITER_PATIENCE: Duration = Duration::from_secs(2);
/// How much of a path that is refused goes into the log.
const LOGGED_BYTES_MAX: usize = 256;

/// The query of a list.
#[derive(Deserialize, Debug)]
pub(super) struct ListQuery {
    #[serde(rename = "startsWith", default)]
    starts_with: String,
    #[serde(default)]
    skip: usize,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    DEFAULT_LIMIT
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<ListQuery>,
) -> Result<Response<Body>, HttpError> {
    let dir = app.config.recording_dir.clone();
    let limit = query.limit.min(MAX_LIMIT);
    let prefix = query.starts_with;
    let names = blocking("", move || Ok(tree::list(&dir, &prefix))).await?;
    let total = names.len();
    let page: Vec<String> = names.into_iter().skip(query.skip).take(limit).collect();
    let body = json!({"recordings": page, "total": total, "skip": query.skip, "limit": limit});
    Ok(json_answer(StatusCode::OK, &body))
}

pub(super) async fn download(
    State(app): State<Arc<App>>,
    method: Method,
    UrlPath(path): UrlPath<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, HttpError> {
    let dir = app.config.recording_dir.clone();
    let in_progress = is_being_written(&app, &path).await;
    let target = PathBuf::from(&path);
    let (file, length, etag) = blocking(&path, move || {
        let file = tree::open(&dir, &target)?;
        let metadata = file.metadata()?;
        let length = if in_progress {
            whole::length(&file)?
        } else {
            metadata.len()
        };
        Ok((file, length, etag(&metadata, length)))
    })
    .await?;
    if length > app.config.max_recording_download_bytes {
        return Err(HttpError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the recording is larger than max_recording_download_bytes",
        ));
    }
    let wanted = range::wanted(&headers, &etag, length);
    let mut answer = answer_for(&wanted, length);
    let tag = HeaderValue::from_str(&etag).map_err(|_| internal())?;
    answer.headers_mut().insert(header::ETAG, tag);
    let (start, end) = match wanted {
        Wanted::All => (0, length),
        Wanted::Part { first, last } => (first, last + 1),
        Wanted::NotModified | Wanted::Nothing => return Ok(answer),
    };
    if method != Method::HEAD {
        let place = Arc::clone(&app.downloads).try_acquire_owned();
        let place = place.map_err(|_| too_many())?;
        *answer.body_mut() = stream_of(file, start, end, place);
    }
    Ok(answer)
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    UrlPath(path): UrlPath<String>,
) -> Result<Response<Body>, HttpError> {
    let dir = app.config.recording_dir.clone();
    let target = PathBuf::from(&path);
    // Existence and permission come first: a path outside is 403 whoever writes it.
    blocking(&path, {
        let (dir, target) = (dir.clone(), target.clone());
        move || tree::open(&dir, &target).map(drop)
    })
    .await?;
    if is_being_written(&app, &path).await {
        return Err(HttpError::new(
            StatusCode::CONFLICT,
            "the recording is being written",
        ));
    }
    blocking(&path, move || tree::delete(&dir, &target)).await?;
    Ok(json_answer(StatusCode::OK, &json!({"deleted": true})))
}

/// Says in the log that somebody asked for a path that is not for them.
pub(super) fn log_refused(path: &str, reason: impl Display) {
    let shown = &path[..path.floor_char_boundary(LOGGED_BYTES_MAX)];
    warn!(path = ?shown, %reason, "recording path refused");
}

/// Asks the session that is known to write the file; when nobody answers, what was known counts.
async fn is_being_written(app: &App, path: &str) -> bool {
    let full = app.config.recording_dir.join(path);
    let Some(session) = app.registry.writer_of(&full) else {
        return false;
    };
    let request = Request::SessionInfo { session };
    match app.link.call(request, WRITER_PATIENCE).await {
        // By now the mirror may know more than this answer, so it is left alone.
        Some(Ok(Reply::Session(details))) => {
            let mut rows = details.recordings.iter();
            rows.any(|row| Path::new(&row.file_path) == full)
        }
        _ => app.registry.writer_of(&full).is_some(),
    }
}

fn answer_for(wanted: &Wanted, length: u64) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    let (status, body_length) = match *wanted {
        Wanted::All => (StatusCode::OK, Some(length)),
        Wanted::Part { first, last } => (StatusCode::PARTIAL_CONTENT, Some(last - first + 1)),
        Wanted::NotModified => (StatusCode::NOT_MODIFIED, None),
        Wanted::Nothing => {
            answer = HttpError::new(StatusCode::RANGE_NOT_SATISFIABLE, "range not satisfiable")
                .into_response();
            (StatusCode::RANGE_NOT_SATISFIABLE, None)
        }
    };
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let content_range = match *wanted {
        Wanted::Part { first, last } => Some(format!("bytes {first}-{last}/{length}")),
        Wanted::Nothing => Some(format!("bytes */{length}")),
        Wanted::All | Wanted::NotModified => None,
    };
    if let Some(value) = content_range.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(header::CONTENT_RANGE, value);
    }
    if let Some(body_length) = body_length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body_length));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    }
    answer
}

/// Strong: a recording only grows until it is closed, so its length tells its versions apart.
fn etag(metadata: &std::fs::Metadata, length: u64) -> String {
    let (inode, seconds) = (metadata.ino(), metadata.mtime());
    format!(
        "\"{inode:x}-{length:x}-{seconds:x}-{:x}\"",
        metadata.mtime_nsec()
    )
}

/// Bytes `start..end` of the file, read in blocks as the client takes them. The place is free when
/// the body is dropped.
fn stream_of(file: File, start: u64, end: u64, place: OwnedSemaphorePermit) -> Body {
    let source = Arc::new((file, place));
    Body::from_stream(stream::try_unfold(start, move |at| {
        let source = Arc::clone(&source);
        async move {
            if at >= end {
                return Ok::<_, io::Error>(None);
            }
            let want = usize::try_from(end - at)
                .unwrap_or(CHUNK_BYTES)
                .min(CHUNK_BYTES);
            let block = spawn_blocking(move || read_block(&source.0, at, want))
                .await
                .map_err(io::Error::other)??;
            let next = at + block.len() as u64;
            Ok(Some((block, next)))
        }
    }))
}

fn read_block(file: &File, at: u64, want: usize) -> io::Result<Bytes> {
    let mut block = vec![0; want];
    let count = file.read_at(&mut block, at)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    block.truncate(count);
    Ok(Bytes::from(block))
}

async fn blocking<T: Send + 'static>(
    path: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, HttpError> {
    match spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| http_error(path, &error)),
        Err(_) => Err(internal()),
    }
}

fn too_many() -> HttpError {
    HttpError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too many downloads at a time",
    )
}

fn internal() -> HttpError {
    HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, "reading failed")
}

fn http_error(path: &str, error: &io::Error) -> HttpError {
    match tree::classify(error) {
        tree::Failure::Outside => {
            log_refused(path, error);
            HttpError::new(StatusCode::FORBIDDEN, "outside the recording directory")
        }
        tree::Failure::Missing => HttpError::new(StatusCode::NOT_FOUND, "no such recording"),
        tree::Failure::Other => {
            warn!(%error, "recording could not be accessed");
            HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}
