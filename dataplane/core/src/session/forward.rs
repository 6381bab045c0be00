//! A packet on its way along the plan. Nothing here allocates.

use super::engine::Session;
use super::input::{EndpointKey, PacketBuffer};
use super::output::Outbox;
use super::plan::Handling;
use crate::endpoint::{Content, Inbound, Sinks};
use crate::time::Moment;

impl Session {
    fn is_tapped(&self, source: EndpointKey) -> bool {
        let sound = self.sound.as_ref();
        sound.is_some_and(|sound| sound.is_tapped(source))
    }

    /// Sends a party's packet to everybody who is to hear it.
    pub(super) fn forward(
        &mut self,
        source: EndpointKey,
        inbound: &Inbound,
        buffer: &mut PacketBuffer,
        now: Moment,
        out: &mut dyn Outbox,
    ) {
        let (mut is_transcoded, mut is_mixed) = (false, false);
        let mut too_long_ms = None;
        for route in self.plan.routes_from(source) {
            let Some(destination) = self.endpoints.get_mut(route.destination) else {
                continue;
            };
            if let Some(bridge) = destination.as_bridge_mut() {
                let payload = buffer.datagram().get(inbound.payload.clone());
                bridge.cross(inbound, payload.unwrap_or_default());
                is_transcoded |= route.handling == Handling::Transcode;
                is_mixed |= route.handling == Handling::Mix;
                continue;
            }
            let path = destination.media_path();
            let Some(leg) = destination.leg_mut() else {
                continue;
            };
            let recordings = &mut self.recordings;
            let sinks = &mut Sinks {
                recordings,
                out: &mut *out,
            };
            match (inbound.content, route.handling) {
                (Content::Audio(codec), Handling::Forward) => {
                    match leg.too_long_ms(codec, inbound, buffer) {
                        None => leg.forward_audio(source.0, inbound, buffer, now, path, sinks),
                        too_long => too_long_ms = too_long,
                    }
                }
                (Content::Audio(_), Handling::Transcode) => is_transcoded = true,
                (Content::Audio(_), Handling::Mix) => is_mixed = true,
                (Content::Event { .. }, handling) => {
                    leg.forward_event(source.0, inbound, handling, now, path, sinks);
                }
                (Content::Unknown, Handling::Forward) => leg.withhold(source.0, inbound),
                (Content::Audio(_), Handling::EventsOnly) | (Content::Unknown, _) => {}
            }
        }
        if let Some(ms) = too_long_ms {
            is_transcoded = true;
            self.on_too_long(source, ms, now);
        }
        if self.sound.is_none() {
            return;
        }
        let Content::Audio(codec) = inbound.content else {
            return self.pass_over(source, inbound);
        };
        let payload = buffer.datagram().get(inbound.payload.clone());
        let payload = payload.unwrap_or_default();
        if is_mixed {
            self.mix(source, codec, inbound, payload, now);
        }
        if is_transcoded || self.is_tapped(source) {
            self.transcode(source, codec, inbound, payload, now, out);
        }
    }

    /// Somebody takes no packets as long as this source sends them.
    fn on_too_long(&mut self, source: EndpointKey, ms: u16, now: Moment) {
        if let Some(source) = self.endpoints.get_mut(source) {
            source.on_too_long(ms);
            self.replan(now.at);
        }
    }
}
