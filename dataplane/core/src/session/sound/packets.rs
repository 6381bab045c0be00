//! Packets of parties on their way into pipelines and mixes.

use super::delivery::Delivery;
use crate::codec::Codec;
use crate::endpoint::{Inbound, Sinks};
use crate::session::{EndpointKey, Outbox, Session};
use crate::time::Moment;
use crate::transcode::SourcePacket;

impl Session {
    /// A party's audio goes to all who hear it in another form.
    pub(in crate::session) fn transcode(
        &mut self,
        key: EndpointKey,
        codec: Codec,
        inbound: &Inbound,
        payload: &[u8],
        now: Moment,
        out: &mut dyn Outbox,
    ) {
        let Some(sound) = self.sound.as_deref_mut() else {
            return;
        };
        let Some(source) = sound.sources.iter_mut().find(|source| source.key == key) else {
            return;
        };
        let cache = &mut sound.cache;
        if source.epoch.replace(inbound.epoch) != Some(inbound.epoch) {
            cache.remove_source(key);
        }
        let packet = packet_of(inbound, payload);
        let mut delivery = Delivery {
            source: key,
            places: &source.listeners.places,
            endpoints: &mut self.endpoints,
            area: &mut sound.area,
            sinks: Sinks {
                recordings: &mut self.recordings,
                out,
            },
            now,
            recorded: None,
        };
        let tapped = source.tapped;
        let wanted = (source.listeners.formats.as_slice(), tapped);
        let tap = cache.handle_packet(now.at, (key, codec), packet, wanted, &mut delivery);
        let errors = cache.take_errors();
        delivery.sinks.out.counters().transcode_errors += errors;
        let due = cache.next_timeout();
        self.wake_by(due);
        if tapped {
            self.tell_voice(key, out);
        }
        if let Err(error) = tap {
            self.on_voice_lost(key, &error, now, out);
        }
    }

    /// A party's audio goes to all who hear it among others.
    pub(in crate::session) fn mix(
        &mut self,
        key: EndpointKey,
        codec: Codec,
        inbound: &Inbound,
        payload: &[u8],
        now: Moment,
    ) {
        let mix = self.sound.as_mut().and_then(|sound| sound.mix.as_mut());
        if let Some(mix) = mix {
            let packet = packet_of(inbound, payload);
            mix.handle_packet(key, (codec, inbound.epoch), packet, now.at);
        }
    }

    /// A party's packet carried no audio: its number is not missing.
    pub(in crate::session) fn pass_over(&mut self, key: EndpointKey, inbound: &Inbound) {
        let Some(sound) = &mut self.sound else {
            return;
        };
        let sequence = inbound.sequence as u16;
        sound.cache.pass_over(key, sequence);
        if let Some(mix) = &mut sound.mix {
            mix.pass_over(key, sequence);
        }
    }

    /// Stops waiting for packets that are missing.
    pub(in crate::session) fn give_up_waiting(&mut self, now: Moment, out: &mut dyn Outbox) {
        let Some(sound) = self.sound.as_deref_mut() else {
            return;
        };
        let mut told = Vec::new();
        while let Some(key) = sound.cache.due(now.at) {
            let Some(source) = sound.sources.iter().find(|source| source.key == key) else {
                sound.cache.remove_source(key);
                continue;
            };
            let mut delivery = Delivery {
                source: key,
                places: &source.listeners.places,
                endpoints: &mut self.endpoints,
                area: &mut sound.area,
                sinks: Sinks {
                    recordings: &mut self.recordings,
                    out: &mut *out,
                },
                now,
                recorded: None,
            };
            let formats = &source.listeners.formats;
            sound
                .cache
                .handle_timeout(now.at, key, formats, &mut delivery);
            told.extend(source.tapped.then_some(key));
        }
        out.counters().transcode_errors += sound.cache.take_errors();
        for key in told {
            self.tell_voice(key, out);
        }
    }
}

fn packet_of<'a>(inbound: &Inbound, payload: &'a [u8]) -> SourcePacket<'a> {
    SourcePacket {
        // Pipelines and mixers know of sequence numbers what RTP says.
        sequence: inbound.sequence as u16,
        timestamp: inbound.timestamp,
        marker: inbound.marker,
        payload,
    }
}
