//! Which RTP sequence numbers of a stream never came (RFC 3550 section 5.1). One rule for who
//! records and for who checks a recording, so that both count the same.

/// A jump this long is another stream under the old name, not loss (RFC 3550 A.1, MAX_DROPOUT).
const MAX_DROPOUT: u16 = 3000;
const WINDOW: u16 = 128;

/// Which of the newest 128 sequence numbers have come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SequenceWindow {
    newest: u16,
    /// Bit n: `newest - n` came. Numbers before the first packet count as come.
    seen: u128,
    missing: u64,
}

impl SequenceWindow {
    /// A stream whose first packet is this one.
    pub const fn starting_at(sequence: u16) -> Self {
        Self {
            newest: sequence,
            seen: u128::MAX,
            missing: 0,
        }
    }

    /// Sequence numbers that have not come; one that comes late counts no more.
    pub const fn missing(&self) -> u64 {
        self.missing
    }

    /// Takes the sequence number of the next packet.
    pub fn on_packet(&mut self, sequence: u16) {
        let ahead = sequence.wrapping_sub(self.newest);
        if ahead == 0 {
            return;
        }
        if ahead < MAX_DROPOUT {
            self.missing += u64::from(ahead - 1);
            let shifted = self.seen.checked_shl(u32::from(ahead)).unwrap_or(0);
            self.newest = sequence;
            self.seen = shifted | 1;
            return;
        }
        let behind = self.newest.wrapping_sub(sequence);
        if behind < WINDOW {
            let bit = 1 << behind;
            if self.seen & bit == 0 {
                self.seen |= bit;
                self.missing = self.missing.saturating_sub(1);
            }
        } else if behind >= MAX_DROPOUT {
            self.newest = sequence;
            self.seen = u128::MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_are_the_numbers_that_never_came() {
        let cases: [(&[u16], u64); 8] = [
            (&[1, 2, 3], 0),
            (&[1, 3], 1),
            (&[1, 3, 2], 0),
            (&[1, 3, 3, 1], 1),
            (&[65_534, 65_535, 1], 1),
            (&[10, 9, 8], 0),
            (&[10, 300, 11], 289),
            (&[10, 40_000, 40_001], 0),
        ];
        for (sequences, missing) in cases {
            let mut window = SequenceWindow::starting_at(sequences[0]);
            for sequence in &sequences[1..] {
                window.on_packet(*sequence);
            }
            assert_eq!(window.missing(), missing, "{sequences:?}");
        }
    }
}
