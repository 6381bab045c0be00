//! Opus in Ogg (RFC 7845): the identification header, and decoding of its packets to 48 kHz.

use opus::MSDecoder;
use thiserror::Error;

use super::downmix;

/// Samples per channel of the longest packet.
const MAX_SAMPLES: usize = 5760;
const MAX_CHANNELS: u8 = 8;

/// Why a stream cannot be decoded.
#[derive(Debug, Error)]
pub(super) enum OpusFileError {
    /// The identification header makes no sense.
    #[error("malformed OpusHead")]
    Head,
    /// A channel mapping that is not audio to be heard as it is.
    #[error("unsupported Opus channel mapping family {0}")]
    Mapping(u8),
    /// libopus refused.
    #[error("{0}")]
    Codec(#[from] opus::Error),
}

/// Decodes one stream.
pub(super) struct OpusFileDecoder {
    decoder: MSDecoder,
    weights: Vec<f32>,
    gain: f32,
    pre_skip: u64,
    interleaved: Vec<f32>,
}

impl OpusFileDecoder {
    /// From the identification header (RFC 7845 section 5.1).
    pub(super) fn new(head: &[u8]) -> Result<Self, OpusFileError> {
        let fixed: &[u8; 19] = head
            .first_chunk()
            .filter(|head| head.starts_with(b"OpusHead"))
            .ok_or(OpusFileError::Head)?;
        let channels = fixed[9];
        let pre_skip = u16::from_le_bytes([fixed[10], fixed[11]]);
        let gain_q8 = i16::from_le_bytes([fixed[16], fixed[17]]);
        let family = fixed[18];
        if channels == 0 || channels > MAX_CHANNELS {
            return Err(OpusFileError::Head);
        }
        let (streams, coupled, mapping) = match (family, channels) {
            (0, 1) => (1, 0, &[0][..]),
            (0, 2) => (1, 1, &[0, 1][..]),
            (0, _) => return Err(OpusFileError::Head),
            (1 | 255, _) => {
                let table = head
                    .get(19..21 + usize::from(channels))
                    .ok_or(OpusFileError::Head)?;
                (table[0], table[1], &table[2..])
            }
            _ => return Err(OpusFileError::Mapping(family)),
        };
        let channels = usize::from(channels);
        Ok(Self {
            decoder: MSDecoder::new(48000, streams, coupled, mapping)?,
            weights: downmix::vorbis_weights(channels),
            gain: 10f32.powf(f32::from(gain_q8) / 256.0 / 20.0),
            pre_skip: pre_skip.into(),
            interleaved: vec![0.0; MAX_SAMPLES * channels],
        })
    }

    /// Samples at the stream's beginning that are not to be heard.
    pub(super) fn pre_skip(&self) -> u64 {
        self.pre_skip
    }

    /// Decodes a packet and appends its samples.
    pub(super) fn decode(
        &mut self,
        packet: &[u8],
        out: &mut Vec<f32>,
    ) -> Result<(), OpusFileError> {
        if packet.is_empty() {
            return Ok(());
        }
        let samples = self
            .decoder
            .decode_float(packet, &mut self.interleaved, false)?;
        let heard = &mut self.interleaved[..samples * self.weights.len()];
        if self.gain != 1.0 {
            heard.iter_mut().for_each(|sample| *sample *= self.gain);
        }
        downmix::mix(heard, &self.weights, out);
        Ok(())
    }
}
