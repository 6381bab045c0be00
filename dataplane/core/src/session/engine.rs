//! The session itself: owns its parts and calls them in order. Commands are in files of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::session::{
    Attached, EndpointDetails, SessionCounts, SessionDetails, SessionEndReason, SessionSnapshot,
};
use rtpbridge_shared::ipc::{Event, RequestError};

use super::config::EngineConfig;
use super::endpoints::Endpoints;
use super::events::EventLog;
use super::input::{Channel, EndpointKey, EndpointSockets, PacketBuffer};
use super::liveness::{Expiry, Liveness};
use super::output::{EndedRecording, Outbox};
use super::plan::RoutePlan;
use super::sound::Sound;
use super::stats::Subscription;
use super::taps::Recordings;
use crate::dtmf::receiver::FinishedEvent;
use crate::endpoint::{Endpoint, MediaLeg, Sinks, States};
use crate::entropy::Entropy;
use crate::time::{Instant, Moment};

/// One call. See the module's comment for how it is driven.
///
/// Events that a command causes are given to the outbox before the command's method returns; the
/// shell sends the answer first.
pub struct Session {
    pub(super) id: SessionId,
    created_at_ms: u64,
    pub(super) config: Arc<EngineConfig>,
    pub(super) entropy: Box<dyn Entropy + Send>,
    pub(super) endpoints: Endpoints,
    /// Detached, and not yet known to have arrived elsewhere: still shown and counted, as they were.
    pub(super) departing: Vec<EndpointDetails>,
    /// Expected: they have a place, and do not show yet.
    pub(super) arriving: Vec<EndpointId>,
    pub(super) plan: RoutePlan,
    /// None in sessions that only forward.
    pub(super) sound: Option<Box<Sound>>,
    pub(super) events: EventLog,
    pub(super) recordings: Recordings,
    pub(super) subscription: Option<Subscription>,
    pub(super) liveness: Liveness,
    /// Packets that came over bridges.
    pub(super) crossed: u64,
    /// Where they are put down.
    pub(super) crossing_buffer: Option<Box<PacketBuffer>>,
    deadline: Option<Instant>,
}

/// What an ended session leaves behind.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Closed {
    /// To be closed; BYEs went out before this was returned.
    pub sockets: Vec<EndpointSockets>,
    /// To be flushed and closed, then told to [`Session::recording_stopped`]; the session numbers
    /// the events, so drop it only then.
    pub recordings: Vec<EndedRecording>,
    /// Other ends of its bridges, in other sessions: they go too.
    pub far_ends: Vec<EndpointId>,
}

impl Session {
    /// An empty session, attached to the client that made it. `created_at_ms` (Unix epoch) is
    /// reported back.
    pub fn new(
        id: SessionId,
        created_at_ms: u64,
        config: Arc<EngineConfig>,
        entropy: Box<dyn Entropy + Send>,
        now: Instant,
    ) -> Self {
        let events = EventLog::new(config.held_events);
        let liveness = Liveness::new(&config, now);
        let mut session = Self {
            id,
            created_at_ms,
            config,
            entropy,
            endpoints: Endpoints::default(),
            departing: Vec::new(),
            arriving: Vec::new(),
            plan: RoutePlan::default(),
            sound: None,
            events,
            recordings: Recordings::default(),
            subscription: None,
            liveness,
            crossed: 0,
            crossing_buffer: None,
            deadline: None,
        };
        session.reschedule();
        session
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Removes all endpoints, saying BYE, and ends all recordings. The session takes packets and
    /// commands no more, but [`recording_stopped`](Self::recording_stopped).
    pub fn close(&mut self, now: Moment, out: &mut dyn Outbox) -> Closed {
        let mut closed = Closed::default();
        for key in self.endpoints.keys().to_vec() {
            let Some(mut endpoint) = self.endpoints.remove(key) else {
                continue;
            };
            let recordings = &mut self.recordings;
            endpoint.on_removed(now, &mut Sinks { recordings, out });
            closed.sockets.extend(endpoint.sockets());
            closed.far_ends.extend(endpoint.far_end());
        }
        self.plan = RoutePlan::default();
        self.sound = None;
        self.subscription = None;
        closed.recordings = self.recordings.stop_all();
        self.liveness.on_closed();
        self.reschedule();
        closed
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; may change with every other call. Cheap.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Does what is due. Calling it early does nothing; late is late.
    pub fn handle_timeout(&mut self, now: Moment, out: &mut dyn Outbox) {
        if self.deadline.is_none_or(|due| now.at < due) {
            return;
        }
        for index in 0..self.endpoints.len() {
            if let Some(key) = self.endpoints.keys().get(index).copied() {
                self.handle_endpoint_timeout(key, now, out);
            }
        }
        self.run_ticks(now, out);
        self.give_up_waiting(now, out);
        self.report_stats(now, out);
        if self.endpoints.iter().any(|(_, e)| e.is_playing()) {
            self.liveness.on_activity(now.at);
        }
        if let Some(expiry) = self.liveness.handle_timeout(now.at) {
            self.expire(expiry, out);
        }
        self.reschedule();
    }

    /// A datagram came in for an endpoint. `arrival.wall` is the kernel's time stamp where there is
    /// one. The buffer's contents are spent afterwards.
    pub fn handle_packet(
        &mut self,
        arrival: Moment,
        endpoint: EndpointKey,
        channel: Channel,
        source: SocketAddr,
        buffer: &mut PacketBuffer,
        out: &mut dyn Outbox,
    ) {
        let Some(receiver) = self.endpoints.get_mut(endpoint) else {
            return;
        };
        let codec_before = receiver.incoming_codec();
        let states_before = receiver.states();
        let recordings = &mut self.recordings;
        let mut sinks = Sinks { recordings, out };
        let heard = receiver.handle_packet(arrival, channel, source, buffer, &mut sinks);
        let wake_at = receiver.next_timeout();
        let is_other_codec = receiver.incoming_codec() != codec_before;
        let (id, states) = (receiver.id(), receiver.states());
        if heard.is_handshake
            && let Some(sockets) = receiver.sockets()
        {
            out.handshake(sockets.media.key, buffer.datagram());
        }
        if heard.is_activity {
            self.liveness.on_activity(arrival.at);
            if heard.inbound.is_none() {
                self.on_control(endpoint);
            }
        }
        if let Some((ssrc_list, reason)) = heard.goodbye {
            let goodbye = Event::RtcpBye {
                endpoint: id,
                ssrc_list,
                reason,
            };
            self.events.emit(goodbye, out);
        }
        if states != states_before {
            self.on_states(id, states_before, states, arrival.at, out);
        } else if is_other_codec {
            self.replan(arrival.at);
        }
        if let Some(inbound) = heard.inbound {
            for finished in heard.finished.into_iter().flatten() {
                self.on_event_finished(endpoint, &finished, arrival.at, out);
            }
            self.forward(endpoint, &inbound, buffer, arrival, out);
        }
        self.wake_by(wake_at);
    }

    /// A client holds the session from now on: events flow.
    pub fn attach(&mut self, now: Moment) -> Attached {
        self.liveness.on_activity(now.at);
        self.events.attach()
    }

    /// No client holds the session: critical events are held, others only counted.
    pub fn release(&mut self) {
        self.events.release();
    }

    /// All events up to and including `event_number` are accounted for at the client.
    pub fn acknowledge(&mut self, event_number: u64) {
        self.events.acknowledge(event_number);
    }

    /// How much it holds.
    pub fn counts(&self) -> SessionCounts {
        SessionCounts {
            session: self.id,
            endpoints: self.endpoint_count() as u32,
            recordings: self.recordings.len() as u32,
        }
    }

    /// As `session.info` shows it. `packets` of a recording are those handed to the outbox.
    pub fn details(&self) -> SessionDetails {
        let endpoints = self.endpoints.iter().map(|(_, e)| e.details());
        SessionDetails {
            session: self.id,
            created_at_ms: self.created_at_ms,
            endpoints: endpoints.chain(self.departing.iter().cloned()).collect(),
            recordings: self.recordings.details(),
            vad_active: self.listened_to(),
        }
    }

    /// For control's mirror.
    pub fn snapshot(&self) -> SessionSnapshot {
        SessionSnapshot {
            details: self.details(),
            last_event_number: self.events.last_number(),
        }
    }

    pub(super) fn endpoint_count(&self) -> usize {
        self.endpoints.len() + self.departing.len()
    }

    /// A command came: the session lives, unless it has ended.
    pub(super) fn on_command(&mut self, now: Instant) -> Result<(), RequestError> {
        self.liveness.on_activity(now);
        if self.liveness.is_over() {
            return Err(RequestError::SessionGone);
        }
        Ok(())
    }

    pub(super) fn key_of(&self, id: EndpointId) -> Result<EndpointKey, RequestError> {
        self.endpoints
            .find(id)
            .ok_or(RequestError::EndpointNotFound)
    }

    /// Notes a command on this endpoint and finds it.
    pub(super) fn command_on(
        &mut self,
        id: EndpointId,
        now: Instant,
    ) -> Result<&mut Endpoint, RequestError> {
        self.on_command(now)?;
        let key = self.key_of(id)?;
        self.endpoints
            .get_mut(key)
            .ok_or(RequestError::EndpointNotFound)
    }

    /// Endpoints came, went or changed: routes and deadlines follow.
    pub(super) fn on_endpoints_changed(&mut self, now: Instant) {
        let are_none = self.endpoint_count() + self.arriving.len() == 0;
        self.liveness.on_endpoints(are_none, now);
        self.replan(now);
        self.reschedule();
    }

    /// The party's reports may say that it loses more or less than before.
    fn on_control(&mut self, key: EndpointKey) {
        let leg = self.endpoints.get(key).and_then(Endpoint::leg);
        if let Some(sound) = &mut self.sound
            && let Some(percent) = leg.and_then(MediaLeg::peer_loss_percent)
        {
            sound.on_peer_loss(key, percent, &self.endpoints);
        }
    }

    /// Decides anew who hears whom. Destinations whose feed changed go on where they are.
    pub(super) fn replan(&mut self, now: Instant) {
        let views: Vec<_> = self.endpoints.iter().map(|(key, e)| e.view(key)).collect();
        let plan = RoutePlan::build(&views);
        for (key, feed) in plan.feeds() {
            if !self.plan.feed(key).goes_on_as(feed)
                && let Some(leg) = self.endpoints.get_mut(key).and_then(Endpoint::leg_mut)
            {
                leg.on_interruption();
            }
        }
        self.plan = plan;
        if self.sound.is_none() && Sound::is_needed(&self.plan, &self.endpoints) {
            self.sound = Some(Box::new(Sound::new(&self.config)));
        }
        if let Some(sound) = &mut self.sound {
            let entropy = self.entropy.as_mut();
            sound.follow(&self.plan, &self.endpoints, &self.config, entropy, now);
        }
    }

    /// Tells of an endpoint's changed states, and routes accordingly.
    pub(super) fn on_states(
        &mut self,
        endpoint: EndpointId,
        before: States,
        after: States,
        now: Instant,
        out: &mut dyn Outbox,
    ) {
        if before == after {
            return;
        }
        if let Some(ice_state) = after.ice.filter(|_| before.ice != after.ice) {
            let changed = Event::IceStateChanged {
                endpoint,
                ice_state,
            };
            self.events.emit(changed, out);
        }
        if before.endpoint != after.endpoint {
            let changed = Event::StateChanged {
                endpoint,
                old_state: before.endpoint,
                new_state: after.endpoint,
            };
            self.events.emit(changed, out);
            self.on_endpoints_changed(now);
        }
    }

    pub(super) fn reschedule(&mut self) {
        let endpoints = self.endpoints.iter().filter_map(|(_, e)| e.next_timeout());
        let stats = self.subscription.as_ref().map(Subscription::next_timeout);
        let sound = self.sound.as_deref().and_then(Sound::next_timeout);
        let others = [stats, sound, self.liveness.next_timeout()];
        self.deadline = endpoints.chain(others.into_iter().flatten()).min();
    }

    pub(super) fn wake_by(&mut self, due: Option<Instant>) {
        self.deadline = match (self.deadline, due) {
            (Some(deadline), Some(due)) => Some(deadline.min(due)),
            (deadline, due) => deadline.or(due),
        };
    }

    fn handle_endpoint_timeout(&mut self, key: EndpointKey, now: Moment, out: &mut dyn Outbox) {
        let Some(endpoint) = self.endpoints.get_mut(key) else {
            return;
        };
        if endpoint.next_timeout().is_none_or(|due| now.at < due) {
            return;
        }
        let (id, states_before) = (endpoint.id(), endpoint.states());
        let recordings = &mut self.recordings;
        let mut sinks = Sinks { recordings, out };
        let timed_out = endpoint.handle_timeout(self.entropy.as_mut(), now, &mut sinks);
        let states = endpoint.states();
        self.on_states(id, states_before, states, now.at, out);
        self.tell_voice(key, out);
        if let Some(silence) = timed_out.silent_for {
            let timeout = Event::MediaTimeout {
                endpoint: id,
                duration_ms: silence.as_millis() as u64,
            };
            self.events.emit(timeout, out);
        }
        if let Some(finished) = timed_out.finished {
            self.on_event_finished(key, &finished, now.at, out);
        }
    }

    /// A party's telephone-event is over: its client is told, and who could not be sent it while it
    /// lasted is sent it now.
    fn on_event_finished(
        &mut self,
        source: EndpointKey,
        finished: &FinishedEvent,
        now: Instant,
        out: &mut dyn Outbox,
    ) {
        let Some(endpoint) = self.endpoints.get(source) else {
            return;
        };
        let sensitive = endpoint.leg().is_some_and(|leg| leg.is_sensitive());
        if let Some(digit) = finished.digit {
            out.counters().dtmf_events += 1;
            let event = Event::Dtmf {
                endpoint: endpoint.id(),
                digit,
                duration_ms: finished.duration_ms,
                sensitive,
            };
            self.events.emit(event, out);
        }
        if self.tell_listeners(source, finished, sensitive) {
            self.deadline = Some(now);
        }
    }

    /// Whoever could not be sent the event while it lasted is sent it now; true when somebody is.
    pub(super) fn tell_listeners(
        &mut self,
        source: EndpointKey,
        finished: &FinishedEvent,
        is_sensitive: bool,
    ) -> bool {
        let mut is_due = false;
        for route in self.plan.routes_from(source) {
            let Some(destination) = self.endpoints.get_mut(route.destination) else {
                continue;
            };
            if let Some(bridge) = destination.as_bridge_mut() {
                bridge.cross_end(finished, is_sensitive);
            } else if let Some(leg) = destination.leg_mut() {
                is_due |= leg.on_event_finished(source.0, finished, is_sensitive);
            }
        }
        is_due
    }

    fn expire(&mut self, expiry: Expiry, out: &mut dyn Outbox) {
        let (event, reason) = match expiry {
            Expiry::Idle(timeout) => {
                let idle_timeout_secs = timeout.as_secs();
                let event = Event::IdleTimeout { idle_timeout_secs };
                (event, SessionEndReason::IdleTimeout)
            }
            Expiry::Empty(timeout) => {
                let empty_timeout_secs = timeout.as_secs();
                let event = Event::EmptyTimeout { empty_timeout_secs };
                (event, SessionEndReason::EmptyTimeout)
            }
        };
        self.events.emit(event, out);
        out.end(reason);
    }
}
