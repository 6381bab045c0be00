use super::probe::{self, ToneFit};
use super::resample::Resampler;
use super::*;

const CODECS: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];

fn settings() -> OpusSettings {
    OpusSettings::default()
}

/// Encodes in 20 ms frames with an encoder of its own, as a peer would.
fn encode_all(codec: Codec, rate_hz: u32, pcm: &[i16]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(codec, rate_hz, &settings()).expect("encoder");
    pcm.chunks_exact(rate_hz as usize / 50)
        .map(|frame| {
            let mut payload = vec![0; MAX_PAYLOAD];
            let length = encoder.encode(frame, &mut payload).expect("encodes");
            payload.truncate(length);
            payload
        })
        .collect()
}

fn decode_all(codec: Codec, rate_hz: u32, payloads: &[Vec<u8>]) -> Vec<i16> {
    let mut decoder = Decoder::new(codec, rate_hz).expect("decoder");
    let mut pcm = Vec::new();
    for payload in payloads {
        let mut out = vec![0; MAX_PACKET_SAMPLES];
        let samples = decoder.decode(payload, &mut out).expect("decodes");
        pcm.extend_from_slice(&out[..samples]);
    }
    pcm
}

/// A party that speaks `source` is heard by one that listens in `target`; what it hears, at the
/// target's own rate.
fn cross(source: Codec, target: Codec, pcm: &[i16]) -> Vec<i16> {
    let spoken = encode_all(source, audio_rate(source), pcm);
    let (decode_hz, encode_hz) = rates_between(source, target);
    let decoded = decode_all(source, decode_hz, &spoken);
    let mut resampled = Vec::new();
    Resampler::new(decode_hz, encode_hz)
        .expect("rates")
        .process(&decoded, &mut resampled);
    let sent = encode_all(target, encode_hz, &resampled);
    decode_all(target, audio_rate(target), &sent)
}

fn cross_tone(source: Codec, target: Codec, frequency: f64, dbfs: f64) -> ToneFit {
    let rate = audio_rate(source);
    let heard = cross(
        source,
        target,
        &probe::tone(rate, frequency, dbfs, rate as usize * 3),
    );
    probe::fit_tone(
        &heard[audio_rate(target) as usize..],
        audio_rate(target),
        frequency,
    )
}

fn pairs() -> impl Iterator<Item = (Codec, Codec)> {
    CODECS
        .into_iter()
        .flat_map(|a| CODECS.into_iter().map(move |b| (a, b)))
}

#[test]
fn a_tone_crosses_every_pair_cleanly() {
    for (source, target) in pairs().filter(|(a, b)| a != b) {
        let tone = cross_tone(source, target, 1000.0, -10.0);
        let opus = source == Codec::Opus || target == Codec::Opus;
        let case = format!("{source} to {target}: {tone:?}");
        assert!(tone.snr_db >= if opus { 30.0 } else { 38.0 }, "{case}");
        assert!((tone.level_dbfs + 10.0).abs() <= 0.5, "{case}");
        assert!(tone.worst_spur_dbfs < -50.0, "{case}");
    }
}

#[test]
fn the_telephone_band_is_flat_across_every_pair() {
    for (source, target) in pairs().filter(|(a, b)| a != b) {
        for frequency in [300.0, 500.0, 1000.0, 2000.0, 3000.0, 3400.0] {
            let tone = cross_tone(source, target, frequency, -10.0);
            let case = format!("{source} to {target} at {frequency} Hz: {tone:?}");
            assert!((tone.level_dbfs + 10.0).abs() <= 1.0, "{case}");
        }
    }
}

#[test]
fn what_eight_khz_cannot_carry_does_not_fold_back() {
    for source in [Codec::G722, Codec::Opus] {
        for target in [Codec::Pcmu, Codec::Pcma] {
            let rate = audio_rate(source);
            let heard = cross(
                source,
                target,
                &probe::tone(rate, 5000.0, -10.0, rate as usize * 2),
            );
            let alias = probe::level_at(&heard[8000..], 8000, 3000.0);
            assert!(alias < -50.0, "{source} to {target}: {alias} dBFS");
            // What is left is the source codec's own noise.
            let power = heard[8000..]
                .iter()
                .map(|s| f64::from(*s).powi(2))
                .sum::<f64>();
            let level = probe::dbfs((power / (heard.len() - 8000) as f64 * 2.0).sqrt());
            assert!(level < -45.0, "{source} to {target}: {level} dBFS in all");
        }
    }
}

#[test]
fn nothing_is_resampled_for_nothing() {
    assert_eq!(rates_between(Codec::Pcmu, Codec::Opus), (8000, 8000));
    assert_eq!(rates_between(Codec::Opus, Codec::Pcma), (8000, 8000));
    assert_eq!(rates_between(Codec::G722, Codec::Opus), (16000, 16000));
    assert_eq!(rates_between(Codec::Opus, Codec::G722), (16000, 16000));
    assert_eq!(rates_between(Codec::Opus, Codec::Opus), (48000, 48000));
    assert_eq!(rates_between(Codec::L16, Codec::Opus), (48000, 48000));
    assert_eq!(rates_between(Codec::Pcmu, Codec::G722), (8000, 16000));
}

#[test]
fn frame_lengths_come_from_the_packet() {
    for (codec, rate, bytes_by_ms) in [
        (Codec::Pcmu, 8000, 8),
        (Codec::Pcma, 8000, 8),
        (Codec::G722, 16000, 8),
        (Codec::L16, 48000, 96),
    ] {
        for ms in [10, 20, 30, 40, 60] {
            let payload = vec![0x55; bytes_by_ms * ms];
            assert_eq!(
                packet_samples(codec, rate, &payload),
                Ok(rate as usize / 1000 * ms)
            );
        }
        assert!(packet_samples(codec, rate, &[]).is_err());
        assert!(packet_samples(codec, rate, &vec![0; bytes_by_ms * 121]).is_err());
    }
    // Table of contents: CELT 20 ms with one, two and three frames.
    assert_eq!(packet_samples(Codec::Opus, 48000, &[0xf8, 0]), Ok(960));
    assert_eq!(packet_samples(Codec::Opus, 8000, &[0xf9, 0, 0]), Ok(320));
    assert_eq!(
        packet_samples(Codec::Opus, 16000, &[0xfb, 3, 0, 0, 0]),
        Ok(960)
    );
    assert!(packet_samples(Codec::Opus, 48000, &[]).is_err());
    assert!(packet_samples(Codec::Opus, 48000, &[0xfb]).is_err());
    assert!(packet_samples(Codec::Opus, 48000, &[0xfb, 63]).is_err());
}

#[test]
fn hostile_payloads_are_errors_or_noise_never_more() {
    let mut out = vec![0; MAX_PACKET_SAMPLES];
    for codec in CODECS {
        for rate in [8000, 16000, 48000] {
            let Ok(mut decoder) = Decoder::new(codec, rate) else {
                continue;
            };
            for seed in 0..300u64 {
                let length = (seed * 37 % 1500) as usize;
                let payload: Vec<u8> = probe::noise(seed + 1, length)
                    .map(|sample| sample as u8)
                    .collect();
                if let Ok(samples) = decoder.decode(&payload, &mut out) {
                    assert!(samples <= rate as usize * 120 / 1000);
                }
                let gap = (rate / 50) as usize;
                decoder.conceal(Some(&payload), &mut out[..gap]).ok();
                decoder.conceal(None, &mut out[..gap]).expect("conceals");
            }
        }
    }
}

#[test]
fn buffers_that_are_too_short_are_an_error() {
    let mut decoder = Decoder::new(Codec::Pcmu, 8000).expect("decoder");
    assert_eq!(
        decoder.decode(&[0; 160], &mut [0; 159]),
        Err(CodecError::Room {
            needed: 160,
            available: 159
        })
    );
    let mut encoder = Encoder::new(Codec::L16, 48000, &settings()).expect("encoder");
    assert!(encoder.encode(&[0; 960], &mut [0; 1919]).is_err());
}

#[test]
fn opus_recovers_a_lost_frame_from_the_next_packet() {
    // Two tones in turn, so that extrapolation alone cannot know the lost frame.
    let mut pcm = Vec::new();
    for (frame, chunk) in probe::tone(16000, 400.0, -10.0, 16000)
        .chunks(320)
        .enumerate()
    {
        let other = probe::tone(16000, 1500.0, -10.0, 320);
        pcm.extend_from_slice(if frame % 10 == 5 { &other } else { chunk });
    }
    let mut encoder = OpusEncoder::new(16000, &settings()).expect("encoder");
    encoder.set_expected_loss(25).expect("set");
    let payloads: Vec<Vec<u8>> = pcm
        .chunks_exact(320)
        .map(|frame| {
            let mut out = vec![0; 1500];
            let length = encoder.encode(frame, &mut out).expect("encodes");
            out.truncate(length);
            out
        })
        .collect();
    let level = |next: Option<&[u8]>| {
        let mut decoder = OpusDecoder::new(16000).expect("decoder");
        let mut out = [0; 320];
        for payload in &payloads[..25] {
            decoder.decode(payload, &mut out).expect("decodes");
        }
        decoder.conceal(next, &mut out).expect("conceals");
        probe::level_at(&out, 16000, 1500.0)
    };
    let with = level(Some(&payloads[26]));
    let without = level(None);
    assert!(
        with > -16.0 && with > without + 10.0,
        "with {with}, without {without}"
    );
}

#[test]
fn opus_goes_quiet_in_silence_when_the_peer_wants_it() {
    let wants = OpusSettings {
        dtx: true,
        ..settings()
    };
    let mut encoder = Encoder::new(Codec::Opus, 16000, &wants).expect("encoder");
    let mut out = [0; 1500];
    let sent = (0..100)
        .filter(|_| encoder.encode(&[0; 320], &mut out).expect("encodes") > 0)
        .count();
    assert!(sent < 40, "{sent} of 100 frames of silence were sent");
}

#[test]
fn values_are_rounded_to_the_nearest_sample_and_never_wrap() {
    for value in -66_000..66_000i32 {
        for fraction in [-0.5, -0.49, 0.0, 0.25, 0.5] {
            let value = value as f32 + fraction;
            assert_eq!(rounded(value), value.round_ties_even() as i16, "{value}");
        }
    }
    assert_eq!(rounded(f32::INFINITY), i16::MAX);
    assert_eq!(rounded(f32::NEG_INFINITY), i16::MIN);
}
