//! From one source's packets or PCM to what its listeners' codecs want.
//!
//! ```text
//! packets ─► Intake (order, loss, talkspurts) ─► Decoder, one per rate ─► Fanout ─► Target: frames,
//! PCM (file, tone, bridge, mix) ────────────────────────────────────────►           encoder
//! ```
//! State is per (source, target format), not per listener: whoever wants the same format shares one
//! encode, and all who need the same rate share one decode and one resampling. Nothing here knows
//! sequence numbers or SSRCs of the way out. In the steady state nothing allocates.

mod cache;
mod fanout;
mod intake;
mod pipeline;
mod target;

pub use self::cache::TranscodeCache;
pub use self::fanout::Fanout;
pub use self::intake::{Intake, IntakeError, Step};
pub use self::pipeline::{TranscodeSink, Transcoder};

use crate::codec::opus::OpusSettings;
use crate::codec::{self, Codec, CodecError};

/// Ticks of the common time line, in which every RTP clock of ours is whole.
pub const TICKS_PER_SECOND: u32 = 48000;

/// A packet of a source, after depacketisation.
#[derive(Clone, Copy, Debug)]
pub struct SourcePacket<'a> {
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP timestamp in the source's clock.
    pub timestamp: u32,
    /// RTP marker bit.
    pub marker: bool,
    /// The codec's payload.
    pub payload: &'a [u8],
}

/// What a listener is sent. Equal formats share one encode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TargetFormat {
    codec: Codec,
    ptime_ms: u8,
    opus: Option<OpusSettings>,
}

impl TargetFormat {
    /// `codec` in packets of `ptime_ms`, which becomes the nearest the codec knows that is not
    /// longer: 10, 20, 30, 40 or 60, for Opus not 30. `settings` matter to Opus only.
    pub fn new(codec: Codec, ptime_ms: u8, settings: OpusSettings) -> Self {
        let ptime_ms = match ptime_ms {
            0..20 => 10,
            20..30 => 20,
            30..40 if codec == Codec::Opus => 20,
            30..40 => 30,
            40..60 => 40,
            _ => 60,
        };
        let opus = (codec == Codec::Opus).then_some(settings);
        Self {
            codec,
            ptime_ms,
            opus,
        }
    }

    /// The codec.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Audio in one packet, in ms.
    pub fn ptime_ms(&self) -> u8 {
        self.ptime_ms
    }

    fn opus(&self) -> OpusSettings {
        self.opus.unwrap_or_default()
    }
}

/// One frame on its way to the listeners of a format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EncodedFrame<'a> {
    /// What goes behind the RTP header.
    pub payload: &'a [u8],
    /// When its first sample belongs, in the target's RTP clock from an origin of the pipeline's own.
    /// Never decreases but for wrapping, unless `restart`.
    pub timestamp: u32,
    /// The first frame of a talkspurt.
    pub marker: bool,
    /// The pipeline's time line began anew: place this frame at last timestamp + elapsed time.
    pub restart: bool,
}

/// Length of a payload in ticks of its codec's RTP clock.
pub fn packet_clock_ticks(codec: Codec, payload: &[u8]) -> Result<u32, CodecError> {
    let audio_hz = codec::audio_rate(codec);
    let samples = codec::packet_samples(codec, audio_hz, payload)? as u32;
    // G.722 samples at 16 kHz under a clock of 8 kHz.
    Ok(samples / (audio_hz / codec.clock_rate()))
}
