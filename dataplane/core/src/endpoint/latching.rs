//! Symmetric RTP: whom to believe, and where to send (media.md, Plain RTP endpoints).
//!
//! ```text
//!             (a) one packet ───────────────────────────────► locked
//! nobody ──── (b) 3 in sequence ──► believed ── 5 s over ───► locked ──┐ 2 s silence and the same
//!             (c) 5 in sequence,      ▲  │ better rank                 │ SSRC goes on elsewhere,
//!              none of (a), (b)       └──┘                    ▲        │ or authenticated
//!              for 500 ms                                     └────────┘
//! ```
//! Must never let a source be routed or sent to that is not believed. The window begins with the
//! first believed packet, so that a stranger's stray packet cannot close it before the party speaks.

use std::net::SocketAddr;
use std::time::Duration;

use rtpbridge_shared::vocab::RtpLearning;

use crate::time::Instant;

/// How long after the first believed packet, a reinvite or a rekey the address may change.
pub(super) const WINDOW: Duration = Duration::from_secs(5);
/// Silence of the believed address after which its stream may go on from another one.
pub(super) const REBINDING_SILENCE: Duration = Duration::from_secs(2);
/// A packet from the signalled host keeps all others from being believed for this long.
pub(super) const SIGNALLED_HOST_GUARD: Duration = Duration::from_millis(500);

const RUN_FROM_SIGNALLED_HOST: u8 = 3;
const RUN_FROM_ELSEWHERE: u8 = 5;
/// Sources watched at a time, per rank; the one silent longest gives way.
const CANDIDATES: usize = 8;

/// How a source relates to the SDP; less is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    /// (a) its address and port.
    Signalled,
    /// (b) its address, another port.
    SignalledHost,
    /// (c) any other.
    Elsewhere,
}

/// A valid packet, as far as believing it is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// Where it came from.
    pub(super) source: SocketAddr,
    /// Its SSRC.
    pub(super) ssrc: u32,
    /// Its sequence number.
    pub(super) sequence: u16,
    /// It was protected by a key that only the party has.
    pub(super) is_authenticated: bool,
    /// It is newer in the sequence of the SSRC that is being received.
    pub(super) continues: bool,
}

/// What to do with the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Route it.
    Believed,
    /// Drop it.
    Refused,
}

/// Learning of one endpoint's address.
#[derive(Clone, Debug)]
pub(super) struct Latch {
    learning: RtpLearning,
    signalled: Option<SocketAddr>,
    believed: Option<Believed>,
    /// End of the window; none before the first believed packet.
    window_until: Option<Instant>,
    signalled_host_heard_at: Option<Instant>,
    candidates: [Vec<Candidate>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Believed {
    source: SocketAddr,
    rank: Rank,
    heard_at: Instant,
    /// Heard since the window opened.
    is_current: bool,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    source: SocketAddr,
    ssrc: u32,
    next: u16,
    run: u8,
    heard_at: Instant,
}

impl Latch {
    /// Nobody is believed yet. `signalled` is the SDP's RTP address, none on hold.
    pub(super) fn new(learning: RtpLearning, signalled: Option<SocketAddr>) -> Self {
        Self {
            learning,
            signalled,
            believed: None,
            window_until: None,
            signalled_host_heard_at: None,
            candidates: [Vec::new(), Vec::new()],
        }
    }

    /// The source that is believed.
    pub(super) fn believed(&self) -> Option<SocketAddr> {
        self.believed.map(|believed| believed.source)
    }

    /// The SDP's RTP address.
    pub(super) fn signalled(&self) -> Option<SocketAddr> {
        self.signalled
    }

    /// A further description of the party, or a new key: the window opens again. An address that
    /// changed counts at once; one that did not keeps what was learned.
    pub(super) fn reopen(&mut self, signalled: Option<SocketAddr>, now: Instant) {
        for candidates in &mut self.candidates {
            candidates.clear();
        }
        if signalled.is_some() && signalled != self.signalled {
            self.signalled = signalled;
            self.believed = None;
            self.window_until = None;
            self.signalled_host_heard_at = None;
        } else if let Some(believed) = &mut self.believed {
            believed.is_current = false;
            self.window_until = Some(now + WINDOW);
        }
    }

    /// Whether the host of `source` is the party's, for packets that carry no sequence (RTCP).
    pub(super) fn is_party_host(&self, source: SocketAddr) -> bool {
        let host_of = |address: Option<SocketAddr>| address.map(|address| address.ip());
        match self.believed() {
            Some(believed) => believed.ip() == source.ip(),
            None => host_of(self.signalled) == Some(source.ip()),
        }
    }

    /// Judges a valid packet.
    pub(super) fn judge(&mut self, evidence: &Evidence, now: Instant) -> Verdict {
        let rank = self.rank_of(evidence.source);
        if let Some(believed) = &mut self.believed
            && believed.source == evidence.source
        {
            believed.heard_at = now;
            believed.is_current = true;
            if rank <= Rank::SignalledHost {
                self.signalled_host_heard_at = Some(now);
            }
            return Verdict::Believed;
        }
        if !self.may_move_to(rank) {
            return Verdict::Refused;
        }
        if evidence.is_authenticated {
            // A straggler from the old address is heard, but moves nothing.
            if evidence.continues || self.believed.is_none() {
                self.believe(evidence.source, rank, now);
            }
            return Verdict::Believed;
        }
        if let Some(believed) = self.believed {
            if evidence.continues && now - believed.heard_at >= REBINDING_SILENCE {
                self.believe(evidence.source, rank, now);
                return Verdict::Believed;
            }
            let displaces = rank < believed.rank || (rank == believed.rank && !believed.is_current);
            if self.is_locked(&believed, now) || !displaces {
                return Verdict::Refused;
            }
        }
        self.judge_candidate(evidence, rank, now)
    }

    fn rank_of(&self, source: SocketAddr) -> Rank {
        match self.signalled {
            Some(signalled) if signalled == source => Rank::Signalled,
            Some(signalled) if signalled.ip() == source.ip() => Rank::SignalledHost,
            _ => Rank::Elsewhere,
        }
    }

    fn may_move_to(&self, rank: Rank) -> bool {
        match self.learning {
            RtpLearning::Any => true,
            RtpLearning::SdpIp => rank <= Rank::SignalledHost,
            RtpLearning::Off => rank == Rank::Signalled,
        }
    }

    fn is_locked(&self, believed: &Believed, now: Instant) -> bool {
        believed.rank == Rank::Signalled || self.window_until.is_none_or(|until| now >= until)
    }

    fn judge_candidate(&mut self, evidence: &Evidence, rank: Rank, now: Instant) -> Verdict {
        let (table, needed) = match rank {
            Rank::Signalled => {
                self.believe(evidence.source, rank, now);
                return Verdict::Believed;
            }
            Rank::SignalledHost => (0, RUN_FROM_SIGNALLED_HOST),
            Rank::Elsewhere => (1, RUN_FROM_ELSEWHERE),
        };
        if rank == Rank::SignalledHost {
            self.signalled_host_heard_at = Some(now);
        }
        let run = extend_run(&mut self.candidates[table], evidence, now);
        let is_guarded = rank == Rank::Elsewhere
            && self
                .signalled_host_heard_at
                .is_some_and(|heard| now - heard < SIGNALLED_HOST_GUARD);
        if run < needed || is_guarded {
            return Verdict::Refused;
        }
        self.believe(evidence.source, rank, now);
        Verdict::Believed
    }

    fn believe(&mut self, source: SocketAddr, rank: Rank, now: Instant) {
        self.believed = Some(Believed {
            source,
            rank,
            heard_at: now,
            is_current: true,
        });
        self.window_until.get_or_insert(now + WINDOW);
        if rank <= Rank::SignalledHost {
            self.signalled_host_heard_at = Some(now);
        }
        for candidates in &mut self.candidates {
            candidates.clear();
        }
    }
}

/// How many packets of this source and SSRC came in sequence, this one included.
fn extend_run(candidates: &mut Vec<Candidate>, evidence: &Evidence, now: Instant) -> u8 {
    let next = evidence.sequence.wrapping_add(1);
    let fresh = Candidate {
        source: evidence.source,
        ssrc: evidence.ssrc,
        next,
        run: 1,
        heard_at: now,
    };
    if let Some(known) = candidates
        .iter_mut()
        .find(|candidate| candidate.source == evidence.source)
    {
        let is_next = known.ssrc == evidence.ssrc && known.next == evidence.sequence;
        let run = if is_next {
            known.run.saturating_add(1)
        } else {
            1
        };
        *known = Candidate { run, ..fresh };
        return run;
    }
    if candidates.len() < CANDIDATES {
        candidates.push(fresh);
    } else if let Some(oldest) = candidates.iter_mut().min_by_key(|c| c.heard_at) {
        *oldest = fresh;
    }
    1
}

#[cfg(test)]
#[path = "latching/tests.rs"]
mod tests;
