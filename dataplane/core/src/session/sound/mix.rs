//! The session's mix: packets into jitter buffers as they come, and on every tick one frame of each
//! source into the bus and one frame of the sum to each destination.
//!
//! There is at most one per session. Who is in it follows the plan: the sources of every
//! [`Feed::Mix`], and the destinations so fed. What of it is silence, and who shares an encode, is the
//! bus's business.

use rtpbridge_shared::vocab::Codec;

use crate::codec::resample::Resampler;
use crate::codec::{self, CodecError};
use crate::endpoint::{MAX_FRAME, PacketArea, Sinks};
use crate::jitter::{Contribution, JitterBuffer};
use crate::mixer::{Bus, Tick, mix_rate};
use crate::rtp::frame_track::FrameMaker;
use crate::session::endpoints::Endpoints;
use crate::session::{EndpointKey, EngineConfig, Feed, RoutePlan};
use crate::time::{Instant, Moment};
use crate::transcode::SourcePacket;

/// See the module's comment.
pub(super) struct Mix {
    bus: Bus<EndpointKey>,
    parties: Vec<EndpointKey>,
    inputs: Vec<Input>,
    errors: u64,
}

/// What one source has for the next ticks.
struct Input {
    key: EndpointKey,
    epoch: Option<u32>,
    kind: InputKind,
}

enum InputKind {
    /// It has not been heard yet.
    Unheard,
    /// It sends packets.
    Packets {
        codec: Codec,
        buffer: Box<JitterBuffer>,
    },
    /// Its sound was pulled in this very tick.
    Pulled(Box<PulledFrame>),
}

struct PulledFrame {
    resampler: Option<(u32, Resampler)>,
    pcm: [i16; MAX_FRAME],
    is_fresh: bool,
}

impl Mix {
    /// A mix that follows this plan; None when nobody hears one.
    pub(super) fn follow(
        before: Option<Box<Self>>,
        plan: &RoutePlan,
        endpoints: &Endpoints,
        config: &EngineConfig,
    ) -> Option<Box<Self>> {
        let mut sources = Vec::new();
        let mut destinations = Vec::new();
        for (key, feed) in plan.feeds() {
            if let Feed::Mix { sources: heard } = feed {
                destinations.push(key);
                sources.extend_from_slice(heard);
            }
        }
        if destinations.is_empty() {
            return None;
        }
        let is_party = |key: &EndpointKey| sources.contains(key) || destinations.contains(key);
        let parties = endpoints.keys().iter().copied().filter(is_party);
        let parties: Vec<_> = parties.collect();
        let rates = parties.iter().filter_map(|key| best_rate(endpoints, *key));
        let rate_hz = mix_rate(rates);
        let mut mix = before.unwrap_or_else(|| Box::new(Self::new(rate_hz)));
        if mix.bus.rate_hz() != rate_hz {
            mix.change_rate(rate_hz);
        }
        for gone in mix.parties.iter().filter(|key| !parties.contains(key)) {
            mix.bus.remove_party(*gone);
        }
        for key in &parties {
            let endpoint = endpoints.get(*key);
            let hears = endpoint
                .filter(|_| destinations.contains(key))
                .and_then(|endpoint| endpoint.target_format(config));
            mix.bus.set_party(*key, sources.contains(key), hears);
            let is_bridge = endpoint.is_some_and(|endpoint| endpoint.view(*key).is_bridge);
            mix.bus.set_bridge(*key, is_bridge);
        }
        mix.parties = parties;
        mix.inputs.retain(|input| sources.contains(&input.key));
        for key in mix.parties.iter().filter(|key| sources.contains(key)) {
            if !mix.inputs.iter().any(|input| input.key == *key) {
                mix.inputs.push(Input::new(*key));
            }
        }
        Some(mix)
    }

    fn new(rate_hz: u32) -> Self {
        Self {
            bus: Bus::new(rate_hz),
            parties: Vec::new(),
            inputs: Vec::new(),
            errors: 0,
        }
    }

    /// Samples per second of the sum.
    pub(super) fn rate_hz(&self) -> u32 {
        self.bus.rate_hz()
    }

    /// Whether this source is in it.
    pub(super) fn hears(&self, source: EndpointKey) -> bool {
        self.inputs.iter().any(|input| input.key == source)
    }

    /// What a destination loses, in percent.
    pub(super) fn set_expected_loss(&mut self, key: EndpointKey, percent: u8) {
        self.bus.set_expected_loss(key, percent);
    }

    /// Takes a packet when it arrives.
    pub(super) fn handle_packet(
        &mut self,
        key: EndpointKey,
        (codec, epoch): (Codec, u32),
        packet: SourcePacket<'_>,
        now: Instant,
    ) {
        let rate_hz = self.bus.rate_hz();
        let Some(input) = self.inputs.iter_mut().find(|input| input.key == key) else {
            return;
        };
        if let Err(CodecError::Rate { .. } | CodecError::Opus(_) | CodecError::Resample(_)) =
            input.expect(codec, epoch, rate_hz)
        {
            self.errors += 1;
        }
        if let InputKind::Packets { buffer, .. } = &mut input.kind {
            buffer.handle_packet(now, packet);
        }
    }

    /// A packet of the source carried no audio: its number is not missing.
    pub(super) fn pass_over(&mut self, key: EndpointKey, sequence: u16) {
        let input = self.inputs.iter_mut().find(|input| input.key == key);
        if let Some(InputKind::Packets { buffer, .. }) = input.map(|input| &mut input.kind) {
            buffer.pass_over(sequence);
        }
    }

    /// Takes what was pulled from a source for the tick at hand.
    pub(super) fn handle_pcm(&mut self, key: EndpointKey, rate_hz: u32, pcm: &[i16]) {
        let mix_hz = self.bus.rate_hz();
        let Some(input) = self.inputs.iter_mut().find(|input| input.key == key) else {
            return;
        };
        if !matches!(input.kind, InputKind::Pulled(_)) {
            input.kind = InputKind::Pulled(Box::new(PulledFrame {
                resampler: None,
                pcm: [0; MAX_FRAME],
                is_fresh: false,
            }));
        }
        if let InputKind::Pulled(frame) = &mut input.kind
            && frame.fill(rate_hz, pcm, mix_hz).is_err()
        {
            self.errors += 1;
        }
    }

    /// Mixes one tick, and sends what came of it.
    pub(super) fn handle_tick(
        &mut self,
        tick: Tick,
        now: Moment,
        endpoints: &mut Endpoints,
        area: &mut PacketArea,
        sinks: &mut Sinks<'_>,
    ) {
        let inputs = &mut self.inputs;
        let mut pull = |key: EndpointKey, out: &mut [i16]| {
            let input = inputs.iter_mut().find(|input| input.key == key);
            input.map_or(Contribution::None, |input| input.pull(tick, out))
        };
        self.bus.handle_tick(tick, &mut pull, &mut |key, frame| {
            if let Some(endpoint) = endpoints.get_mut(key) {
                endpoint.handle_frame(FrameMaker::Mix, &frame, now, area, sinks);
            }
        });
        let buffers = self.inputs.iter_mut().map(Input::take_errors);
        let errors = buffers.sum::<u64>() + self.bus.take_errors();
        sinks.out.counters().transcode_errors += errors + std::mem::take(&mut self.errors);
    }

    fn change_rate(&mut self, rate_hz: u32) {
        self.bus = Bus::new(rate_hz);
        for input in &mut self.inputs {
            if let InputKind::Packets { buffer, .. } = &mut input.kind
                && buffer.set_mix_rate(rate_hz).is_err()
            {
                input.kind = InputKind::Unheard;
            }
        }
    }
}

impl Input {
    fn new(key: EndpointKey) -> Self {
        Self {
            key,
            epoch: None,
            kind: InputKind::Unheard,
        }
    }

    /// Another codec, or another life of the source, begins a new buffer.
    fn expect(&mut self, codec: Codec, epoch: u32, mix_hz: u32) -> Result<(), CodecError> {
        let is_known = self.epoch.replace(epoch) == Some(epoch);
        match &self.kind {
            InputKind::Packets { codec: known, .. } if *known == codec && is_known => Ok(()),
            _ => {
                self.kind = InputKind::Unheard;
                let buffer = Box::new(JitterBuffer::new(codec, mix_hz)?);
                self.kind = InputKind::Packets { codec, buffer };
                Ok(())
            }
        }
    }

    fn pull(&mut self, tick: Tick, out: &mut [i16]) -> Contribution {
        match &mut self.kind {
            InputKind::Packets { buffer, .. } => buffer.pull(tick.at(), out),
            InputKind::Pulled(frame) if frame.is_fresh => {
                frame.is_fresh = false;
                for (sample, pulled) in out.iter_mut().zip(&frame.pcm) {
                    *sample = *pulled;
                }
                Contribution::of(out)
            }
            InputKind::Pulled(_) | InputKind::Unheard => Contribution::None,
        }
    }

    fn take_errors(&mut self) -> u64 {
        match &mut self.kind {
            InputKind::Packets { buffer, .. } => buffer.take_errors(),
            InputKind::Pulled(_) | InputKind::Unheard => 0,
        }
    }
}

impl PulledFrame {
    fn fill(&mut self, rate_hz: u32, pcm: &[i16], mix_hz: u32) -> Result<(), CodecError> {
        self.is_fresh = true;
        let room = &mut self.pcm[..mix_hz as usize / 50];
        room.fill(0);
        if rate_hz == mix_hz {
            for (sample, pulled) in room.iter_mut().zip(pcm) {
                *sample = *pulled;
            }
            return Ok(());
        }
        if self
            .resampler
            .as_ref()
            .is_none_or(|(from, _)| *from != rate_hz)
        {
            self.resampler = Some((rate_hz, Resampler::new(rate_hz, mix_hz)?));
        }
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.process_into(pcm, room);
        }
        Ok(())
    }
}

/// The best that an endpoint can use, be it as a source or as a listener.
fn best_rate(endpoints: &Endpoints, key: EndpointKey) -> Option<u32> {
    let endpoint = endpoints.get(key)?;
    let codecs = [endpoint.incoming_codec(), endpoint.sending_codec()];
    codecs.into_iter().flatten().map(codec::audio_rate).max()
}
