use super::*;
use crate::codec::probe;

const PAIRS: [(u32, u32); 6] = [
    (8000, 16000),
    (8000, 48000),
    (16000, 8000),
    (16000, 48000),
    (48000, 8000),
    (48000, 16000),
];

/// Converts in 20 ms frames, as media arrives.
fn convert(from: u32, to: u32, pcm: &[i16]) -> Vec<i16> {
    let mut resampler = Resampler::new(from, to).expect("usable rates");
    let mut out = Vec::new();
    for frame in pcm.chunks((from / 50) as usize) {
        resampler.process(frame, &mut out);
    }
    out
}

#[test]
fn speech_band_tones_keep_their_level_and_gain_no_noise() {
    for (from, to) in PAIRS {
        for frequency in [300.0, 1000.0, 2000.0, 3400.0] {
            let out = convert(
                from,
                to,
                &probe::tone(from, frequency, -10.0, from as usize),
            );
            let tone = probe::fit_tone(&out[to as usize / 10..], to, frequency);
            let case = format!("{from} to {to}, {frequency} Hz: {tone:?}");
            assert!((tone.level_dbfs + 10.0).abs() < 0.1, "{case}");
            assert!(tone.snr_db > 70.0, "{case}");
        }
    }
}

#[test]
fn what_the_lower_rate_cannot_carry_is_removed() {
    for (from, to, frequency, alias) in [
        (16000, 8000, 5000.0, 3000.0),
        (48000, 8000, 5000.0, 3000.0),
        (48000, 8000, 9000.0, 1000.0),
        (48000, 16000, 10000.0, 6000.0),
    ] {
        let out = convert(from, to, &probe::tone(from, frequency, -1.0, from as usize));
        let level = probe::level_at(&out[to as usize / 10..], to, alias);
        assert!(
            level < -75.0,
            "{frequency} Hz from {from} to {to} leaves {level} dBFS"
        );
    }
}

#[test]
fn file_rates_come_out_at_the_right_pitch_and_length() {
    for from in [
        8000, 11025, 12345, 22050, 32000, 44100, 88200, 96000, 192_000,
    ] {
        let out = convert(
            from,
            48000,
            &probe::tone(from, 1000.0, -10.0, from as usize * 2),
        );
        assert!(
            (out.len() as i64 - 96000).abs() <= 1,
            "{from}: {} samples",
            out.len()
        );
        let tone = probe::fit_tone(&out[9600..], 48000, 1000.0);
        assert!(
            (tone.level_dbfs + 10.0).abs() < 0.1 && tone.snr_db > 65.0,
            "{from}: {tone:?}"
        );
    }
}

#[test]
fn frames_of_twenty_ms_stay_frames_of_twenty_ms() {
    for (from, to) in PAIRS {
        let mut resampler = Resampler::new(from, to).expect("usable rates");
        for _ in 0..50 {
            let mut out = Vec::new();
            resampler.process(&vec![0; from as usize / 50], &mut out);
            assert_eq!(out.len(), to as usize / 50);
        }
    }
}

#[test]
fn any_cut_of_the_input_gives_the_same_output() {
    let pcm: Vec<i16> = probe::noise(3, 4410).collect();
    let whole = convert(44100, 48000, &pcm);
    let mut resampler = Resampler::new(44100, 48000).expect("usable rates");
    let mut pieces = Vec::new();
    for (at, size) in [(0, 1), (1, 7), (8, 0), (8, 500), (508, 3902)] {
        resampler.process(&pcm[at..at + size], &mut pieces);
    }
    assert_eq!(whole, pieces);
}

#[test]
fn the_delay_is_as_stated() {
    for (from, to) in PAIRS {
        let mut pulse = vec![0; from as usize / 10];
        pulse[0] = 30000;
        let out = convert(from, to, &pulse);
        let peak = (0..out.len())
            .max_by_key(|at| out[*at].abs())
            .expect("samples");
        let delay = Resampler::new(from, to)
            .expect("usable rates")
            .delay_samples();
        let late = peak as f64 - delay;
        assert!(
            late.abs() <= f64::from(to) / f64::from(from).min(f64::from(to)),
            "{from} {to} {peak} {delay}"
        );
        assert!(delay / f64::from(to) <= 0.0025, "{from} {to} {delay}");
    }
}

#[test]
fn absurd_rates_are_refused() {
    for (from, to) in [(0, 8000), (8000, 0), (u32::MAX, 8000), (768_000, 8000)] {
        assert!(Resampler::new(from, to).is_err());
    }
}
