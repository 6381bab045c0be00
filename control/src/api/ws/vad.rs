//! `vad.*`

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::Request;
use rtpbridge_shared::ipc::vad::VadStart;

use super::call::{Ask, Step};
use super::envelope::{ApiError, Family};
use super::params::Params;

const DEFAULT_SILENCE_INTERVAL_MS: u32 = 1000;
const DEFAULT_SPEECH_THRESHOLD: f64 = 0.5;

pub(super) fn start(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let endpoint = params.id("endpoint_id")?;
    let interval = params.integer("silence_interval_ms", 100..=3_600_000)?;
    let threshold = params.number("speech_threshold", 0.0..=1.0)?;
    let request = Request::VadStart(VadStart {
        session,
        endpoint,
        silence_interval_ms: interval
            .and_then(|ms| u32::try_from(ms).ok())
            .unwrap_or(DEFAULT_SILENCE_INTERVAL_MS),
        speech_threshold: threshold.unwrap_or(DEFAULT_SPEECH_THRESHOLD),
    });
    Ok(Ask::done(request, Family::Vad).into())
}

pub(super) fn stop(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let endpoint = params.id("endpoint_id")?;
    Ok(Ask::done(Request::VadStop { session, endpoint }, Family::Vad).into())
}
