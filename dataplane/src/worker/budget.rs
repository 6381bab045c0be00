//! What a worker knows of its own load: busy share, packets per second and lateness of the last
//! 5 s (operations.md, Headroom), and the latency histogram since the start.

use rtpbridge_shared::ipc::process::Histogram;

const SLOTS: usize = 5;
const SLOT_NS: u64 = 1_000_000_000;
/// Fewer samples than this decide nothing.
const MIN_SAMPLES: u64 = 200;

/// Upper bounds in seconds, as Prometheus shows them.
const BUCKETS: [f64; 14] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    1.0,
];

/// Lateness in steps of a factor of the square root of 2, from 2 µs on.
const STEPS: usize = 48;

/// Counts observations in fixed buckets.
#[derive(Clone, Debug)]
pub(crate) struct Observations {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum_ns: u64,
}

impl Default for Observations {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS.len()],
            count: 0,
            sum_ns: 0,
        }
    }
}

impl Observations {
    /// One observation.
    pub(crate) fn observe(&mut self, ns: u64) {
        let seconds = ns as f64 / 1e9;
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound);
        if let Some(count) = bucket.and_then(|at| self.counts.get_mut(at)) {
            *count += 1;
        }
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Adds another worker's.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// Cumulative, as Prometheus wants it.
    pub(crate) fn histogram(&self) -> Histogram {
        let mut below = 0;
        let buckets = BUCKETS.iter().zip(self.counts).map(|(bound, count)| {
            below += count;
            (*bound, below)
        });
        Histogram {
            buckets: buckets.collect(),
            count: self.count,
            sum: self.sum_ns as f64 / 1e9,
        }
    }
}

#[derive(Clone)]
struct Slot {
    busy_ns: u64,
    span_ns: u64,
    packets: u64,
    samples: u64,
    lateness: [u32; STEPS],
}

const EMPTY: Slot = Slot {
    busy_ns: 0,
    span_ns: 0,
    packets: 0,
    samples: 0,
    lateness: [0; STEPS],
};

/// The last five whole seconds.
pub(crate) struct Budget {
    slots: [Slot; SLOTS],
    current: Slot,
    began_ns: u64,
    next: usize,
}

/// What the last five seconds were like.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Load {
    /// Busy share, 0 to 1.
    pub(crate) busy: f64,
    /// Datagrams received.
    pub(crate) packets_per_second: f64,
    /// When there were enough samples.
    pub(crate) lateness_p99_ns: Option<u64>,
}

impl Budget {
    /// Begins to count.
    pub(crate) fn new(now_ns: u64) -> Self {
        Self {
            slots: [EMPTY; SLOTS],
            current: EMPTY,
            began_ns: now_ns,
            next: 0,
        }
    }

    /// Work that took `busy_ns` and handled `packets`.
    pub(crate) fn on_turn(&mut self, busy_ns: u64, packets: u64) {
        self.current.busy_ns += busy_ns;
        self.current.packets += packets;
    }

    /// Work was begun this long after it could have been.
    pub(crate) fn on_lateness(&mut self, ns: u64) {
        self.current.samples += 1;
        if let Some(step) = self.current.lateness.get_mut(step_of(ns)) {
            *step += 1;
        }
    }

    /// Gives the load once a second.
    pub(crate) fn poll_load(&mut self, now_ns: u64) -> Option<Load> {
        let span_ns = now_ns.saturating_sub(self.began_ns);
        if span_ns < SLOT_NS {
            return None;
        }
        self.current.span_ns = span_ns;
        self.began_ns = now_ns;
        let done = std::mem::replace(&mut self.current, EMPTY);
        if let Some(slot) = self.slots.get_mut(self.next) {
            *slot = done;
        }
        self.next = (self.next + 1) % SLOTS;
        Some(self.load())
    }

    fn load(&self) -> Load {
        let sum = |what: fn(&Slot) -> u64| self.slots.iter().map(what).sum::<u64>();
        let span_ns = sum(|slot| slot.span_ns).max(1) as f64;
        Load {
            busy: (sum(|slot| slot.busy_ns) as f64 / span_ns).min(1.0),
            packets_per_second: sum(|slot| slot.packets) as f64 * 1e9 / span_ns,
            lateness_p99_ns: self.lateness_p99(sum(|slot| slot.samples)),
        }
    }

    fn lateness_p99(&self, samples: u64) -> Option<u64> {
        if samples < MIN_SAMPLES {
            return None;
        }
        let allowed_above = samples / 100;
        let mut above = 0;
        for step in (0..STEPS).rev() {
            let here = self.slots.iter().filter_map(|slot| slot.lateness.get(step));
            above += here.map(|count| u64::from(*count)).sum::<u64>();
            if above > allowed_above {
                return Some(bound_of(step));
            }
        }
        Some(0)
    }
}

/// Two steps per doubling of microseconds.
fn step_of(ns: u64) -> usize {
    let micros = (ns / 1000).max(1);
    let doublings = micros.ilog2() as usize;
    // In the upper half of its octave, by 1.5 instead of the square root: near enough.
    let half = usize::from(micros >= 3 * (1 << doublings) / 2 && doublings > 0);
    (2 * doublings + half).min(STEPS - 1)
}

/// The longest lateness that falls into a step.
fn bound_of(step: usize) -> u64 {
    let base = 1000_u64 << (step / 2);
    if step.is_multiple_of(2) {
        base + base / 2
    } else {
        2 * base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_histogram_is_cumulative() {
        let mut a = Observations::default();
        let mut b = Observations::default();
        a.observe(30_000);
        b.observe(2 * MS);
        b.observe(5_000 * MS);
        a.add(&b);
        let histogram = a.histogram();
        assert_eq!(histogram.buckets[0], (0.00005, 1));
        assert_eq!(histogram.buckets.last(), Some(&(1.0, 2)));
        assert_eq!(histogram.count, 3);
        assert!((histogram.sum - 5.00203).abs() < 1e-9);
    }

    #[test]
    fn load_is_of_the_last_five_seconds() {
        let mut budget = Budget::new(0);
        budget.on_turn(500 * MS, 100);
        assert_eq!(budget.poll_load(999 * MS), None);
        let load = budget.poll_load(1000 * MS).expect("a second is over");
        assert!((load.busy - 0.5).abs() < 1e-9);
        assert!((load.packets_per_second - 100.0).abs() < 1e-9);
        for second in 2..=6 {
            budget.poll_load(second * 1000 * MS);
        }
        assert_eq!(budget.load(), Load::default());
    }

    #[test]
    fn few_samples_decide_nothing_and_many_give_the_percentile() {
        let mut budget = Budget::new(0);
        for _ in 0..199 {
            budget.on_lateness(50 * MS);
        }
        let load = budget.poll_load(1000 * MS).expect("a second is over");
        assert_eq!(load.lateness_p99_ns, None);
        budget.on_lateness(50 * MS);
        let load = budget.poll_load(2000 * MS).expect("a second is over");
        let p99 = load.lateness_p99_ns.expect("enough");
        assert!((50 * MS..75 * MS).contains(&p99), "{p99}");
        for _ in 0..20_000 {
            budget.on_lateness(MS / 10);
        }
        let load = budget.poll_load(3000 * MS).expect("a second is over");
        assert!(
            load.lateness_p99_ns.is_some_and(|p99| p99 < MS),
            "1 in 100 is late"
        );
    }

    #[test]
    fn every_lateness_lies_at_or_below_the_bound_of_its_step() {
        for ns in [0, 1000, 1500, 2000, 3000, 10 * MS, 15 * MS, 777 * MS] {
            assert!(bound_of(step_of(ns)) >= ns, "{ns}");
            assert!(bound_of(step_of(ns)) <= ns.max(1000) * 2, "{ns}");
        }
    }
}
