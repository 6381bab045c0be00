//! What one source's packets tell: loss (RFC 3550 appendix A.3) and jitter (A.8).

use super::seq::{Placement, SequenceTracker};
use crate::time::Instant;

/// Reception of one SSRC since its first packet, or since it began anew.
#[derive(Clone, Debug)]
pub struct Reception {
    ssrc: u32,
    tracker: SequenceTracker,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    jitter: Jitter,
}

/// The numbers of a report block (RFC 3550 section 6.4.1), LSR and DLSR aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceptionReport {
    /// Whose packets.
    pub ssrc: u32,
    /// Loss since the previous report, in 1/256.
    pub fraction_lost: u8,
    /// Loss since the first packet; negative with duplicates.
    pub cumulative_lost: i32,
    /// Newest sequence number with its cycles.
    pub extended_highest: u32,
    /// In timestamp units.
    pub jitter: u32,
}

#[derive(Clone, Copy, Default, Debug)]
struct Jitter {
    clock_rate: u32,
    last_transit: Option<u32>,
    /// Sixteen times the jitter, in timestamp units (A.8's integer form).
    scaled: u32,
}

impl Reception {
    /// A source whose first packet has this sequence number; the packet itself is to be given to
    /// [`on_packet`](Self::on_packet) as well.
    pub fn new(ssrc: u32, first: u16) -> Self {
        Self {
            ssrc,
            tracker: SequenceTracker::new(first),
            received: 0,
            expected_prior: 0,
            received_prior: 0,
            jitter: Jitter::default(),
        }
    }

    /// The source.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Its sequence numbers.
    pub fn sequence(&self) -> &SequenceTracker {
        &self.tracker
    }

    /// Counts a packet. A restart of the source restarts the counting.
    pub fn on_packet(&mut self, sequence: u16) -> Placement {
        let placement = self.tracker.place(sequence);
        match placement {
            Placement::Newest(_) | Placement::Late(_) => self.received += 1,
            Placement::Restart(_) => {
                self.received = 1;
                self.expected_prior = 0;
                self.received_prior = 0;
                self.jitter = Jitter::default();
            }
            Placement::Unproven => {}
        }
        placement
    }

    /// Takes the arrival of an audio packet into the jitter. Telephone-events stand still in time and
    /// are not for here.
    pub fn on_timestamp(&mut self, timestamp: u32, clock_rate: u32, arrival: Instant) {
        self.jitter.on_timestamp(timestamp, clock_rate, arrival);
    }

    /// Packets that never came, as A.3 counts them; negative with duplicates.
    pub fn lost(&self) -> i64 {
        self.tracker.expected() as i64 - self.received as i64
    }

    /// Jitter in ms.
    pub fn jitter_ms(&self) -> f64 {
        match self.jitter.clock_rate {
            0 => 0.0,
            rate => f64::from(self.jitter.scaled) / 16.0 * 1000.0 / f64::from(rate),
        }
    }

    /// The numbers for a report block; the next one's fraction counts from here.
    pub fn report(&mut self) -> ReceptionReport {
        let expected = self.tracker.expected();
        let expected_interval = expected - self.expected_prior;
        let lost_interval = expected_interval as i64 - (self.received - self.received_prior) as i64;
        self.expected_prior = expected;
        self.received_prior = self.received;
        let fraction = match (expected_interval, lost_interval) {
            (0, _) | (_, ..=0) => 0,
            (expected, lost) => ((lost as u64) << 8) / expected,
        };
        ReceptionReport {
            ssrc: self.ssrc,
            fraction_lost: fraction.min(255) as u8,
            // RFC 3550 section 6.4.1: 24 bits, signed.
            cumulative_lost: self.lost().clamp(-0x80_0000, 0x7f_ffff) as i32,
            extended_highest: self.tracker.extended_highest(),
            jitter: self.jitter.scaled >> 4,
        }
    }
}

impl Jitter {
    fn on_timestamp(&mut self, timestamp: u32, clock_rate: u32, arrival: Instant) {
        if clock_rate != self.clock_rate {
            *self = Self {
                clock_rate,
                ..Self::default()
            };
        }
        let micros = arrival.as_nanos() / 1000;
        let ticks = micros.wrapping_mul(u64::from(clock_rate)) / 1_000_000;
        let transit = (ticks as u32).wrapping_sub(timestamp);
        if let Some(last) = self.last_transit.replace(transit) {
            let difference = (transit.wrapping_sub(last) as i32).unsigned_abs();
            // A source whose timestamps leap must not push the mean beyond what can be said.
            let difference = difference.min(0x0fff_ffff / 16);
            self.scaled = self.scaled + difference - ((self.scaled + 8) >> 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn loss_and_fraction_follow_the_appendix() {
        let mut reception = Reception::new(7, 65530);
        for sequence in (65530..=65535).chain(0..10).filter(|s| s % 4 != 3) {
            reception.on_packet(sequence as u16);
        }
        // 16 numbers to 9, of which 65531, 65535, 3 and 7 are missing.
        assert_eq!(reception.lost(), 4);
        let report = reception.report();
        assert_eq!(report.fraction_lost, 64);
        assert_eq!(report.cumulative_lost, 4);
        assert_eq!(report.extended_highest, 0x1_0009);
        assert_eq!(reception.report().fraction_lost, 0);
    }

    #[test]
    fn duplicates_make_loss_negative_and_the_fraction_zero() {
        let mut reception = Reception::new(7, 1);
        for sequence in [1, 1, 1, 2] {
            reception.on_packet(sequence);
        }
        assert_eq!(reception.lost(), -2);
        assert_eq!(reception.report().fraction_lost, 0);
        assert_eq!(reception.report().cumulative_lost, -2);
    }

    #[test]
    fn jitter_is_zero_on_an_even_path_and_converges_on_an_uneven_one() {
        let mut even = Reception::new(7, 0);
        let mut uneven = Reception::new(7, 0);
        for n in 0..2000_u64 {
            let at = Instant::from_nanos(1_000_000_000 + n * 20_000_000);
            even.on_timestamp(n as u32 * 160, 8000, at);
            let late = Duration::from_millis((n % 2) * 10);
            uneven.on_timestamp(n as u32 * 160, 8000, at + late);
        }
        assert_eq!(even.jitter_ms(), 0.0);
        assert!(
            (uneven.jitter_ms() - 10.0).abs() < 0.5,
            "{}",
            uneven.jitter_ms()
        );
    }

    #[test]
    fn leaping_timestamps_do_not_overflow() {
        let mut reception = Reception::new(7, 0);
        for n in 0..100_000_u32 {
            let timestamp = n.wrapping_mul(0x9e37_79b9);
            reception.on_timestamp(timestamp, 48_000, Instant::from_nanos(u64::MAX));
        }
        assert!(reception.jitter_ms().is_finite());
    }

    #[test]
    fn a_restart_counts_from_the_restart() {
        let mut reception = Reception::new(7, 10);
        reception.on_packet(10);
        reception.on_packet(20);
        assert_eq!(reception.lost(), 9);
        reception.on_packet(30_000);
        reception.on_packet(30_001);
        assert_eq!(reception.lost(), 0);
    }
}
