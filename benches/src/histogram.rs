//! Latencies in buckets of one microsecond.

use serde::Serialize;

/// The largest latency told apart; longer ones count as this.
const MAX_US: usize = 500_000;

/// Counts per microsecond.
#[derive(Debug)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
    max_ns: u64,
}

/// What a histogram comes down to, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    /// Median.
    pub p50_us: u64,
    /// 99 of 100 are at or below.
    pub p99_us: u64,
    /// 999 of 1000 are at or below.
    pub p999_us: u64,
    /// The largest.
    pub max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; MAX_US + 1],
            total: 0,
            max_ns: 0,
        }
    }
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, ns: u64) {
        let bucket = usize::try_from(ns / 1000).map_or(MAX_US, |us| us.min(MAX_US));
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.total += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The quantiles of everything counted so far.
    pub fn quantiles(&self) -> Quantiles {
        Quantiles {
            p50_us: self.at(500),
            p99_us: self.at(990),
            p999_us: self.at(999),
            max_us: self.max_ns / 1000,
        }
    }

    fn at(&self, per_mille: u64) -> u64 {
        let wanted = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (us, count) in (0_u64..).zip(&self.counts) {
            seen += u64::from(*count);
            if seen >= wanted {
                return us;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_recorded() {
        let mut histogram = Histogram::default();
        for us in 1..=1000 {
            histogram.record(us * 1000);
        }
        let quantiles = histogram.quantiles();
        assert_eq!(quantiles.p50_us, 500);
        assert_eq!(quantiles.p99_us, 990);
        assert_eq!(quantiles.p999_us, 999);
        assert_eq!(quantiles.max_us, 1000);
    }
}
