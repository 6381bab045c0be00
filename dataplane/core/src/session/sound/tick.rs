//! Every 20 ms, on the grid that all sessions share: sound is pulled from those who make it, and
//! mixed.

use rtpbridge_shared::ipc::Event;

use super::delivery::Delivery;
use super::{RECORDED_CODEC, Sound};
use crate::codec::opus::OpusSettings;
use crate::endpoint::{Ending, Pulled, Sinks, States};
use crate::mixer::Tick;
use crate::session::{EndpointKey, Outbox, Session};
use crate::time::Moment;
use crate::transcode::TargetFormat;

/// Ticks of the pipelines' time line in 20 ms.
const TICK_POSITIONS: u64 = 960;

/// A source that came to its end in a tick.
struct Finished {
    key: EndpointKey,
    before: States,
    ending: Ending,
}

impl Session {
    /// Runs the ticks that are due; those missed by more than 100 ms are left out.
    pub(in crate::session) fn run_ticks(&mut self, now: Moment, out: &mut dyn Outbox) {
        while let Some(tick) = self.due_tick(now) {
            out.mixer_lateness(now.at - tick.at());
            self.begin_bridge_tick(tick, now, out);
            let mut finished = Vec::new();
            let count = self.sound.as_ref().map_or(0, |sound| sound.sources.len());
            for at in 0..count {
                finished.extend(self.pull_source(at, tick, now, out));
                self.tell_voice_of(at, out);
            }
            self.mix_tick(tick, now, out);
            self.end_bridge_tick(tick);
            for end in finished {
                self.on_source_finished(end, now, out);
            }
        }
    }

    fn due_tick(&mut self, now: Moment) -> Option<Tick> {
        let clock = self.sound.as_mut()?.clock.as_mut()?;
        clock.handle_timeout(now.at)
    }

    /// Pulls 20 ms from a source and gives them to whoever hears it.
    fn pull_source(
        &mut self,
        at: usize,
        tick: Tick,
        now: Moment,
        out: &mut dyn Outbox,
    ) -> Option<Finished> {
        let sound = self.sound.as_deref_mut()?;
        let source = sound.sources.get_mut(at)?;
        let (key, made) = (source.key, source.made.as_deref_mut()?);
        let endpoint = self.endpoints.get_mut(key)?;
        let (id, before) = (endpoint.id(), endpoint.states());
        let missed = made
            .last_tick
            .map_or(0, |last| (tick.index - last.index).saturating_sub(1));
        made.last_tick = Some(tick);
        if missed > 0 {
            sound.cache.skip_pcm(key, missed * TICK_POSITIONS);
        }
        let rate_hz = made.rate_hz;
        let frame = &mut sound.pcm[..rate_hz as usize / 50];
        let pulled = endpoint.pull(rate_hz, frame);
        out.counters().file_underruns += endpoint.take_underruns();
        if let Pulled::Samples(count) = pulled {
            endpoint.hear(now.at, rate_hz, frame.get(..count).unwrap_or_default());
        }
        let listeners = &mut source.listeners;
        let places = listeners.places.as_slice();
        let formats = &mut listeners.formats;
        // Recordings want a format of their own; it is there for this tick only.
        let known = formats.len();
        let mut recorded = None;
        if !self.recordings.is_empty() {
            let format = TargetFormat::new(RECORDED_CODEC, 20, OpusSettings::default());
            let place = formats.iter().position(|other| *other == format);
            let place = place.unwrap_or_else(|| {
                formats.push(format);
                known
            });
            recorded = Some((place, id, made));
        }
        let mut delivery = Delivery {
            source: key,
            places,
            endpoints: &mut self.endpoints,
            area: &mut sound.area,
            sinks: Sinks {
                recordings: &mut self.recordings,
                out,
            },
            now,
            recorded,
        };
        let (cache, wanted) = (&mut sound.cache, formats.as_slice());
        let end = match pulled {
            Pulled::Samples(count) => {
                let pcm = frame.get(..count).unwrap_or_default();
                cache.handle_pcm((key, rate_hz), pcm, wanted, &mut delivery);
                if let Some(mix) = &mut sound.mix {
                    mix.handle_pcm(key, rate_hz, pcm);
                }
                None
            }
            Pulled::Nothing => {
                cache.skip_pcm(key, TICK_POSITIONS);
                None
            }
            Pulled::Finished(ending) => {
                cache.finish_pcm(key, wanted, &mut delivery);
                Some(Finished {
                    key,
                    before,
                    ending,
                })
            }
        };
        formats.truncate(known);
        count_errors(sound, out);
        end
    }

    fn tell_voice_of(&mut self, at: usize, out: &mut dyn Outbox) {
        let source = self.sound.as_ref().and_then(|sound| sound.sources.get(at));
        let tapped = source.filter(|source| source.tapped && source.made.is_some());
        if let Some(key) = tapped.map(|source| source.key) {
            self.tell_voice(key, out);
        }
    }

    fn mix_tick(&mut self, tick: Tick, now: Moment, out: &mut dyn Outbox) {
        let Some(sound) = self.sound.as_deref_mut() else {
            return;
        };
        let recordings = &mut self.recordings;
        let mut sinks = Sinks { recordings, out };
        if let Some(mix) = &mut sound.mix {
            let endpoints = &mut self.endpoints;
            mix.handle_tick(tick, now, endpoints, &mut sound.area, &mut sinks);
        }
    }

    fn on_source_finished(&mut self, end: Finished, now: Moment, out: &mut dyn Outbox) {
        let Some(endpoint) = self.endpoints.get(end.key) else {
            return;
        };
        let (id, after) = (endpoint.id(), endpoint.states());
        match end.ending {
            Ending::File(reason) => self.on_file_finished(end.key, reason, end.before, now, out),
            Ending::Tone => {
                self.on_states(id, end.before, after, now.at, out);
                self.events.emit(Event::ToneFinished { endpoint: id }, out);
            }
        }
    }
}

fn count_errors(sound: &mut Sound, out: &mut dyn Outbox) {
    out.counters().transcode_errors += sound.cache.take_errors();
}
