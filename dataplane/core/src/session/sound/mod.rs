//! A session's sound beyond forwarding: what is decoded, made, mixed and encoded for whom.
//!
//! ```text
//! packets of a party ──► pipelines ──► frames ──► the listeners' streams      (packets.rs)
//!                └─────► jitter buffers ─┐
//!                ┌───────────────────────┴─► bus ──► frames ──► their streams    (mix.rs)
//! pulled every 20 ms ──► pipelines ──► frames ──► the listeners' streams      (tick.rs)
//! ```
//! It follows the [`RoutePlan`]: who hears whom is decided there. Sessions that only forward have
//! none of this.

mod delivery;
mod mix;
mod packets;
mod tick;

use self::mix::Mix;
use super::config::EngineConfig;
use super::endpoints::Endpoints;
use super::input::EndpointKey;
use super::plan::{Feed, RoutePlan};
use crate::codec;
use crate::endpoint::{Endpoint, MAX_FRAME, PacketArea};
use crate::entropy::Entropy;
use crate::mixer::{MixClock, Tick};
use crate::rtp::frame_track::FrameTrack;
use crate::rtp::rewrite::OutgoingStream;
use crate::time::Instant;
use crate::transcode::{TargetFormat, TranscodeCache};
use rtpbridge_shared::vocab::{Codec, EndpointState};

/// How sound that was made here is recorded: the static payload type that every tool can read
/// without a description.
const RECORDED_CODEC: Codec = Codec::Pcmu;

/// See the module's comment.
pub(crate) struct Sound {
    cache: TranscodeCache<EndpointKey>,
    sources: Vec<Source>,
    mix: Option<Box<Mix>>,
    /// Runs while anything is pulled or mixed.
    clock: Option<MixClock>,
    area: PacketArea,
    pcm: Box<[i16; MAX_FRAME]>,
}

/// Who is heard through a pipeline, or pulled.
struct Source {
    key: EndpointKey,
    listeners: Listeners,
    /// Somebody listens for speech.
    tapped: bool,
    /// Which of its lives the pipelines belong to.
    epoch: Option<u32>,
    made: Option<Box<Made>>,
}

/// The formats that are wanted of a source, each once, and who wants which.
#[derive(Default)]
struct Listeners {
    formats: Vec<TargetFormat>,
    /// Place in `formats`, and who.
    places: Vec<(usize, EndpointKey)>,
}

/// A source whose sound is pulled.
struct Made {
    rate_hz: u32,
    last_tick: Option<Tick>,
    /// The stream that recordings see.
    stream: OutgoingStream,
    track: FrameTrack,
}

impl Sound {
    pub(super) fn new(config: &EngineConfig) -> Self {
        Self {
            cache: TranscodeCache::new(config.transcode_cache_size),
            sources: Vec::new(),
            mix: None,
            clock: None,
            area: PacketArea::new(),
            pcm: Box::new([0; MAX_FRAME]),
        }
    }

    /// Whether a session with this plan needs one.
    pub(super) fn is_needed(plan: &RoutePlan, endpoints: &Endpoints) -> bool {
        let is_encoded = |feed: &Feed| matches!(feed, Feed::Transcode { .. } | Feed::Mix { .. });
        plan.feeds().any(|(_, feed)| is_encoded(feed))
            || endpoints
                .iter()
                .any(|(_, endpoint)| is_made(endpoint) || endpoint.is_listened_to())
    }

    /// The plan, or what endpoints want, has changed.
    pub(super) fn follow(
        &mut self,
        plan: &RoutePlan,
        endpoints: &Endpoints,
        config: &EngineConfig,
        entropy: &mut dyn Entropy,
        now: Instant,
    ) {
        self.mix = Mix::follow(self.mix.take(), plan, endpoints, config);
        let mix = self.mix.as_deref();
        let mut before = std::mem::take(&mut self.sources);
        for (key, endpoint) in endpoints.iter() {
            let listeners = Listeners::of(key, plan, endpoints, config);
            let tapped = endpoint.is_listened_to();
            if listeners.places.is_empty() && !is_made(endpoint) && !tapped {
                continue;
            }
            let known = before.iter().position(|source| source.key == key);
            let mut source = match known {
                Some(at) => before.swap_remove(at),
                None => Source {
                    key,
                    listeners: Listeners::default(),
                    tapped,
                    epoch: None,
                    made: is_made(endpoint).then(|| Box::new(Made::new(entropy))),
                },
            };
            source.listeners = listeners;
            source.tapped = tapped;
            if let Some(made) = &mut source.made {
                let mixed_hz = mix.filter(|mix| mix.hears(key)).map_or(0, Mix::rate_hz);
                let wanted_hz = source.listeners.best_rate().max(mixed_hz);
                made.rate_hz = endpoint.pcm_rate(wanted_hz).unwrap_or(wanted_hz);
            }
            self.sources.push(source);
        }
        for gone in before {
            self.cache.remove_source(gone.key);
        }
        let is_clocked = mix.is_some() || self.sources.iter().any(|source| source.made.is_some());
        self.clock = is_clocked.then(|| self.clock.unwrap_or(MixClock::new(now)));
    }

    /// Whether this source's sound is wanted beside what its listeners are sent.
    pub(super) fn is_tapped(&self, key: EndpointKey) -> bool {
        let mut tapped = self.sources.iter().filter(|source| source.tapped);
        tapped.any(|source| source.key == key)
    }

    /// A destination said what it loses: encoders that it listens to are to expect what the worst of
    /// their listeners loses.
    pub(super) fn on_peer_loss(&mut self, key: EndpointKey, percent: u8, endpoints: &Endpoints) {
        if let Some(mix) = &mut self.mix {
            mix.set_expected_loss(key, percent);
        }
        for source in &self.sources {
            let listeners = &source.listeners;
            let place = listeners.places.iter().find(|(_, who)| *who == key);
            let Some((place, _)) = place else { continue };
            let others = listeners.places.iter().filter(|(other, _)| other == place);
            let losses =
                others.filter_map(|(_, who)| endpoints.get(*who)?.leg()?.peer_loss_percent());
            let worst = losses.max().unwrap_or(percent);
            if let Some(format) = listeners.formats.get(*place) {
                self.cache.set_expected_loss(source.key, format, worst);
            }
        }
    }

    /// When something is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let tick = self.clock.as_ref().map(MixClock::next_timeout);
        [self.cache.next_timeout(), tick]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Listeners {
    fn of(
        source: EndpointKey,
        plan: &RoutePlan,
        endpoints: &Endpoints,
        config: &EngineConfig,
    ) -> Self {
        let mut listeners = Self::default();
        for (key, feed) in plan.feeds() {
            let is_listener = matches!(feed, Feed::Transcode { source: its, .. } if *its == source);
            let endpoint = endpoints.get(key).filter(|_| is_listener);
            if let Some(format) = endpoint.and_then(|endpoint| endpoint.target_format(config)) {
                let place = listeners.place_of(format);
                listeners.places.push((place, key));
            }
        }
        listeners
    }

    fn place_of(&mut self, format: TargetFormat) -> usize {
        let known = self.formats.iter().position(|known| *known == format);
        known.unwrap_or_else(|| {
            self.formats.push(format);
            self.formats.len() - 1
        })
    }

    /// The best that any of them can use.
    fn best_rate(&self) -> u32 {
        let rates = self
            .formats
            .iter()
            .map(|format| codec::audio_rate(format.codec()));
        rates.max().unwrap_or(8000)
    }
}

impl Made {
    fn new(entropy: &mut dyn Entropy) -> Self {
        Self {
            rate_hz: 8000,
            last_tick: None,
            stream: OutgoingStream::new(entropy, RECORDED_CODEC.clock_rate()),
            track: FrameTrack::default(),
        }
    }
}

/// Whether sound is pulled from it.
fn is_made(endpoint: &Endpoint) -> bool {
    let is_live = matches!(
        endpoint.state(),
        EndpointState::Playing | EndpointState::Paused | EndpointState::Connected
    );
    is_live && endpoint.pcm_rate(8000).is_some()
}
