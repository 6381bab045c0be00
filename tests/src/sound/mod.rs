//! Sound as parties send and judge it: codecs that share nothing with the programs' own (G.711 from
//! its definition, G.722 by ffmpeg, Opus by libopus), and what can be measured of what comes out.

mod measure;

use std::fs;

use opus::{Application, Bitrate, Channels};

pub use measure::{Fit, amplitude, dbfs, fit, level, loudness, steepest, worst_spur};

use crate::harness::tool;

/// A codec of a party.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722 at 64 kbit/s.
    G722,
    /// Opus, mono.
    Opus,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pcmu, Self::Pcma, Self::G722, Self::Opus];

    /// Payload type and rtpmap.
    pub fn format(self) -> (u8, &'static str) {
        match self {
            Self::Pcmu => (0, "PCMU/8000"),
            Self::Pcma => (8, "PCMA/8000"),
            Self::G722 => (9, "G722/8000"),
            Self::Opus => (111, "opus/48000/2"),
        }
    }

    /// Samples per second of what is encoded.
    pub fn audio_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma => 8000,
            Self::G722 => 16_000,
            Self::Opus => 48_000,
        }
    }

    /// RTP ticks of 20 ms.
    pub fn frame_ticks(self) -> u32 {
        match self {
            Self::Opus => 960,
            _ => 160,
        }
    }

    /// Frames of 20 ms; what does not fill one is left out.
    pub fn encode(self, pcm: &[i16]) -> Vec<Vec<u8>> {
        let frames = pcm.chunks_exact(self.audio_hz() as usize / 50);
        match self {
            Self::Pcmu => frames.map(|frame| g711(frame, ulaw)).collect(),
            Self::Pcma => frames.map(|frame| g711(frame, alaw)).collect(),
            Self::G722 => {
                let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                let raw = ["-f", "s16le", "-ar", "16000", "-ac", "1"];
                let coded = convert(&bytes, &raw, &["-c:a", "g722", "-f", "g722"]);
                coded.chunks_exact(160).map(<[u8]>::to_vec).collect()
            }
            Self::Opus => {
                let mut encoder = opus::Encoder::new(48_000, Channels::Mono, Application::Voip)
                    .expect("libopus runs");
                encoder.set_bitrate(Bitrate::Bits(24_000)).expect("usual");
                frames
                    .map(|frame| encoder.encode_vec(frame, 1500).expect("a whole frame"))
                    .collect()
            }
        }
    }

    /// What payloads sound like, one after the other.
    pub fn decode(self, payloads: &[Vec<u8>]) -> Vec<i16> {
        match self {
            Self::Pcmu => payloads.iter().flatten().map(|byte| ulaw(*byte)).collect(),
            Self::Pcma => payloads.iter().flatten().map(|byte| alaw(*byte)).collect(),
            Self::G722 => {
                let raw = ["-f", "s16le", "-ar", "16000", "-ac", "1"];
                let bytes = convert(&payloads.concat(), &["-f", "g722"], &raw);
                let samples = bytes.chunks_exact(2);
                samples
                    .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
                    .collect()
            }
            Self::Opus => {
                let mut decoder = opus::Decoder::new(48_000, Channels::Mono).expect("libopus runs");
                let mut room = vec![0; 5760];
                let mut pcm = Vec::new();
                for payload in payloads {
                    let count = decoder.decode(payload, &mut room, false).expect("Opus");
                    pcm.extend_from_slice(&room[..count]);
                }
                pcm
            }
        }
    }
}

/// A sine of this frequency and level; `seconds` of it.
pub fn tone(rate_hz: u32, frequency_hz: f64, level_dbfs: f64, seconds: f64) -> Vec<i16> {
    let peak = amplitude(level_dbfs);
    let step = std::f64::consts::TAU * frequency_hz / f64::from(rate_hz);
    let count = (seconds * f64::from(rate_hz)).round() as usize;
    (0..count)
        .map(|n| (peak * (step * n as f64).sin()).round() as i16)
        .collect()
}

/// ITU-T G.711 table 2a, in 16 bits.
fn ulaw(byte: u8) -> i16 {
    let code = !byte;
    let magnitude = ((i32::from(code & 15) << 3) + 0x84) << (code >> 4 & 7);
    let value = magnitude - 0x84;
    (if code & 0x80 != 0 { -value } else { value }) as i16
}

/// ITU-T G.711 table 1a, in 16 bits.
fn alaw(byte: u8) -> i16 {
    let code = byte ^ 0x55;
    let (segment, step) = (code >> 4 & 7, i32::from(code & 15) << 4);
    let value = match segment {
        0 => step + 8,
        _ => (step + 0x108) << (segment - 1),
    };
    (if code & 0x80 != 0 { value } else { -value }) as i16
}

/// To each sample the code whose value is nearest.
fn g711(frame: &[i16], decode: fn(u8) -> i16) -> Vec<u8> {
    let mut codes: Vec<(i32, u8)> = (0..=255).map(|code| (decode(code).into(), code)).collect();
    codes.sort_unstable();
    let nearest = |sample: &i16| {
        let sample = i32::from(*sample);
        let above = codes.partition_point(|(value, _)| *value < sample).min(255);
        let below = above.saturating_sub(1);
        let distance = |at: usize| (codes[at].0 - sample).abs();
        codes[if distance(below) <= distance(above) {
            below
        } else {
            above
        }]
        .1
    };
    frame.iter().map(nearest).collect()
}

/// What ffmpeg makes of some bytes.
fn convert(bytes: &[u8], input: &[&str], output: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("room for a file");
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let (from, to) = (path("from"), path("to"));
    fs::write(&from, bytes).expect("room for a file");
    let quiet = ["-hide_banner", "-loglevel", "error", "-y"];
    let files = [&quiet[..], input, &["-i", &from], output, &[&to]];
    tool::run("ffmpeg", &files.concat());
    fs::read(&to).expect("ffmpeg wrote it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_coding_brings_a_tone_back() {
        for coding in Coding::ALL {
            let rate_hz = coding.audio_hz();
            let pcm = tone(rate_hz, 1000.0, -10.0, 2.0);
            let frames = coding.encode(&pcm);
            assert!(frames.len() >= 99, "{coding:?}");
            let heard = coding.decode(&frames);
            let fit = fit(&heard[rate_hz as usize / 2..], rate_hz, 1000.0);
            assert!((fit.level_dbfs + 10.0).abs() < 0.5, "{coding:?}: {fit:?}");
            assert!(fit.snr_db > 30.0, "{coding:?}: {fit:?}");
        }
    }
}
