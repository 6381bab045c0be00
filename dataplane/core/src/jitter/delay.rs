//! How much delay a source's network needs: the spread of its packets' transit times.
//!
//! Transit is arrival minus timestamp, so only differences mean anything. The smallest of the last
//! ten seconds is the base, which thus follows the sender's clock; the buffer must bridge what
//! nearly all packets need beyond it, and one frame more because the mixer asks for whole frames.

use std::time::Duration;

use crate::time::Instant;

/// Bounds and beginning of the target.
const MIN_MS: u64 = 20;
const MAX_MS: u64 = 200;
const BEGIN_SPREAD_MS: u64 = 15;
/// The mixer's frame.
const FRAME_MS: u64 = 20;

const BIN_MS: u64 = 5;
const BINS: usize = 40;
/// Weight that the past keeps with each packet: the last four seconds count most.
const MEMORY: f32 = 0.995;
/// Share of packets that must come in time.
const IN_TIME: f32 = 0.98;
/// The base is the smallest transit of this and the last window.
const WINDOW: Duration = Duration::from_secs(5);
/// A timestamp that jumps further than this begins anew.
const MAX_JUMP_NANOS: i64 = 2_000_000_000;

/// Watches the arrivals of one source.
pub struct DelayEstimator {
    clock_hz: u32,
    /// The first packet's arrival and timestamp, and the timestamp counted on from it.
    origin: Option<(Instant, u32)>,
    newest_ticks: i64,
    newest_timestamp: u32,
    newest_transit: i64,
    base: i64,
    window_base: i64,
    window_began: Instant,
    spread: [f32; BINS],
}

impl DelayEstimator {
    /// For a source whose RTP clock runs at `clock_hz`.
    pub fn new(clock_hz: u32) -> Self {
        let mut spread = [0.0; BINS];
        // Until packets tell: 40 ms.
        spread[(BEGIN_SPREAD_MS / BIN_MS) as usize] = 1.0;
        Self {
            clock_hz,
            origin: None,
            newest_ticks: 0,
            newest_timestamp: 0,
            newest_transit: 0,
            base: 0,
            window_base: 0,
            window_began: Instant::ZERO,
            spread,
        }
    }

    /// A packet came, in time or not.
    pub fn handle_arrival(&mut self, now: Instant, timestamp: u32) {
        let ticks = self.unwrapped(timestamp);
        let Some((origin, _)) = self.origin else {
            return self.begin(now, timestamp);
        };
        let transit = self.transit(now, origin, ticks);
        if (transit - self.newest_transit).abs() > MAX_JUMP_NANOS {
            return self.begin(now, timestamp);
        }
        self.newest_transit = transit;
        if ticks > self.newest_ticks {
            (self.newest_ticks, self.newest_timestamp) = (ticks, timestamp);
        }
        if now.saturating_duration_since(self.window_began) >= WINDOW {
            self.base = self.window_base;
            self.window_base = transit;
            self.window_began = now;
        }
        self.base = self.base.min(transit);
        self.window_base = self.window_base.min(transit);
        let beyond_ms = (transit - self.base) as u64 / 1_000_000;
        let bin = ((beyond_ms / BIN_MS) as usize).min(BINS - 1);
        for (at, weight) in self.spread.iter_mut().enumerate() {
            *weight = *weight * MEMORY + if at == bin { 1.0 - MEMORY } else { 0.0 };
        }
    }

    /// The delay that lets nearly all packets come in time, 20 to 200 ms.
    pub fn target(&self) -> Duration {
        let mut share = 0.0;
        let covering = self.spread.iter().position(|weight| {
            share += weight;
            share >= IN_TIME
        });
        let spread_ms = (covering.unwrap_or(BINS - 1) as u64 + 1) * BIN_MS;
        Duration::from_millis((spread_ms + FRAME_MS).clamp(MIN_MS, MAX_MS))
    }

    /// By how many ms `timestamp`, were it played now, would be behind the fastest packets; `None`
    /// before the first packet.
    pub fn behind_ms(&self, now: Instant, timestamp: u32) -> Option<i64> {
        let (origin, _) = self.origin?;
        let ticks = self.unwrapped(timestamp);
        Some((self.transit(now, origin, ticks) - self.base) / 1_000_000)
    }

    fn begin(&mut self, now: Instant, timestamp: u32) {
        self.origin = Some((now, timestamp));
        (self.newest_ticks, self.newest_timestamp) = (0, timestamp);
        (self.newest_transit, self.base, self.window_base) = (0, 0, 0);
        self.window_began = now;
    }

    /// Ticks since the origin; right within half the timestamp's range of the newest packet.
    fn unwrapped(&self, timestamp: u32) -> i64 {
        self.newest_ticks + i64::from(timestamp.wrapping_sub(self.newest_timestamp) as i32)
    }

    fn transit(&self, now: Instant, origin: Instant, ticks: i64) -> i64 {
        let elapsed = now.as_nanos().saturating_sub(origin.as_nanos());
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        let nanos = i128::from(ticks) * 1_000_000_000 / i128::from(self.clock_hz);
        elapsed.saturating_sub(i64::try_from(nanos).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(estimator: &mut DelayEstimator, n: u64, late_ms: u64) {
        let now = Instant::from_nanos((n * 20 + late_ms) * 1_000_000);
        estimator.handle_arrival(now, ((n * 160) as u32).wrapping_sub(5001));
    }

    fn target_ms(estimator: &DelayEstimator) -> u64 {
        estimator.target().as_millis() as u64
    }

    #[test]
    fn the_target_begins_at_forty_ms() {
        assert_eq!(target_ms(&DelayEstimator::new(8000)), 40);
    }

    #[test]
    fn a_steady_source_needs_little() {
        let mut estimator = DelayEstimator::new(8000);
        (0..1000).for_each(|n| arrive(&mut estimator, n, 3));
        assert_eq!(target_ms(&estimator), 25);
    }

    #[test]
    fn a_jittery_source_gets_what_it_needs_and_no_more_than_the_bound() {
        for (jitter_ms, wanted) in [(60, 75..=85), (1000, 200..=200)] {
            let mut estimator = DelayEstimator::new(8000);
            (0..1000).for_each(|n| arrive(&mut estimator, n, n * 7919 % (jitter_ms + 1)));
            assert!(
                wanted.contains(&target_ms(&estimator)),
                "{jitter_ms}: {}",
                target_ms(&estimator)
            );
        }
    }

    #[test]
    fn one_late_packet_changes_nothing() {
        let mut estimator = DelayEstimator::new(8000);
        (0..1500).for_each(|n| arrive(&mut estimator, n, if n == 1400 { 150 } else { 0 }));
        assert_eq!(target_ms(&estimator), 25);
    }

    #[test]
    fn a_sender_with_a_slow_clock_is_not_jitter() {
        let mut estimator = DelayEstimator::new(8000);
        // 300 ppm: 18 ms in a minute.
        (0..3000).for_each(|n| arrive(&mut estimator, n, n * 6 / 1000));
        assert!(target_ms(&estimator) <= 30, "{}", target_ms(&estimator));
        let now = Instant::from_nanos(3000 * 20_000_000 + 18_000_000);
        let behind = estimator.behind_ms(now, 3000 * 160 - 5001);
        assert!(behind.expect("running") <= 5, "{behind:?}");
    }

    #[test]
    fn a_jump_begins_anew() {
        let mut estimator = DelayEstimator::new(8000);
        (0..100).for_each(|n| arrive(&mut estimator, n, 0));
        estimator.handle_arrival(Instant::from_nanos(2_000_000_000), 0x7000_0000);
        assert_eq!(
            estimator.behind_ms(Instant::from_nanos(2_000_000_000), 0x7000_0000),
            Some(0)
        );
    }
}
