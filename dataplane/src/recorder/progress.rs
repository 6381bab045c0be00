//! How far a worker has come, as the writers need to know it: packets are put in order of arrival,
//! and that needs everything which arrived before them. A worker that was held up in the middle of a
//! turn has read some sockets and not the others, however late it is by the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest that a worker is waited for, so that a recording does not stay in memory with it.
const PATIENCE_NS: u64 = 70_000_000;

/// Written by one worker, read by all writers.
#[derive(Clone, Default, Debug)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// The turn that began at this monotonic time has ended.
    pub(crate) fn on_turn_ended(&self, begun_ns: u64) {
        self.0.store(begun_ns, Ordering::Release);
    }

    /// Up to when the worker has come; a worker that waits for packets lags behind `now_ns`, too.
    pub(super) fn reached_ns(&self, now_ns: u64) -> u64 {
        let ended_ns = self.0.load(Ordering::Acquire);
        ended_ns.max(now_ns.saturating_sub(PATIENCE_NS)).min(now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_waited_for_but_not_for_ever() {
        let worker = Progress::default();
        worker.on_turn_ended(1_000_000_000);
        let seen = worker.clone();
        assert_eq!(seen.reached_ns(1_010_000_000), 1_000_000_000);
        assert_eq!(seen.reached_ns(1_500_000_000), 1_430_000_000);
        worker.on_turn_ended(1_499_000_000);
        assert_eq!(seen.reached_ns(1_500_000_000), 1_499_000_000);
        // The clock was read before the turn ended.
        assert_eq!(seen.reached_ns(1_498_000_000), 1_498_000_000);
    }
}
