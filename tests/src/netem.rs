//! What a network does to packets, reproducibly: loss, reordering and duplication from a seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How bad the network is; chances are in percent.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Seed of every decision.
    pub seed: u64,
    /// Chance that a packet vanishes.
    pub loss_percent: f64,
    /// Chance that a packet changes places with its successor.
    pub swap_percent: f64,
    /// Chance that a packet comes twice.
    pub duplicate_percent: f64,
}

impl Network {
    /// A network that loses and reorders but never duplicates.
    pub fn lossy(seed: u64, loss_percent: f64, swap_percent: f64) -> Self {
        Self {
            seed,
            loss_percent,
            swap_percent,
            duplicate_percent: 0.0,
        }
    }

    /// What arrives, in the order of arrival.
    pub fn carry<T: Clone>(&self, sent: &[T]) -> Vec<T> {
        let mut dice = StdRng::seed_from_u64(self.seed);
        let mut hit = |percent: f64| dice.random_range(0.0..100.0) < percent;
        let mut arriving: Vec<T> = Vec::with_capacity(sent.len());
        for packet in sent {
            if hit(self.loss_percent) {
                continue;
            }
            arriving.push(packet.clone());
            if hit(self.duplicate_percent) {
                arriving.push(packet.clone());
            }
        }
        let mut at = 0;
        while at + 1 < arriving.len() {
            if hit(self.swap_percent) {
                arriving.swap(at, at + 1);
                at += 1;
            }
            at += 1;
        }
        arriving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_does_the_same() {
        let sent: Vec<u32> = (0..1000).collect();
        let network = Network::lossy(7, 5.0, 5.0);
        let arrived = network.carry(&sent);
        assert_eq!(arrived, network.carry(&sent));
        assert!((900..1000).contains(&arrived.len()));
        assert!(arrived.windows(2).any(|pair| pair[0] > pair[1]));
    }
}
