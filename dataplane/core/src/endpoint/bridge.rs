//! One end of a bridge between two sessions. What reaches this end in its session goes over a ring
//! of 20 ms frames (48 kHz, mono) to the far end, which gives it to its session, and the reverse.
//! The two ends may live on two workers; the rings are all that they share, and an end that is dropped
//! takes the other along.
//!
//! Both sessions tick on one grid, so a frame that was sent at one tick is played at the next: which
//! of the two ran first does not matter. A session that is late for longer makes the far end wait for
//! more ticks, until that was needless for a while.
//!
//! Where an end has one listener alone, it says which codec that one is sent; if the other end has one
//! source alone, with that codec, its packets cross as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::vocab::{Codec, Direction};
use rtrb::{Consumer, Producer, RingBuffer};

use super::leg::{Content, Inbound};
use super::pcm::{MAX_FRAME, Pulled};
use crate::dtmf::payload::EventPayload;
use crate::dtmf::receiver::FinishedEvent;

/// 320 ms; more is not waited for, and a session that late has lost sound anyway.
const SOUND_PLACES: usize = 16;
/// Packets for one tick: digits of every party of a session at once, or one party's audio.
const CROSSING_PLACES: usize = 32;
/// Longest payload that crosses as it is: 160 ms of G.711.
const MAX_CODED: usize = 1280;
/// Ticks that a frame may be played after it was sent.
const MAX_LAG: u64 = 5;
/// Ticks without need before less is waited for: 10 s.
const CALM_TICKS: u32 = 500;
/// Ticks of silence before a source that sends nothing is taken to be silent.
const GAP_TICKS: u32 = 5;
/// Frames that are kept for the next ticks at most.
const MAX_GATHERED: usize = 5 * MAX_FRAME;

/// An end, with the ways to the other.
pub struct BridgeEnd {
    far: EndpointId,
    direction: Direction,
    sound_out: Producer<SoundFrame>,
    sound_in: Consumer<SoundFrame>,
    crossing_out: Producer<Crossing>,
    crossing_in: Consumer<Crossing>,
    gathered: Gathered,
    playout: Playout,
    /// The codec that our one listener could be sent untouched, for the other end to see.
    wanted_here: Arc<AtomicU8>,
    /// The same of the other end.
    wanted_there: Arc<AtomicU8>,
    /// The codec whose packets we send over; none for sound.
    outgoing: Option<Codec>,
    /// The codec whose packets come over, and the tick of the last; none for sound.
    incoming: Option<(Codec, u64)>,
    /// The longest packet that came over and could not be passed on as it is, ms.
    longest_ms: u16,
}

/// 20 ms on their way, and the tick at which they were sent.
struct SoundFrame {
    tick: u64,
    pcm: [i16; MAX_FRAME],
}

/// What crosses beside the sound, with its place in its source's stream.
#[derive(Clone, Debug)]
pub(crate) struct Crossing {
    pub(crate) content: Crossed,
    pub(crate) epoch: u32,
    pub(crate) sequence: u64,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) is_sensitive: bool,
    /// The sender's.
    tick: u64,
    payload: [u8; MAX_CODED],
}

/// What it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crossed {
    /// A packet of audio, with so many bytes.
    Audio { codec: Codec, len: usize },
    /// A packet of a telephone-event.
    Event {
        payload: EventPayload,
        clock_rate: u32,
        start: u32,
    },
    /// A telephone-event is over.
    Finished(FinishedEvent),
}

/// Samples for the far end, which come when they come and leave in whole frames at ticks.
#[derive(Default)]
struct Gathered {
    samples: Vec<i16>,
    is_running: bool,
    /// Frames kept back against late packets.
    reserve: usize,
    dry_ticks: u32,
    calm_ticks: u32,
}

/// When frames of the far end are played.
struct Playout {
    tick: u64,
    lag: u64,
    calm_ticks: u32,
    /// Ticks since the last frame.
    gap_ticks: u32,
    /// Frames that came too late or not at all while the far end was sending.
    underruns: u64,
}

/// Both ends of a bridge between the sessions of `first` and `second`; `direction` is the first's.
pub fn bridge(
    first: EndpointId,
    second: EndpointId,
    direction: Direction,
) -> (BridgeEnd, BridgeEnd) {
    let (to_second, from_first) = RingBuffer::new(SOUND_PLACES);
    let (to_first, from_second) = RingBuffer::new(SOUND_PLACES);
    let (cross_to_second, cross_from_first) = RingBuffer::new(CROSSING_PLACES);
    let (cross_to_first, cross_from_second) = RingBuffer::new(CROSSING_PLACES);
    let wanted = [Arc::new(AtomicU8::new(0)), Arc::new(AtomicU8::new(0))];
    let end = |far, direction, sound, crossing, place: usize| {
        let (sound_out, sound_in) = sound;
        let (crossing_out, crossing_in) = crossing;
        BridgeEnd {
            far,
            direction,
            sound_out,
            sound_in,
            crossing_out,
            crossing_in,
            gathered: Gathered::default(),
            playout: Playout::default(),
            wanted_here: Arc::clone(&wanted[place]),
            wanted_there: Arc::clone(&wanted[1 - place]),
            outgoing: None,
            incoming: None,
            longest_ms: 0,
        }
    };
    let here = end(
        second,
        direction,
        (to_second, from_second),
        (cross_to_second, cross_from_second),
        0,
    );
    let there = end(
        first,
        direction.mirrored(),
        (to_first, from_first),
        (cross_to_first, cross_from_first),
        1,
    );
    (here, there)
}

impl BridgeEnd {
    /// The endpoint at the other end.
    pub fn far(&self) -> EndpointId {
        self.far
    }

    /// As it was made.
    pub(crate) fn direction(&self) -> Direction {
        self.direction
    }

    /// Whether the other end is gone, for good.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.sound_in.is_abandoned()
    }

    /// A tick begins: what is pulled from now on is of this one.
    pub(crate) fn on_tick(&mut self, tick: u64) {
        self.playout.tick = tick;
    }

    /// What is sent over from here: packets of a codec, or L16 for sound.
    pub(crate) fn outgoing(&self) -> Codec {
        self.outgoing.unwrap_or(Codec::L16)
    }

    /// What comes over from the other end.
    pub(crate) fn incoming(&self) -> Codec {
        self.incoming.map_or(Codec::L16, |(codec, _)| codec)
    }

    /// A packet of `ms` came over that our listener does not take: sound is to come.
    pub(crate) fn on_too_long(&mut self, ms: u16) {
        self.longest_ms = self.longest_ms.max(ms);
    }

    /// See [`on_too_long`](Self::on_too_long).
    pub(crate) fn longest_ms(&self) -> u16 {
        self.longest_ms
    }

    /// Decides anew what crosses: `listener` is what our one listener is sent, `source` what our one
    /// source sends. True when something changed.
    pub(crate) fn choose(&mut self, listener: Option<Codec>, source: Option<Codec>) -> bool {
        let here = listener.map_or(0, number_of);
        self.wanted_here.store(here, Ordering::Relaxed);
        let wanted = self.wanted_there.load(Ordering::Relaxed);
        let outgoing = source.filter(|codec| wanted != 0 && number_of(*codec) == wanted);
        let is_other = outgoing != self.outgoing;
        if is_other {
            self.outgoing = outgoing;
            self.gathered = Gathered::default();
        }
        self.turn_to_sound() || is_other
    }

    /// Sound that was sent after the last packet says that packets are over.
    fn turn_to_sound(&mut self) -> bool {
        let Some((_, last)) = self.incoming else {
            return false;
        };
        let is_over = self.sound_in.peek().is_ok_and(|frame| frame.tick > last);
        if is_over {
            self.incoming = None;
        }
        is_over
    }

    /// The next that crossed beside the sound, its payload into `room`. True when another codec comes
    /// over than before.
    pub(crate) fn next_crossing(&mut self, room: &mut [u8]) -> Option<(Crossing, bool)> {
        let crossing = self.crossing_in.pop().ok()?;
        let mut is_other = false;
        if let Crossed::Audio { codec, len } = crossing.content {
            is_other = self.incoming() != codec;
            self.incoming = Some((codec, crossing.tick));
            let payload = crossing.payload.get(..len)?;
            room.get_mut(..len)?.copy_from_slice(payload);
        }
        Some((crossing, is_other))
    }

    /// Sends a packet of a telephone-event, or of audio that crosses as it is.
    pub(crate) fn cross(&mut self, inbound: &Inbound, payload: &[u8]) {
        let mut bytes = [0; MAX_CODED];
        let content = match inbound.content {
            Content::Event {
                payload,
                clock_rate,
                start,
            } => Crossed::Event {
                payload,
                clock_rate,
                start,
            },
            Content::Audio(codec) if self.outgoing == Some(codec) => {
                let len = payload.len();
                let Some(room) = bytes.get_mut(..len) else {
                    return;
                };
                room.copy_from_slice(payload);
                Crossed::Audio { codec, len }
            }
            Content::Audio(_) | Content::Unknown => return,
        };
        self.push(Crossing {
            content,
            epoch: inbound.epoch,
            sequence: inbound.sequence,
            timestamp: inbound.timestamp,
            marker: inbound.marker,
            is_sensitive: inbound.is_sensitive,
            tick: self.playout.tick,
            payload: bytes,
        });
    }

    /// Says that a telephone-event is over.
    pub(crate) fn cross_end(&mut self, event: &FinishedEvent, is_sensitive: bool) {
        self.push(Crossing {
            content: Crossed::Finished(*event),
            epoch: 0,
            sequence: 0,
            timestamp: event.timestamp,
            marker: false,
            is_sensitive,
            tick: self.playout.tick,
            payload: [0; MAX_CODED],
        });
    }

    fn push(&mut self, crossing: Crossing) {
        // A far end that has not ticked for so long has lost more than this.
        let _ = self.crossing_out.push(crossing);
    }

    /// Sound for the far end: L16 as RTP has it (RFC 3551 section 4.5.11), 48 kHz, mono.
    pub(crate) fn handle_sound(&mut self, l16: &[u8]) {
        self.gathered.push(l16);
    }

    /// A tick ends: 20 ms go to the far end, if they are there.
    pub(crate) fn send(&mut self, tick: u64) {
        let mut frame = SoundFrame {
            tick,
            pcm: [0; MAX_FRAME],
        };
        if self.gathered.take(&mut frame.pcm) {
            // A far end that does not tick for so long would not play it either.
            let _ = self.sound_out.push(frame);
        }
    }

    /// What the far end has for this tick.
    pub(crate) fn pull(&mut self, out: &mut [i16]) -> Pulled {
        let Some(out) = out.get_mut(..MAX_FRAME) else {
            return Pulled::Nothing;
        };
        self.playout.pull(&mut self.sound_in, out)
    }

    /// Frames that were not there in time since this was last asked.
    pub(crate) fn take_underruns(&mut self) -> u64 {
        std::mem::take(&mut self.playout.underruns)
    }
}

/// Zero is none of them, and L16 is never on the wire.
fn number_of(codec: Codec) -> u8 {
    match codec {
        Codec::Pcmu => 1,
        Codec::Pcma => 2,
        Codec::G722 => 3,
        Codec::Opus => 4,
        Codec::L16 => 0,
    }
}

impl Gathered {
    fn push(&mut self, l16: &[u8]) {
        let samples = l16
            .chunks_exact(2)
            .map(|pair| i16::from_be_bytes([pair[0], pair[1]]));
        self.samples.extend(samples);
        if self.samples.len() > MAX_GATHERED {
            let surplus = self.samples.len() - MAX_GATHERED;
            self.samples.drain(..surplus);
        }
    }

    fn take(&mut self, frame: &mut [i16; MAX_FRAME]) -> bool {
        if !self.is_running {
            if self.samples.len() < (1 + self.reserve) * MAX_FRAME {
                self.dry_ticks = self.dry_ticks.saturating_add(1);
                return false;
            }
            self.is_running = true;
            // A short break was a late packet, a long one a pause.
            if (1..=GAP_TICKS).contains(&self.dry_ticks) {
                self.reserve = (self.reserve + 1).min(2);
            }
            self.dry_ticks = 0;
        }
        let Some(next) = self.samples.first_chunk::<MAX_FRAME>() else {
            self.is_running = false;
            self.dry_ticks = 1;
            return false;
        };
        *frame = *next;
        self.samples.drain(..MAX_FRAME);
        self.shrink();
        true
    }

    /// Gives up what was kept back and never needed.
    fn shrink(&mut self) {
        if self.samples.len() < MAX_FRAME {
            self.calm_ticks = 0;
            return;
        }
        self.calm_ticks += 1;
        if self.calm_ticks == CALM_TICKS {
            self.calm_ticks = 0;
            self.reserve = self.reserve.saturating_sub(1);
            self.samples.drain(..MAX_FRAME);
        }
    }
}

impl Default for Playout {
    fn default() -> Self {
        Self {
            tick: 0,
            lag: 1,
            calm_ticks: 0,
            gap_ticks: GAP_TICKS,
            underruns: 0,
        }
    }
}

impl Playout {
    fn pull(&mut self, ring: &mut Consumer<SoundFrame>, out: &mut [i16]) -> Pulled {
        while let Ok(front) = ring.peek() {
            let due = front.tick + self.lag;
            if due > self.tick {
                break;
            }
            let is_due = due == self.tick;
            if is_due {
                out.copy_from_slice(&front.pcm);
            }
            // It was just looked at.
            let _ = ring.pop();
            if is_due {
                if self.on_played(ring.is_empty()) {
                    // Waiting for less means leaving a frame out.
                    let _ = ring.pop();
                }
                return Pulled::Samples(MAX_FRAME);
            }
            self.on_late();
        }
        self.gap_ticks = self.gap_ticks.saturating_add(1);
        if self.gap_ticks > GAP_TICKS {
            return Pulled::Nothing;
        }
        out.fill(0);
        Pulled::Samples(MAX_FRAME)
    }

    fn on_late(&mut self) {
        self.underruns += 1;
        self.calm_ticks = 0;
        self.lag = (self.lag + 1).min(MAX_LAG);
    }

    /// True when the next frame is to be left out.
    fn on_played(&mut self, was_just_in_time: bool) -> bool {
        self.gap_ticks = 0;
        if was_just_in_time || self.lag == 1 {
            self.calm_ticks = 0;
            return false;
        }
        self.calm_ticks += 1;
        if self.calm_ticks < CALM_TICKS {
            return false;
        }
        self.calm_ticks = 0;
        self.lag -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> EndpointId {
        EndpointId::from_bytes([byte; 16])
    }

    fn pair() -> (BridgeEnd, BridgeEnd) {
        bridge(id(1), id(2), Direction::Sendonly)
    }

    fn say(end: &mut BridgeEnd, sample: i16, samples: usize) {
        end.handle_sound(&sample.to_be_bytes().repeat(samples));
    }

    fn hear(end: &mut BridgeEnd, tick: u64) -> Option<i16> {
        let mut out = [7; MAX_FRAME];
        end.on_tick(tick);
        match end.pull(&mut out) {
            Pulled::Samples(MAX_FRAME) => Some(out[0]),
            _ => None,
        }
    }

    #[test]
    fn the_ends_know_each_other_and_mirror_their_directions() {
        let (here, there) = pair();
        assert_eq!((here.far(), there.far()), (id(2), id(1)));
        assert_eq!(here.direction(), Direction::Sendonly);
        assert_eq!(there.direction(), Direction::Recvonly);
        assert!(!here.is_abandoned());
        drop(there);
        assert!(here.is_abandoned());
    }

    #[test]
    fn whoever_ticks_first_a_frame_is_played_one_tick_later() {
        for first in [true, false] {
            let (mut here, mut there) = pair();
            for tick in 10..60 {
                say(&mut here, tick as i16, MAX_FRAME);
                let mut heard = None;
                if !first {
                    heard = hear(&mut there, tick);
                }
                here.send(tick);
                if first {
                    heard = hear(&mut there, tick);
                }
                let expected = (tick > 10).then_some(tick as i16 - 1);
                assert_eq!(heard, expected, "tick {tick}");
            }
            assert_eq!(there.take_underruns(), 0);
        }
    }

    #[test]
    fn a_session_that_is_late_is_waited_for_until_it_is_in_time_again() {
        let (mut here, mut there) = pair();
        let mut missed = 0;
        // From tick 20 to 60 it sends two ticks late.
        for tick in 0..1300_u64 {
            let late = if (20..60).contains(&tick) { 2 } else { 0 };
            let sent = tick.checked_sub(late);
            if let Some(sent) = sent.filter(|_| tick != 60 && tick != 61) {
                say(&mut here, 100, MAX_FRAME);
                here.send(sent);
            }
            let heard = hear(&mut there, tick);
            missed += u32::from(tick > 2 && heard != Some(100));
        }
        assert!(missed <= 8, "{missed} frames of 1300 were missed");
        assert!((1..=4).contains(&there.take_underruns()));
        assert_eq!(there.playout.lag, 1, "the delay is as before");
    }

    #[test]
    fn silence_ends_after_a_while_and_sound_begins_at_once() {
        let (mut here, mut there) = pair();
        assert_eq!(hear(&mut there, 1), None);
        say(&mut here, 5, MAX_FRAME);
        here.send(1);
        assert_eq!(hear(&mut there, 2), Some(5));
        for tick in 3..=7 {
            assert_eq!(hear(&mut there, tick), Some(0));
        }
        assert_eq!(hear(&mut there, 8), None);
        assert_eq!(there.take_underruns(), 0, "a pause is none");
    }

    #[test]
    fn packets_around_the_tick_are_evened_out() {
        let (mut here, mut there) = pair();
        let mut heard = Vec::new();
        for tick in 0..400_u64 {
            // Every tenth packet comes just after its tick.
            if tick % 10 != 9 {
                say(&mut here, 9, MAX_FRAME);
            }
            here.send(tick);
            if tick % 10 == 9 {
                say(&mut here, 9, MAX_FRAME);
            }
            heard.push(hear(&mut there, tick + 1));
        }
        assert!(heard[30..].iter().all(|sample| *sample == Some(9)));
    }

    fn packet(sequence: u64, content: Content) -> Inbound {
        Inbound {
            epoch: 3,
            sequence,
            timestamp: 160,
            marker: false,
            payload: 0..4,
            content,
            is_sensitive: false,
        }
    }

    #[test]
    fn packets_cross_as_they_are_while_both_sides_have_one_party_of_a_codec() {
        let (mut here, mut there) = pair();
        let pcmu = Some(Codec::Pcmu);
        assert!(!here.choose(None, pcmu), "nobody listens there");
        assert!(!there.choose(Some(Codec::Opus), None));
        assert!(!here.choose(None, pcmu), "another codec");
        assert!(!there.choose(pcmu, None));
        assert!(here.choose(None, pcmu));
        assert_eq!(
            (here.outgoing(), there.incoming()),
            (Codec::Pcmu, Codec::L16)
        );
        here.on_tick(10);
        here.cross(&packet(77, Content::Audio(Codec::Pcmu)), &[1, 2, 3, 4]);
        here.cross(&packet(78, Content::Audio(Codec::Opus)), &[1]);
        here.cross(
            &packet(79, Content::Audio(Codec::Pcmu)),
            &[0; MAX_CODED + 1],
        );
        let mut room = [0; MAX_CODED];
        let (crossing, is_other) = there.next_crossing(&mut room).expect("it crossed");
        assert!(is_other);
        assert_eq!((crossing.epoch, crossing.sequence), (3, 77));
        assert_eq!(room[..4], [1, 2, 3, 4]);
        assert!(
            there.next_crossing(&mut room).is_none(),
            "what does not fit stays"
        );
        assert_eq!(there.incoming(), Codec::Pcmu);
        // A third party comes: sound again, from the first frame on.
        assert!(!there.choose(None, None));
        assert!(here.choose(None, pcmu));
        say(&mut here, 5, MAX_FRAME);
        here.send(11);
        assert!(there.choose(None, None), "packets are over");
        assert_eq!(hear(&mut there, 12), Some(5));
    }

    #[test]
    fn a_far_end_that_does_not_play_costs_no_memory() {
        let (mut here, mut there) = pair();
        for tick in 0..1000 {
            say(&mut here, tick as i16, 3 * MAX_FRAME);
            here.send(tick);
        }
        assert!(here.gathered.samples.len() <= MAX_GATHERED);
        // It begins anew where the ring was full.
        assert_eq!(hear(&mut there, 1001), None);
        say(&mut here, 77, MAX_GATHERED);
        here.send(1001);
        let lag = there.playout.lag;
        assert_eq!(hear(&mut there, 1001 + lag), Some(77));
    }
}
