//! A minute of every format, rate and number of channels lasts a minute, at its pitch.

use std::path::Path;
use std::process::Command;

use super::*;

const SECONDS: f64 = 60.0;
const RATES_HZ: [u32; 4] = [11_025, 22_050, 44_100, 96_000];
/// Mono, stereo and 5.1 of ffmpeg, with the same in every channel.
const LAYOUTS: [&str; 3] = [
    "pan=mono|c0=c0",
    "pan=stereo|c0=c0|c1=c0",
    "pan=5.1|c0=c0|c1=c0|c2=c0|c3=c0|c4=c0|c5=c0",
];

fn decode(file: File) -> Vec<i16> {
    let mut stream = AudioStream::open(file).expect("plays");
    let mut pcm = Vec::new();
    while stream.decode_next(&mut pcm).expect("is whole") == Progress::More {}
    pcm
}

/// A file as ffmpeg makes it: 440 Hz at half scale.
fn made(path: &Path, rate_hz: u32, layout: &str, how: &[&str]) -> File {
    let graph =
        format!("sine=frequency=440:sample_rate=48000:duration={SECONDS},volume=4,{layout}");
    let quiet = ["-hide_banner", "-loglevel", "error", "-y"];
    let status = Command::new("ffmpeg")
        .args(quiet)
        .args(["-f", "lavfi", "-i", &graph, "-ar", &rate_hz.to_string()])
        .args(how)
        .arg(path)
        .status()
        .expect("ffmpeg runs");
    assert!(status.success(), "{path:?}");
    File::open(path).expect("made")
}

/// Plays it at each of these rates, in as many channels as the format knows.
fn expect_minutes(extension: &str, rates_hz: &[u32], layouts: &[&str], how: &[&str]) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(format!("minute.{extension}"));
    for rate_hz in rates_hz {
        for layout in layouts {
            let pcm = decode(made(&path, *rate_hz, layout, how));
            assert_tone(
                &pcm,
                SECONDS,
                &format!("{extension} {rate_hz} Hz, {layout}"),
            );
        }
    }
}

#[test]
fn a_minute_of_wav_lasts_a_minute() {
    for rate in RATES_HZ {
        for channels in [1, 2, 6] {
            let file = wav(1, 16, rate, channels, &tone_at(rate, SECONDS));
            let case = format!("{rate} Hz, {channels} channels");
            assert_tone(&decode(file_of(&file)), SECONDS, &case);
        }
    }
}

#[test]
fn a_minute_of_flac_lasts_a_minute() {
    expect_minutes("flac", &RATES_HZ, &LAYOUTS, &[]);
}

#[test]
fn a_minute_of_ogg_vorbis_lasts_a_minute() {
    expect_minutes("ogg", &RATES_HZ, &LAYOUTS, &["-c:a", "libvorbis"]);
}

/// Which knows neither 96 kHz nor more than two channels.
#[test]
fn a_minute_of_mp3_lasts_a_minute() {
    expect_minutes("mp3", &RATES_HZ[..3], &LAYOUTS[..2], &[]);
}

/// Which always plays at 48 kHz, whatever went in.
#[test]
fn a_minute_of_ogg_opus_lasts_a_minute() {
    expect_minutes("opus", &[48_000], &LAYOUTS, &["-c:a", "libopus"]);
}
