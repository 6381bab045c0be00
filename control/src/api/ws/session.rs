//! `session.*` (bridge aside) and `server.info`.

use std::sync::Arc;

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::session::SessionCreate;
use rtpbridge_shared::ipc::{Reply, Request, RequestError};
use rtpbridge_shared::vocab::SessionState;
use serde_json::{Value, json};

use super::call::{Ask, Binding, Context, Step};
use super::envelope::{ApiError, Code, Family};
use super::params::Params;
use crate::api::sessions;
use crate::app::{App, VERSION};
use crate::clock::unix_ms;
use crate::dataplane::pending::LinkError;
use crate::event::Body;
use crate::session::orphan;
use crate::session::registry::AttachRefused;

pub(super) fn server_info(app: &App) -> Value {
    let media_ip: Vec<String> = app
        .config
        .media_ip
        .iter()
        .map(|ip| ip.to_string())
        .collect();
    json!({
        "hostname": app.hostname,
        "media_ip": media_ip,
        "version": VERSION,
        "sessions_active": app.registry.list().len(),
        "draining": app.lifecycle.is_draining(),
    })
}

pub(super) fn list(app: &App) -> Value {
    let rows: Vec<Value> = app.registry.list().iter().map(sessions::row).collect();
    json!({ "sessions": rows })
}

pub(super) fn create(context: Context<'_>) -> Result<Step, ApiError> {
    let app = Arc::clone(context.app);
    if app.lifecycle.is_draining() {
        return Err(ApiError::new(Code::ShuttingDown, "the server is draining"));
    }
    if !app.link.is_up() {
        // Nothing is sent, so nothing can have been made that would have to be ended later.
        return Err(ApiError::from_link(
            &LinkError::Unavailable,
            Family::Session,
        ));
    }
    let session = SessionId::random();
    let created_at_ms = unix_ms();
    app.registry
        .begin_create(session, created_at_ms, app.config.max_sessions)
        .map_err(|full| ApiError::new(Code::MaxSessionsReached, full.to_string()))?;
    let client = Arc::clone(context.mailbox);
    let request = Request::SessionCreate(SessionCreate {
        session,
        created_at_ms,
    });
    let mut ask = Ask::new(request, Family::Session, move |reply| match reply {
        Reply::Done => Some(json!({ "session_id": session })),
        _ => None,
    })
    .first(move |outcome| {
        match &outcome {
            Ok(_) if app.registry.finish_create(session, &client) => {}
            Ok(_) => orphan::destroy(&app, session),
            Err(error) => {
                let condemn = matches!(error, LinkError::Unavailable);
                app.registry.abandon_create(session, condemn);
            }
        }
        Some(outcome)
    });
    ask.binding = Binding::Create(session);
    Ok(ask.into())
}

/// The client was told that the creation took too long: whatever comes of it ends.
pub(super) fn give_up_creation(app: &Arc<App>, session: SessionId) {
    let made = !app.registry.abandon_create(session, true);
    if made && app.registry.begin_end(session, Body::Unbound) {
        orphan::destroy(app, session);
    }
}

pub(super) fn attach(context: Context<'_>, params: &Params<'_>) -> Result<Step, ApiError> {
    let session: SessionId = params.id("session_id")?;
    let force = params.flag("force")?;
    attach_to(context, session, force)
}

/// Claims the session for the connection and asks the dataplane for what was held.
pub(super) fn attach_to(
    context: Context<'_>,
    session: SessionId,
    force: bool,
) -> Result<Step, ApiError> {
    let app = Arc::clone(context.app);
    if !app.link.is_up() {
        return Err(ApiError::from_link(&LinkError::Unavailable, Family::Attach));
    }
    app.registry
        .begin_attach(session, context.mailbox, force)
        .map_err(|refused| {
            let code = match refused {
                AttachRefused::NotFound => Code::SessionNotFound,
                AttachRefused::Held => Code::SessionNotOrphaned,
            };
            ApiError::new(code, refused.to_string())
        })?;
    let client = Arc::clone(context.mailbox);
    let serial = context.serial;
    let mut ask =
        Ask::done(Request::SessionAttach { session }, Family::Attach).first(move |outcome| {
            match outcome {
                Ok(Reply::Attached(attached)) => {
                    app.registry.on_attached(session, &client, serial, attached);
                    None
                }
                Err(LinkError::Refused(RequestError::SessionNotFound)) => {
                    app.cache.session_ended(session);
                    app.registry.forget(session);
                    Some(outcome)
                }
                other => {
                    let timeout = app.config.disconnect_timeout;
                    app.registry.release(session, &client, timeout, || ());
                    Some(other)
                }
            }
        });
    ask.binding = Binding::Attach(session);
    Ok(ask.into())
}

pub(super) fn destroy(context: Context<'_>, session: SessionId) -> Step {
    let app = Arc::clone(context.app);
    let client = Arc::clone(context.mailbox);
    let serial = context.serial;
    let request = Request::SessionDestroy { session };
    let mut ask = Ask::done(request, Family::Session).first(move |outcome| match outcome {
        Ok(Reply::Recordings(recordings)) => {
            app.registry.report_recordings(session, recordings);
            app.cache.session_ended(session);
            client.push_answer(serial, Ok(Reply::Done));
            app.registry.on_destroyed(session, &client);
            None
        }
        other => Some(other),
    });
    ask.patience = context.app.flush_patience();
    ask.binding = Binding::Destroy;
    ask.into()
}

pub(super) fn info(context: Context<'_>, session: SessionId) -> Step {
    let app = Arc::clone(context.app);
    Ask::new(
        Request::SessionInfo { session },
        Family::Session,
        |reply| match reply {
            Reply::Session(details) => Some(sessions::info(&details, SessionState::Active)),
            _ => None,
        },
    )
    .first(move |outcome| {
        if let Ok(Reply::Session(details)) = &outcome {
            app.registry.recordings_seen(session, &details.recordings);
        }
        Some(outcome)
    })
    .into()
}
