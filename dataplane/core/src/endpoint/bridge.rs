//! One end of a bridge between two sessions. What reaches this end in its session goes over a ring
//! of 20 ms frames (48 kHz, mono) to the far end, which gives it to its session, and the reverse.
//! The two ends may live on two workers; the rings are all that they share, and an end that is dropped
//! takes the other along.
//!
//! Both sessions tick on one grid, so a frame that was sent at one tick is played at the next: which
//! of the two ran first does not matter. A session that is late for longer makes the far end wait for
//! more ticks, until that was needless for a while.

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::vocab::Direction;
use rtrb::{Consumer, Producer, RingBuffer};

use super::leg::{Content, Inbound};
use super::pcm::{MAX_FRAME, Pulled};
use crate::dtmf::payload::EventPayload;
use crate::dtmf::receiver::FinishedEvent;

/// 320 ms; more is not waited for, and a session that late has lost sound anyway.
const SOUND_PLACES: usize = 16;
/// Packets of digits for one tick, from every party of a session at once.
const CROSSING_PLACES: usize = 64;
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
}

/// 20 ms on their way, and the tick at which they were sent.
struct SoundFrame {
    tick: u64,
    pcm: [i16; MAX_FRAME],
}

/// What crosses beside the sound.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crossing {
    /// A packet of a telephone-event.
    Event {
        timestamp: u32,
        marker: bool,
        payload: EventPayload,
        clock_rate: u32,
        start: u32,
        is_sensitive: bool,
    },
    /// A telephone-event is over.
    Finished {
        event: FinishedEvent,
        is_sensitive: bool,
    },
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
    let end = |far, direction, sound, crossing| {
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
        }
    };
    let here = end(
        second,
        direction,
        (to_second, from_second),
        (cross_to_second, cross_from_second),
    );
    let there = end(
        first,
        direction.mirrored(),
        (to_first, from_first),
        (cross_to_first, cross_from_first),
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

    /// The next that crossed beside the sound.
    pub(crate) fn next_crossing(&mut self) -> Option<Crossing> {
        self.crossing_in.pop().ok()
    }

    /// Sends something beside the sound; a full ring loses it.
    pub(crate) fn cross(&mut self, crossing: Crossing) {
        // Sixty-four packets in 20 ms are no party's digits.
        let _ = self.crossing_out.push(crossing);
    }

    /// Sends a packet of a telephone-event; others do not cross.
    pub(crate) fn cross_event(&mut self, inbound: &Inbound) {
        if let Content::Event {
            payload,
            clock_rate,
            start,
        } = inbound.content
        {
            self.cross(Crossing::Event {
                timestamp: inbound.timestamp,
                marker: inbound.marker,
                payload,
                clock_rate,
                start,
                is_sensitive: inbound.is_sensitive,
            });
        }
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
                self.on_played(ring.is_empty());
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

    fn on_played(&mut self, was_just_in_time: bool) {
        self.gap_ticks = 0;
        if was_just_in_time || self.lag == 1 {
            self.calm_ticks = 0;
            return;
        }
        self.calm_ticks += 1;
        if self.calm_ticks == CALM_TICKS {
            self.calm_ticks = 0;
            self.lag -= 1;
        }
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
