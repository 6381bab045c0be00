use super::*;
use crate::codec::probe;

const RATE: u32 = 16000;

fn round_trip(pcm: &[i16]) -> Vec<i16> {
    let mut bytes = vec![0; pcm.len() / 2];
    let mut out = vec![0; pcm.len()];
    assert_eq!(G722Encoder::default().encode(pcm, &mut bytes), bytes.len());
    assert_eq!(G722Decoder::default().decode(&bytes, &mut out), out.len());
    out
}

#[test]
fn a_tone_in_the_low_band_comes_back_clean() {
    let out = round_trip(&probe::tone(RATE, 1000.0, -10.0, 16000));
    let tone = probe::fit_tone(&out[4000..], RATE, 1000.0);
    assert!((tone.level_dbfs + 10.0).abs() < 0.2, "{tone:?}");
    assert!(tone.snr_db > 40.0, "{tone:?}");
}

#[test]
fn a_tone_in_the_high_band_is_kept() {
    let out = round_trip(&probe::tone(RATE, 6000.0, -10.0, 16000));
    let tone = probe::fit_tone(&out[4000..], RATE, 6000.0);
    assert!((tone.level_dbfs + 10.0).abs() < 0.5, "{tone:?}");
    assert!(tone.snr_db > 15.0, "{tone:?}");
}

#[test]
fn silence_stays_near_silence() {
    let out = round_trip(&[0; 16000]);
    assert!(out[1000..].iter().all(|sample| sample.abs() < 16));
}

#[test]
fn full_scale_noise_and_any_bytes_are_survived() {
    let noise: Vec<i16> = probe::noise(7, 32000).collect();
    round_trip(&noise);
    round_trip(&[i16::MIN; 4000]);
    round_trip(&[i16::MAX; 4000]);
    let bytes: Vec<u8> = noise.iter().map(|sample| *sample as u8).collect();
    let mut out = vec![0; bytes.len() * 2];
    assert_eq!(G722Decoder::default().decode(&bytes, &mut out), out.len());
}

#[test]
fn short_buffers_bound_the_work() {
    let mut out = [0; 3];
    assert_eq!(G722Decoder::default().decode(&[1, 2, 3], &mut out), 2);
    let mut bytes = [0; 1];
    assert_eq!(
        G722Encoder::default().encode(&[1, 2, 3, 4, 5], &mut bytes),
        1
    );
}

/// FNV-1a.
fn digest(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Full scale, where everything saturates, down to what only the last bits carry.
fn mixed(shift: u64) -> Vec<i16> {
    let noise = probe::noise(11 + shift, 32_000);
    let tone = probe::tone(RATE, 700.0, -3.0, 32_000);
    let turns = noise.zip(tone).enumerate();
    turns
        .map(|(n, (noise, tone))| if n / 4000 % 2 == 0 { noise } else { tone } >> shift)
        .collect()
}

/// The digests are those of a plain transcription of the standard's equations, value by value.
#[test]
fn every_bit_is_as_the_standards_arithmetic_has_it() {
    for (shift, coded, decoded) in [
        (0, 0x2103_457a_3a3e_6573, 0xb95e_9a2a_29a6_13b5),
        (4, 0x3d5c_bcc4_4e02_2bd4, 0x5703_6b2e_d698_878d),
        (9, 0x59e4_ba6d_ed0b_0299, 0x9a16_598f_9bb8_70cc),
        (13, 0x0b8f_be22_3c40_ab6f, 0x7cd7_477b_6afa_95ed),
    ] {
        let pcm = mixed(shift);
        let mut bytes = vec![0; 16_000];
        G722Encoder::default().encode(&pcm, &mut bytes);
        assert_eq!(digest(bytes.iter().copied()), coded, "{shift}");
        // Bytes that no encoder makes drive the predictors to their limits.
        let turned = bytes.iter().zip(&pcm);
        let turned = turned
            .map(|(byte, sample)| byte ^ (*sample as u8))
            .collect();
        let mut decoder = G722Decoder::default();
        let mut heard = Vec::new();
        let mut out = vec![0; 32_000];
        for bytes in [&bytes, &turned, &vec![0x5a; 16_000], &vec![0; 16_000]] {
            decoder.decode(bytes, &mut out);
            heard.extend(out.iter().flat_map(|sample| sample.to_le_bytes()));
        }
        assert_eq!(digest(heard.into_iter()), decoded, "{shift}");
    }
}

#[test]
fn how_the_stream_is_cut_makes_no_difference() {
    let pcm = mixed(2);
    let mut whole = vec![0; 16_000];
    G722Encoder::default().encode(&pcm, &mut whole);
    let mut encoder = G722Encoder::default();
    let mut pieces = vec![0; 16_000];
    for (pcm, bytes) in pcm.chunks(2 * 73).zip(pieces.chunks_mut(73)) {
        encoder.encode(pcm, bytes);
    }
    assert!(pieces == whole);
    let (mut at_once, mut by_pieces) = (vec![0; 32_000], vec![0; 32_000]);
    G722Decoder::default().decode(&whole, &mut at_once);
    let mut decoder = G722Decoder::default();
    for (bytes, pcm) in whole.chunks(411).zip(by_pieces.chunks_mut(2 * 411)) {
        decoder.decode(bytes, pcm);
    }
    assert!(by_pieces == at_once);
}
