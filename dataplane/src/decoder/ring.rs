//! The ring between one decode and all who play it: 48 kHz mono, one writer, any number of readers.
//!
//! The writer keeps ahead of the reader that is furthest; every reader plays in real time, so they
//! stay together. A seek is a request that the writer answers with a place in the ring from which on
//! the samples are the wanted ones. Samples are atomics, so a reader that fell a whole ring behind
//! hears a jump, never anything worse. No locks on the reader's side but for a seek.

use std::sync::atomic::{AtomicI16, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rtpbridge_core::playback::{FeedProgress, PcmFeed};

use uuid::Uuid;

use super::pool::Wake;

/// 1.37 s; a power of two.
const CAPACITY: u64 = 65536;
/// How far the writer runs ahead: 1 s.
const AHEAD: u64 = 48000;
/// How far it must be before playing begins: 200 ms.
const PRIMED: u64 = 9600;
/// A reader this far behind the writer may be overtaken while it copies.
const OVERTAKEN: u64 = CAPACITY - 4800;

const RUNNING: u8 = 0;
const ENDED: u8 = 1;
const FAILED: u8 = 2;

/// What writer and readers share.
pub(super) struct Ring {
    id: Uuid,
    samples: Box<[AtomicI16]>,
    /// Samples written since the beginning.
    written: AtomicU64,
    /// The furthest reader.
    consumed: AtomicU64,
    /// Endpoints that play it.
    readers: AtomicUsize,
    phase: AtomicU8,
    /// Generation in the upper 16 bits, position in ms below.
    seek_wanted: AtomicU64,
    /// The last request that was answered.
    seek_done: AtomicU64,
    /// From here on the samples are those of `seek_done`.
    valid_from: AtomicU64,
    error: OnceLock<String>,
}

const SEEK_POSITION: u64 = (1 << 48) - 1;

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            id: Uuid::new_v4(),
            samples: (0..CAPACITY).map(|_| AtomicI16::new(0)).collect(),
            written: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            readers: AtomicUsize::new(0),
            phase: AtomicU8::new(RUNNING),
            seek_wanted: AtomicU64::new(0),
            seek_done: AtomicU64::new(0),
            valid_from: AtomicU64::new(0),
            error: OnceLock::new(),
        }
    }

    /// Samples that may be written now.
    pub(super) fn room(&self) -> u64 {
        AHEAD.saturating_sub(self.ahead())
    }

    /// Samples written and not played by anyone.
    pub(super) fn ahead(&self) -> u64 {
        let consumed = self.consumed.load(Ordering::Acquire);
        self.written
            .load(Ordering::Relaxed)
            .saturating_sub(consumed)
    }

    /// Appends samples; only the writer calls this, with at most the capacity at once.
    pub(super) fn write(&self, pcm: &[i16]) {
        let start = self.written.load(Ordering::Relaxed);
        for (at, sample) in (start..).zip(pcm) {
            self.slot(at).store(*sample, Ordering::Relaxed);
        }
        self.written
            .store(start + pcm.len() as u64, Ordering::Release);
    }

    /// The position asked for, when a seek waits for its answer.
    pub(super) fn pending_seek(&self) -> Option<(u64, u64)> {
        let wanted = self.seek_wanted.load(Ordering::Acquire);
        let pending = wanted != self.seek_done.load(Ordering::Relaxed);
        pending.then_some((wanted, wanted & SEEK_POSITION))
    }

    /// What is written from now on is what `wanted` asked for.
    pub(super) fn answer_seek(&self, wanted: u64) {
        let written = self.written.load(Ordering::Relaxed);
        self.valid_from.store(written, Ordering::Relaxed);
        self.consumed.fetch_max(written, Ordering::Relaxed);
        self.phase.store(RUNNING, Ordering::Relaxed);
        self.seek_done.store(wanted, Ordering::Release);
    }

    /// The last sample has been written.
    pub(super) fn end(&self) {
        self.phase.store(ENDED, Ordering::Release);
    }

    /// There will be no more, and why.
    pub(super) fn fail(&self, error: String) {
        // The first reason is the one that matters.
        let _ = self.error.set(error);
        self.phase.store(FAILED, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase.load(Ordering::Acquire) != RUNNING
    }

    /// Whether somebody plays it, and its end was not heard yet.
    pub(super) fn is_played(&self) -> bool {
        let goes_on = match self.phase.load(Ordering::Acquire) {
            RUNNING => true,
            // All is decoded long before all is heard.
            ENDED => self.ahead() > 0,
            _ => false,
        };
        goes_on && self.readers.load(Ordering::Acquire) > 0
    }

    fn slot(&self, at: u64) -> &AtomicI16 {
        // The mask keeps the index within the capacity.
        &self.samples[(at & (CAPACITY - 1)) as usize]
    }
}

/// One endpoint's place in a ring.
pub(crate) struct FileFeed {
    ring: Arc<Ring>,
    wake: Wake,
    position: u64,
    /// The seek whose samples `position` is among.
    seek: u64,
    primed: std::cell::Cell<bool>,
}

impl FileFeed {
    /// A reader that begins where the others are.
    pub(super) fn new(ring: Arc<Ring>, wake: Wake) -> Self {
        ring.readers.fetch_add(1, Ordering::AcqRel);
        let position = ring.consumed.load(Ordering::Acquire);
        let seek = ring.seek_done.load(Ordering::Acquire);
        Self {
            ring,
            wake,
            position,
            seek,
            primed: std::cell::Cell::new(false),
        }
    }

    /// Names the decode; the same for all who share it.
    pub(crate) fn playback_id(&self) -> Uuid {
        self.ring.id
    }

    /// Whether the samples of the latest seek are there, and since where.
    fn settled(&self) -> Option<u64> {
        let done = self.ring.seek_done.load(Ordering::Acquire);
        if done != self.ring.seek_wanted.load(Ordering::Relaxed) {
            return None;
        }
        let moved = done != self.seek;
        Some(if moved {
            self.ring.valid_from.load(Ordering::Relaxed)
        } else {
            self.position
        })
    }
}

impl Drop for FileFeed {
    fn drop(&mut self) {
        self.ring.readers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl PcmFeed for FileFeed {
    fn progress(&self) -> FeedProgress {
        if self.ring.phase.load(Ordering::Acquire) == FAILED {
            // Also when a seek was asked for, which nobody will answer any more.
            return FeedProgress::Failed;
        }
        let Some(position) = self.settled() else {
            return FeedProgress::Priming;
        };
        match self.ring.phase.load(Ordering::Acquire) {
            ENDED => FeedProgress::Ended,
            FAILED => FeedProgress::Failed,
            _ if self.primed.get() => FeedProgress::Running,
            _ => {
                let ahead = self
                    .ring
                    .written
                    .load(Ordering::Acquire)
                    .saturating_sub(position);
                self.primed.set(ahead >= PRIMED);
                if ahead >= PRIMED {
                    FeedProgress::Running
                } else {
                    FeedProgress::Priming
                }
            }
        }
    }

    fn pop(&mut self, out: &mut [i16]) -> usize {
        let Some(position) = self.settled() else {
            return 0;
        };
        self.position = position;
        self.seek = self.ring.seek_done.load(Ordering::Relaxed);
        let written = self.ring.written.load(Ordering::Acquire);
        if written.saturating_sub(self.position) > OVERTAKEN {
            self.position = self.ring.consumed.load(Ordering::Acquire);
        }
        let count = out
            .len()
            .min(written.saturating_sub(self.position) as usize);
        for (at, sample) in (self.position..).zip(&mut out[..count]) {
            *sample = self.ring.slot(at).load(Ordering::Relaxed);
        }
        self.position += count as u64;
        self.ring
            .consumed
            .fetch_max(self.position, Ordering::AcqRel);
        count
    }

    fn seek(&mut self, position_ms: u64) {
        let before = self.ring.seek_wanted.load(Ordering::Relaxed);
        let generation = (before & !SEEK_POSITION).wrapping_add(SEEK_POSITION + 1);
        let wanted = generation | position_ms.min(SEEK_POSITION);
        self.primed.set(false);
        self.ring.seek_wanted.store(wanted, Ordering::Release);
        self.wake.notify();
    }

    fn failure(&self) -> Option<String> {
        self.ring.error.get().cloned()
    }
}
