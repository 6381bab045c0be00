//! `endpoint.create_with_file`, `endpoint.file.*` and `endpoint.create_tone`.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::playback::{FetchOrder, FileCreate, FileSeek, FileSource, ToneCreate};
use rtpbridge_shared::ipc::{Reply, Request};
use rtpbridge_shared::vocab::Tone;
use serde_json::json;

use super::call::{Ask, Context, Step};
use super::envelope::{ApiError, Family};
use super::params::Params;

const MAX_LOOPS: u64 = 10_000;
const DEFAULT_CACHE_TTL_SECS: u64 = 300;
const DEFAULT_TIMEOUT_MS: u64 = 10_000;
const DEFAULT_FREQUENCY: f64 = 440.0;
const MAX_SOURCE_BYTES: usize = 8192;
const MAX_HEADERS: usize = 64;
/// Names and values together; servers take no more either.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Larger gains only make noise or silence.
const MAX_GAIN_DB: f64 = 100.0;

pub(super) fn create_with_file(
    context: Context<'_>,
    session: SessionId,
    params: &Params<'_>,
) -> Result<Step, ApiError> {
    let endpoint = EndpointId::random();
    let source = source(params)?;
    let order = match &source {
        FileSource::Url(order) => Some(order.clone()),
        FileSource::Local(_) => None,
    };
    let gain_db = params.number("gain_db", -MAX_GAIN_DB..=MAX_GAIN_DB)?;
    let request = Request::FileCreate(FileCreate {
        session,
        endpoint,
        source,
        start_ms: params.integer("start_ms", 0..=u64::MAX)?.unwrap_or(0),
        loop_count: loop_count(params)?,
        shared: params.flag("shared")?,
        gain_db: gain_db.unwrap_or(0.0),
    });
    let app = Arc::clone(context.app);
    let ask = Ask::new(request, Family::Endpoint, move |reply| match reply {
        Reply::Done => Some(json!({ "endpoint_id": endpoint })),
        _ => None,
    })
    .first(move |outcome| {
        if let (Ok(_), Some(order)) = (&outcome, order) {
            app.cache.fetch(&app, session, endpoint, order);
        }
        Some(outcome)
    });
    Ok(ask.into())
}

pub(super) fn seek(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let endpoint = params.id("endpoint_id")?;
    let position_ms = params
        .integer("position_ms", 0..=u64::MAX)?
        .ok_or_else(|| ApiError::invalid("position_ms", "is missing"))?;
    let request = Request::FileSeek(FileSeek {
        session,
        endpoint,
        position_ms,
    });
    Ok(Ask::done(request, Family::Endpoint).into())
}

pub(super) fn pause(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let endpoint = params.id("endpoint_id")?;
    Ok(Ask::done(Request::FilePause { session, endpoint }, Family::Endpoint).into())
}

pub(super) fn resume(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let endpoint = params.id("endpoint_id")?;
    Ok(Ask::done(Request::FileResume { session, endpoint }, Family::Endpoint).into())
}

pub(super) fn create_tone(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let endpoint = EndpointId::random();
    let tone = Tone::from_text(&params.string("tone")?).ok_or_else(|| {
        ApiError::invalid("tone", "must be ringback, ringing, busy, beep or sine")
    })?;
    let frequency = params.number("frequency", 20.0..=20_000.0)?;
    let request = Request::ToneCreate(ToneCreate {
        session,
        endpoint,
        tone,
        frequency: frequency.unwrap_or(DEFAULT_FREQUENCY),
        duration_ms: params.integer("duration_ms", 1..=u64::MAX)?,
    });
    let ask = Ask::new(request, Family::Endpoint, move |reply| match reply {
        Reply::Done => Some(json!({"endpoint_id": endpoint, "tone": tone})),
        _ => None,
    });
    Ok(ask.into())
}

fn source(params: &Params<'_>) -> Result<FileSource, ApiError> {
    let source = params.string("source")?;
    let cache_ttl_secs = params.integer("cache_ttl_secs", 0..=u64::MAX)?;
    let timeout_ms = params.integer("timeout_ms", 1..=60_000)?;
    let headers = headers(params)?;
    if source.is_empty() || source.len() > MAX_SOURCE_BYTES || source.contains('\0') {
        return Err(ApiError::invalid("source", "must be a path or a URL"));
    }
    if !is_url(&source) {
        return Ok(FileSource::Local(source.into_owned()));
    }
    if reqwest::Url::parse(&source).is_err() {
        return Err(ApiError::invalid("source", "is not a usable URL"));
    }
    Ok(FileSource::Url(FetchOrder {
        url: source.into_owned(),
        headers,
        cache_ttl_secs: cache_ttl_secs.unwrap_or(DEFAULT_CACHE_TTL_SECS),
        timeout_ms: timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS),
    }))
}

fn is_url(source: &str) -> bool {
    let scheme = source.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    })
}

fn headers(params: &Params<'_>) -> Result<Vec<(String, String)>, ApiError> {
    let headers = params.string_map("headers")?;
    let usable = |(name, value): &(String, String)| {
        HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok()
    };
    let sizes = headers.iter().map(|(name, value)| name.len() + value.len());
    let is_small = headers.len() <= MAX_HEADERS && sizes.sum::<usize>() <= MAX_HEADER_BYTES;
    if !is_small || !headers.iter().all(usable) {
        let problem = format!(
            "must be at most {MAX_HEADERS} HTTP headers of {MAX_HEADER_BYTES} bytes in all"
        );
        return Err(ApiError::invalid("headers", &problem));
    }
    Ok(headers)
}

/// Absent is 0, null is for ever.
fn loop_count(params: &Params<'_>) -> Result<Option<u32>, ApiError> {
    let given = params.integer("loop_count", 0..=MAX_LOOPS)?;
    match given {
        None if params.has("loop_count") => Ok(None),
        None => Ok(Some(0)),
        Some(count) => Ok(u32::try_from(count).ok()),
    }
}
