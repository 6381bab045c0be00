//! One decode: keeps its ring full, loops, seeks, and ends when nobody listens any more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::ring::Ring;
use super::stream::{AudioStream, DecodeError, Progress};

/// Packets decoded in one turn, so that threads are shared fairly.
const MAX_PACKETS: usize = 256;
/// Longest piece of samples written at once; a packet may hold more.
const PIECE: usize = 4096;
/// A play this short, 1 s, is repeated from memory: opening a file anew for a handful of samples, for
/// ever, would cost a processor.
const MAX_REMEMBERED: usize = 48_000;
/// How long a full ring is left alone.
const REST: Duration = Duration::from_millis(400);

/// When a job is to be looked at again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// There is more to do, others first.
    Now,
    /// The ring is full, or the file is over and might be sought in.
    After(Duration),
    /// Nobody listens.
    Never,
}

/// A file being played.
pub(super) struct Job {
    stream: AudioStream,
    ring: Arc<Ring>,
    /// Further plays; none is for ever.
    loops_left: Option<u32>,
    /// Decoded and not yet written, and how much of it was.
    pending: Vec<i16>,
    pending_from: usize,
    /// Whether this play gave any sound; one that did not is not repeated.
    heard: bool,
    /// Whether the stream has given its last sample.
    is_at_end: bool,
    /// This play from its beginning, while it is short.
    remembered: Option<Vec<i16>>,
}

impl Job {
    /// Goes to `start_ms` and decodes until there is sound or the end, so that a file that cannot be
    /// decoded is known at once.
    pub(super) fn begin(
        stream: AudioStream,
        ring: Arc<Ring>,
        start_ms: u64,
        loop_count: Option<u32>,
    ) -> Result<Self, DecodeError> {
        let loops_left = loop_count;
        let mut job = Self {
            stream,
            ring,
            loops_left,
            pending: Vec::new(),
            pending_from: 0,
            heard: false,
            is_at_end: false,
            remembered: (start_ms == 0).then(Vec::new),
        };
        let mut progress = match start_ms {
            0 => Progress::More,
            ms => job.stream.seek(ms)?,
        };
        while progress == Progress::More && job.pending.is_empty() {
            progress = job.stream.decode_next(&mut job.pending)?;
        }
        if progress == Progress::End && start_ms == 0 && job.pending.is_empty() {
            return Err(DecodeError::Empty);
        }
        job.heard = !job.pending.is_empty();
        job.remember();
        if progress == Progress::End {
            job.ring.end();
        }
        Ok(job)
    }

    /// What it fills.
    pub(super) fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Fills the ring for a while. A decoder that panics costs this playback.
    pub(super) fn run(&mut self) -> Next {
        // Besides this job, only feeds hold the ring.
        if Arc::strong_count(&self.ring) == 1 {
            return Next::Never;
        }
        match catch_unwind(AssertUnwindSafe(|| self.fill())) {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => self.fail(&error),
            Err(_) => self.fail(&DecodeError::Panicked),
        }
    }

    fn fill(&mut self) -> Result<Next, DecodeError> {
        if let Some((wanted, position_ms)) = self.ring.pending_seek() {
            self.pending.clear();
            self.pending_from = 0;
            self.remembered = None;
            self.is_at_end = false;
            let progress = self.stream.seek(position_ms)?;
            self.ring.answer_seek(wanted);
            if progress == Progress::End {
                self.ring.end();
            }
        }
        if self.ring.is_over() {
            return Ok(Next::After(REST));
        }
        for _ in 0..MAX_PACKETS {
            if !self.write_pending() {
                return Ok(Next::After(REST));
            }
            if !self.is_at_end {
                let progress = self.stream.decode_next(&mut self.pending)?;
                self.remember();
                self.heard |= !self.pending.is_empty();
                self.is_at_end = progress == Progress::End;
            }
            if self.is_at_end && !self.begin_again()? {
                self.ring.end();
                return Ok(Next::After(REST));
            }
        }
        Ok(Next::Now)
    }

    /// Keeps what was just decoded, as long as a play is short.
    fn remember(&mut self) {
        if let Some(kept) = &mut self.remembered {
            if kept.len() + self.pending.len() > MAX_REMEMBERED {
                self.remembered = None;
            } else {
                kept.extend_from_slice(&self.pending);
            }
        }
    }

    /// Whether the file is played once more.
    fn begin_again(&mut self) -> Result<bool, DecodeError> {
        if !self.heard || self.loops_left == Some(0) {
            return Ok(false);
        }
        if let Some(kept) = self.remembered.as_ref().filter(|kept| !kept.is_empty()) {
            // The stream stays at its end, and this is asked again when these are written.
            while self.pending.len() < MAX_REMEMBERED && self.loops_left != Some(0) {
                self.loops_left = self.loops_left.map(|left| left - 1);
                self.pending.extend_from_slice(kept);
            }
            return Ok(true);
        }
        self.loops_left = self.loops_left.map(|left| left - 1);
        self.heard = false;
        self.is_at_end = false;
        self.remembered = Some(Vec::new());
        self.stream.rewind()?;
        Ok(true)
    }

    /// Writes what fits; false when the ring is full.
    fn write_pending(&mut self) -> bool {
        while self.pending_from < self.pending.len() {
            let room = usize::try_from(self.ring.room())
                .unwrap_or(usize::MAX)
                .min(PIECE);
            if room == 0 {
                return false;
            }
            let end = (self.pending_from + room).min(self.pending.len());
            self.ring.write(&self.pending[self.pending_from..end]);
            self.pending_from = end;
        }
        self.pending.clear();
        self.pending_from = 0;
        true
    }

    fn fail(&mut self, error: &DecodeError) -> Next {
        // What was decoded before is still to be heard.
        self.write_pending();
        self.ring.fail(error.to_string());
        Next::Never
    }
}
