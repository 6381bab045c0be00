//! `stats.*`

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::stats::StatsSubscribe;
use rtpbridge_shared::ipc::{Reply, Request};
use serde_json::json;

use super::call::{Ask, Step};
use super::envelope::{ApiError, Family};
use super::params::Params;

const DEFAULT_INTERVAL_MS: u32 = 5000;

pub(super) fn subscribe(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let interval = params.integer("interval_ms", 500..=3_600_000)?;
    let request = Request::StatsSubscribe(StatsSubscribe {
        session,
        interval_ms: interval
            .and_then(|ms| u32::try_from(ms).ok())
            .unwrap_or(DEFAULT_INTERVAL_MS),
    });
    Ok(Ask::done(request, Family::Stats).into())
}

pub(super) fn unsubscribe(session: SessionId) -> Step {
    Ask::done(Request::StatsUnsubscribe { session }, Family::Stats).into()
}

pub(super) fn snapshot(session: SessionId) -> Step {
    let request = Request::StatsSnapshot { session };
    Ask::new(request, Family::Stats, |reply| match reply {
        Reply::Stats(rows) => Some(json!({ "endpoints": rows })),
        _ => None,
    })
    .into()
}
