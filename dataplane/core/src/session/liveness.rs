//! When a session ends by itself: without activity, or without endpoints. Activity is a packet of a
//! party or a command. A mere question (`session.info`, `stats.snapshot`) is none: observers ask them
//! as well, and must not keep a call alive.

use std::time::Duration;

use super::config::EngineConfig;
use crate::time::Instant;

/// The two clocks of a session's own end.
#[derive(Debug)]
pub(crate) struct Liveness {
    idle_timeout: Option<Duration>,
    empty_timeout: Option<Duration>,
    active_at: Instant,
    empty_since: Option<Instant>,
    is_over: bool,
}

/// Which of them ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expiry {
    /// No inbound packet and no command for this long.
    Idle(Duration),
    /// No endpoint for this long.
    Empty(Duration),
}

impl Liveness {
    pub(crate) fn new(config: &EngineConfig, now: Instant) -> Self {
        Self {
            idle_timeout: config.session_idle_timeout,
            empty_timeout: config.empty_session_timeout,
            active_at: now,
            empty_since: Some(now),
            is_over: false,
        }
    }

    /// An inbound packet or a command.
    pub(crate) fn on_activity(&mut self, now: Instant) {
        self.active_at = self.active_at.max(now);
    }

    /// The number of endpoints may have changed.
    pub(crate) fn on_endpoints(&mut self, are_none: bool, now: Instant) {
        self.empty_since = are_none.then(|| self.empty_since.unwrap_or(now));
    }

    /// The session ends; no more expiries.
    pub(crate) fn on_closed(&mut self) {
        self.is_over = true;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.is_over {
            return None;
        }
        let idle = self.idle_timeout.map(|timeout| self.active_at + timeout);
        [idle, self.empty_due_at()].into_iter().flatten().min()
    }

    /// What has run out; at most once in a session's life.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Expiry> {
        if self.is_over {
            return None;
        }
        let is_idle = |timeout: &Duration| now >= self.active_at + *timeout;
        let expiry = match (self.idle_timeout.filter(is_idle), self.empty_timeout) {
            (Some(timeout), _) => Some(Expiry::Idle(timeout)),
            (None, Some(timeout)) if self.empty_due_at().is_some_and(|due| now >= due) => {
                Some(Expiry::Empty(timeout))
            }
            _ => None,
        };
        self.is_over = expiry.is_some();
        expiry
    }

    fn empty_due_at(&self) -> Option<Instant> {
        Some(self.empty_since? + self.empty_timeout?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Instant {
        Instant::from_nanos(secs * 1_000_000_000)
    }

    fn liveness(idle: u64, empty: u64) -> Liveness {
        let timeout = |secs| (secs > 0).then(|| Duration::from_secs(secs));
        let config = EngineConfig {
            session_idle_timeout: timeout(idle),
            empty_session_timeout: timeout(empty),
            ..EngineConfig::default()
        };
        Liveness::new(&config, secs(0))
    }

    #[test]
    fn nothing_ends_by_default() {
        let mut liveness = liveness(0, 0);
        assert_eq!(liveness.next_timeout(), None);
        assert_eq!(liveness.handle_timeout(secs(1_000_000)), None);
    }

    #[test]
    fn activity_puts_the_idle_end_off() {
        let mut liveness = liveness(10, 0);
        liveness.on_activity(secs(5));
        assert_eq!(liveness.handle_timeout(secs(14)), None);
        assert_eq!(liveness.next_timeout(), Some(secs(15)));
        let idle = Expiry::Idle(Duration::from_secs(10));
        assert_eq!(liveness.handle_timeout(secs(15)), Some(idle));
        assert_eq!(liveness.handle_timeout(secs(16)), None);
        assert_eq!(liveness.next_timeout(), None);
    }

    #[test]
    fn an_empty_session_ends_counted_from_its_last_endpoint() {
        let mut liveness = liveness(0, 10);
        liveness.on_endpoints(false, secs(1));
        assert_eq!(liveness.next_timeout(), None);
        liveness.on_endpoints(true, secs(20));
        liveness.on_endpoints(true, secs(25));
        assert_eq!(liveness.next_timeout(), Some(secs(30)));
        let empty = Expiry::Empty(Duration::from_secs(10));
        assert_eq!(liveness.handle_timeout(secs(30)), Some(empty));
    }
}
