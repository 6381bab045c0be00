//! Moving an endpoint to another session: `check_transfer` here, `reserve` there, `detach` here,
//! `insert` there, `transferred_out` here. With a place reserved only the end of the other session can
//! forbid the insertion; then it is `insert` here again, with `from` None.
//!
//! To clients the endpoint is here until `transferred_out`: it is listed and counted.

use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::{Event, RequestError};
use rtpbridge_shared::vocab::EndpointType;

use super::engine::Session;
use super::input::{EndpointKey, EndpointSockets};
use super::output::{EndedRecording, Outbox};
use super::taps::Recordings;
use crate::endpoint::{Endpoint, Sinks};
use crate::time::Moment;

/// An endpoint on its way to another session, with all its state.
pub struct DetachedEndpoint {
    endpoint: Box<Endpoint>,
}

impl DetachedEndpoint {
    /// One that is in no session yet.
    pub(super) fn new(endpoint: Box<Endpoint>) -> Self {
        Self { endpoint }
    }

    /// Which endpoint.
    pub fn id(&self) -> EndpointId {
        self.endpoint.id()
    }

    /// Its sockets, whose place in an event loop the shell has to move along. None only for kinds
    /// that have none.
    pub fn sockets(&self) -> Option<EndpointSockets> {
        self.endpoint.sockets()
    }

    /// The shell knows its sockets by other names from now on.
    pub fn rename_sockets(&mut self, sockets: EndpointSockets) {
        self.endpoint.rename_sockets(sockets);
    }

    /// No session will have it: says BYE, and gives the sockets to be closed.
    pub fn discard(mut self, now: Moment, out: &mut dyn Outbox) -> Option<EndpointSockets> {
        let recordings = &mut Recordings::default();
        self.endpoint
            .on_removed(now, &mut Sinks { recordings, out });
        self.endpoint.sockets()
    }
}

impl Session {
    /// Whether the endpoint can be moved elsewhere.
    ///
    /// # Errors
    /// No such endpoint, or of a kind that cannot move.
    pub fn check_transfer(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
    ) -> Result<(), RequestError> {
        let actual = self.command_on(endpoint, now.at)?.endpoint_type();
        match actual {
            EndpointType::Rtp | EndpointType::Webrtc | EndpointType::Bridge => Ok(()),
            EndpointType::File | EndpointType::Tone => {
                Err(RequestError::WrongEndpointType { actual })
            }
        }
    }

    /// Keeps a place for an endpoint that is about to arrive.
    ///
    /// # Errors
    /// The session is full, over, or knows the id.
    pub fn reserve(&mut self, now: Moment, endpoint: EndpointId) -> Result<(), RequestError> {
        self.on_command(now.at)?;
        self.check_new(endpoint)?;
        self.arriving.push(endpoint);
        self.on_endpoints_changed(now.at);
        Ok(())
    }

    /// The endpoint with a place here is not coming.
    pub fn unreserve(&mut self, now: Moment, endpoint: EndpointId) {
        self.arriving.retain(|arriving| *arriving != endpoint);
        self.on_endpoints_changed(now.at);
    }

    /// Takes the endpoint out, silently. Its recordings and its counting in limits stay until
    /// [`transferred_out`](Self::transferred_out).
    ///
    /// # Errors
    /// No such endpoint, or of a kind that cannot move.
    pub fn detach(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
    ) -> Result<Box<DetachedEndpoint>, RequestError> {
        self.check_transfer(now, endpoint)?;
        let key = self.key_of(endpoint)?;
        let taken = self.endpoints.remove(key);
        let endpoint = taken.ok_or(RequestError::EndpointNotFound)?;
        self.departing.push(endpoint.details());
        self.on_endpoints_changed(now.at);
        Ok(Box::new(DetachedEndpoint { endpoint }))
    }

    /// Takes the endpoint in and, when `from` names the session it left, says so in an event.
    ///
    /// # Errors
    /// The session is over or, without a reservation, full; the endpoint comes back unharmed.
    pub fn insert(
        &mut self,
        now: Moment,
        endpoint: Box<DetachedEndpoint>,
        from: Option<SessionId>,
        out: &mut dyn Outbox,
    ) -> Result<EndpointKey, (Box<DetachedEndpoint>, RequestError)> {
        let id = endpoint.id();
        if from.is_none() {
            self.departing.retain(|departing| departing.endpoint != id);
        }
        self.arriving.retain(|arriving| *arriving != id);
        if let Err(error) = self.on_command(now.at).and_then(|()| self.check_new(id)) {
            return Err((endpoint, error));
        }
        let DetachedEndpoint { mut endpoint } = *endpoint;
        if let Some(leg) = endpoint.leg_mut() {
            leg.on_moved();
        }
        let arrived = from.map(|source_session| Event::TransferredIn {
            endpoint: id,
            source_session,
            endpoint_type: endpoint.endpoint_type(),
            direction: endpoint.direction(),
            state: endpoint.state(),
        });
        let key = self.endpoints.insert(endpoint);
        if let Some(arrived) = arrived {
            self.recordings.on_leg(id, out);
            self.events.emit(arrived, out);
        }
        self.on_endpoints_changed(now.at);
        Ok(key)
    }

    /// The endpoint that was detached is in its new session: the event, and the single-leg
    /// recordings that end with it.
    pub fn transferred_out(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        target: SessionId,
        out: &mut dyn Outbox,
    ) -> Vec<EndedRecording> {
        self.departing
            .retain(|departing| departing.endpoint != endpoint);
        let departed = Event::TransferredOut {
            endpoint,
            target_session: target,
        };
        self.events.emit(departed, out);
        self.on_endpoints_changed(now.at);
        self.recordings.stop_leg(endpoint)
    }
}
