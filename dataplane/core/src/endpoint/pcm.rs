//! Endpoints that make sound instead of receiving packets: tones and files; later the inner ends
//! of bridges. The session pulls 20 ms from each of them at every tick of the grid, whether or not
//! anybody hears them, and encodes, mixes and records what it got; they know nothing of that.
//!
//! A new kind of this sort answers [`Endpoint::pcm_rate`](super::Endpoint::pcm_rate) and
//! [`Endpoint::pull`](super::Endpoint::pull), and is `playing` or `paused` while it wants to be
//! pulled (routing takes its codec to be L16).

use rtpbridge_shared::vocab::FinishReason;

/// Samples of 20 ms at the highest rate, 48 kHz.
pub(crate) const MAX_FRAME: usize = 960;

/// What 20 ms of real time brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pulled {
    /// So many samples; fewer than a frame only at the very end.
    Samples(usize),
    /// Time passes, and nothing is to be sent.
    Nothing,
    /// It is over, which is to be told once. The endpoint's state has changed.
    Finished(Ending),
}

/// What is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// A tone's duration.
    Tone,
    /// A file, or its decoding.
    File(FinishReason),
}
