//! Sequence numbers without their wrap-around, and what to think of a jump (RFC 3550 appendix A.1).

/// Steps forward of at most this many numbers are loss.
pub const MAX_DROPOUT: u16 = 3000;
/// Steps back of at most this many numbers are reordering.
pub const MAX_MISORDER: u16 = 100;

/// Follows the sequence numbers of one source. Extended numbers begin at 65536 + the first, so that
/// packets that come late from before the first still have one.
#[derive(Clone, Debug)]
pub struct SequenceTracker {
    base: u64,
    highest: u64,
    /// What the packet after an unbelievable jump would have to carry to make it believable.
    after_jump: Option<u16>,
}

/// Where a packet stands in its source's sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Newer than all before.
    Newest(u64),
    /// Not newer: late, or a duplicate.
    Late(u64),
    /// The second packet in a row after a jump: the source began anew, and so did the tracker.
    Restart(u64),
    /// After a jump; to be ignored until its successor proves it.
    Unproven,
}

impl SequenceTracker {
    /// A source whose first packet has this number.
    pub fn new(first: u16) -> Self {
        let first = 0x1_0000 + u64::from(first);
        Self {
            base: first,
            highest: first,
            after_jump: None,
        }
    }

    /// Takes the next packet into account.
    pub fn place(&mut self, sequence: u16) -> Placement {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead == 0 {
            Placement::Late(self.highest)
        } else if ahead <= MAX_DROPOUT {
            self.highest += u64::from(ahead);
            Placement::Newest(self.highest)
        } else if ahead.wrapping_neg() <= MAX_MISORDER {
            Placement::Late(self.highest - u64::from(ahead.wrapping_neg()))
        } else if self.after_jump == Some(sequence) {
            *self = Self::new(sequence);
            Placement::Restart(self.highest)
        } else {
            self.after_jump = Some(sequence.wrapping_add(1));
            Placement::Unproven
        }
    }

    /// Whether this number continues the sequence: newer, by a step that counts as loss.
    pub fn continues(&self, sequence: u16) -> bool {
        (1..=MAX_DROPOUT).contains(&sequence.wrapping_sub(self.highest as u16))
    }

    /// The newest number.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Numbers from the first to the newest, both included.
    pub fn expected(&self) -> u64 {
        self.highest - self.base + 1
    }

    /// The newest number as report blocks carry it: cycles in the upper half.
    pub fn extended_highest(&self) -> u32 {
        (self.highest - 0x1_0000) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_through_the_wrap() {
        let mut tracker = SequenceTracker::new(65534);
        let start = tracker.highest();
        assert_eq!(tracker.place(65535), Placement::Newest(start + 1));
        assert_eq!(tracker.place(1), Placement::Newest(start + 3));
        assert_eq!(tracker.place(0), Placement::Late(start + 2));
        assert_eq!(tracker.place(1), Placement::Late(start + 3));
        assert_eq!(tracker.expected(), 4);
        assert_eq!(tracker.extended_highest(), 0x1_0001);
    }

    #[test]
    fn a_late_packet_from_before_the_first_has_a_number() {
        let mut tracker = SequenceTracker::new(0);
        assert_eq!(tracker.place(65436), Placement::Late(0x1_0000 - 100));
        assert_eq!(tracker.place(65435), Placement::Unproven);
    }

    #[test]
    fn a_jump_counts_only_when_the_next_packet_follows_it() {
        let mut tracker = SequenceTracker::new(100);
        assert_eq!(tracker.place(100 + MAX_DROPOUT + 1), Placement::Unproven);
        assert_eq!(tracker.place(101), Placement::Newest(0x1_0000 + 101));
        assert_eq!(tracker.place(40_000), Placement::Unproven);
        assert_eq!(tracker.place(50_000), Placement::Unproven);
        assert_eq!(tracker.place(50_001), Placement::Restart(0x1_0000 + 50_001));
        assert_eq!(tracker.expected(), 1);
    }

    #[test]
    fn only_newer_numbers_continue() {
        let tracker = SequenceTracker::new(65535);
        assert!(tracker.continues(0));
        assert!(tracker.continues(MAX_DROPOUT - 1));
        assert!(!tracker.continues(MAX_DROPOUT));
        assert!(!tracker.continues(65535));
        assert!(!tracker.continues(65534));
    }
}
