//! `recording.*`. The dataplane judges the path beneath `recording_dir`; what can be said of the
//! text alone is said here.

use std::path::{Component, Path};
use std::sync::Arc;

use rtpbridge_shared::id::{EndpointId, RecordingId, SessionId};
use rtpbridge_shared::ipc::recording::RecordingStart;
use rtpbridge_shared::ipc::session::RecordingDetails;
use rtpbridge_shared::ipc::{Reply, Request, RequestError};
use serde_json::{Value, json};

use super::call::{Ask, Context, Step};
use super::envelope::{ApiError, Family};
use super::params::Params;
use crate::api::recordings::log_refused;
use crate::clock::unix_ms;
use crate::dataplane::pending::LinkError;
use crate::event::wire::summary_members;

const MAX_PATH_BYTES: usize = 4096;

pub(super) fn start(
    context: Context<'_>,
    session: SessionId,
    params: &Params<'_>,
) -> Result<Step, ApiError> {
    let endpoint: Option<EndpointId> = params.optional_id("endpoint_id")?;
    let file_path = params.string("file_path")?.into_owned();
    let record_outbound = params.flag("record_outbound")?;
    check_path(&file_path).inspect_err(|error| log_refused(&file_path, &error.message))?;
    let recording = RecordingId::random();
    let details = RecordingDetails {
        recording,
        endpoint,
        file_path: file_path.clone(),
        started_at_ms: unix_ms(),
        packets: 0,
    };
    let request = Request::RecordingStart(RecordingStart {
        session,
        recording,
        endpoint,
        file_path,
        record_outbound,
    });
    let app = Arc::clone(context.app);
    let ask = Ask::new(request, Family::Recording, move |reply| match reply {
        Reply::Done => Some(json!({ "recording_id": recording })),
        _ => None,
    })
    .first(move |outcome| {
        if outcome.is_ok() {
            app.registry.recording_started(session, details);
        }
        Some(outcome)
    });
    Ok(ask.into())
}

pub(super) fn stop(
    context: Context<'_>,
    session: SessionId,
    params: &Params<'_>,
) -> Result<Step, ApiError> {
    let recording: RecordingId = params.id("recording_id")?;
    let app = Arc::clone(context.app);
    let request = Request::RecordingStop { session, recording };
    let mut ask = Ask::new(request, Family::Recording, |reply| match reply {
        Reply::Recordings(rows) => rows
            .first()
            .map(|summary| Value::Object(summary_members(summary))),
        _ => None,
    })
    .first(move |outcome| {
        if outcome.is_ok() {
            app.registry.recording_stopped(session, recording);
        }
        Some(outcome.and_then(require_flushed))
    });
    ask.patience = context.app.flush_patience();
    Ok(ask.into())
}

fn require_flushed(reply: Reply) -> Result<Reply, LinkError> {
    match &reply {
        Reply::Recordings(rows) if rows.iter().any(|row| !row.flushed) => {
            Err(LinkError::Refused(RequestError::Recording(
                "the recording stopped, but its file was not flushed in time".to_owned(),
            )))
        }
        _ => Ok(reply),
    }
}

fn check_path(file_path: &str) -> Result<(), ApiError> {
    let field = "file_path";
    let path = Path::new(file_path);
    if !path.is_absolute() {
        return Err(ApiError::invalid(field, "must be an absolute path"));
    }
    if file_path.len() > MAX_PATH_BYTES || file_path.contains('\0') {
        return Err(ApiError::invalid(field, "is not a usable path"));
    }
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if climbs || file_path.ends_with('/') {
        return Err(ApiError::invalid(field, "must name a file and hold no .."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_without_climbing_pass() {
        assert!(check_path("/rec/a.pcap").is_ok());
        let relative = check_path("a.pcap").expect_err("relative");
        assert!(relative.message.contains("absolute"));
        for bad in ["/rec/../etc/x", "/rec/", "/rec/a\0b", ""] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }
}
