//! Packet indices: how a 16-bit sequence number becomes one (RFC 3711 section 3.3.1, appendix A),
//! and the window of those already seen (section 3.3.2). Nothing here may be updated for a packet
//! that has not passed authentication.

/// Last index of an RTP stream: 32 bits of roll-over counter, 16 of sequence number.
pub(super) const MAX_RTP_INDEX: u64 = (1 << 48) - 1;
/// Last index of an RTCP stream (RFC 3711 section 3.4).
pub(super) const MAX_RTCP_INDEX: u64 = (1 << 31) - 1;

/// Newest indices of a stream that are remembered; older ones are refused.
pub(crate) const WINDOW_LEN: u64 = 64;

const HALF: u16 = 1 << 15;

/// The [`WINDOW_LEN`] newest indices of one stream, and which of them have been seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    highest: u64,
    /// Bit n stands for `highest - n`.
    seen: u64,
}

/// What the window says about an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Fresh,
    Seen,
    TooOld,
}

impl Window {
    pub(super) const fn starting_with(index: u64) -> Self {
        Self {
            highest: index,
            seen: 1,
        }
    }

    pub(super) const fn highest(&self) -> u64 {
        self.highest
    }

    pub(super) const fn verdict(&self, index: u64) -> Verdict {
        if index > self.highest {
            return Verdict::Fresh;
        }
        match self.highest - index {
            age @ 0..WINDOW_LEN if self.seen & (1 << age) == 0 => Verdict::Fresh,
            0..WINDOW_LEN => Verdict::Seen,
            _ => Verdict::TooOld,
        }
    }

    /// Notes an authenticated packet. An index beyond the window's end changes nothing.
    pub(super) const fn accept(&mut self, index: u64) {
        if index > self.highest {
            let step = index - self.highest;
            self.seen = if step < WINDOW_LEN {
                self.seen << step
            } else {
                0
            } | 1;
            self.highest = index;
        } else {
            let age = self.highest - index;
            if age < WINDOW_LEN {
                self.seen |= 1 << age;
            }
        }
    }
}

/// The index that a packet with this sequence number most likely has, given the highest index seen
/// so far. In the first half of a stream a number that seems to come from before its beginning is
/// taken as a jump forward. May exceed [`MAX_RTP_INDEX`] by one round at the end of a key's life.
pub(super) const fn estimate_index(highest: u64, sequence: u16) -> u64 {
    let counter = highest >> 16;
    let newest = highest as u16;
    let counter = if newest < HALF {
        if sequence.saturating_sub(newest) > HALF {
            counter.saturating_sub(1)
        } else {
            counter
        }
    } else if newest - HALF > sequence {
        counter + 1
    } else {
        counter
    };
    (counter << 16) | sequence as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_knows_fresh_seen_and_too_old() {
        let mut window = Window::starting_with(1000);
        assert_eq!(window.verdict(1000), Verdict::Seen);
        assert_eq!(window.verdict(1001), Verdict::Fresh);
        assert_eq!(window.verdict(937), Verdict::Fresh);
        assert_eq!(window.verdict(936), Verdict::TooOld);
        window.accept(937);
        assert_eq!(window.verdict(937), Verdict::Seen);
        window.accept(1001);
        assert_eq!(window.verdict(937), Verdict::TooOld);
        assert_eq!(window.verdict(1000), Verdict::Seen);
        window.accept(2000);
        assert_eq!(window.verdict(1999), Verdict::Fresh);
        assert_eq!(window.verdict(1001), Verdict::TooOld);
        window.accept(0);
        assert_eq!(window.highest(), 2000);
    }

    #[test]
    fn the_counter_rolls_forward_and_back() {
        assert_eq!(estimate_index(65_535, 0), 65_536);
        assert_eq!(estimate_index(65_536, 65_535), 65_535);
        assert_eq!(estimate_index(65_536 + 5, 65_530), 65_530);
        assert_eq!(estimate_index(3 * 65_536 + 40_000, 100), 4 * 65_536 + 100);
        assert_eq!(estimate_index(10, 60_000), 60_000);
        assert!(estimate_index(MAX_RTP_INDEX, 0) > MAX_RTP_INDEX);
    }

    proptest! {
        #[test]
        fn an_index_within_half_a_round_of_the_highest_is_found(
            highest in 65_536u64..(1 << 40),
            distance in -32_767i64..=32_767,
        ) {
            let index = highest.wrapping_add_signed(distance);
            prop_assert_eq!(estimate_index(highest, index as u16), index);
        }

        #[test]
        fn the_window_agrees_with_a_plain_set(indices in prop::collection::vec(0u64..300, 1..200)) {
            let mut seen = vec![indices[0]];
            let mut window = Window::starting_with(indices[0]);
            for index in &indices[1..] {
                let highest = seen.iter().max().copied().unwrap_or(0);
                let expected = if index + 64 <= highest {
                    Verdict::TooOld
                } else if seen.contains(index) {
                    Verdict::Seen
                } else {
                    Verdict::Fresh
                };
                prop_assert_eq!(window.verdict(*index), expected);
                if expected == Verdict::Fresh {
                    window.accept(*index);
                    seen.push(*index);
                }
            }
        }
    }
}
