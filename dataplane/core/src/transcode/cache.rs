//! The pipelines of one session, bounded: beyond the limit the least recently used goes.
//!
//! The caller names, with each packet, the formats its listeners want; what is missing is made on
//! the spot. So a changed routing table needs no registration and leaves nothing behind.

use super::fanout::Fanout;
use super::pipeline::{TranscodeSink, Transcoder};
use super::{SourcePacket, TargetFormat};
use crate::codec::{Codec, CodecError};
use crate::time::Instant;

/// All pipelines of a session, by source. `S` names a source.
pub struct TranscodeCache<S> {
    limit: usize,
    sources: Vec<Entry<S>>,
    /// Counts uses.
    stamp: u64,
    errors: u64,
}

struct Entry<S> {
    key: S,
    source: Source,
}

enum Source {
    Packets(Box<Transcoder>),
    Pcm(Box<Fanout>),
}

impl<S: Copy + PartialEq> TranscodeCache<S> {
    /// Keeps at most `limit` pipelines, at least one.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            sources: Vec::new(),
            stamp: 0,
            errors: 0,
        }
    }

    /// Pipelines there are.
    pub fn pipeline_count(&self) -> usize {
        self.sources
            .iter()
            .map(|entry| entry.source.target_count())
            .sum()
    }

    /// Frames that failed since this was last asked.
    pub fn take_errors(&mut self) -> u64 {
        let inner: u64 = self
            .sources
            .iter_mut()
            .map(|entry| entry.source.take_errors())
            .sum();
        std::mem::take(&mut self.errors) + inner
    }

    /// Takes a packet of `key`, whose codec is `codec`, for listeners of `wanted`. With `tapped` the
    /// sink also gets the decoded sound. A changed codec begins anew, and so do packets after PCM.
    ///
    /// # Errors
    /// The sound that the tap wants cannot be had.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        (key, codec): (S, Codec),
        packet: SourcePacket<'_>,
        (wanted, tapped): (&[TargetFormat], bool),
        sink: &mut impl TranscodeSink,
    ) -> Result<(), CodecError> {
        let known = self.transcoder(key).map(|transcoder| transcoder.codec());
        if known != Some(codec) {
            self.remove_source(key);
        }
        self.prepare(key, wanted, || {
            Source::Packets(Box::new(Transcoder::new(codec)))
        });
        let Some(transcoder) = self.transcoder(key) else {
            return Ok(());
        };
        let tap = transcoder.set_tapped(tapped);
        transcoder.handle_packet(now, packet, wanted, sink);
        tap
    }

    /// A packet of `key` carried no audio: its number is not missing.
    pub fn pass_over(&mut self, key: S, sequence: u16) {
        if let Some(transcoder) = self.transcoder(key) {
            transcoder.pass_over(sequence);
        }
    }

    /// Takes the next samples of a file, a tone, a bridge or a mix. A changed rate begins anew, and so
    /// does PCM after packets.
    pub fn handle_pcm(
        &mut self,
        (key, rate_hz): (S, u32),
        pcm: &[i16],
        wanted: &[TargetFormat],
        sink: &mut impl TranscodeSink,
    ) {
        if self.fanout(key).map(|fanout| fanout.rate_hz()) != Some(rate_hz) {
            self.remove_source(key);
        }
        self.prepare(key, wanted, || Source::Pcm(Box::new(Fanout::new(rate_hz))));
        if let Some(fanout) = self.fanout(key) {
            fanout.push(pcm, wanted, &mut |place, frame| sink.on_frame(place, frame));
        }
    }

    /// Time passes in which a PCM source gives nothing, in ticks of 48 kHz.
    pub fn skip_pcm(&mut self, key: S, ticks: u64) {
        if let Some(fanout) = self.fanout(key) {
            fanout.skip(ticks);
        }
    }

    /// A PCM source is over: its last, partly filled frames are sent and it is forgotten.
    pub fn finish_pcm(&mut self, key: S, wanted: &[TargetFormat], sink: &mut impl TranscodeSink) {
        if let Some(fanout) = self.fanout(key) {
            fanout.finish(wanted, &mut |place, frame| sink.on_frame(place, frame));
        }
        self.remove_source(key);
    }

    /// When [`Self::handle_timeout`] is due for some source.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timeouts().map(|(_, at)| at).min()
    }

    /// A source for which [`Self::handle_timeout`] is due.
    pub fn due(&self, now: Instant) -> Option<S> {
        self.timeouts()
            .find(|(_, at)| *at <= now)
            .map(|(key, _)| key)
    }

    /// Gives up waiting for a missing packet of `key`.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        key: S,
        wanted: &[TargetFormat],
        sink: &mut impl TranscodeSink,
    ) {
        if let Some(transcoder) = self.transcoder(key) {
            transcoder.handle_timeout(now, wanted, sink);
        }
    }

    /// What the listeners of one format lose, from their RTCP; the worst of them is what to say.
    pub fn set_expected_loss(&mut self, key: S, format: &TargetFormat, percent: u8) {
        match self.entry(key).map(|entry| &mut entry.source) {
            Some(Source::Packets(transcoder)) => transcoder.set_expected_loss(format, percent),
            Some(Source::Pcm(fanout)) => fanout.set_expected_loss(format, percent),
            None => {}
        }
    }

    /// Forgets a source and its pipelines: it was removed, or its SSRC changed.
    pub fn remove_source(&mut self, key: S) {
        let Some(at) = self.sources.iter().position(|entry| entry.key == key) else {
            return;
        };
        let mut gone = self.sources.swap_remove(at);
        self.errors += gone.source.take_errors();
    }

    /// Makes what is wanted and not there, and makes room for it first.
    fn prepare(&mut self, key: S, wanted: &[TargetFormat], make: impl FnOnce() -> Source) {
        self.stamp += 1;
        let stamp = self.stamp;
        if self.entry(key).is_none() {
            self.sources.push(Entry {
                key,
                source: make(),
            });
        }
        for format in wanted {
            let known = self
                .entry(key)
                .is_some_and(|entry| entry.source.has_target(format));
            if !known && !self.make_room(stamp) {
                // More formats of one packet than pipelines allowed.
                self.errors += 1;
                continue;
            }
            let made = self
                .entry(key)
                .map(|entry| entry.source.want(format, stamp));
            if !matches!(made, Some(Ok(()))) {
                self.errors += 1;
            }
        }
    }

    /// Whether there is room for one more, once the least recently used has gone. What the current
    /// packet needs stays.
    fn make_room(&mut self, stamp: u64) -> bool {
        if self.pipeline_count() < self.limit {
            return true;
        }
        let oldest = self
            .sources
            .iter_mut()
            .filter_map(|entry| {
                entry
                    .source
                    .least_recent()
                    .map(|(format, used)| (entry, format, used))
            })
            .min_by_key(|(_, _, used)| *used);
        match oldest {
            Some((entry, format, used)) if used < stamp => {
                entry.source.remove_target(&format);
                true
            }
            _ => false,
        }
    }

    fn timeouts(&self) -> impl Iterator<Item = (S, Instant)> {
        self.sources.iter().filter_map(|entry| match &entry.source {
            Source::Packets(transcoder) => transcoder.next_timeout().map(|at| (entry.key, at)),
            Source::Pcm(_) => None,
        })
    }

    fn entry(&mut self, key: S) -> Option<&mut Entry<S>> {
        self.sources.iter_mut().find(|entry| entry.key == key)
    }

    fn transcoder(&mut self, key: S) -> Option<&mut Transcoder> {
        match &mut self.entry(key)?.source {
            Source::Packets(transcoder) => Some(transcoder),
            Source::Pcm(_) => None,
        }
    }

    fn fanout(&mut self, key: S) -> Option<&mut Fanout> {
        match &mut self.entry(key)?.source {
            Source::Pcm(fanout) => Some(fanout),
            Source::Packets(_) => None,
        }
    }
}

impl Source {
    fn target_count(&self) -> usize {
        match self {
            Source::Packets(transcoder) => transcoder.target_count(),
            Source::Pcm(fanout) => fanout.target_count(),
        }
    }

    fn take_errors(&mut self) -> u64 {
        match self {
            Source::Packets(transcoder) => transcoder.take_errors(),
            Source::Pcm(fanout) => fanout.take_errors(),
        }
    }

    fn has_target(&self, format: &TargetFormat) -> bool {
        match self {
            Source::Packets(transcoder) => transcoder.has_target(format),
            Source::Pcm(fanout) => fanout.has_target(format),
        }
    }

    fn want(&mut self, format: &TargetFormat, stamp: u64) -> Result<(), crate::codec::CodecError> {
        match self {
            Source::Packets(transcoder) => transcoder.want(format, stamp),
            Source::Pcm(fanout) => fanout.want(format, stamp),
        }
    }

    fn remove_target(&mut self, format: &TargetFormat) {
        match self {
            Source::Packets(transcoder) => transcoder.remove_target(format),
            Source::Pcm(fanout) => fanout.remove_target(format),
        }
    }

    fn least_recent(&self) -> Option<(TargetFormat, u64)> {
        match self {
            Source::Packets(transcoder) => transcoder.least_recent(),
            Source::Pcm(fanout) => fanout.least_recent(),
        }
    }
}

#[cfg(test)]
mod tests;
