//! Which worker gets a new session: the least loaded that is in time.

use std::sync::atomic::Ordering;

use crate::worker::Gauges;

/// What a session just placed is thought to cost until the load is measured again, in thousandths.
const EXPECTED_PERMILLE: u32 = 2;

/// The index of the worker to take, none when all are late.
pub(crate) fn choose<'a>(workers: impl Iterator<Item = &'a Gauges>) -> Option<usize> {
    let in_time = workers
        .enumerate()
        .filter(|(_, worker)| !worker.late.load(Ordering::Relaxed));
    let best = in_time.min_by_key(|(_, worker)| {
        let placed = worker.placed.load(Ordering::Relaxed);
        let load = worker.load_permille.load(Ordering::Relaxed);
        let expected = load.saturating_add(placed.saturating_mul(EXPECTED_PERMILLE));
        // Small differences of load are noise; there the number of sessions decides.
        (expected / 50, worker.sessions.load(Ordering::Relaxed))
    });
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauges(load: u32, placed: u32, sessions: u32, late: bool) -> Gauges {
        let gauges = Gauges::default();
        gauges.load_permille.store(load, Ordering::Relaxed);
        gauges.placed.store(placed, Ordering::Relaxed);
        gauges.sessions.store(sessions, Ordering::Relaxed);
        gauges.late.store(late, Ordering::Relaxed);
        gauges
    }

    #[test]
    fn the_least_loaded_worker_in_time_is_taken() {
        let cases = [
            (
                vec![gauges(500, 0, 1, false), gauges(100, 0, 9, false)],
                Some(1),
            ),
            (
                vec![gauges(100, 0, 5, false), gauges(110, 0, 4, false)],
                Some(1),
            ),
            (
                vec![gauges(0, 200, 5, false), gauges(100, 0, 9, false)],
                Some(1),
            ),
            (
                vec![gauges(900, 0, 5, false), gauges(0, 0, 0, true)],
                Some(0),
            ),
            (vec![gauges(0, 0, 0, true)], None),
            (vec![], None),
        ];
        for (workers, chosen) in cases {
            assert_eq!(choose(workers.iter()), chosen);
        }
    }
}
