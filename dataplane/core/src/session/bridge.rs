//! Bridges to other sessions: made in two halves, as transfers are, and worked at every tick of the
//! grid.

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::RequestError;

use super::engine::Session;
use super::input::EndpointKey;
use super::output::Outbox;
use super::transfer::DetachedEndpoint;
use crate::endpoint::{BridgeEnd, Content, Crossing, Endpoint, Inbound};
use crate::mixer::Tick;
use crate::time::{Instant, Moment};

/// Things taken from one bridge in one tick.
const MAX_CROSSINGS: usize = 64;

impl Session {
    /// Takes in one end of a bridge, for which a place was reserved.
    ///
    /// # Errors
    /// The session is over; with the end, the other one will go.
    pub fn join_bridge(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        end: BridgeEnd,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        let endpoint = Box::new(Endpoint::bridge(endpoint, end));
        let id = endpoint.id();
        let joined = self.insert(now, Box::new(DetachedEndpoint::new(endpoint)), None, out);
        joined.map_err(|(_, refused)| refused)?;
        self.recordings.on_leg(id, out);
        Ok(())
    }

    /// The endpoint at the other end, when this one is a bridge's.
    pub fn far_end(&self, endpoint: EndpointId) -> Option<EndpointId> {
        let key = self.endpoints.find(endpoint)?;
        self.endpoints.get(key)?.far_end()
    }

    /// A tick begins: digits of other sessions are passed on, and ends without a counterpart go.
    pub(super) fn begin_bridge_tick(&mut self, tick: Tick, now: Moment, out: &mut dyn Outbox) {
        for index in 0..self.endpoints.len() {
            let Some(key) = self.endpoints.keys().get(index).copied() else {
                break;
            };
            let Some(bridge) = self.bridge_mut(key) else {
                continue;
            };
            bridge.on_tick(tick.index);
            for _ in 0..MAX_CROSSINGS {
                let crossing = self.bridge_mut(key).and_then(BridgeEnd::next_crossing);
                let Some(crossing) = crossing else {
                    break;
                };
                self.on_crossing(key, crossing, now, out);
            }
        }
        let is_lost =
            |endpoint: &Endpoint| endpoint.as_bridge().is_some_and(BridgeEnd::is_abandoned);
        let lost = self
            .endpoints
            .iter()
            .find(|(_, endpoint)| is_lost(endpoint));
        if let Some((key, _)) = lost {
            self.drop_bridge(key, now.at, out);
        }
    }

    /// A tick ends: what came together for other sessions goes to them.
    pub(super) fn end_bridge_tick(&mut self, tick: Tick) {
        for index in 0..self.endpoints.len() {
            let key = self.endpoints.keys().get(index).copied();
            if let Some(bridge) = key.and_then(|key| self.bridge_mut(key)) {
                bridge.send(tick.index);
            }
        }
    }

    fn bridge_mut(&mut self, key: EndpointKey) -> Option<&mut BridgeEnd> {
        self.endpoints.get_mut(key)?.as_bridge_mut()
    }

    fn on_crossing(
        &mut self,
        key: EndpointKey,
        crossing: Crossing,
        now: Moment,
        out: &mut dyn Outbox,
    ) {
        match crossing {
            Crossing::Event {
                timestamp,
                marker,
                payload,
                clock_rate,
                start,
                is_sensitive,
            } => {
                self.crossed = self.crossed.wrapping_add(1);
                let inbound = Inbound {
                    epoch: 0,
                    sequence: self.crossed,
                    timestamp,
                    marker,
                    payload: 0..0,
                    content: Content::Event {
                        payload,
                        clock_rate,
                        start,
                    },
                    is_sensitive,
                };
                self.pass_event(key, &inbound, now, out);
            }
            Crossing::Finished {
                event,
                is_sensitive,
            } => {
                if self.tell_listeners(key, &event, is_sensitive) {
                    self.wake_by(Some(now.at));
                }
            }
        }
    }

    /// The other end is gone.
    fn drop_bridge(&mut self, key: EndpointKey, now: Instant, out: &mut dyn Outbox) {
        let Some(endpoint) = self.endpoints.remove(key) else {
            return;
        };
        let ended = self.recordings.stop_leg(endpoint.id());
        if !ended.is_empty() {
            out.recordings_ended(ended);
        }
        self.on_endpoints_changed(now);
    }
}
