//! The 20 ms grid on which all mixers of all workers run.
//!
//! Ticks lie at whole multiples of 20 ms of the shell's clock, so that workers need not agree on
//! anything. A worker that is a little late catches up; one that is more than 100 ms late leaves the
//! missed ticks out.

use std::time::Duration;

use crate::time::Instant;

/// The grid's pitch.
pub const TICK: Duration = Duration::from_millis(20);
const TICK_NANOS: u64 = 20_000_000;
/// Ticks that are made up for.
const MAX_LATE_TICKS: u64 = 5;

/// One moment of the grid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tick {
    /// Ticks since the clock's origin.
    pub index: u64,
}

impl Tick {
    /// When it is.
    pub fn at(self) -> Instant {
        Instant::from_nanos(self.index.saturating_mul(TICK_NANOS))
    }

    /// Its place in ticks of 48 kHz.
    pub fn position(self) -> u64 {
        self.index.saturating_mul(960)
    }
}

/// A worker's view of the grid.
#[derive(Clone, Copy, Debug)]
pub struct MixClock {
    next: u64,
}

impl MixClock {
    /// The first tick comes after `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            next: now.as_nanos() / TICK_NANOS + 1,
        }
    }

    /// When the next tick is.
    pub fn next_timeout(&self) -> Instant {
        Tick { index: self.next }.at()
    }

    /// The next tick that is due; call again until there is none.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Tick> {
        let current = now.as_nanos() / TICK_NANOS;
        if self.next > current {
            return None;
        }
        if current - self.next > MAX_LATE_TICKS {
            self.next = current;
        }
        let tick = Tick { index: self.next };
        self.next += 1;
        Some(tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn due(clock: &mut MixClock, ms: u64) -> Vec<u64> {
        std::iter::from_fn(|| clock.handle_timeout(moment(ms)))
            .map(|tick| tick.index)
            .collect()
    }

    #[test]
    fn ticks_lie_on_one_grid_whenever_the_clock_began() {
        let mut early = MixClock::new(moment(1000));
        let mut late = MixClock::new(moment(1019));
        assert_eq!(early.next_timeout(), moment(1020));
        assert_eq!(late.next_timeout(), moment(1020));
        assert!(due(&mut early, 1019).is_empty());
        assert_eq!(due(&mut early, 1020), [51]);
        assert_eq!(due(&mut late, 1045), [51, 52]);
    }

    #[test]
    fn a_late_worker_catches_up_and_a_very_late_one_skips() {
        let mut clock = MixClock::new(moment(0));
        assert_eq!(due(&mut clock, 100), [1, 2, 3, 4, 5]);
        assert_eq!(due(&mut clock, 221), [6, 7, 8, 9, 10, 11]);
        assert_eq!(due(&mut clock, 1000), [50]);
        assert_eq!(due(&mut clock, 1020), [51]);
    }
}
