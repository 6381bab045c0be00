//! Audio codecs: from payload to mono 16-bit PCM and back, and between sample rates.
//!
//! A codec here knows payloads and samples, nothing of RTP. Every decoder can stand in for lost
//! frames. After construction nothing allocates.

pub mod g711;
pub mod g722;
pub mod opus;
pub mod plc;
#[cfg(test)]
pub(crate) mod probe;
pub mod resample;

use ::opus::ErrorCode;
pub use rtpbridge_shared::vocab::Codec;

use self::g722::{G722Decoder, G722Encoder};
use self::opus::{OpusDecoder, OpusEncoder, OpusSettings};
use self::plc::Concealer;
use self::resample::ResampleError;

/// Samples of the longest packet that is decoded: 120 ms at 48 kHz.
pub const MAX_PACKET_SAMPLES: usize = 5760;
/// Room that any encoded frame fits into.
pub const MAX_PAYLOAD: usize = 5760;
/// The longest packet that is decoded, in ms.
const MAX_PACKET_MS: usize = 120;

/// Why a codec could not be made, or could not do its work on one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// The codec does not run at this rate.
    #[error("{codec} does not run at {rate_hz} Hz")]
    Rate {
        /// The codec asked for.
        codec: Codec,
        /// The rate asked for.
        rate_hz: u32,
    },
    /// The payload is empty, longer than 120 ms, or not whole samples.
    #[error("{codec} payload of {bytes} bytes")]
    PayloadLength {
        /// The stream's codec.
        codec: Codec,
        /// The payload's length.
        bytes: usize,
    },
    /// The frame does not fit the buffer it goes into.
    #[error("{needed} places needed, {available} there")]
    Room {
        /// Samples or bytes needed.
        needed: usize,
        /// Samples or bytes in the buffer.
        available: usize,
    },
    /// libopus refused.
    #[error("libopus: {0:?}")]
    Opus(ErrorCode),
    /// No resampler between the rates.
    #[error(transparent)]
    Resample(#[from] ResampleError),
}

/// The rate at which `codec` is decoded for, or encoded from, a partner that runs at `partner_hz`:
/// its own rate, or for Opus the partner's, since Opus runs at all of ours.
pub fn native_rate(codec: Codec, partner_hz: u32) -> u32 {
    match codec {
        Codec::Pcmu | Codec::Pcma => 8000,
        Codec::G722 => 16000,
        Codec::L16 => 48000,
        Codec::Opus => match partner_hz {
            8000 | 16000 => partner_hz,
            _ => 48000,
        },
    }
}

/// The highest rate at which `codec` carries sound.
pub fn audio_rate(codec: Codec) -> u32 {
    native_rate(codec, 48000)
}

/// The two rates of the way from `source` to `target`, decode and encode, chosen so that nothing is
/// resampled for nothing.
pub fn rates_between(source: Codec, target: Codec) -> (u32, u32) {
    let decode = native_rate(source, audio_rate(target));
    (decode, native_rate(target, audio_rate(source)))
}

/// Decodes one stream.
pub struct Decoder {
    rate_hz: u32,
    kind: DecoderKind,
}

enum DecoderKind {
    Ulaw(Concealer),
    Alaw(Concealer),
    G722(Box<G722Decoder>, Concealer),
    L16(Concealer),
    Opus(OpusDecoder),
}

impl Decoder {
    /// A decoder of `codec` that gives mono PCM at `rate_hz`, one of the codec's own rates.
    pub fn new(codec: Codec, rate_hz: u32) -> Result<Self, CodecError> {
        check_rate(codec, rate_hz)?;
        let concealer = || Concealer::new(rate_hz);
        let kind = match codec {
            Codec::Pcmu => DecoderKind::Ulaw(concealer()),
            Codec::Pcma => DecoderKind::Alaw(concealer()),
            Codec::G722 => DecoderKind::G722(Box::default(), concealer()),
            Codec::L16 => DecoderKind::L16(concealer()),
            Codec::Opus => DecoderKind::Opus(OpusDecoder::new(rate_hz).map_err(CodecError::Opus)?),
        };
        Ok(Self { rate_hz, kind })
    }

    /// Rate of the samples it gives.
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Decodes one payload; returns the samples written to `out`.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecError> {
        let samples = packet_samples(self.codec(), self.rate_hz, payload)?;
        let available = out.len();
        let out = out.get_mut(..samples).ok_or(CodecError::Room {
            needed: samples,
            available,
        })?;
        match &mut self.kind {
            DecoderKind::Ulaw(concealer) => {
                for (sample, byte) in out.iter_mut().zip(payload) {
                    *sample = g711::decode_ulaw(*byte);
                }
                concealer.accept(out);
            }
            DecoderKind::Alaw(concealer) => {
                for (sample, byte) in out.iter_mut().zip(payload) {
                    *sample = g711::decode_alaw(*byte);
                }
                concealer.accept(out);
            }
            DecoderKind::G722(decoder, concealer) => {
                decoder.decode(payload, out);
                concealer.accept(out);
            }
            DecoderKind::L16(concealer) => {
                for (sample, bytes) in out.iter_mut().zip(payload.chunks_exact(2)) {
                    *sample = i16::from_be_bytes([bytes[0], bytes[1]]);
                }
                concealer.accept(out);
            }
            DecoderKind::Opus(decoder) => {
                return decoder.decode(payload, out).map_err(CodecError::Opus);
            }
        }
        Ok(samples)
    }

    /// Fills `out` in place of lost frames. `next` is the payload that follows the gap, when known:
    /// Opus may carry the last lost frame in it.
    pub fn conceal(&mut self, next: Option<&[u8]>, out: &mut [i16]) -> Result<(), CodecError> {
        match &mut self.kind {
            DecoderKind::Ulaw(concealer)
            | DecoderKind::Alaw(concealer)
            | DecoderKind::G722(_, concealer)
            | DecoderKind::L16(concealer) => concealer.conceal(out),
            DecoderKind::Opus(decoder) => {
                decoder.conceal(next, out).map_err(CodecError::Opus)?;
            }
        }
        Ok(())
    }

    fn codec(&self) -> Codec {
        match self.kind {
            DecoderKind::Ulaw(_) => Codec::Pcmu,
            DecoderKind::Alaw(_) => Codec::Pcma,
            DecoderKind::G722(..) => Codec::G722,
            DecoderKind::L16(_) => Codec::L16,
            DecoderKind::Opus(_) => Codec::Opus,
        }
    }
}

/// Encodes one stream.
pub struct Encoder {
    kind: EncoderKind,
}

enum EncoderKind {
    Ulaw,
    Alaw,
    G722(Box<G722Encoder>),
    L16,
    Opus(OpusEncoder),
}

impl Encoder {
    /// An encoder of `codec` fed at `rate_hz`, one of the codec's own rates. `settings` matter to
    /// Opus only.
    pub fn new(codec: Codec, rate_hz: u32, settings: &OpusSettings) -> Result<Self, CodecError> {
        check_rate(codec, rate_hz)?;
        let kind = match codec {
            Codec::Pcmu => EncoderKind::Ulaw,
            Codec::Pcma => EncoderKind::Alaw,
            Codec::G722 => EncoderKind::G722(Box::default()),
            Codec::L16 => EncoderKind::L16,
            Codec::Opus => {
                EncoderKind::Opus(OpusEncoder::new(rate_hz, settings).map_err(CodecError::Opus)?)
            }
        };
        Ok(Self { kind })
    }

    /// Encodes one frame; returns the payload's length, 0 when the codec's DTX says that nothing
    /// need be sent.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, CodecError> {
        let needed = match self.kind {
            EncoderKind::Ulaw | EncoderKind::Alaw => pcm.len(),
            EncoderKind::G722(_) => pcm.len() / 2,
            EncoderKind::L16 => pcm.len() * 2,
            EncoderKind::Opus(_) => 0,
        };
        let available = out.len();
        if needed > available {
            return Err(CodecError::Room { needed, available });
        }
        match &mut self.kind {
            EncoderKind::Ulaw => {
                for (byte, sample) in out.iter_mut().zip(pcm) {
                    *byte = g711::encode_ulaw(*sample);
                }
            }
            EncoderKind::Alaw => {
                for (byte, sample) in out.iter_mut().zip(pcm) {
                    *byte = g711::encode_alaw(*sample);
                }
            }
            EncoderKind::G722(encoder) => {
                encoder.encode(pcm, out);
            }
            EncoderKind::L16 => {
                for (bytes, sample) in out.chunks_exact_mut(2).zip(pcm) {
                    bytes.copy_from_slice(&sample.to_be_bytes());
                }
            }
            EncoderKind::Opus(encoder) => {
                return encoder.encode(pcm, out).map_err(CodecError::Opus);
            }
        }
        Ok(needed)
    }

    /// What the peer's RTCP says it loses, in percent; only Opus makes use of it.
    pub fn set_expected_loss(&mut self, percent: u8) -> Result<(), CodecError> {
        match &mut self.kind {
            EncoderKind::Opus(encoder) => {
                encoder.set_expected_loss(percent).map_err(CodecError::Opus)
            }
            _ => Ok(()),
        }
    }

    /// Whether two encoders of this codec, fed the same frame, give the same payload whatever they
    /// were fed before.
    pub fn is_stateless(&self) -> bool {
        matches!(
            self.kind,
            EncoderKind::Ulaw | EncoderKind::Alaw | EncoderKind::L16
        )
    }
}

/// Samples at `rate_hz` in one payload of `codec`, as its length or its table of contents says.
pub fn packet_samples(codec: Codec, rate_hz: u32, payload: &[u8]) -> Result<usize, CodecError> {
    let bytes = payload.len();
    let samples = match codec {
        Codec::Pcmu | Codec::Pcma => bytes,
        Codec::G722 => bytes.saturating_mul(2),
        Codec::L16 if bytes.is_multiple_of(2) => bytes / 2,
        Codec::L16 => 0,
        Codec::Opus => OpusDecoder::packet_samples(rate_hz, payload).map_err(CodecError::Opus)?,
    };
    if samples == 0 || samples > rate_hz as usize * MAX_PACKET_MS / 1000 {
        return Err(CodecError::PayloadLength { codec, bytes });
    }
    Ok(samples)
}

/// The sample nearest to a value, the loudest there is where it is louder. Not a number is some sample.
pub(crate) fn rounded(value: f32) -> i16 {
    // Beside a number this large no fraction has room, and the last bits are the integer: unlike a call
    // of the library's rounding and a checked cast this is done for many samples at once.
    const BESIDE: f32 = 12_582_912.0;
    (value.clamp(-32_768.0, 32_767.0) + BESIDE).to_bits() as i16
}

fn check_rate(codec: Codec, rate_hz: u32) -> Result<(), CodecError> {
    if native_rate(codec, rate_hz) == rate_hz {
        Ok(())
    } else {
        Err(CodecError::Rate { codec, rate_hz })
    }
}

#[cfg(test)]
mod tests;
