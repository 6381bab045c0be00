//! A file endpoint without the file: plays 48 kHz mono from a ring that somebody else fills.
//!
//! ```text
//! buffering ─feed─► playing ⇄ paused      playing ─last sample or failure─► finished
//! ```
//! Under-runs play silence and are counted; before the first sample, and after a seek until the
//! decoder has got there, nothing plays and nothing counts. Nothing is made up after the last
//! sample. Never reads a file and never waits.

pub use rtpbridge_shared::vocab::FinishReason;

/// Rate of what is played.
pub const RATE_HZ: u32 = 48000;
/// Samples of one 20 ms frame.
pub const FRAME_SAMPLES: usize = 960;

/// Where samples come from: one listener's view of a decode.
pub trait PcmFeed: Send {
    /// How far the decoder is. Asked before `pop`, so that an end seen is an end.
    fn progress(&self) -> FeedProgress;

    /// Takes at most `out.len()` samples; returns how many there were.
    fn pop(&mut self, out: &mut [i16]) -> usize;

    /// Asks the decoder to go on at `position_ms`; what is in the ring is forgotten.
    fn seek(&mut self, position_ms: u64);

    /// Why the decoder cannot go on, once it has failed.
    fn failure(&self) -> Option<String>;
}

/// How far a decoder is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FeedProgress {
    /// It has not yet got far enough ahead to begin.
    Priming,
    /// It runs ahead.
    Running,
    /// The ring holds the last samples.
    Ended,
    /// It cannot go on; what is in the ring may be played.
    Failed,
}

/// What a turn of 20 ms gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlayedFrame {
    /// So many samples; fewer than a frame only at the very end.
    Samples(usize),
    /// Time passes, nothing is to be sent.
    Nothing,
    /// It is over: tell the client once.
    Finished(FinishReason),
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlaybackError {
    /// Still downloading.
    #[error("file is still buffering")]
    Buffering,
    /// Over.
    #[error("playback has finished")]
    Finished,
    /// Others hear the same decode.
    #[error("a shared playback cannot be moved")]
    Shared,
}

/// Whether others hear the same decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// This endpoint alone: a pause stops the decode.
    Own,
    /// Others too: a pause is ours alone, and the position goes on.
    Shared,
}

/// Where a playback stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaybackState {
    /// No feed yet.
    Buffering,
    /// In real time.
    Playing,
    /// Until resumed.
    Paused,
    /// For good.
    Finished,
}

/// One file endpoint's playing.
pub struct Playback {
    state: PlaybackState,
    sharing: Sharing,
    gain: f32,
    feed: Option<Box<dyn PcmFeed>>,
    failure: Option<String>,
    /// Where a seek went of which nothing has been played yet.
    sought_ms: Option<u64>,
    /// Not yet asked about.
    underruns: u64,
    discarded: Box<[i16; FRAME_SAMPLES]>,
}

impl Playback {
    /// Waits for its feed.
    pub fn new(sharing: Sharing, gain_db: f64) -> Self {
        // Beyond 60 dB everything is clipped or silent anyway.
        let gain = 10f64.powf(gain_db.clamp(-200.0, 60.0) / 20.0) as f32;
        Self {
            state: PlaybackState::Buffering,
            sharing,
            gain: if gain.is_finite() { gain } else { 1.0 },
            feed: None,
            failure: None,
            sought_ms: None,
            underruns: 0,
            discarded: Box::new([0; FRAME_SAMPLES]),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> PlaybackState {
        self.state
    }

    /// Frames in which the decoder was behind, since this was last asked.
    pub fn take_underruns(&mut self) -> u64 {
        std::mem::take(&mut self.underruns)
    }

    /// Why the decoder failed, after it ended in [`FinishReason::Error`].
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The file is there and being decoded. Ignored unless buffering.
    pub fn handle_feed(&mut self, feed: Box<dyn PcmFeed>) {
        if self.state == PlaybackState::Buffering {
            self.feed = Some(feed);
            self.state = PlaybackState::Playing;
        }
    }

    /// The file will not come, or its endpoint is going. Whether there was something to end.
    pub fn handle_failure(&mut self) -> bool {
        let was_live = self.state != PlaybackState::Finished;
        self.finish();
        was_live
    }

    /// Stops playing; again is the same as once.
    pub fn pause(&mut self) -> Result<(), PlaybackError> {
        self.require_live()?;
        self.state = PlaybackState::Paused;
        Ok(())
    }

    /// Goes on playing; again is the same as once.
    pub fn resume(&mut self) -> Result<(), PlaybackError> {
        self.require_live()?;
        self.state = PlaybackState::Playing;
        Ok(())
    }

    /// Goes on at `position_ms`; past the end finishes, within a pause too. Otherwise a paused playback
    /// stays paused.
    pub fn seek(&mut self, position_ms: u64) -> Result<(), PlaybackError> {
        self.require_live()?;
        if self.sharing == Sharing::Shared {
            return Err(PlaybackError::Shared);
        }
        if let Some(feed) = &mut self.feed {
            feed.seek(position_ms);
            self.sought_ms = Some(position_ms);
        }
        Ok(())
    }

    /// Takes what 20 ms of real time hold. Called every 20 ms, whether or not anyone hears it.
    pub fn handle_tick(&mut self, out: &mut [i16; FRAME_SAMPLES]) -> PlayedFrame {
        match (self.state, self.sharing) {
            (PlaybackState::Playing, _) => {}
            (PlaybackState::Paused, Sharing::Shared) => return self.pass_by(),
            (PlaybackState::Paused, Sharing::Own) => return self.look_ahead(),
            _ => return PlayedFrame::Nothing,
        }
        let Some(feed) = &mut self.feed else {
            return PlayedFrame::Nothing;
        };
        let progress = feed.progress();
        if progress == FeedProgress::Priming {
            return PlayedFrame::Nothing;
        }
        self.sought_ms = None;
        let popped = feed.pop(out).min(FRAME_SAMPLES);
        if self.gain != 1.0 {
            for sample in &mut out[..popped] {
                // A float-to-integer cast saturates.
                *sample = (f32::from(*sample) * self.gain).round() as i16;
            }
        }
        match (progress, popped) {
            (FeedProgress::Ended, 0) => self.finish_with(FinishReason::Completed),
            (FeedProgress::Failed, 0) => self.finish_with(FinishReason::Error),
            (FeedProgress::Running, 0..FRAME_SAMPLES) => {
                self.underruns += 1;
                out[popped..].fill(0);
                PlayedFrame::Samples(FRAME_SAMPLES)
            }
            _ => PlayedFrame::Samples(popped),
        }
    }

    /// Paused beside others who go on: their position is ours.
    fn pass_by(&mut self) -> PlayedFrame {
        let Some(feed) = &mut self.feed else {
            return PlayedFrame::Nothing;
        };
        let progress = feed.progress();
        if progress == FeedProgress::Priming {
            return PlayedFrame::Nothing;
        }
        match (progress, feed.pop(&mut self.discarded[..])) {
            (FeedProgress::Ended, 0) => self.finish_with(FinishReason::Completed),
            (FeedProgress::Failed, 0) => self.finish_with(FinishReason::Error),
            _ => PlayedFrame::Nothing,
        }
    }

    /// Paused, and perhaps moved past the end: then there is nothing to resume.
    fn look_ahead(&mut self) -> PlayedFrame {
        let (Some(feed), Some(position_ms)) = (&mut self.feed, self.sought_ms) else {
            return PlayedFrame::Nothing;
        };
        let reason = match feed.progress() {
            FeedProgress::Priming => return PlayedFrame::Nothing,
            FeedProgress::Running => None,
            FeedProgress::Ended => Some(FinishReason::Completed),
            FeedProgress::Failed => Some(FinishReason::Error),
        };
        self.sought_ms = None;
        match reason {
            Some(reason) if feed.pop(&mut self.discarded[..]) == 0 => self.finish_with(reason),
            Some(FinishReason::Completed) => {
                // It was near the end only. What was taken to see that is wanted again.
                feed.seek(position_ms);
                PlayedFrame::Nothing
            }
            _ => PlayedFrame::Nothing,
        }
    }

    fn require_live(&self) -> Result<(), PlaybackError> {
        match self.state {
            PlaybackState::Buffering => Err(PlaybackError::Buffering),
            PlaybackState::Finished => Err(PlaybackError::Finished),
            PlaybackState::Playing | PlaybackState::Paused => Ok(()),
        }
    }

    fn finish_with(&mut self, reason: FinishReason) -> PlayedFrame {
        self.finish();
        PlayedFrame::Finished(reason)
    }

    fn finish(&mut self) {
        self.state = PlaybackState::Finished;
        self.failure = self.feed.as_ref().and_then(|feed| feed.failure());
        // Dropping the feed lets the decoder close the file.
        self.feed = None;
    }
}

#[cfg(test)]
mod tests;
