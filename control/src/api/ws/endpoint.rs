//! `endpoint.*` of network endpoints, removal and transfer.

use std::sync::Arc;

use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::endpoint::{
    AcceptAnswer, CreateFromOffer, CreateOffer, RemoteOffer, SrtpOffer, Transfer, UpdateDirection,
};
use rtpbridge_shared::ipc::{Reply, Request};
use rtpbridge_shared::vocab::{Codec, Direction, Transport};
use serde_json::json;

use super::call::{Ask, Context, Step};
use super::envelope::{ApiError, Family};
use super::params::Params;

const TELEPHONE_EVENT: &str = "telephone-event";

pub(super) fn create_from_offer(
    context: Context<'_>,
    session: SessionId,
    transport: Option<Transport>,
    params: &Params<'_>,
) -> Result<Step, ApiError> {
    let endpoint = EndpointId::random();
    let request = Request::EndpointCreateFromOffer(CreateFromOffer {
        session,
        endpoint,
        sdp: params.sdp(context.app.config.max_sdp_bytes)?,
        direction: params.direction()?,
        transport,
    });
    let ask = Ask::new(request, Family::Endpoint, move |reply| match reply {
        Reply::Sdp(sdp) => Some(json!({"endpoint_id": endpoint, "sdp_answer": sdp})),
        _ => None,
    });
    Ok(ask.into())
}

pub(super) fn create_offer(
    session: SessionId,
    promised: Option<Transport>,
    params: &Params<'_>,
) -> Result<Step, ApiError> {
    let endpoint = EndpointId::random();
    let request = Request::EndpointCreateOffer(CreateOffer {
        session,
        endpoint,
        transport: offered_transport(promised, params)?,
        direction: params.direction()?,
        srtp: srtp_offer(params)?,
        codecs: codecs(params)?,
    });
    let ask = Ask::new(request, Family::Endpoint, move |reply| match reply {
        Reply::Sdp(sdp) => Some(json!({"endpoint_id": endpoint, "sdp_offer": sdp})),
        _ => None,
    });
    Ok(ask.into())
}

pub(super) fn accept_answer(
    context: Context<'_>,
    session: SessionId,
    transport: Option<Transport>,
    params: &Params<'_>,
) -> Result<Step, ApiError> {
    let request = Request::EndpointAcceptAnswer(AcceptAnswer {
        session,
        endpoint: params.id("endpoint_id")?,
        sdp: params.sdp(context.app.config.max_sdp_bytes)?,
        offer_generation: params.integer("offer_generation", 0..=u64::MAX)?,
        transport,
    });
    Ok(Ask::done(request, Family::Endpoint).into())
}

pub(super) fn reinvite(
    context: Context<'_>,
    session: SessionId,
    params: &Params<'_>,
) -> Result<Step, ApiError> {
    let offer = remote_offer(context, session, params)?;
    Ok(answer_sdp(Request::EndpointReinvite(offer)))
}

pub(super) fn accept_offer(
    context: Context<'_>,
    session: SessionId,
    params: &Params<'_>,
) -> Result<Step, ApiError> {
    let offer = remote_offer(context, session, params)?;
    Ok(answer_sdp(Request::EndpointAcceptOffer(offer)))
}

pub(super) fn update_direction(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let endpoint = params.id("endpoint_id")?;
    let text = params.string("direction")?;
    let direction = match text.as_ref() {
        "auto" => None,
        other => Some(Direction::from_text(other).ok_or_else(|| {
            ApiError::invalid(
                "direction",
                "must be sendrecv, recvonly, sendonly, inactive or auto",
            )
        })?),
    };
    let request = Request::EndpointUpdateDirection(UpdateDirection {
        session,
        endpoint,
        direction,
    });
    Ok(Ask::done(request, Family::Endpoint).into())
}

pub(super) fn remove(
    context: Context<'_>,
    session: SessionId,
    params: &Params<'_>,
) -> Result<Step, ApiError> {
    let endpoint: EndpointId = params.id("endpoint_id")?;
    let app = Arc::clone(context.app);
    let request = Request::EndpointRemove { session, endpoint };
    let mut ask = Ask::done(request, Family::Endpoint).first(move |outcome| match outcome {
        Ok(Reply::Recordings(recordings)) => {
            app.registry.report_recordings(session, recordings);
            app.cache.endpoint_ended(session, endpoint);
            Some(Ok(Reply::Done))
        }
        other => Some(other),
    });
    ask.patience = context.app.flush_patience();
    Ok(ask.into())
}

pub(super) fn ice_restart(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let endpoint = params.id("endpoint_id")?;
    let request = Request::EndpointIceRestart { session, endpoint };
    let ask = Ask::new(request, Family::Endpoint, |reply| match reply {
        Reply::IceRestarted(offer) => Some(json!({
            "sdp_offer": offer.sdp_offer,
            "offer_generation": offer.offer_generation,
        })),
        _ => None,
    });
    Ok(ask.into())
}

pub(super) fn srtp_rekey(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let endpoint = params.id("endpoint_id")?;
    let request = Request::EndpointSrtpRekey { session, endpoint };
    let ask = Ask::new(request, Family::Endpoint, |reply| match reply {
        Reply::Sdp(sdp) => Some(json!({ "sdp": sdp })),
        _ => None,
    });
    Ok(ask.into())
}

pub(super) fn transfer(session: SessionId, params: &Params<'_>) -> Result<Step, ApiError> {
    let endpoint: EndpointId = params.id("endpoint_id")?;
    let target_session: SessionId = params.id("target_session_id")?;
    if target_session == session {
        return Err(ApiError::invalid(
            "target_session_id",
            "must be another session",
        ));
    }
    let request = Request::EndpointTransfer(Transfer {
        session,
        endpoint,
        target_session,
    });
    let ask = Ask::new(request, Family::Transfer, move |reply| match reply {
        Reply::Done => Some(json!({
            "endpoint_id": endpoint,
            "target_session_id": target_session,
        })),
        _ => None,
    });
    Ok(ask.into())
}

fn remote_offer(
    context: Context<'_>,
    session: SessionId,
    params: &Params<'_>,
) -> Result<RemoteOffer, ApiError> {
    Ok(RemoteOffer {
        session,
        endpoint: params.id("endpoint_id")?,
        sdp: params.sdp(context.app.config.max_sdp_bytes)?,
    })
}

fn answer_sdp(request: Request) -> Step {
    Ask::new(request, Family::Endpoint, |reply| match reply {
        Reply::Sdp(sdp) => Some(json!({ "sdp_answer": sdp })),
        _ => None,
    })
    .into()
}

/// The method's name may say the transport; then `type` may be absent, but not differ.
fn offered_transport(
    promised: Option<Transport>,
    params: &Params<'_>,
) -> Result<Transport, ApiError> {
    let invalid = || ApiError::invalid("type", "must be webrtc or rtp");
    let named = params
        .optional_string("type")?
        .map(|text| Transport::from_text(&text).ok_or_else(invalid))
        .transpose()?;
    match (promised, named) {
        (Some(promised), Some(named)) if promised != named => Err(ApiError::invalid(
            "type",
            &format!("this method makes {promised} endpoints"),
        )),
        (Some(transport), _) | (None, Some(transport)) => Ok(transport),
        (None, None) => Err(ApiError::invalid("type", "is missing")),
    }
}

fn srtp_offer(params: &Params<'_>) -> Result<SrtpOffer, ApiError> {
    match (params.flag("srtp")?, params.flag("srtp_optional")?) {
        (true, true) => Err(ApiError::invalid(
            "srtp_optional",
            "srtp and srtp_optional exclude each other",
        )),
        (true, false) => Ok(SrtpOffer::Required),
        (false, true) => Ok(SrtpOffer::Optional),
        (false, false) => Ok(SrtpOffer::Off),
    }
}

fn codecs(params: &Params<'_>) -> Result<Vec<Codec>, ApiError> {
    let mut codecs: Vec<Codec> = Vec::new();
    for name in params.strings("codecs")? {
        match Codec::from_client_name(&name) {
            Some(codec) if codecs.contains(&codec) => {}
            Some(codec) => codecs.push(codec),
            None if name.eq_ignore_ascii_case(TELEPHONE_EVENT) => {}
            None => {
                return Err(ApiError::invalid(
                    "codecs",
                    "must name pcmu, pcma, g722, opus or telephone-event",
                ));
            }
        }
    }
    Ok(codecs)
}
