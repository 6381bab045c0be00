//! Which even/odd port pairs of one address are free. Decides only; nothing is bound here.
//! A freed pair rests, so that late packets of the call before do not reach the next one; it is
//! taken before its time only when nothing else is free.

use std::collections::VecDeque;

const REST_NS: u64 = 5_000_000_000;
const WORD_BITS: u32 = u64::BITS;

/// The pairs of one address. Times are monotonic nanoseconds.
pub(crate) struct PairPool {
    first_port: u16,
    pairs: u32,
    /// One bit per pair; set is free and rested.
    free: Vec<u64>,
    resting: VecDeque<(u64, u32)>,
    cursor: u32,
}

impl PairPool {
    /// All pairs whose even port lies in `first..=last` (`first` even), searched from a place that
    /// `random` chooses.
    pub(crate) fn new(first: u16, last: u16, random: u32) -> Self {
        let span = u32::from(last.saturating_sub(first)) + 1;
        let pairs = span / 2;
        let mut free = vec![u64::MAX; pairs.div_ceil(WORD_BITS) as usize];
        if let Some(tail) = free.last_mut()
            && !pairs.is_multiple_of(WORD_BITS)
        {
            *tail = (1 << (pairs % WORD_BITS)) - 1;
        }
        Self {
            first_port: first,
            pairs,
            free,
            resting: VecDeque::new(),
            cursor: random % pairs.max(1),
        }
    }

    /// Takes the next free pair and gives its even port; none when all are in use.
    pub(crate) fn take(&mut self, now_ns: u64) -> Option<u16> {
        while let Some(&(freed, pair)) = self.resting.front()
            && now_ns.saturating_sub(freed) >= REST_NS
        {
            self.resting.pop_front();
            self.set_free(pair, true);
        }
        let pair = match self.next_free() {
            Some(pair) => pair,
            None => return self.resting.pop_front().map(|(_, pair)| self.port(pair)),
        };
        self.set_free(pair, false);
        self.cursor = (pair + 1) % self.pairs;
        Some(self.port(pair))
    }

    /// Gives a pair back after use; it rests.
    pub(crate) fn release(&mut self, even_port: u16, now_ns: u64) {
        if let Some(pair) = self.pair(even_port) {
            self.resting.push_back((now_ns, pair));
        }
    }

    /// Gives a pair back that was never used by us.
    pub(crate) fn untake(&mut self, even_port: u16) {
        if let Some(pair) = self.pair(even_port) {
            self.set_free(pair, true);
        }
    }

    /// Goes on searching at the place that `random` chooses.
    pub(crate) fn jump(&mut self, random: u32) {
        self.cursor = random % self.pairs.max(1);
    }

    fn next_free(&self) -> Option<u32> {
        let words = u32::try_from(self.free.len()).ok()?;
        let start = self.cursor / WORD_BITS;
        // The word of the cursor is looked at twice: its upper part first, its lower part last.
        for step in 0..=words {
            let index = (start + step) % words.max(1);
            let mut word = *self.free.get(index as usize)?;
            if step == 0 {
                word &= u64::MAX << (self.cursor % WORD_BITS);
            }
            if word != 0 {
                return Some(index * WORD_BITS + word.trailing_zeros());
            }
        }
        None
    }

    fn set_free(&mut self, pair: u32, free: bool) {
        let Some(word) = self.free.get_mut((pair / WORD_BITS) as usize) else {
            return;
        };
        let bit = 1 << (pair % WORD_BITS);
        if free {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }

    fn port(&self, pair: u32) -> u16 {
        // pair < pairs, so this is at most the range's last port.
        u16::try_from(u32::from(self.first_port) + 2 * pair).unwrap_or(u16::MAX)
    }

    fn pair(&self, even_port: u16) -> Option<u32> {
        let offset = u32::from(even_port.checked_sub(self.first_port)?);
        (offset.is_multiple_of(2) && offset / 2 < self.pairs).then_some(offset / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_pair_is_given_once_from_a_random_start() {
        let mut pool = PairPool::new(30_000, 30_399, 77);
        assert_eq!(pool.take(0), Some(30_000 + 2 * 77));
        let rest: HashSet<u16> = std::iter::from_fn(|| pool.take(0)).collect();
        assert_eq!(rest.len(), 199);
        assert!(rest.iter().all(|port| port % 2 == 0 && *port < 30_400));
        assert_eq!(pool.take(0), None);
    }

    #[test]
    fn a_freed_pair_rests_while_others_are_free() {
        let mut pool = PairPool::new(1024, 1029, 0);
        assert_eq!(pool.take(0), Some(1024));
        pool.release(1024, 0);
        assert_eq!(pool.take(1), Some(1026));
        assert_eq!(pool.take(1), Some(1028));
        assert_eq!(pool.take(2), Some(1024), "better a tired pair than none");
        assert_eq!(pool.take(2), None);
        pool.release(1028, 10);
        pool.release(1026, 20);
        assert_eq!(pool.take(REST_NS + 10), Some(1028));
    }

    #[test]
    fn a_pair_that_was_not_ours_does_not_rest() {
        let mut pool = PairPool::new(1024, 1027, 0);
        assert_eq!(pool.take(0), Some(1024));
        pool.untake(1024);
        pool.jump(0);
        assert_eq!(pool.take(0), Some(1024));
        pool.release(9, 0);
        pool.untake(2000);
        assert_eq!(pool.take(0), Some(1026));
        assert_eq!(pool.take(0), None);
    }
}
