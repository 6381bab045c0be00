//! Bridges to other sessions: made in two halves, as transfers are, and worked at every tick of the
//! grid.

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::RequestError;

use super::engine::Session;
use super::input::{EndpointKey, PacketBuffer};
use super::output::Outbox;
use super::plan::Feed;
use super::transfer::DetachedEndpoint;
use crate::codec::Codec;
use crate::endpoint::{BridgeEnd, Content, Crossed, Crossing, Endpoint, Inbound, MediaLeg};
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
            self.choose_codecs(key, now);
            self.run_crossings(key, now, out);
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

    /// Sound crosses as packets where there is one party on each side, and both have one codec.
    /// Recordings want sound.
    fn choose_codecs(&mut self, key: EndpointKey, now: Moment) {
        let listener = match self.plan.routes_from(key) {
            [route] if self.recordings.is_empty() => Some(route.destination),
            _ => None,
        };
        let is_ours = |listener: &EndpointKey| only_source(self.plan.feed(*listener)) == Some(key);
        let listener = listener.filter(is_ours);
        let listener = listener.and_then(|listener| self.endpoints.get(listener));
        let longest_ms = self.endpoints.get(key).map_or(0, Endpoint::longest_ms);
        let listener = listener
            .and_then(Endpoint::leg)
            .filter(|leg| leg.maxptime_ms().is_none_or(|most| longest_ms <= most));
        let listener = listener.and_then(MediaLeg::sending_codec);
        let source = only_source(self.plan.feed(key));
        let source = source.and_then(|source| self.endpoints.get(source));
        let source = source.and_then(|source| source.leg()?.incoming_codec());
        if let Some(bridge) = self.bridge_mut(key)
            && bridge.choose(listener, source)
        {
            self.replan(now.at);
        }
    }

    fn run_crossings(&mut self, key: EndpointKey, now: Moment, out: &mut dyn Outbox) {
        let mut buffer = self.crossing_buffer.take().unwrap_or_default();
        for _ in 0..MAX_CROSSINGS {
            let bridge = self.bridge_mut(key);
            let next = bridge.and_then(|bridge| bridge.next_crossing(buffer.space()));
            let Some((crossing, is_other)) = next else {
                break;
            };
            if is_other {
                self.replan(now.at);
            }
            self.on_crossing(key, &crossing, &mut buffer, now, out);
        }
        self.crossing_buffer = Some(buffer);
    }

    fn on_crossing(
        &mut self,
        key: EndpointKey,
        crossing: &Crossing,
        buffer: &mut PacketBuffer,
        now: Moment,
        out: &mut dyn Outbox,
    ) {
        let mut len = 0;
        let content = match crossing.content {
            Crossed::Audio { codec, len: bytes } => {
                len = bytes;
                Content::Audio(codec)
            }
            Crossed::Event {
                payload,
                clock_rate,
                start,
            } => Content::Event {
                payload,
                clock_rate,
                start,
            },
            Crossed::Finished(event) => {
                if self.tell_listeners(key, &event, crossing.is_sensitive) {
                    self.wake_by(Some(now.at));
                }
                return;
            }
        };
        buffer.set_len(len);
        // Beside sound there is no stream of packets in which digits could have a place.
        let incoming = self.bridge_mut(key).map(|bridge| bridge.incoming());
        self.crossed = self.crossed.wrapping_add(1);
        let (epoch, sequence) = match incoming {
            None | Some(Codec::L16) => (0, self.crossed),
            Some(_) => (crossing.epoch.wrapping_add(1).max(1), crossing.sequence),
        };
        let inbound = Inbound {
            epoch,
            sequence,
            timestamp: crossing.timestamp,
            marker: crossing.marker,
            payload: 0..len,
            content,
            is_sensitive: crossing.is_sensitive,
        };
        self.forward(key, &inbound, buffer, now, out);
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

fn only_source(feed: &Feed) -> Option<EndpointKey> {
    match feed {
        Feed::Forward { source } | Feed::Transcode { source, .. } => Some(*source),
        Feed::Nothing | Feed::Mix { .. } => None,
    }
}
