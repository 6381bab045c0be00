//! What a party hears, measured: PCMU to samples by a decoder of our own (ITU-T G.711), pitch, level.

use std::path::{Path, PathBuf};

use super::rtp::Rtp;
use crate::harness::tool;

/// Samples per second of what parties are sent.
pub const RATE_HZ: f64 = 8000.0;

/// The samples of PCMU packets, in order of arrival.
pub fn samples(packets: &[Rtp]) -> Vec<i16> {
    let bytes = packets.iter().flat_map(|packet| &packet.payload);
    bytes.map(|byte| decode(*byte)).collect()
}

/// Hz, by rising zero crossings. Of a pure tone, or nearly.
pub fn pitch(samples: &[i16]) -> f64 {
    let rising = samples.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
    rising as f64 * RATE_HZ / samples.len() as f64
}

/// Root of the mean square, in units of a sample.
pub fn level(samples: &[i16]) -> f64 {
    let squares = samples.iter().map(|sample| f64::from(*sample).powi(2));
    (squares.sum::<f64>() / samples.len().max(1) as f64).sqrt()
}

/// Decibels below a full-scale sine that a sine of this frequency has in the samples. Other tones have
/// to be four cycles of the samples' length away.
pub fn level_dbfs(samples: &[i16], hz: f64) -> f64 {
    let count = samples.len() as f64;
    let (mut re, mut im) = (0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let n = n as f64;
        let window = 0.5 - 0.5 * (std::f64::consts::TAU * n / count).cos();
        let (sin, cos) = (std::f64::consts::TAU * hz / RATE_HZ * n).sin_cos();
        re += window * f64::from(*sample) * cos;
        im += window * f64::from(*sample) * sin;
    }
    20.0 * (4.0 * re.hypot(im) / count / 32768.0).max(1e-6).log10()
}

/// A second of a sine as PCMU frames of 20 ms; with whole Hz it can be repeated.
pub fn tone(hz: u32, level_dbfs: f64) -> Vec<Vec<u8>> {
    let amplitude = 32768.0 * 10_f64.powf(level_dbfs / 20.0);
    let step = std::f64::consts::TAU * f64::from(hz) / RATE_HZ;
    let samples = (0..8000).map(|n| (amplitude * (step * f64::from(n)).sin()).round() as i16);
    let coded = encode(samples);
    coded.chunks(160).map(<[u8]>::to_vec).collect()
}

/// PCMU of samples, the nearest there is.
pub fn encode(samples: impl IntoIterator<Item = i16>) -> Vec<u8> {
    let table: Vec<i32> = (0..=255).map(|byte| i32::from(decode(byte))).collect();
    let nearest = |sample: i16| {
        let off = |byte: &u8| (table[usize::from(*byte)] - i32::from(sample)).abs();
        (0..=255).min_by_key(off).expect("there are some")
    };
    samples.into_iter().map(nearest).collect()
}

fn decode(byte: u8) -> i16 {
    let byte = !byte;
    let exponent = (byte >> 4) & 7;
    let magnitude = (((i16::from(byte & 15) << 3) + 0x84) << exponent) - 0x84;
    if byte & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// Has ffmpeg make a file of what a filter graph gives. The name's ending and `how` decide the format.
pub fn make(directory: &Path, name: &str, graph: &str, how: &[&str]) -> PathBuf {
    let path = directory.join(name);
    let quiet = ["-hide_banner", "-loglevel", "error", "-y"];
    let input = ["-f", "lavfi", "-i", graph];
    let output = path.to_str().expect("UTF-8");
    tool::run("ffmpeg", &[&quiet[..], &input, how, &[output]].concat());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for sample in [-32124, -1000, -8, 0, 8, 1000, 16000, 32124] {
            let coded = encode([sample]);
            let off = (i32::from(decode(coded[0])) - i32::from(sample)).abs();
            assert!(off <= i32::from(sample.unsigned_abs()) / 16 + 4, "{sample}");
        }
        let tone = (0..8000).map(|n| (8000.0 * (f64::from(n) * 0.345_575).sin()) as i16);
        let tone: Vec<i16> = tone.collect();
        assert!((pitch(&tone) - 440.0).abs() < 2.0);
        assert!((level(&tone) - 5657.0).abs() < 10.0);
        assert!((level_dbfs(&tone, 440.0) + 12.25).abs() < 0.1);
        assert!(level_dbfs(&tone, 1000.0) < -60.0);
    }
}
