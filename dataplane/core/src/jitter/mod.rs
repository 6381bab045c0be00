//! The adaptive jitter buffer of one source that is mixed: packets in as the network brings them,
//! 20 ms of PCM out whenever the mixer's clock asks.
//!
//! ```text
//! idle ─packet─► filling ─enough, or long enough─► playing ─nothing for 5 frames─► idle
//! ```
//! What is missing when its turn comes is concealed. The delay follows what the network needs, and
//! with it the sender's clock: a frame is shortened or lengthened by one pitch period (or by a piece
//! of silence) where the delay is too long or too short. Never waits for a packet, never lets a
//! source make the mixer wait.

mod delay;
mod stretch;

pub use self::delay::DelayEstimator;

use std::time::Duration;

use crate::codec::resample::Resampler;
use crate::codec::{self, Codec, CodecError, Decoder, MAX_PACKET_SAMPLES};
use crate::time::Instant;
use crate::transcode::{SourcePacket, packet_clock_ticks};

/// Packets that can wait; more than the longest delay in the shortest packets.
const SLOTS: usize = 64;
/// Longest payload that can wait.
const MAX_PAYLOAD: usize = 2048;
/// Frames that are concealed in a row before the source counts as gone.
const MAX_CONCEALED: u32 = 5;
/// A packet this far behind belongs to a sender that began anew (RFC 3550 A.1).
const MAX_MISORDER: i16 = 100;
/// A pause that ends within the buffer is no longer than the longest delay.
const MAX_PAUSE_MS: u32 = 200;
/// How far the delay may stray before sound is shortened or lengthened.
const TOO_LONG_MS: i64 = 15;
const TOO_SHORT_MS: i64 = 10;
/// A frame without a sample beyond this is silence; A-law has no smaller value.
const SILENCE_PEAK: u16 = 8;

/// What a source gave to one tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contribution {
    /// It is not sending.
    None,
    /// It sends silence.
    Silent,
    /// It is heard.
    Sound,
}

impl Contribution {
    /// What a frame of PCM contributes.
    pub fn of(pcm: &[i16]) -> Self {
        if pcm
            .iter()
            .all(|sample| sample.unsigned_abs() <= SILENCE_PEAK)
        {
            Self::Silent
        } else {
            Self::Sound
        }
    }
}

/// Buffers, orders, conceals and decodes one source for the mixer.
pub struct JitterBuffer {
    codec: Codec,
    decoder: Decoder,
    resampler: Option<Resampler>,
    slots: Vec<Slot>,
    delay: DelayEstimator,
    state: State,
    /// Next packet to be decoded.
    next_sequence: u16,
    next_timestamp: u32,
    frame_ticks: u32,
    /// Frames concealed since the last one decoded.
    concealed: u32,
    /// Of these, frames for which no packet was given up.
    borrowed: u32,
    /// It last sent something else than audio: what is missing is silence.
    is_pausing: bool,
    /// Decoded and not yet asked for, at the decoder's rate.
    pcm: Vec<i16>,
    scratch: Box<[i16]>,
    errors: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Filling { since: Instant },
    Playing,
}

#[derive(Default)]
struct Slot {
    used: bool,
    sequence: u16,
    timestamp: u32,
    ticks: u32,
    payload: Vec<u8>,
}

impl JitterBuffer {
    /// For a source that sends `codec`, mixed at `mix_hz`.
    pub fn new(codec: Codec, mix_hz: u32) -> Result<Self, CodecError> {
        let rate_hz = codec::native_rate(codec, mix_hz);
        Ok(Self {
            codec,
            decoder: Decoder::new(codec, rate_hz)?,
            resampler: converter(rate_hz, mix_hz)?,
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            delay: DelayEstimator::new(codec.clock_rate()),
            state: State::Idle,
            next_sequence: 0,
            next_timestamp: 0,
            frame_ticks: codec.clock_rate() / 50,
            concealed: 0,
            borrowed: 0,
            is_pausing: false,
            pcm: Vec::with_capacity(2 * MAX_PACKET_SAMPLES),
            scratch: vec![0; MAX_PACKET_SAMPLES].into_boxed_slice(),
            errors: 0,
        })
    }

    /// The mixer goes on at another rate; what is buffered is kept.
    pub fn set_mix_rate(&mut self, mix_hz: u32) -> Result<(), CodecError> {
        let rate_hz = codec::native_rate(self.codec, mix_hz);
        if rate_hz != self.decoder.rate_hz() {
            self.decoder = Decoder::new(self.codec, rate_hz)?;
            self.pcm.clear();
        }
        self.resampler = converter(rate_hz, mix_hz)?;
        Ok(())
    }

    /// Packets that could not be decoded since this was last asked.
    pub fn take_errors(&mut self) -> u64 {
        std::mem::take(&mut self.errors)
    }

    /// The delay the network asks for at present.
    pub fn target_delay(&self) -> Duration {
        self.delay.target()
    }

    /// Takes a packet when it arrives. Late and repeated ones are dropped.
    pub fn handle_packet(&mut self, now: Instant, packet: SourcePacket<'_>) {
        let ticks = match packet_clock_ticks(self.codec, packet.payload) {
            Ok(ticks) if packet.payload.len() <= MAX_PAYLOAD => ticks,
            _ => {
                self.errors += 1;
                return;
            }
        };
        if self.state == State::Idle {
            self.begin(now, &packet, ticks);
        }
        let mut ahead = packet.sequence.wrapping_sub(self.next_sequence) as i16;
        let filling = matches!(self.state, State::Filling { .. });
        if ahead >= SLOTS as i16 || ahead <= -MAX_MISORDER {
            self.begin(now, &packet, ticks);
            ahead = 0;
        } else if ahead < 0 && filling && self.span_from(packet.sequence) < SLOTS as u16 {
            // The first to come was not the first to be sent.
            self.next_sequence = packet.sequence;
            self.next_timestamp = packet.timestamp;
            ahead = 0;
        }
        self.delay.handle_arrival(now, packet.timestamp);
        if ahead >= 0 {
            self.store(&packet, ticks);
        }
    }

    /// A packet of the source carried no audio (a telephone-event, say): its number is not missing, and
    /// until its next audio the source is silent rather than lost.
    pub fn pass_over(&mut self, sequence: u16) {
        let ahead = sequence.wrapping_sub(self.next_sequence) as i16;
        if self.state != State::Idle && (0..SLOTS as i16).contains(&ahead) {
            let slot = &mut self.slots[usize::from(sequence) % SLOTS];
            slot.used = true;
            slot.sequence = sequence;
            slot.payload.clear();
            (slot.timestamp, slot.ticks) = (self.next_timestamp, 0);
        }
    }

    /// Writes 20 ms at the mixer's rate; `out` is silence where the source gives none.
    pub fn pull(&mut self, now: Instant, out: &mut [i16]) -> Contribution {
        out.fill(0);
        if let State::Filling { since } = self.state
            && (self.buffered() >= self.delay.target()
                || now.saturating_duration_since(since) >= self.delay.target())
        {
            self.state = State::Playing;
        }
        if self.state != State::Playing {
            return Contribution::None;
        }
        let needed = self.decoder.rate_hz() as usize / 50;
        while self.pcm.len() < needed {
            if !self.decode_next() {
                self.pcm.resize(needed, 0);
                self.state = State::Idle;
                break;
            }
            self.adapt(now);
        }
        self.give(needed, out);
        Contribution::of(out)
    }

    fn begin(&mut self, now: Instant, packet: &SourcePacket<'_>, ticks: u32) {
        for slot in &mut self.slots {
            slot.used = false;
        }
        self.pcm.clear();
        self.state = State::Filling { since: now };
        self.next_sequence = packet.sequence;
        self.next_timestamp = packet.timestamp;
        self.frame_ticks = ticks;
        (self.concealed, self.borrowed) = (0, 0);
        self.is_pausing = false;
    }

    fn store(&mut self, packet: &SourcePacket<'_>, ticks: u32) {
        let slot = &mut self.slots[usize::from(packet.sequence) % SLOTS];
        if slot.used && slot.sequence == packet.sequence {
            return;
        }
        slot.used = true;
        slot.sequence = packet.sequence;
        slot.timestamp = packet.timestamp;
        slot.ticks = ticks;
        slot.payload.clear();
        slot.payload.extend_from_slice(packet.payload);
    }

    /// Places from `sequence` to the newest packet that waits.
    fn span_from(&self, sequence: u16) -> u16 {
        let used = self.slots.iter().filter(|slot| slot.used);
        used.map(|slot| slot.sequence.wrapping_sub(sequence))
            .max()
            .unwrap_or(0)
    }

    /// Sound that waits, gaps included.
    fn buffered(&self) -> Duration {
        let used = self.slots.iter().filter(|slot| slot.used);
        let end = used
            .map(|slot| {
                slot.timestamp
                    .wrapping_sub(self.next_timestamp)
                    .saturating_add(slot.ticks)
            })
            .max()
            .unwrap_or(0);
        let micros = u64::from(end) * 1_000_000 / u64::from(self.codec.clock_rate());
        Duration::from_micros(micros)
    }

    /// Decodes or conceals one more frame; false when the source is gone.
    fn decode_next(&mut self) -> bool {
        let at = usize::from(self.next_sequence) % SLOTS;
        if self.slots[at].used && self.slots[at].sequence == self.next_sequence {
            self.decode_slot(at);
            return true;
        }
        match self.earliest() {
            None if self.concealed >= MAX_CONCEALED => false,
            None => {
                // It may only be late: its place in the stream stays open.
                self.borrowed += 1;
                self.conceal(None);
                true
            }
            Some(next) => {
                self.skip_lost(next);
                true
            }
        }
    }

    fn decode_slot(&mut self, at: usize) {
        if self.slots[at].payload.is_empty() {
            self.slots[at].used = false;
            self.next_sequence = self.next_sequence.wrapping_add(1);
            self.is_pausing = true;
            return;
        }
        self.is_pausing = false;
        self.pause_before(at);
        let slot = &mut self.slots[at];
        slot.used = false;
        let decoded = self.decoder.decode(&slot.payload, &mut self.scratch);
        self.next_sequence = slot.sequence.wrapping_add(1);
        self.next_timestamp = slot.timestamp.wrapping_add(slot.ticks);
        self.frame_ticks = slot.ticks;
        match decoded {
            Ok(samples) => {
                self.pcm.extend_from_slice(&self.scratch[..samples]);
                (self.concealed, self.borrowed) = (0, 0);
            }
            Err(_) => {
                self.errors += 1;
                self.conceal(None);
            }
        }
    }

    /// A pause of the sender's (DTX) that is over already is silence, less what was stood in for.
    fn pause_before(&mut self, at: usize) {
        let gap = self.slots[at].timestamp.wrapping_sub(self.next_timestamp);
        let gap = gap.saturating_sub(self.borrowed.saturating_mul(self.frame_ticks));
        let clock_hz = self.codec.clock_rate();
        if gap > self.frame_ticks / 2 && gap <= clock_hz * MAX_PAUSE_MS / 1000 {
            let samples = u64::from(gap) * u64::from(self.decoder.rate_hz()) / u64::from(clock_hz);
            self.pcm.resize(self.pcm.len() + samples as usize, 0);
        }
    }

    /// The next packet is missing and others wait behind it.
    fn skip_lost(&mut self, next: usize) {
        let lost = self.slots[next].sequence.wrapping_sub(self.next_sequence);
        if u32::from(lost) > MAX_CONCEALED {
            self.next_sequence = self.slots[next].sequence;
            self.next_timestamp = self.slots[next].timestamp;
            return;
        }
        self.next_sequence = self.next_sequence.wrapping_add(1);
        self.next_timestamp = self.next_timestamp.wrapping_add(self.frame_ticks);
        if self.borrowed > 0 {
            // It has been stood in for already.
            self.borrowed -= 1;
        } else {
            self.conceal((lost == 1).then_some(next));
        }
    }

    /// Stands in for one frame, with the help of the packet in slot `next` if that follows.
    fn conceal(&mut self, next: Option<usize>) {
        self.concealed += 1;
        let rate_hz = u64::from(self.decoder.rate_hz());
        let samples = u64::from(self.frame_ticks) * rate_hz / u64::from(self.codec.clock_rate());
        // Packets of more than 120 ms are not taken, so the cast keeps the value.
        let samples = (samples as usize).min(self.scratch.len());
        let frame = &mut self.scratch[..samples];
        let next = next.map(|at| self.slots[at].payload.as_slice());
        if self.is_pausing {
            frame.fill(0);
        } else if self.decoder.conceal(next, frame).is_err() {
            self.errors += 1;
            frame.fill(0);
        }
        self.pcm.extend_from_slice(&self.scratch[..samples]);
    }

    fn earliest(&self) -> Option<usize> {
        (0..SLOTS)
            .filter(|at| self.slots[*at].used)
            .min_by_key(|at| self.slots[*at].sequence.wrapping_sub(self.next_sequence))
    }

    /// Brings the delay nearer to its target, by at most one pitch period for each frame decoded.
    fn adapt(&mut self, now: Instant) {
        let clock_hz = i64::from(self.codec.clock_rate());
        let waiting_ms = self.pcm.len() as i64 * 1000 / i64::from(self.decoder.rate_hz());
        let Some(late_ms) = self.delay.behind_ms(now, self.next_timestamp) else {
            return;
        };
        let delay_ms = late_ms + waiting_ms;
        let target_ms = self.delay.target().as_millis() as i64;
        let frame_ms = i64::from(self.frame_ticks) * 1000 / clock_hz;
        let rate_hz = self.decoder.rate_hz();
        if delay_ms > target_ms.max(frame_ms) + TOO_LONG_MS {
            stretch::shorten(&mut self.pcm, rate_hz);
        } else if delay_ms < target_ms - TOO_SHORT_MS {
            stretch::lengthen(&mut self.pcm, rate_hz);
        }
    }

    fn give(&mut self, needed: usize, out: &mut [i16]) {
        match &mut self.resampler {
            None => {
                for (sample, decoded) in out.iter_mut().zip(&self.pcm[..needed]) {
                    *sample = *decoded;
                }
            }
            Some(resampler) => resampler.process_into(&self.pcm[..needed], out),
        }
        self.pcm.drain(..needed);
    }
}

fn converter(from_hz: u32, to_hz: u32) -> Result<Option<Resampler>, CodecError> {
    if from_hz == to_hz {
        Ok(None)
    } else {
        Ok(Some(Resampler::new(from_hz, to_hz)?))
    }
}

#[cfg(test)]
mod tests;
