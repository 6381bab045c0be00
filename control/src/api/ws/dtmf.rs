//! `endpoint.dtmf.*`

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::Request;
use rtpbridge_shared::ipc::dtmf::{DtmfInject, DtmfSetSensitive};
use rtpbridge_shared::vocab::Digit;

use super::call::{Ask, Step};
use super::envelope::{ApiError, Family};
use super::params::Params;

const DEFAULT_DURATION_MS: u32 = 160;
const DEFAULT_VOLUME: u8 = 10;

pub(super) fn inject(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let endpoint = params.id("endpoint_id")?;
    let text = params.string("digit")?;
    let mut characters = text.chars();
    let (Some(character), None) = (characters.next(), characters.next()) else {
        return Err(ApiError::invalid("digit", "must be exactly one character"));
    };
    let digit = Digit::from_char(character)
        .ok_or_else(|| ApiError::invalid("digit", "must be one of 0-9 * # A-D"))?;
    let duration_ms = params.integer("duration_ms", 1..=10_000)?;
    let volume = params.integer("volume", 0..=63)?;
    let request = Request::DtmfInject(DtmfInject {
        session,
        endpoint,
        digit,
        duration_ms: duration_ms
            .and_then(|ms| u32::try_from(ms).ok())
            .unwrap_or(DEFAULT_DURATION_MS),
        volume: volume
            .and_then(|dbm0| u8::try_from(dbm0).ok())
            .unwrap_or(DEFAULT_VOLUME),
    });
    Ok(Ask::done(request, Family::Endpoint).into())
}

pub(super) fn set_sensitive(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let request = Request::DtmfSetSensitive(DtmfSetSensitive {
        session,
        endpoint: params.id("endpoint_id")?,
        enabled: params.required_flag("enabled")?,
    });
    Ok(Ask::done(request, Family::Endpoint).into())
}
