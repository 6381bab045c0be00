//! `session.bridge`

use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::bridge::BridgeCreate;
use rtpbridge_shared::ipc::{Reply, Request};
use serde_json::json;

use super::call::{Ask, Step};
use super::envelope::{ApiError, Family};
use super::params::Params;

pub(super) fn create(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let target_session: SessionId = params.id("target_session_id")?;
    let direction = params.direction()?;
    if target_session == session {
        return Err(ApiError::invalid(
            "target_session_id",
            "must be another session",
        ));
    }
    let bridge = BridgeCreate {
        session,
        endpoint: EndpointId::random(),
        target_session,
        target_endpoint: EndpointId::random(),
        direction,
    };
    let (endpoint, target) = (bridge.endpoint, bridge.target_endpoint);
    let request = Request::BridgeCreate(bridge);
    let ask = Ask::new(request, Family::Endpoint, move |reply| match reply {
        Reply::Done => Some(json!({"endpoint_id": endpoint, "target_endpoint_id": target})),
        _ => None,
    });
    Ok(ask.into())
}
