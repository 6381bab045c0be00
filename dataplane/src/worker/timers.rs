//! When which session is due: one heap per worker. An entry whose session has meanwhile named an
//! earlier deadline is stale and skipped; one whose session wants later simply comes too early, and
//! the session is asked again. So a packet that only moves a deadline back costs nothing here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Deadlines in monotonic nanoseconds, with session keys.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Timers {
    /// `session` wants to be looked at by `deadline_ns`; `armed` remembers what the heap knows of it.
    pub(crate) fn arm(&mut self, session: u64, deadline_ns: Option<u64>, armed: &mut Option<u64>) {
        let Some(deadline) = deadline_ns else {
            return;
        };
        if armed.is_none_or(|known| deadline < known) {
            *armed = Some(deadline);
            self.heap.push(Reverse((deadline, session)));
        }
    }

    /// The earliest deadline.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Takes the earliest entry that is due.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        let Reverse((deadline, _)) = *self.heap.peek()?;
        if deadline > now_ns {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_earlier_deadline_makes_a_new_entry() {
        let mut timers = Timers::default();
        let mut armed = None;
        timers.arm(1, Some(50), &mut armed);
        timers.arm(1, Some(90), &mut armed);
        timers.arm(1, None, &mut armed);
        assert_eq!(timers.next_ns(), Some(50));
        timers.arm(1, Some(20), &mut armed);
        assert_eq!(armed, Some(20));
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.pop_due(60), Some((20, 1)));
        assert_eq!(
            timers.pop_due(60),
            Some((50, 1)),
            "stale, for the caller to skip"
        );
        assert_eq!(timers.pop_due(60), None);
    }
}
