//! One file as a stream of 48 kHz mono: demuxed, decoded, mixed down and resampled.
//!
//! Memory is bounded by the demuxers' packet limits and one packet's samples; work is handed out in
//! packets, so that a file that decodes to very much, or to nothing, holds nobody up.

use std::fs::File;
use std::io::{self, Seek};

use rtpbridge_core::codec::resample::{ResampleError, Resampler};
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::common::Limit;
use symphonia::core::errors::{Error as SymphoniaError, SeekErrorKind};
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, SeekMode, SeekTo, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::Time;
use thiserror::Error;

use super::downmix;
use super::opus::{OpusFileDecoder, OpusFileError};

const OUTPUT_HZ: u32 = 48000;
/// Broken packets in a row after which a file counts as broken.
const MAX_BROKEN: u32 = 50;
/// Packets without sound in a row after which a file counts as empty.
const MAX_EMPTY: u32 = 20_000;
/// Decoders that build on the past are given so much of it before what is sought is heard (RFC 7845
/// section 4.6 asks for 80 ms).
const LEAD_MS: u64 = 100;
/// Tags and pictures are of no use here.
const MAX_TAG_BYTES: usize = 64 * 1024;

/// Why a file cannot be decoded, or no further.
#[derive(Debug, Error)]
pub(crate) enum DecodeError {
    /// The disk.
    #[error("file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file ends before its sound does.
    #[error("file is truncated")]
    Truncated,
    /// Not a format we know, or not sound.
    #[error("file is not decodable: {0}")]
    Format(String),
    /// Too many packets in a row that do not decode.
    #[error("file is damaged")]
    Damaged,
    /// It is well-formed and there is nothing to hear.
    #[error("file has no audio")]
    Empty,
    /// A sample rate that no file has.
    #[error(transparent)]
    Rate(#[from] ResampleError),
    /// A bug in a decoder, caught.
    #[error("decoder failed")]
    Panicked,
}

impl From<SymphoniaError> for DecodeError {
    fn from(error: SymphoniaError) -> Self {
        match error {
            SymphoniaError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                DecodeError::Truncated
            }
            SymphoniaError::IoError(error) => DecodeError::Io(error),
            other => DecodeError::Format(other.to_string()),
        }
    }
}

impl From<OpusFileError> for DecodeError {
    fn from(error: OpusFileError) -> Self {
        DecodeError::Format(error.to_string())
    }
}

/// What one step of decoding gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// There may be more.
    More,
    /// The file is over.
    End,
}

/// A file being decoded.
pub(super) struct AudioStream {
    file: File,
    format: Box<dyn FormatReader>,
    track: u32,
    decoder: TrackDecoder,
    resampler: Option<(u32, Resampler)>,
    /// Decoded samples, at the file's rate, still to be thrown away.
    discard: u64,
    /// Packets before this are not to be heard, in the track's units, which are samples.
    hear_from: Option<i64>,
    broken: u32,
    empty: u32,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
    resampled: Vec<f32>,
}

enum TrackDecoder {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<OpusFileDecoder>),
}

impl AudioStream {
    /// Probes a file.
    pub(super) fn open(file: File) -> Result<Self, DecodeError> {
        let (format, track, decoder) = probe(&file)?;
        let discard = match &decoder {
            TrackDecoder::Opus(decoder) => decoder.pre_skip(),
            TrackDecoder::Symphonia(_) => 0,
        };
        Ok(Self {
            file,
            format,
            track,
            decoder,
            resampler: None,
            discard,
            hear_from: None,
            broken: 0,
            empty: 0,
            interleaved: Vec::new(),
            mono: Vec::new(),
            resampled: Vec::new(),
        })
    }

    /// Begins the file anew, without a break in what the listener hears.
    pub(super) fn rewind(&mut self) -> Result<(), DecodeError> {
        let again = Self::open(self.file.try_clone()?)?;
        let resampler = self.resampler.take();
        *self = Self { resampler, ..again };
        Ok(())
    }

    /// Goes to `position_ms`; past the end, the next step says so.
    pub(super) fn seek(&mut self, position_ms: u64) -> Result<Progress, DecodeError> {
        if position_ms == 0 {
            self.rewind()?;
            return Ok(Progress::More);
        }
        let lead_ms = position_ms.min(LEAD_MS);
        let time = Time::from_millis_u64(position_ms - lead_ms);
        let to = SeekTo::Time {
            time,
            track_id: Some(self.track),
        };
        let sought = match self.format.seek(SeekMode::Accurate, to) {
            Ok(sought) => sought,
            Err(SymphoniaError::SeekError(SeekErrorKind::OutOfRange)) => return Ok(Progress::End),
            Err(SymphoniaError::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Progress::End);
            }
            Err(error) => return Err(error.into()),
        };
        if let TrackDecoder::Symphonia(decoder) = &mut self.decoder {
            decoder.reset();
        }
        self.resampler = None;
        self.discard = 0;
        let lead = lead_ms.saturating_mul(self.ticks_per_second()) / 1000;
        let lead = i64::try_from(lead).unwrap_or(i64::MAX);
        self.hear_from = Some(sought.required_ts.get().saturating_add(lead));
        Ok(Progress::More)
    }

    /// Units of the track's timestamps; one is a sample in every format we play.
    fn ticks_per_second(&self) -> u64 {
        let track = self
            .format
            .tracks()
            .iter()
            .find(|track| track.id == self.track);
        let base = track.and_then(|track| track.time_base);
        base.map_or(OUTPUT_HZ.into(), |base| {
            u64::from(base.denom.get()) / u64::from(base.numer.get())
        })
    }

    /// Decodes one packet and appends what it gives.
    pub(super) fn decode_next(&mut self, out: &mut Vec<i16>) -> Result<Progress, DecodeError> {
        let packet = match self.format.next_packet() {
            Ok(Some(packet)) => packet,
            // A chained stream or a changed track list ends the first, which is what was asked for.
            Ok(None) | Err(SymphoniaError::ResetRequired) => return Ok(Progress::End),
            Err(error) => return Err(error.into()),
        };
        self.mono.clear();
        let pts = packet.pts.get();
        let rate_hz = if packet.track_id == self.track {
            self.decode(&packet)?
        } else {
            None
        };
        let mut skipped = self.discard.min(self.mono.len() as u64) as usize;
        self.discard -= skipped as u64;
        if let Some(hear_from) = self.hear_from {
            let early = usize::try_from(hear_from.saturating_sub(pts)).unwrap_or(0);
            skipped = skipped.max(early.min(self.mono.len()));
            if early < self.mono.len() {
                self.hear_from = None;
            }
        }
        match rate_hz {
            Some(rate_hz) if skipped < self.mono.len() => {
                self.empty = 0;
                self.convert(rate_hz, skipped, out)?;
            }
            _ => {
                self.empty += 1;
                if self.empty > MAX_EMPTY {
                    return Err(DecodeError::Empty);
                }
            }
        }
        Ok(Progress::More)
    }

    /// Fills `mono`; returns its rate, `None` for a packet that is left out.
    fn decode(&mut self, packet: &Packet) -> Result<Option<u32>, DecodeError> {
        let rate_hz = match &mut self.decoder {
            TrackDecoder::Opus(decoder) => match decoder.decode(&packet.data, &mut self.mono) {
                Ok(()) => {
                    let padding = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                    self.mono.truncate(self.mono.len().saturating_sub(padding));
                    OUTPUT_HZ
                }
                Err(_) => return self.on_broken(),
            },
            TrackDecoder::Symphonia(decoder) => match decoder.decode(packet) {
                Ok(decoded) => {
                    let spec = decoded.spec();
                    let weights = downmix::weights(spec.channels());
                    let rate_hz = spec.rate();
                    decoded.copy_to_vec_interleaved(&mut self.interleaved);
                    downmix::mix(&self.interleaved, &weights, &mut self.mono);
                    rate_hz
                }
                Err(SymphoniaError::DecodeError(_)) => return self.on_broken(),
                Err(error) => return Err(error.into()),
            },
        };
        self.broken = 0;
        Ok(Some(rate_hz))
    }

    fn on_broken(&mut self) -> Result<Option<u32>, DecodeError> {
        self.broken += 1;
        if self.broken > MAX_BROKEN {
            Err(DecodeError::Damaged)
        } else {
            Ok(None)
        }
    }

    fn convert(
        &mut self,
        rate_hz: u32,
        skip: usize,
        out: &mut Vec<i16>,
    ) -> Result<(), DecodeError> {
        let resampler = match &mut self.resampler {
            Some((known, resampler)) if *known == rate_hz => resampler,
            other => {
                &mut other
                    .insert((rate_hz, Resampler::new(rate_hz, OUTPUT_HZ)?))
                    .1
            }
        };
        self.resampled.clear();
        resampler.process_float(&self.mono[skip..], &mut self.resampled);
        // A float-to-integer cast saturates, and takes what is not a number for zero.
        out.extend(
            self.resampled
                .iter()
                .map(|sample| (sample * 32767.0).round() as i16),
        );
        Ok(())
    }
}

type Probed = (Box<dyn FormatReader>, u32, TrackDecoder);

fn probe(file: &File) -> Result<Probed, DecodeError> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    let source = MediaSourceStream::new(Box::new(file), Default::default());
    let metadata = MetadataOptions::default()
        .limit_tag_bytes(Limit::Maximum(MAX_TAG_BYTES))
        .limit_visual_bytes(Limit::Maximum(MAX_TAG_BYTES));
    let format = symphonia::default::get_probe().probe(
        &Hint::new(),
        source,
        FormatOptions::default(),
        metadata,
    )?;
    let track = format
        .default_track(TrackType::Audio)
        .ok_or_else(|| DecodeError::Format("no audio track".to_owned()))?;
    let params = track
        .codec_params
        .as_ref()
        .and_then(|params| params.audio())
        .ok_or_else(|| DecodeError::Format("no audio track".to_owned()))?;
    let decoder = if params.codec == CODEC_ID_OPUS {
        let head = params.extra_data.as_deref().unwrap_or_default();
        TrackDecoder::Opus(Box::new(OpusFileDecoder::new(head)?))
    } else {
        let options = AudioDecoderOptions::default();
        TrackDecoder::Symphonia(
            symphonia::default::get_codecs().make_audio_decoder(params, &options)?,
        )
    };
    let id = track.id;
    Ok((format, id, decoder))
}
