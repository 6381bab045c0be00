//! When a child that died is started again. Pure: time is an argument.
//!
//! ```text
//!            ready ──died──► after 100 ms, as often as it takes
//! starting ──┤               (exit code 75: at once, a new version was asked for)
//!            died ──► after 100 ms, 200 ms … 5 s; the 10th within 60 s ends the supervisor
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Exit code by which control asks to be started again at once.
pub const EXIT_RESTART: i32 = 75;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
const FAILED_STARTS: usize = 10;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// How far a child got before it died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reached {
    /// It never said that it was ready.
    Start,
    /// It was ready.
    Ready,
}

/// What to do about a death.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Start it again after this long.
    RestartAfter(Duration),
    /// It will never come up.
    GiveUp,
}

/// One child's history of deaths.
#[derive(Debug)]
pub(super) struct RestartPolicy {
    next_delay: Duration,
    failed_starts: VecDeque<Instant>,
}

impl RestartPolicy {
    pub(super) fn new() -> Self {
        Self {
            next_delay: FIRST_DELAY,
            failed_starts: VecDeque::with_capacity(FAILED_STARTS),
        }
    }

    pub(super) fn on_ready(&mut self) {
        self.next_delay = FIRST_DELAY;
    }

    /// `code` is the exit code, none after a signal.
    pub(super) fn on_death(
        &mut self,
        now: Instant,
        reached: Reached,
        code: Option<i32>,
    ) -> Verdict {
        match (reached, code) {
            (Reached::Ready, Some(EXIT_RESTART)) => Verdict::RestartAfter(Duration::ZERO),
            (Reached::Ready, _) => Verdict::RestartAfter(FIRST_DELAY),
            (Reached::Start, _) => self.on_failed_start(now),
        }
    }

    fn on_failed_start(&mut self, now: Instant) -> Verdict {
        if self.failed_starts.len() == FAILED_STARTS {
            self.failed_starts.pop_front();
        }
        self.failed_starts.push_back(now);
        let in_window = self
            .failed_starts
            .front()
            .is_some_and(|first| now.saturating_duration_since(*first) <= FAILURE_WINDOW);
        if self.failed_starts.len() == FAILED_STARTS && in_window {
            return Verdict::GiveUp;
        }
        let delay = self.next_delay;
        self.next_delay = (delay * 2).min(LONGEST_DELAY);
        Verdict::RestartAfter(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_child_that_was_ready_comes_back_after_100_ms_for_ever() {
        let mut policy = RestartPolicy::new();
        let now = Instant::now();
        for code in [None, Some(0), Some(1)].into_iter().cycle().take(100) {
            policy.on_ready();
            let verdict = policy.on_death(now, Reached::Ready, code);
            assert_eq!(verdict, Verdict::RestartAfter(MS(100)));
        }
    }

    #[test]
    fn an_asked_for_restart_is_immediate_only_when_the_child_was_ready() {
        let mut policy = RestartPolicy::new();
        let now = Instant::now();
        let verdict = policy.on_death(now, Reached::Ready, Some(EXIT_RESTART));
        assert_eq!(verdict, Verdict::RestartAfter(Duration::ZERO));
        let verdict = policy.on_death(now, Reached::Start, Some(EXIT_RESTART));
        assert_eq!(verdict, Verdict::RestartAfter(MS(100)));
    }

    #[test]
    fn failed_starts_double_the_delay_and_the_tenth_ends_it() {
        let mut policy = RestartPolicy::new();
        let mut now = Instant::now();
        let mut delays = Vec::new();
        let gave_up = loop {
            match policy.on_death(now, Reached::Start, Some(1)) {
                Verdict::RestartAfter(delay) => {
                    delays.push(delay.as_millis());
                    now += delay;
                }
                Verdict::GiveUp => break delays.len() + 1,
            }
        };
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!(gave_up, 10);
    }

    #[test]
    fn slow_failures_never_add_up() {
        let mut policy = RestartPolicy::new();
        let mut now = Instant::now();
        for _ in 0..50 {
            let verdict = policy.on_death(now, Reached::Start, Some(1));
            assert_ne!(verdict, Verdict::GiveUp);
            now += Duration::from_secs(7);
        }
    }

    #[test]
    fn readiness_resets_the_delay() {
        let mut policy = RestartPolicy::new();
        let now = Instant::now();
        policy.on_death(now, Reached::Start, None);
        policy.on_death(now, Reached::Start, None);
        policy.on_ready();
        let verdict = policy.on_death(now, Reached::Start, None);
        assert_eq!(verdict, Verdict::RestartAfter(MS(100)));
    }
}
