mod lengths;

use std::f64::consts::TAU;
use std::fs::File;
use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rtpbridge_core::playback::{FeedProgress, PcmFeed};

use super::directory::OpenError;
use super::pool::{DecoderPool, PlayError, PlayRequest};
use super::ring::FileFeed;
use super::stream::{AudioStream, Progress};

const DEADLINE: Duration = Duration::from_secs(30);

const FIXTURES: [(&str, &[u8]); 4] = [
    ("mp3", include_bytes!("fixtures/tone.mp3")),
    ("flac", include_bytes!("fixtures/tone.flac")),
    ("vorbis", include_bytes!("fixtures/tone.oga")),
    ("opus", include_bytes!("fixtures/tone.opus")),
];

/// Sample formats of WAV: tag and bits.
const WAV_FORMATS: [(u16, u16); 6] = [(1, 8), (1, 16), (1, 24), (3, 32), (7, 8), (6, 8)];

fn request() -> PlayRequest {
    PlayRequest {
        source: "test".to_owned(),
        start_ms: 0,
        loop_count: Some(0),
        shared: false,
    }
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("tempfile");
    file.write_all(bytes).expect("write");
    file
}

fn play(pool: &DecoderPool, request: PlayRequest, bytes: &[u8]) -> Result<FileFeed, PlayError> {
    let file = file_of(bytes);
    let (reply, answer) = mpsc::channel();
    pool.play(
        request,
        move || Ok(file),
        move |feed| reply.send(feed).expect("receiver"),
    );
    answer.recv_timeout(DEADLINE).expect("answered in time")
}

/// Plays as fast as the decoder can; returns the samples and how it ended.
fn drain(feed: &mut FileFeed) -> (Vec<i16>, FeedProgress) {
    let deadline = Instant::now() + DEADLINE;
    let mut pcm = Vec::new();
    let mut out = [0; 960];
    loop {
        assert!(
            Instant::now() < deadline,
            "still playing after {} samples",
            pcm.len()
        );
        let progress = feed.progress();
        let popped = feed.pop(&mut out);
        pcm.extend_from_slice(&out[..popped]);
        match progress {
            FeedProgress::Ended | FeedProgress::Failed if popped == 0 => return (pcm, progress),
            _ if popped == 0 => std::thread::yield_now(),
            _ => {}
        }
    }
}

fn tone_at(rate: u32, seconds: f64) -> Vec<f64> {
    let count = (f64::from(rate) * seconds) as usize;
    (0..count)
        .map(|n| 0.5 * (TAU * 440.0 * n as f64 / f64::from(rate)).sin())
        .collect()
}

fn wav(tag: u16, bits: u16, rate: u32, channels: u16, tone: &[f64]) -> Vec<u8> {
    let mut data = Vec::new();
    for sample in tone {
        for _ in 0..channels {
            let linear = (sample * 32767.0) as i16;
            match (tag, bits) {
                (1, 8) => data.push((sample * 127.0 + 128.0) as u8),
                (1, 16) => data.extend(linear.to_le_bytes()),
                (1, 24) => data.extend(&((sample * 8_388_607.0) as i32).to_le_bytes()[..3]),
                (3, _) => data.extend((*sample as f32).to_le_bytes()),
                (7, _) => data.push(rtpbridge_core::codec::g711::encode_ulaw(linear)),
                _ => data.push(rtpbridge_core::codec::g711::encode_alaw(linear)),
            }
        }
    }
    let block = channels * bits / 8;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    // Anything but plain PCM says how long its extension is: empty.
    let extension: &[u8] = if tag == 1 { &[] } else { &[0, 0] };
    file.extend((data.len() as u32 + 36 + extension.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend((16 + extension.len() as u32).to_le_bytes());
    file.extend(tag.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend((rate * u32::from(block)).to_le_bytes());
    file.extend(block.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(extension);
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

/// Frequency by counting rising zero crossings, and peak.
fn measure(pcm: &[i16]) -> (f64, i16) {
    let rising = pcm.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
    let peak = pcm
        .iter()
        .map(|sample| sample.saturating_abs())
        .max()
        .unwrap_or(0);
    (rising as f64 * 48000.0 / pcm.len() as f64, peak)
}

fn assert_tone(pcm: &[i16], seconds: f64, case: &str) {
    let length_ms = pcm.len() as f64 / 48.0;
    assert!(
        (length_ms - seconds * 1000.0).abs() <= 20.0,
        "{case}: {length_ms} ms"
    );
    let (frequency, peak) = measure(&pcm[2400..pcm.len() - 2400]);
    // Whole periods are counted.
    let one_period = 48000.0 / (pcm.len() - 4800) as f64;
    assert!(
        (frequency - 440.0).abs() < one_period + 1.0,
        "{case}: {frequency} Hz"
    );
    assert!((14000..19000).contains(&peak), "{case}: peak {peak}");
}

#[test]
fn wav_of_every_format_rate_and_channel_count_plays_at_pitch_and_length() {
    let pool = DecoderPool::new();
    let mut cases: Vec<_> = WAV_FORMATS
        .iter()
        .map(|(tag, bits)| (*tag, *bits, 8000, 1))
        .collect();
    for rate in [11025, 22050, 44100, 48000, 96000] {
        for channels in [1, 2, 6] {
            cases.push((1, 16, rate, channels));
        }
    }
    for (tag, bits, rate, channels) in cases {
        let file = wav(tag, bits, rate, channels, &tone_at(rate, 0.5));
        let mut feed = play(&pool, request(), &file).expect("plays");
        let (pcm, end) = drain(&mut feed);
        assert_eq!(end, FeedProgress::Ended);
        assert_tone(
            &pcm,
            0.5,
            &format!("format {tag}/{bits}, {rate} Hz, {channels} channels"),
        );
    }
}

#[test]
fn compressed_formats_play_at_pitch_and_length() {
    let pool = DecoderPool::new();
    for (name, bytes) in FIXTURES {
        let mut feed = play(&pool, request(), bytes).expect(name);
        let (pcm, end) = drain(&mut feed);
        assert_eq!(end, FeedProgress::Ended, "{name}: {:?}", feed.failure());
        assert_tone(&pcm, 1.0, name);
    }
}

#[test]
fn a_file_is_played_again_as_often_as_asked() {
    let pool = DecoderPool::new();
    let looped = PlayRequest {
        loop_count: Some(2),
        ..request()
    };
    for (name, bytes) in FIXTURES {
        let mut feed = play(&pool, looped.clone(), bytes).expect(name);
        let (pcm, end) = drain(&mut feed);
        assert_eq!(end, FeedProgress::Ended);
        let seconds = pcm.len() as f64 / 48000.0;
        assert!((seconds - 3.0).abs() < 0.06, "{name}: {seconds} s");
    }
    let endless = PlayRequest {
        loop_count: None,
        ..request()
    };
    let mut feed = play(&pool, endless, FIXTURES[1].1).expect("plays");
    let mut out = [0; 960];
    let deadline = Instant::now() + DEADLINE;
    let mut heard = 0;
    while heard < 48000 * 10 {
        assert!(Instant::now() < deadline);
        heard += feed.pop(&mut out);
    }
}

#[test]
fn a_handful_of_samples_is_repeated_without_opening_the_file_again() {
    let pool = DecoderPool::new();
    let short = wav(1, 16, 48000, 1, &tone_at(48000, 1.0)[..10]);
    let often = PlayRequest {
        loop_count: Some(9_999),
        ..request()
    };
    let mut feed = play(&pool, often, &short).expect("plays");
    let (pcm, end) = drain(&mut feed);
    assert_eq!((pcm.len(), end), (100_000, FeedProgress::Ended));
    assert!(pcm.chunks(10).all(|play| play == &pcm[..10]));
    feed.seek(0);
    let (pcm, _) = drain(&mut feed);
    assert_eq!(pcm.len(), 10, "all plays were over");
}

#[test]
fn headers_that_promise_the_impossible_are_refused_or_end() {
    let pool = DecoderPool::new();
    let good = wav(1, 16, 8000, 1, &tone_at(8000, 0.1));
    // Offset in the header and bytes: format, channels, rate, block, bits, data length.
    let lies: [(usize, &[u8]); 12] = [
        (20, &[0xff, 0xff]),
        (22, &[0, 0]),
        (22, &[0xff, 0xff]),
        (24, &[0, 0, 0, 0]),
        (24, &[1, 0, 0, 0]),
        (24, &[0xff, 0xff, 0xff, 0xff]),
        (32, &[0, 0]),
        (32, &[0xff, 0xff]),
        (34, &[0, 0]),
        (34, &[0xff, 0xff]),
        (40, &[0xff, 0xff, 0xff, 0xff]),
        (4, &[0, 0, 0, 0]),
    ];
    for (at, bytes) in lies {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        if let Ok(mut feed) = play(&pool, request(), &file) {
            let mut out = [0; 960];
            let deadline = Instant::now() + DEADLINE;
            let mut heard = 0;
            // One sample per second makes this long; a minute of it will do.
            while heard < 48000 * 60 {
                assert!(Instant::now() < deadline, "{at}: {bytes:?}");
                let progress = feed.progress();
                let popped = feed.pop(&mut out);
                heard += popped;
                let over = matches!(progress, FeedProgress::Ended | FeedProgress::Failed);
                if over && popped == 0 {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_start_and_a_seek_leave_out_what_is_before() {
    let pool = DecoderPool::new();
    let mut all: Vec<(&str, Vec<u8>)> = FIXTURES
        .iter()
        .map(|(name, bytes)| (*name, bytes.to_vec()))
        .collect();
    all.push(("wav", wav(1, 16, 8000, 1, &tone_at(8000, 1.0))));
    for (name, bytes) in &all {
        let later = PlayRequest {
            start_ms: 400,
            ..request()
        };
        let mut feed = play(&pool, later, bytes).expect(name);
        let (pcm, _) = drain(&mut feed);
        assert_tone(&pcm, 0.6, &format!("{name} from 400 ms"));

        let mut feed = play(&pool, request(), bytes).expect(name);
        let mut out = [0; 960];
        feed.pop(&mut out);
        feed.seek(700);
        let (pcm, end) = drain(&mut feed);
        assert_eq!(end, FeedProgress::Ended);
        assert_tone(&pcm, 0.3, &format!("{name} sought to 700 ms"));
        feed.seek(100);
        let (pcm, _) = drain(&mut feed);
        assert_tone(
            &pcm,
            0.9,
            &format!("{name} sought back to 100 ms after its end"),
        );
        feed.seek(3_600_000);
        let (pcm, end) = drain(&mut feed);
        assert_eq!(
            (pcm.len(), end),
            (0, FeedProgress::Ended),
            "{name} past its end"
        );
    }
}

#[test]
fn a_shared_file_is_joined_until_its_last_sample_was_heard_and_not_after() {
    let pool = DecoderPool::new();
    let shared = PlayRequest {
        shared: true,
        ..request()
    };
    let bytes = wav(1, 16, 8000, 1, &tone_at(8000, 0.5));
    let mut first = play(&pool, shared.clone(), &bytes).expect("plays");
    let deadline = Instant::now() + DEADLINE;
    while first.progress() != FeedProgress::Ended {
        assert!(Instant::now() < deadline, "not decoded");
        std::thread::yield_now();
    }
    let mut heard = [0; 4800];
    assert_eq!(first.pop(&mut heard), 4800);
    let mut second = play(&pool, shared.clone(), &bytes).expect("plays");
    assert_eq!(second.playback_id(), first.playback_id());
    let (rest, _) = drain(&mut first);
    assert_eq!(drain(&mut second).0, rest);
    assert!((19_000..=19_300).contains(&rest.len()), "{}", rest.len());
    // Heard to its end.
    let third = play(&pool, shared.clone(), &bytes).expect("plays");
    assert_ne!(third.playback_id(), first.playback_id());
    // Left by all.
    let left = third.playback_id();
    drop((first, second, third));
    let mut again = play(&pool, shared, &bytes).expect("plays");
    assert_ne!(again.playback_id(), left);
    assert!((23_800..=24_100).contains(&drain(&mut again).0.len()));
    assert_eq!(pool.decodes_begun(), 3);
}

#[test]
fn fifty_listeners_of_a_shared_file_cost_one_decode() {
    let pool = DecoderPool::new();
    let shared = PlayRequest {
        shared: true,
        loop_count: None,
        ..request()
    };
    let feeds: Vec<_> = (0..50)
        .map(|_| play(&pool, shared.clone(), FIXTURES[1].1).expect("plays"))
        .collect();
    let deadline = Instant::now() + DEADLINE;
    // The one decode is out of the queue while it is being worked on.
    while pool.decode_count() != 1 {
        assert!(Instant::now() < deadline, "{} decodes", pool.decode_count());
        std::thread::yield_now();
    }
    let mut first = feeds;
    let mut other = first.split_off(1);
    let mut out = [[0; 960]; 2];
    for _ in 0..40 {
        while first[0].pop(&mut out[0]) == 0 {}
        assert_eq!(other[0].pop(&mut out[1]), 960);
        assert_eq!(out[0], out[1]);
    }
    drop((first, other));
    while pool.decode_count() != 0 {
        assert!(
            Instant::now() < deadline,
            "the decode outlives its listeners"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_no_sound_is_refused() {
    let pool = DecoderPool::new();
    let zeros = vec![0; 100_000];
    let text = b"#!/bin/sh\necho no sound here\n".repeat(100);
    let empty_wav = wav(1, 16, 8000, 1, &[]);
    for bytes in [&b""[..], &b"RIFF"[..], &zeros, &text, &empty_wav] {
        assert!(
            play(&pool, request(), bytes).is_err(),
            "{} bytes",
            bytes.len()
        );
    }
    let (reply, answer) = mpsc::channel();
    let open = || Err(OpenError::NotRegular);
    pool.play(request(), open, move |feed| {
        reply.send(feed.is_err()).expect("receiver")
    });
    assert!(answer.recv_timeout(DEADLINE).expect("answered"));
}

#[test]
fn damaged_and_truncated_files_end_and_hurt_nobody() {
    let pool = DecoderPool::new();
    let mut all: Vec<Vec<u8>> = FIXTURES.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    all.push(wav(1, 16, 8000, 2, &tone_at(8000, 1.0)));
    all.push(wav(3, 32, 48000, 1, &tone_at(48000, 0.2)));
    for bytes in &all {
        for cut in [bytes.len() / 2, bytes.len() - 1, 100, 37] {
            if let Ok(mut feed) = play(&pool, request(), &bytes[..cut.min(bytes.len())]) {
                drain(&mut feed);
            }
        }
        let mut state = 88172645463325252u64;
        for _ in 0..25 {
            let mut damaged = bytes.clone();
            for _ in 0..20 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = state as usize % damaged.len();
                damaged[at] = (state >> 32) as u8;
            }
            if let Ok(mut feed) = play(&pool, request(), &damaged) {
                let mut out = [0; 960];
                let deadline = Instant::now() + DEADLINE;
                // Damage can make a file long; two minutes of it will do.
                let mut heard = 0;
                while heard < 48000 * 120 {
                    assert!(Instant::now() < deadline);
                    let progress = feed.progress();
                    let popped = feed.pop(&mut out);
                    heard += popped;
                    let over = matches!(progress, FeedProgress::Ended | FeedProgress::Failed);
                    if over && popped == 0 {
                        break;
                    }
                }
            }
        }
    }
}
