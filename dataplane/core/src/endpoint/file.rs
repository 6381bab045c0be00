//! An endpoint that plays a file into its session. It is heard and hears nothing; where its samples
//! come from is [`Playback`]'s business, where the file comes from the shell's and control's.
//!
//! ```text
//! URL: buffering ─downloaded─► buffering ─opened─► playing ⇄ paused ─► finished
//! local file: playing from the start, since it was opened before the endpoint was made
//! ```

use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::playback::{FetchOrder, FileCreate, FileSource};
use rtpbridge_shared::vocab::EndpointState;

use super::pcm::{Ending, Pulled};
use crate::playback::{
    FRAME_SAMPLES, PcmFeed, Playback, PlaybackError, PlaybackState, PlayedFrame, Sharing,
};

/// A file that was opened and gives sound.
pub struct OpenedFile {
    /// This endpoint's view of the decode.
    pub feed: Box<dyn PcmFeed>,
    /// Names the decode; the same for all who share it.
    pub playback_id: String,
}

/// How a downloaded file is to be played.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlayOrder {
    /// Where to begin the first play.
    pub start_ms: u64,
    /// Further plays after the first; none is for ever.
    pub loop_count: Option<u32>,
    /// Whether equal orders share one decode.
    pub shared: bool,
}

/// A file endpoint.
pub(crate) struct FileEndpoint {
    playback: Playback,
    order: PlayOrder,
    pending_fetch: Option<FetchOrder>,
    cache_file: Option<String>,
    playback_id: Option<String>,
}

impl FileEndpoint {
    /// Waits for its file.
    pub(crate) fn new(request: &FileCreate) -> Self {
        let sharing = match request.shared {
            true => Sharing::Shared,
            false => Sharing::Own,
        };
        let pending_fetch = match &request.source {
            FileSource::Url(order) => Some(order.clone()),
            FileSource::Local(_) => None,
        };
        Self {
            playback: Playback::new(sharing, request.gain_db),
            order: PlayOrder {
                start_ms: request.start_ms,
                loop_count: request.loop_count,
                shared: request.shared,
            },
            pending_fetch,
            cache_file: None,
            playback_id: None,
        }
    }

    pub(crate) fn state(&self) -> EndpointState {
        match self.playback.state() {
            PlaybackState::Buffering => EndpointState::Buffering,
            PlaybackState::Playing => EndpointState::Playing,
            PlaybackState::Paused => EndpointState::Paused,
            PlaybackState::Finished => EndpointState::Finished,
        }
    }

    /// The download that it waits for.
    pub(crate) fn pending_fetch(&self) -> Option<&FetchOrder> {
        self.pending_fetch.as_ref()
    }

    /// How much the download that it waits for takes to describe.
    pub(crate) fn order_bytes(&self) -> usize {
        self.pending_fetch.as_ref().map_or(0, order_bytes)
    }

    /// The file in the cache that it needs, for as long as it does.
    pub(crate) fn cache_file(&self) -> Option<&str> {
        self.cache_file.as_deref()
    }

    /// Names the decode that it shares with others.
    pub(crate) fn shared_playback_id(&self) -> Option<&str> {
        let id = self.playback_id.as_deref();
        id.filter(|_| self.order.shared)
    }

    /// Its file lies in the cache under `name`: what to open. None when it knew, or is over.
    pub(crate) fn on_fetched(&mut self, name: &str) -> Option<PlayOrder> {
        self.pending_fetch.take()?;
        self.cache_file = Some(name.to_owned());
        Some(self.order)
    }

    /// Its file is there and being decoded.
    pub(crate) fn on_opened(&mut self, opened: OpenedFile) {
        if self.playback.state() == PlaybackState::Buffering {
            self.playback_id = Some(opened.playback_id);
            self.playback.handle_feed(opened.feed);
        }
    }

    pub(crate) fn seek(&mut self, position_ms: u64) -> Result<(), RequestError> {
        self.playback.seek(position_ms).map_err(refused)
    }

    pub(crate) fn pause(&mut self) -> Result<(), RequestError> {
        self.playback.pause().map_err(refused)
    }

    pub(crate) fn resume(&mut self) -> Result<(), RequestError> {
        self.playback.resume().map_err(refused)
    }

    /// The next 20 ms of it. A pause of one's own stops time, one beside others does not.
    pub(crate) fn pull(&mut self, out: &mut [i16]) -> Pulled {
        let Some(out) = out.first_chunk_mut::<FRAME_SAMPLES>() else {
            return Pulled::Nothing;
        };
        match self.playback.handle_tick(out) {
            PlayedFrame::Samples(count) => Pulled::Samples(count),
            PlayedFrame::Nothing => Pulled::Nothing,
            PlayedFrame::Finished(reason) => {
                self.cache_file = None;
                Pulled::Finished(Ending::File(reason))
            }
        }
    }

    /// Why decoding failed, once it has.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.playback.failure()
    }

    /// Frames for which the decoder was late since this was last asked.
    pub(crate) fn take_underruns(&mut self) -> u64 {
        self.playback.take_underruns()
    }
}

/// Bytes of the order's texts.
pub(crate) fn order_bytes(order: &FetchOrder) -> usize {
    let headers = order.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + value.len());
    order.url.len() + headers.sum::<usize>()
}

fn refused(error: PlaybackError) -> RequestError {
    RequestError::Endpoint(error.to_string())
}
