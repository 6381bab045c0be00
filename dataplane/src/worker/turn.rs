//! The worker's loop.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rtpbridge_core::session::Session;
use rtpbridge_core::time::{Instant, Moment, WallTime};
use tracing::error;

use super::Worker;
use super::moves::RETRY_NS;
use crate::sys::clock;
use crate::sys::epoll::MAX_READY;
use crate::sys::ring::PreparedRing;

/// Longest wait: the load is measured and the heartbeat shown once a second.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Timers run in one turn.
const MAX_TIMERS: u32 = 256;

impl Worker {
    pub(super) fn run(mut self, ring: Option<PreparedRing>) {
        self.start_ring(ring);
        while !self.stopping {
            if let Err(error) = self.turn() {
                // Without its sockets a worker can do nothing for its calls; the supervisor can.
                error!(worker = self.index, %error, "cannot wait for sockets");
                std::process::abort();
            }
        }
    }

    pub(super) fn turn(&mut self) -> io::Result<()> {
        let wait = self.wait_time();
        let ready = self.wait_for_sockets(wait)?;
        self.read_clocks();
        let begun_ns = self.out.now_ns;
        let heartbeat = &self.handle.gauges.heartbeat_ns;
        heartbeat.store(begun_ns, Ordering::Relaxed);
        self.turn_number = self.turn_number.wrapping_add(1);
        let received_before = self.received;
        self.receive_ready(ready);
        self.run_timers();
        self.run_handshakes();
        self.follow_controller();
        self.run_commands();
        self.run_duties();
        self.out.flush();
        let packets = self.received - received_before;
        self.progress.on_turn_ended(begun_ns);
        let ended_ns = clock::monotonic_ns();
        self.budget
            .on_turn(ended_ns.saturating_sub(begun_ns), packets);
        if packets > 0 && ready < MAX_READY && !self.more_commands {
            self.sleep_for_batch(ended_ns);
        }
        Ok(())
    }

    fn wait_time(&self) -> Duration {
        if self.more_commands || self.ending_all.is_some() {
            return Duration::ZERO;
        }
        let now_ns = clock::monotonic_ns();
        let next = self.timers.next_ns().unwrap_or(u64::MAX);
        let next = next.min(self.next_wait_deadline().unwrap_or(u64::MAX));
        let next = next.min(self.out.handshakes.next_ns().unwrap_or(u64::MAX));
        let retries = !self.letters.is_empty() || !self.deferred.is_empty();
        let next = next.min(if retries { now_ns + RETRY_NS } else { u64::MAX });
        Duration::from_nanos(next.saturating_sub(now_ns)).min(MAX_WAIT)
    }

    /// Lets packets gather, so that one wake-up serves many. Commands and timers do not wait.
    fn sleep_for_batch(&self, now_ns: u64) {
        let window = self.shared.settings.batch_window.as_nanos();
        let until = now_ns.saturating_add(u64::try_from(window).unwrap_or(u64::MAX));
        let until = until.min(self.timers.next_ns().unwrap_or(u64::MAX));
        if until > now_ns {
            self.handle
                .waker
                .sleep(Duration::from_nanos(until - now_ns));
        }
    }

    pub(super) fn read_clocks(&mut self) {
        let now_ns = clock::monotonic_ns();
        self.out.now_ns = now_ns;
        self.now = Moment {
            at: Instant::from_nanos(now_ns),
            wall: WallTime::from_nanos(clock::wall_ns()),
        };
    }

    fn run_timers(&mut self) {
        for _ in 0..MAX_TIMERS {
            let Some((deadline_ns, key)) = self.timers.pop_due(self.out.now_ns) else {
                break;
            };
            let Some(slot) = self.sessions.get_mut(key) else {
                continue;
            };
            if slot.armed != Some(deadline_ns) {
                continue;
            }
            slot.armed = None;
            let due = slot.session.next_timeout();
            let mut unharmed = true;
            if let Some(due) = due.filter(|due| *due <= self.now.at) {
                let late = self.now.at - due;
                self.budget
                    .on_lateness(late.as_nanos().try_into().unwrap_or(u64::MAX));
                let (now, out) = (self.now, &mut self.out);
                unharmed = guarded(&mut slot.session, |s| s.handle_timeout(now, out));
            }
            if unharmed {
                // Endpoints may have gone by themselves.
                self.send_counts(key);
            }
            self.after_turn_of(key, unharmed);
        }
    }

    /// Whatever a session did: its next deadline, its events, its end.
    pub(super) fn after_turn_of(&mut self, key: u64, unharmed: bool) {
        if !unharmed {
            self.on_panic(key);
            return;
        }
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        let next = slot.session.next_timeout().map(Instant::as_nanos);
        self.timers.arm(key, next, &mut slot.armed);
        if !self.out.is_idle() {
            self.send_events(key);
        }
    }
}

/// Runs one turn of one session; false when it panicked, after which the session must not be used.
/// The worker's buffer and output survive a panic: the next turn overwrites both.
pub(super) fn guarded(session: &mut Session, turn: impl FnOnce(&mut Session)) -> bool {
    catch_unwind(AssertUnwindSafe(|| turn(session))).is_ok()
}
