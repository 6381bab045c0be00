//! Whether the peer is there, as clients see it.
//!
//! ```text
//! new ──description known, or a valid check──► checking ──nomination──► connected
//!                                   disconnected ◄──15 s of silence──┘    ▲
//!                                        └──────any authentic sign────────┘
//! ```
//! Peers check every 2.5 s (Chromium) to 6 s (aiortc), so less than 15 s of silence means nothing
//! (RFC 7675 section 5.1, read for an agent that only answers).

use std::time::Duration;

use rtpbridge_shared::vocab::IceState;

use crate::time::Instant;

/// This long without a valid check or an authentic packet and the peer counts as gone.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(15);

/// State and last sign of life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Liveness {
    state: IceState,
    last_heard: Instant,
}

/// What may happen to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sign {
    /// The peer's description is known.
    Described,
    /// A valid check.
    Checked,
    /// A valid check that nominates.
    Nominated,
    /// An authentic SRTP or SRTCP packet.
    Packet,
}

impl Liveness {
    pub(super) const fn new() -> Self {
        Self {
            state: IceState::New,
            last_heard: Instant::ZERO,
        }
    }

    pub(super) const fn state(&self) -> IceState {
        self.state
    }

    pub(super) fn on(&mut self, sign: Sign, now: Instant) {
        if sign != Sign::Described {
            self.last_heard = now;
        }
        self.state = match (self.state, sign) {
            (_, Sign::Nominated) => IceState::Connected,
            (IceState::New, Sign::Described | Sign::Checked) => IceState::Checking,
            (IceState::Disconnected, Sign::Checked | Sign::Packet) => IceState::Connected,
            (state, Sign::Described | Sign::Checked | Sign::Packet) => state,
        };
    }

    /// When silence becomes absence, if nothing is heard until then.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        (self.state == IceState::Connected).then(|| self.last_heard + SILENCE_LIMIT)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_some_and(|deadline| now >= deadline) {
            self.state = IceState::Disconnected;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn every_state_meets_every_sign() {
        use IceState::{Checking, Connected, Disconnected, New};
        use Sign::{Checked, Described, Nominated, Packet};
        for (state, sign, expected) in [
            (New, Described, Checking),
            (New, Checked, Checking),
            (New, Nominated, Connected),
            (New, Packet, New),
            (Checking, Described, Checking),
            (Checking, Checked, Checking),
            (Checking, Nominated, Connected),
            (Checking, Packet, Checking),
            (Connected, Described, Connected),
            (Connected, Checked, Connected),
            (Connected, Nominated, Connected),
            (Connected, Packet, Connected),
            (Disconnected, Described, Disconnected),
            (Disconnected, Checked, Connected),
            (Disconnected, Nominated, Connected),
            (Disconnected, Packet, Connected),
        ] {
            let mut liveness = Liveness {
                state,
                last_heard: at(0),
            };
            liveness.on(sign, at(1));
            assert_eq!(liveness.state(), expected, "{state} {sign:?}");
        }
    }

    #[test]
    fn fifteen_seconds_of_silence_disconnect_and_one_packet_brings_it_back() {
        let mut liveness = Liveness::new();
        assert_eq!(liveness.next_timeout(), None);
        liveness.on(Sign::Nominated, at(1));
        liveness.on(Sign::Packet, at(3));
        assert_eq!(liveness.next_timeout(), Some(at(18)));
        liveness.handle_timeout(at(17));
        assert_eq!(liveness.state(), IceState::Connected);
        liveness.handle_timeout(at(18));
        assert_eq!(liveness.state(), IceState::Disconnected);
        assert_eq!(liveness.next_timeout(), None);
        liveness.on(Sign::Packet, at(40));
        assert_eq!(liveness.state(), IceState::Connected);
        assert_eq!(liveness.next_timeout(), Some(at(55)));
    }
}
