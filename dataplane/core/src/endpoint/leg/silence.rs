//! How long a party has been silent that is expected to send. Time during which it was not (held,
//! not connected) never counts, and each silence is reported once.

use std::time::Duration;

use crate::time::Instant;

/// The silence clock of a leg.
#[derive(Clone, Copy, Debug)]
pub(in crate::endpoint) struct Silence {
    timeout: Duration,
    /// None while the party is not expected to send.
    expected_since: Option<Instant>,
    /// Reported, and no packet came since.
    is_reported: bool,
}

impl Silence {
    /// Nothing is expected yet. `timeout` is how much silence is worth a report.
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            expected_since: None,
            is_reported: false,
        }
    }

    /// Whether the party is expected to send from now on; the same again changes nothing.
    pub(in crate::endpoint) fn expect(&mut self, is_expected: bool, now: Instant) {
        self.expected_since = is_expected.then(|| self.expected_since.unwrap_or(now));
    }

    /// The party sent a packet.
    pub(super) fn on_packet(&mut self) {
        self.is_reported = false;
    }

    /// When silence is to be reported, the last packet having come at `heard_at`.
    pub(super) fn next_timeout(&self, heard_at: Option<Instant>) -> Option<Instant> {
        let since = self.since(heard_at).filter(|_| !self.is_reported)?;
        Some(since + self.timeout)
    }

    /// The silence to be reported, once.
    pub(super) fn handle_timeout(
        &mut self,
        heard_at: Option<Instant>,
        now: Instant,
    ) -> Option<Duration> {
        let due = self.next_timeout(heard_at)?;
        let since = self.since(heard_at).filter(|_| now >= due)?;
        self.is_reported = true;
        Some(now - since)
    }

    fn since(&self, heard_at: Option<Instant>) -> Option<Instant> {
        let expected = self.expected_since?;
        Some(heard_at.map_or(expected, |heard| heard.max(expected)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn silence_counts_from_when_the_party_was_expected_to_send() {
        let mut silence = Silence::new(Duration::from_secs(5));
        assert_eq!(silence.next_timeout(Some(secs(1))), None);
        silence.expect(true, secs(10));
        silence.expect(true, secs(12));
        assert_eq!(silence.next_timeout(None), Some(secs(15)));
        assert_eq!(silence.next_timeout(Some(secs(1))), Some(secs(15)));
        assert_eq!(silence.next_timeout(Some(secs(13))), Some(secs(18)));
        silence.expect(false, secs(14));
        assert_eq!(silence.handle_timeout(Some(secs(13)), secs(60)), None);
        silence.expect(true, secs(60));
        assert_eq!(silence.handle_timeout(Some(secs(13)), secs(64)), None);
        let five = Duration::from_secs(5);
        assert_eq!(silence.handle_timeout(Some(secs(13)), secs(65)), Some(five));
    }

    #[test]
    fn a_silence_is_reported_once_until_the_next_packet() {
        let mut silence = Silence::new(Duration::from_secs(5));
        silence.expect(true, secs(0));
        assert!(silence.handle_timeout(None, secs(5)).is_some());
        assert_eq!(silence.next_timeout(None), None);
        assert_eq!(silence.handle_timeout(None, secs(50)), None);
        silence.expect(false, secs(51));
        silence.expect(true, secs(52));
        assert_eq!(silence.next_timeout(None), None);
        silence.on_packet();
        assert_eq!(silence.next_timeout(Some(secs(60))), Some(secs(65)));
    }
}
