//! Mixing: each destination hears all sources but itself, on one clock.
//!
//! The clock says when, the bus asks each source for 20 ms, sums once, and gives each destination
//! the total less its own. Sources buffer and conceal for themselves (`jitter`), so none can stall
//! another. No CSRCs, no telephone-events, no sequence numbers: those are the session's.

mod bus;
mod clock;
mod sum;

pub use self::bus::Bus;
pub use self::clock::{MixClock, TICK, Tick};
pub use self::sum::Limiter;

/// The rate to mix at: the highest of 8, 16 and 48 kHz that two or more of the parties' `rates_hz`
/// reach.
pub fn mix_rate(rates_hz: impl IntoIterator<Item = u32>) -> u32 {
    let (mut highest, mut second) = (0, 0);
    for rate_hz in rates_hz {
        if rate_hz > highest {
            (highest, second) = (rate_hz, highest);
        } else {
            second = second.max(rate_hz);
        }
    }
    match second {
        48000.. => 48000,
        16000.. => 16000,
        _ => 8000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_run_at_the_highest_rate_that_two_can_use() {
        for (rates, wanted) in [
            (&[][..], 8000),
            (&[48000], 8000),
            (&[8000, 48000], 8000),
            (&[48000, 8000, 16000], 16000),
            (&[48000, 8000, 48000], 48000),
            (&[16000, 16000, 8000], 16000),
        ] {
            assert_eq!(mix_rate(rates.iter().copied()), wanted, "{rates:?}");
        }
    }
}
