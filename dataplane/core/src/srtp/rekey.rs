//! Keys to receive with, and their exchange. For [`OVERLAP`] after a new key arrives packets under
//! either key are accepted; the first success of the new one retires the old, separately for RTP
//! and RTCP, and at the end of that time the old one goes regardless.
//!
//! ```text
//! one key ──replace──► two keys ──new key worked for RTP and RTCP, or time over──► one key
//! ```

use std::time::Duration;

use super::cipher::{NotAuthentic, SessionKeys};
use super::sources::Stream;
use crate::time::Instant;

/// How long packets under the previous key are accepted after a new one arrived.
pub const OVERLAP: Duration = Duration::from_secs(5);

const SCRATCH_LEN: usize = 2048;

/// The key in use and, for a while, the one before it.
pub(super) struct ReceiveKeys {
    current: SessionKeys,
    retiring: Option<Retiring>,
}

struct Retiring {
    keys: SessionKeys,
    until: Instant,
    rtp_done: bool,
    rtcp_done: bool,
    /// A failed attempt may spoil the packet, so the second one needs a copy.
    scratch: Vec<u8>,
}

impl ReceiveKeys {
    pub(super) fn new(current: SessionKeys) -> Self {
        Self {
            current,
            retiring: None,
        }
    }

    /// Puts `fresh` in use and lets the key used so far retire.
    pub(super) fn replace(&mut self, fresh: SessionKeys, now: Instant) {
        let keys = std::mem::replace(&mut self.current, fresh);
        self.retiring = Some(Retiring {
            keys,
            until: now + OVERLAP,
            rtp_done: false,
            rtcp_done: false,
            scratch: Vec::with_capacity(SCRATCH_LEN),
        });
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.retiring.as_ref().map(|retiring| retiring.until)
    }

    /// Drops the previous key when its time is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_some_and(|until| now >= until) {
            self.retiring = None;
        }
    }

    /// Runs `attempt` with the key in use and, where the previous one still counts for this stream,
    /// with that. `attempt` may spoil the packet when it fails.
    pub(super) fn open<E: From<NotAuthentic>>(
        &mut self,
        now: Instant,
        stream: Stream,
        packet: &mut [u8],
        attempt: impl Fn(&SessionKeys, &mut [u8]) -> Result<Opened, E>,
    ) -> Result<Opened, E> {
        self.handle_timeout(now);
        let Some(retiring) = self.retiring.as_mut().filter(|old| !old.is_done(stream)) else {
            return attempt(&self.current, packet);
        };
        retiring.scratch.clear();
        retiring.scratch.extend_from_slice(packet);
        match attempt(&self.current, packet) {
            Ok(opened) => {
                retiring.on_new_key_worked(stream);
                if retiring.rtp_done && retiring.rtcp_done {
                    self.retiring = None;
                }
                Ok(opened)
            }
            Err(_) => {
                packet.copy_from_slice(&retiring.scratch);
                attempt(&retiring.keys, packet)
            }
        }
    }
}

/// A packet that turned out authentic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Opened {
    pub(super) len: usize,
    pub(super) index: u64,
}

impl Retiring {
    fn is_done(&self, stream: Stream) -> bool {
        match stream {
            Stream::Rtp => self.rtp_done,
            Stream::Rtcp => self.rtcp_done,
        }
    }

    fn on_new_key_worked(&mut self, stream: Stream) {
        match stream {
            Stream::Rtp => self.rtp_done = true,
            Stream::Rtcp => self.rtcp_done = true,
        }
    }
}
