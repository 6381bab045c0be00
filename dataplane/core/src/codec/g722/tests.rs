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
