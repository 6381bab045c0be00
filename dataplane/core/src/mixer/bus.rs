//! One session's mix: who contributes, who hears, and which of them can share an encode.
//!
//! A destination that contributed nothing but silence hears the plain total, as do all others like
//! it. Where a format keeps no history (G.711 at the mix's own rate) they share one encode from frame
//! to frame; where it does, a destination joins the shared encode after two seconds of silence and
//! leaves it when it speaks, its own encoder warmed up with what it heard last.

use super::clock::Tick;
use super::sum::{self, Limiter};
use crate::codec::{self, Codec, CodecError};
use crate::jitter::Contribution;
use crate::transcode::{EncodedFrame, Fanout, TargetFormat};

/// Ticks of silence that are still sent after the last contribution: 200 ms.
const COMFORT_TICKS: u32 = 10;
/// Ticks of silence of its own after which a destination joins a shared encode with history.
const JOIN_TICKS: u32 = 100;
/// Frames of the mix with which an encoder is warmed up.
const WARM_FRAMES: usize = 2;

/// A mix at one rate. `K` names a party.
pub struct Bus<K> {
    rate_hz: u32,
    parties: Vec<Party<K>>,
    groups: Vec<Leg>,
    total: Vec<i32>,
    rest: Vec<i32>,
    /// The last frames of the plain total.
    recent: [Vec<i16>; WARM_FRAMES],
    errors: u64,
}

struct Party<K> {
    key: K,
    sends: bool,
    hears: Option<TargetFormat>,
    is_bridge: bool,
    /// What it loses, percent.
    loss_percent: u8,
    pcm: Vec<i16>,
    contribution: Contribution,
    /// Ticks since it was last heard.
    quiet_ticks: u32,
    /// Ticks since anyone else contributed.
    idle_ticks: u32,
    shares: bool,
    own: Option<Leg>,
    last_sent: Option<Tick>,
}

/// One encode.
struct Leg {
    format: TargetFormat,
    limiter: Limiter,
    fanout: Fanout,
    pcm: Vec<i16>,
    last_used: u64,
}

impl<K: Copy + PartialEq> Bus<K> {
    /// A mix at `rate_hz`: 8000, 16000 or 48000.
    pub fn new(rate_hz: u32) -> Self {
        let samples = rate_hz as usize / 50;
        Self {
            rate_hz,
            parties: Vec::new(),
            groups: Vec::new(),
            total: vec![0; samples],
            rest: vec![0; samples],
            recent: std::array::from_fn(|_| vec![0; samples]),
            errors: 0,
        }
    }

    /// Samples per second of what is summed.
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Adds a party or changes its part: whether it is heard, and in which format it hears.
    pub fn set_party(&mut self, key: K, sends: bool, hears: Option<TargetFormat>) {
        let samples = self.rate_hz as usize / 50;
        match self.parties.iter_mut().find(|party| party.key == key) {
            Some(party) => {
                if party.hears != hears {
                    (party.own, party.shares) = (None, false);
                }
                (party.sends, party.hears) = (sends, hears);
            }
            None => self.parties.push(Party {
                key,
                sends,
                hears,
                is_bridge: false,
                loss_percent: 0,
                pcm: vec![0; samples],
                contribution: Contribution::None,
                // Who has never been heard has no history to leave.
                quiet_ticks: JOIN_TICKS,
                idle_ticks: 0,
                shares: false,
                own: None,
                last_sent: None,
            }),
        }
    }

    /// Bridges to other mixes do not hear each other; others hear them.
    pub fn set_bridge(&mut self, key: K, is_bridge: bool) {
        if let Some(party) = self.parties.iter_mut().find(|party| party.key == key) {
            party.is_bridge = is_bridge;
        }
    }

    /// What a party loses of what it is sent, in percent. A shared encoder expects what the worst of
    /// its listeners loses.
    pub fn set_expected_loss(&mut self, key: K, percent: u8) {
        if let Some(party) = self.parties.iter_mut().find(|party| party.key == key) {
            party.loss_percent = percent;
            if let Some(own) = &mut party.own {
                own.fanout.set_expected_loss(&own.format, percent);
            }
        }
    }

    /// Removes a party.
    pub fn remove_party(&mut self, key: K) {
        self.parties.retain(|party| party.key != key);
    }

    /// Parties there are.
    pub fn party_count(&self) -> usize {
        self.parties.len()
    }

    /// Frames that could not be encoded since this was last asked.
    pub fn take_errors(&mut self) -> u64 {
        std::mem::take(&mut self.errors)
    }

    /// Mixes one tick. `pull` writes a party's 20 ms at the mix's rate; `emit` gets what goes to a
    /// party. Timestamps follow the grid, so they are right across pauses and skipped ticks; the
    /// first frame a party is ever sent says `restart`.
    pub fn handle_tick(
        &mut self,
        tick: Tick,
        pull: &mut impl FnMut(K, &mut [i16]) -> Contribution,
        emit: &mut impl FnMut(K, EncodedFrame<'_>),
    ) {
        let active = self.gather(pull);
        self.count_idle(active);
        for at in 0..self.parties.len() {
            let party = &self.parties[at];
            if !party.is_due() {
                continue;
            }
            if party.prefers_sharing(self.rate_hz) {
                self.send_shared(tick, at, emit);
            } else {
                self.send_own(tick, at, emit);
            }
        }
        self.recent.rotate_left(1);
        Limiter::default().limit(&self.total, &mut self.recent[WARM_FRAMES - 1]);
        self.groups
            .retain(|group| tick.index.saturating_sub(group.last_used) < 50);
    }

    /// Asks every source and sums; returns how many contributed.
    fn gather(&mut self, pull: &mut impl FnMut(K, &mut [i16]) -> Contribution) -> usize {
        self.total.fill(0);
        let mut active = 0;
        for party in &mut self.parties {
            party.contribution = if party.sends {
                pull(party.key, &mut party.pcm)
            } else {
                Contribution::None
            };
            if party.contribution == Contribution::Sound {
                sum::add(&mut self.total, &party.pcm);
                party.quiet_ticks = 0;
            } else {
                party.quiet_ticks = party.quiet_ticks.saturating_add(1);
            }
            active += usize::from(party.contribution != Contribution::None);
        }
        active
    }

    /// Notes for whom there is somebody to hear. For all before any is sent something: the first of a
    /// group encodes for the others.
    fn count_idle(&mut self, active: usize) {
        let is_active = |party: &&Party<K>| party.contribution != Contribution::None;
        let bridges = self.parties.iter().filter(|party| party.is_bridge);
        let bridges = bridges.filter(is_active).count();
        for party in &mut self.parties {
            let own = match party.is_bridge {
                true => bridges,
                false => usize::from(party.contribution != Contribution::None),
            };
            party.idle_ticks = if active > own {
                0
            } else {
                party.idle_ticks.saturating_add(1)
            };
        }
    }

    fn send_shared(&mut self, tick: Tick, at: usize, emit: &mut impl FnMut(K, EncodedFrame<'_>)) {
        let party = &mut self.parties[at];
        let Some(format) = party.hears else { return };
        party.shares = true;
        let group = match self.groups.iter().position(|group| group.format == format) {
            Some(at) => at,
            None => match Leg::new(format, self.rate_hz) {
                Ok(mut leg) => {
                    leg.warm_up(tick, &self.recent);
                    self.groups.push(leg);
                    self.groups.len() - 1
                }
                Err(_) => {
                    self.errors += 1;
                    return;
                }
            },
        };
        if self.groups[group].last_used == tick.index {
            // The first of the group encoded for all.
            return;
        }
        let rate_hz = self.rate_hz;
        let is_member = |party: &Party<K>| {
            party.hears == Some(format) && party.is_due() && party.prefers_sharing(rate_hz)
        };
        let members = self.parties.iter().filter(|party| is_member(party));
        let worst = members.map(|party| party.loss_percent).max();
        let fanout = &mut self.groups[group].fanout;
        fanout.set_expected_loss(&format, worst.unwrap_or(0));
        // The encode is handed to every member while its payload stands.
        let parties = &mut self.parties;
        let mut to_members = |frame: EncodedFrame<'_>| {
            for party in parties.iter_mut().filter(|party| is_member(party)) {
                let frame = party.stamp(tick, frame);
                emit(party.key, frame);
            }
        };
        self.errors += self.groups[group].encode(tick, &self.total, &mut to_members);
    }

    fn send_own(&mut self, tick: Tick, at: usize, emit: &mut impl FnMut(K, EncodedFrame<'_>)) {
        let party = &mut self.parties[at];
        let Some(format) = party.hears else { return };
        let mut own = match party.own.take() {
            Some(own) => own,
            None => match Leg::new(format, self.rate_hz) {
                Ok(mut own) => {
                    own.fanout.set_expected_loss(&format, party.loss_percent);
                    own
                }
                Err(_) => {
                    self.errors += 1;
                    return;
                }
            },
        };
        if std::mem::take(&mut party.shares) {
            own.warm_up(tick, &self.recent);
        }
        let sum = if party.is_bridge {
            self.rest.copy_from_slice(&self.total);
            let others = self
                .parties
                .iter()
                .filter(|other| other.is_bridge && other.contribution == Contribution::Sound);
            for other in others {
                sum::take_out(&mut self.rest, &other.pcm);
            }
            &self.rest
        } else if party.contribution == Contribution::Sound {
            sum::subtract(&self.total, &party.pcm, &mut self.rest);
            &self.rest
        } else {
            &self.total
        };
        let party = &mut self.parties[at];
        let mut to_party = |frame: EncodedFrame<'_>| {
            let frame = party.stamp(tick, frame);
            emit(party.key, frame);
        };
        self.errors += own.encode(tick, sum, &mut to_party);
        self.parties[at].own = Some(own);
    }
}

impl<K> Party<K> {
    /// Whether it is sent something in this tick.
    fn is_due(&self) -> bool {
        self.hears.is_some() && self.idle_ticks <= COMFORT_TICKS
    }

    /// Whether it is to hear the plain total, encoded once for all who do.
    fn prefers_sharing(&self, rate_hz: u32) -> bool {
        let Some(format) = self.hears else {
            return false;
        };
        // Longer packets are gathered over ticks, during which the group must not change.
        let is_own = self.is_bridge || self.contribution == Contribution::Sound;
        if is_own || format.ptime_ms() != 20 {
            return false;
        }
        let stateless = matches!(format.codec(), Codec::Pcmu | Codec::Pcma | Codec::L16)
            && codec::native_rate(format.codec(), rate_hz) == rate_hz;
        stateless || self.quiet_ticks >= JOIN_TICKS
    }

    /// Makes a leg's frame this party's own: its stream knows nothing of changing legs.
    fn stamp<'a>(&mut self, tick: Tick, frame: EncodedFrame<'a>) -> EncodedFrame<'a> {
        let restart = self.last_sent.is_none();
        let pause = self.last_sent.is_none_or(|last| {
            let frame_ticks = self
                .hears
                .map_or(1, |format| u64::from(format.ptime_ms()).div_ceil(20));
            tick.index.saturating_sub(last.index) > frame_ticks
        });
        self.last_sent = Some(tick);
        EncodedFrame {
            restart,
            marker: pause,
            ..frame
        }
    }
}

impl Leg {
    fn new(format: TargetFormat, rate_hz: u32) -> Result<Self, CodecError> {
        let mut fanout = Fanout::new(rate_hz);
        fanout.add_target(&format)?;
        let pcm = vec![0; rate_hz as usize / 50];
        Ok(Self {
            format,
            limiter: Limiter::default(),
            fanout,
            pcm,
            last_used: u64::MAX,
        })
    }

    /// Runs what was heard last through the encoder, so that what comes next joins it.
    fn warm_up(&mut self, tick: Tick, recent: &[Vec<i16>; WARM_FRAMES]) {
        let begin = tick.position().saturating_sub(960 * WARM_FRAMES as u64);
        self.fanout.advance_to(begin);
        for frame in recent {
            self.fanout.push(frame, &[self.format], &mut |_, _| {});
        }
    }

    /// Encodes one frame of the sum; returns how many frames failed.
    fn encode(&mut self, tick: Tick, sum: &[i32], emit: &mut impl FnMut(EncodedFrame<'_>)) -> u64 {
        self.last_used = tick.index;
        self.limiter.limit(sum, &mut self.pcm);
        self.fanout.advance_to(tick.position());
        self.fanout
            .push(&self.pcm, &[self.format], &mut |_, frame| emit(frame));
        self.fanout.take_errors()
    }
}

#[cfg(test)]
mod tests;
