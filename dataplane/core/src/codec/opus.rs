//! Opus (RFC 6716, RFC 7587) through libopus: mono, VoIP application, at 8, 16 or 48 kHz.
//!
//! libopus runs its codec at its own internal rates and converts inside, so no resampler of ours
//! stands beside it. A stereo peer is decoded to mono; `stereo=1` never makes us send stereo.

use opus::{Application, Bitrate, Channels, ErrorCode};

/// Samples at 48 kHz of the longest packet, 120 ms (RFC 6716 section 2.1.4).
const MAX_PACKET_SAMPLES_48K: usize = 5760;

/// How we encode for one peer: our configuration, narrowed by the peer's fmtp (RFC 7587 section 6.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OpusSettings {
    /// Bits per second; libopus clamps it to 500…512000.
    pub bitrate: u32,
    /// 0 (fast) to 10 (best).
    pub complexity: u8,
    /// Whether the peer makes use of in-band forward error correction (`useinbandfec=1`).
    pub inband_fec: bool,
    /// Whether the peer asked us to stop sending during silence (`usedtx=1`).
    pub dtx: bool,
}

impl Default for OpusSettings {
    fn default() -> Self {
        Self {
            bitrate: 24000,
            complexity: 5,
            inband_fec: true,
            dtx: false,
        }
    }
}

/// One direction towards a peer.
pub struct OpusEncoder {
    encoder: opus::Encoder,
    expected_loss_percent: u8,
}

impl OpusEncoder {
    /// An encoder fed at `rate_hz` (8000, 12000, 16000, 24000 or 48000).
    pub fn new(rate_hz: u32, settings: &OpusSettings) -> Result<Self, ErrorCode> {
        let code = |error: opus::Error| error.code();
        let mut encoder =
            opus::Encoder::new(rate_hz, Channels::Mono, Application::Voip).map_err(code)?;
        let bitrate = i32::try_from(settings.bitrate).unwrap_or(i32::MAX);
        encoder.set_bitrate(Bitrate::Bits(bitrate)).map_err(code)?;
        encoder
            .set_complexity(i32::from(settings.complexity.min(10)))
            .map_err(code)?;
        encoder.set_inband_fec(settings.inband_fec).map_err(code)?;
        encoder.set_dtx(settings.dtx).map_err(code)?;
        Ok(Self {
            encoder,
            expected_loss_percent: 0,
        })
    }

    /// Tells the encoder what the peer's RTCP reports, so that it can weigh redundancy.
    pub fn set_expected_loss(&mut self, percent: u8) -> Result<(), ErrorCode> {
        let percent = percent.min(100);
        if percent != self.expected_loss_percent {
            self.encoder
                .set_packet_loss_perc(i32::from(percent))
                .map_err(|e| e.code())?;
            self.expected_loss_percent = percent;
        }
        Ok(())
    }

    /// Encodes one frame of 2.5 to 60 ms. Returns the payload's length, 0 when DTX says that
    /// nothing need be sent.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, ErrorCode> {
        let length = self
            .encoder
            .encode(pcm, out)
            .map_err(|error| error.code())?;
        // RFC 7587 section 3.1.3: one or two bytes carry no frame data and need not be sent.
        Ok(if length <= 2 { 0 } else { length })
    }
}

/// One direction from a peer.
pub struct OpusDecoder {
    decoder: opus::Decoder,
    rate_hz: u32,
}

impl OpusDecoder {
    /// A decoder that gives mono at `rate_hz` (8000, 12000, 16000, 24000 or 48000).
    pub fn new(rate_hz: u32) -> Result<Self, ErrorCode> {
        let decoder = opus::Decoder::new(rate_hz, Channels::Mono).map_err(|error| error.code())?;
        Ok(Self { decoder, rate_hz })
    }

    /// Samples in a packet, from its table of contents.
    pub fn packet_samples(rate_hz: u32, payload: &[u8]) -> Result<usize, ErrorCode> {
        if payload.is_empty() {
            return Err(ErrorCode::BadArg);
        }
        let samples =
            opus::packet::get_nb_samples(payload, rate_hz).map_err(|error| error.code())?;
        let longest = MAX_PACKET_SAMPLES_48K * rate_hz as usize / 48000;
        if samples == 0 || samples > longest {
            Err(ErrorCode::InvalidPacket)
        } else {
            Ok(samples)
        }
    }

    /// Decodes one packet; returns the samples written. An empty payload is an error, not a loss.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, ErrorCode> {
        if payload.is_empty() {
            return Err(ErrorCode::BadArg);
        }
        self.decoder
            .decode(payload, out, false)
            .map_err(|error| error.code())
    }

    /// Fills `out` in place of lost frames: the end from the redundancy that `next`, the packet
    /// after the gap, may carry, the rest by extrapolation.
    pub fn conceal(&mut self, next: Option<&[u8]>, out: &mut [i16]) -> Result<(), ErrorCode> {
        // libopus conceals in units of 2.5 ms only; what is left over stays silent.
        let unit = self.rate_hz as usize / 400;
        let whole = out.len() / unit * unit;
        let (out, rest) = out.split_at_mut(whole);
        rest.fill(0);
        let redundant = next
            .and_then(|payload| {
                opus::packet::get_samples_per_frame(payload, self.rate_hz)
                    .ok()
                    .map(|samples| (payload, samples.min(whole)))
            })
            .filter(|(payload, samples)| !payload.is_empty() && *samples > 0);
        let lost = whole - redundant.map_or(0, |(_, samples)| samples);
        let (extrapolated, recovered) = out.split_at_mut(lost);
        for part in extrapolated.chunks_mut(unit * 24) {
            self.decoder
                .decode(&[], part, false)
                .map_err(|error| error.code())?;
        }
        if let Some((payload, _)) = redundant {
            self.decoder
                .decode(payload, recovered, true)
                .map_err(|error| error.code())?;
        }
        Ok(())
    }
}
