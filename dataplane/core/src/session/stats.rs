//! Statistics: rows on demand, and at the client's interval.

use std::time::Duration;

use rtpbridge_shared::ipc::stats::{StatsRow, StatsSubscribe};
use rtpbridge_shared::ipc::{Event, RequestError};

use super::engine::Session;
use super::output::Outbox;
use crate::time::{Instant, Moment};

/// Shortest and longest interval, ms.
const INTERVAL_MS: std::ops::RangeInclusive<u32> = 500..=3_600_000;

/// A client's wish to be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscription {
    interval: Duration,
    next_at: Instant,
}

impl Subscription {
    pub(crate) fn next_timeout(&self) -> Instant {
        self.next_at
    }
}

impl Session {
    /// `stats.subscribe`
    ///
    /// # Errors
    /// An interval out of bounds.
    pub fn stats_subscribe(
        &mut self,
        now: Moment,
        request: &StatsSubscribe,
    ) -> Result<(), RequestError> {
        self.on_command(now.at)?;
        if !INTERVAL_MS.contains(&request.interval_ms) {
            return Err(RequestError::InvalidParams {
                field: "interval_ms".into(),
                problem: "must be 500 to 3600000".into(),
            });
        }
        let interval = Duration::from_millis(request.interval_ms.into());
        self.subscription = Some(Subscription {
            interval,
            next_at: now.at + interval,
        });
        self.reschedule();
        Ok(())
    }

    /// `stats.unsubscribe`
    pub fn stats_unsubscribe(&mut self, now: Moment) {
        self.liveness.on_activity(now.at);
        self.subscription = None;
        self.reschedule();
    }

    /// One row per endpoint, in order of creation.
    pub fn stats_rows(&self, now: Instant) -> Vec<StatsRow> {
        self.endpoints
            .iter()
            .map(|(_, endpoint)| endpoint.stats_row(now))
            .collect()
    }

    /// The event that is due; none is made while nobody is attached.
    pub(super) fn report_stats(&mut self, now: Moment, out: &mut dyn Outbox) {
        let Some(subscription) = &mut self.subscription else {
            return;
        };
        if now.at < subscription.next_at {
            return;
        }
        let planned = subscription.next_at + subscription.interval;
        subscription.next_at = planned.max(now.at + Duration::from_nanos(1));
        if self.events.is_attached() {
            let rows = self.stats_rows(now.at);
            self.events.emit(Event::Stats(rows), out);
        }
    }
}
