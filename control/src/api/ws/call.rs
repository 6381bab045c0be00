//! What a method makes of a request: an answer at once, or a question to the dataplane. The files
//! beside this one hold the methods, one file per resource.

use std::sync::Arc;
use std::time::Duration;

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::{Reply, Request};
use serde_json::{Value, json};

use super::envelope::{ApiError, Code, Envelope, Family};
use super::method::{Action, Method, Needs};
use super::params::Params;
use super::{bridge, dtmf, endpoint, playback, recording, session, stats, vad};
use crate::app::App;
use crate::dataplane::pending::Outcome;
use crate::event::queue::Mailbox;

/// How long a session may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The connection that a request came on.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// The process.
    pub(super) app: &'a Arc<App>,
    /// The connection's queue.
    pub(super) mailbox: &'a Arc<Mailbox>,
    /// Names the request on this connection.
    pub(super) serial: u64,
}

/// What is to be done about a request.
pub(super) enum Step {
    /// Answer at once.
    Answer(Value),
    /// Ask the dataplane.
    Ask(Box<Ask>),
}

/// A question to the dataplane and what its reply means to the client.
pub(super) struct Ask {
    /// What is asked.
    pub(super) request: Request,
    /// For error codes.
    pub(super) family: Family,
    /// How long the client waits.
    pub(super) patience: Duration,
    /// What success does to the connection.
    pub(super) binding: Binding,
    /// The result of a reply; none when the reply is of the wrong kind.
    pub(super) result: Box<dyn FnOnce(Reply) -> Option<Value> + Send>,
    /// Sees the outcome first, on the link's reader, whether or not the client still waits. Keeps
    /// the mirror true. Without a return value the answer was queued already.
    pub(super) first: Option<First>,
}

/// See [`Ask::first`].
pub(super) type First = Box<dyn FnOnce(Outcome) -> Option<Outcome> + Send>;

/// What a request does to the connection when it succeeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Binding {
    /// Nothing.
    Keep,
    /// Binds the session that it made.
    Create(SessionId),
    /// Binds a session that was there.
    Attach(SessionId),
    /// Unbinds.
    Destroy,
}

impl Ask {
    /// A question about the bound session whose answer to the client is `{}`.
    pub(super) fn done(request: Request, family: Family) -> Self {
        Self::new(request, family, |reply| match reply {
            Reply::Done => Some(json!({})),
            _ => None,
        })
    }

    /// A question about the bound session.
    pub(super) fn new(
        request: Request,
        family: Family,
        result: impl FnOnce(Reply) -> Option<Value> + Send + 'static,
    ) -> Self {
        Self {
            request,
            family,
            patience: PATIENCE,
            binding: Binding::Keep,
            result: Box::new(result),
            first: None,
        }
    }

    /// With [`Ask::first`].
    #[must_use]
    pub(super) fn first(
        mut self,
        first: impl FnOnce(Outcome) -> Option<Outcome> + Send + 'static,
    ) -> Self {
        self.first = Some(Box::new(first));
        self
    }
}

impl From<Ask> for Step {
    fn from(ask: Ask) -> Self {
        Step::Ask(Box::new(ask))
    }
}

/// Checks a request in the protocol's order: method, binding, parameters, objects.
///
/// # Errors
/// What the client is answered.
pub(super) fn prepare(
    context: Context<'_>,
    bound: Option<SessionId>,
    envelope: &Envelope<'_>,
) -> (Option<&'static Method>, Result<Step, ApiError>) {
    let Some(method) = Method::from_name(&envelope.method) else {
        let error = ApiError::new(Code::UnknownMethod, "unknown method");
        return (None, Err(error));
    };
    (Some(method), step(context, bound, method, envelope))
}

fn step(
    context: Context<'_>,
    bound: Option<SessionId>,
    method: &Method,
    envelope: &Envelope<'_>,
) -> Result<Step, ApiError> {
    match (method.needs(), bound) {
        (Needs::Nothing, _) => {
            Params::read(envelope.params)?;
            Ok(Step::Answer(match method.action {
                Action::ServerInfo => session::server_info(context.app),
                _ => session::list(context.app),
            }))
        }
        (Needs::Unbound, Some(_)) => Err(ApiError::new(
            Code::SessionAlreadyBound,
            "this connection holds a session already",
        )),
        (Needs::Unbound, None) => {
            let params = Params::read(envelope.params)?;
            match method.action {
                Action::SessionAttach => session::attach(context, &params),
                _ => session::create(context),
            }
        }
        (Needs::Session, None) => Err(ApiError::new(
            Code::NoSession,
            "No session is bound to this connection",
        )),
        (Needs::Session, Some(session)) => {
            let params = Params::read(envelope.params)?;
            bound_step(context, session, method, &params)
        }
    }
}

fn bound_step(
    context: Context<'_>,
    session: SessionId,
    method: &Method,
    params: &Params<'_>,
) -> Result<Step, ApiError> {
    let transport = method.transport;
    match method.action {
        Action::SessionCreate
        | Action::SessionAttach
        | Action::ServerInfo
        | Action::SessionList => Err(ApiError::new(
            Code::InternalError,
            "method does not act on a session",
        )),
        Action::SessionDestroy => Ok(session::destroy(context, session)),
        Action::SessionInfo => Ok(session::info(context, session)),
        Action::SessionBridge => bridge::create(session, params),
        Action::CreateFromOffer => endpoint::create_from_offer(context, session, transport, params),
        Action::CreateOffer => endpoint::create_offer(session, transport, params),
        Action::AcceptAnswer => endpoint::accept_answer(context, session, transport, params),
        Action::Reinvite => endpoint::reinvite(context, session, params),
        Action::AcceptOffer => endpoint::accept_offer(context, session, params),
        Action::UpdateDirection => endpoint::update_direction(session, params),
        Action::Remove => endpoint::remove(context, session, params),
        Action::IceRestart => endpoint::ice_restart(session, params),
        Action::SrtpRekey => endpoint::srtp_rekey(session, params),
        Action::Transfer => endpoint::transfer(session, params),
        Action::CreateWithFile => playback::create_with_file(context, session, params),
        Action::FileSeek => playback::seek(session, params),
        Action::FilePause => playback::pause(session, params),
        Action::FileResume => playback::resume(session, params),
        Action::CreateTone => playback::create_tone(session, params),
        Action::DtmfInject => dtmf::inject(session, params),
        Action::DtmfSetSensitive => dtmf::set_sensitive(session, params),
        Action::RecordingStart => recording::start(context, session, params),
        Action::RecordingStop => recording::stop(context, session, params),
        Action::VadStart => vad::start(session, params),
        Action::VadStop => vad::stop(session, params),
        Action::StatsSubscribe => stats::subscribe(session, params),
        Action::StatsUnsubscribe => Ok(stats::unsubscribe(session)),
        Action::StatsSnapshot => Ok(stats::snapshot(session)),
    }
}
