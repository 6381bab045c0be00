//! Makes a stretch of sound shorter or longer by about one pitch period, cross-fading where it
//! resembles itself best (waveform similarity overlap-add). Pitch and level stay.

const MIN_PERIOD_US: usize = 2500;
const MAX_PERIOD_US: usize = 10_000;
/// Over which both are cross-faded.
const FADE_US: usize = 5000;

/// Takes one period out near the beginning; leaves `pcm` alone when it is too short.
pub(super) fn shorten(pcm: &mut Vec<i16>, rate_hz: u32) {
    let Some((period, fade)) = similar_period(pcm, rate_hz) else {
        return;
    };
    for at in 0..fade {
        pcm[at] = cross(pcm[at], pcm[at + period], at, fade);
    }
    pcm.drain(fade..fade + period);
}

/// Puts one period in near the beginning; leaves `pcm` alone when it is too short.
pub(super) fn lengthen(pcm: &mut Vec<i16>, rate_hz: u32) {
    let Some((period, fade)) = similar_period(pcm, rate_hz) else {
        return;
    };
    let length = pcm.len();
    pcm.resize(length + period, 0);
    pcm.copy_within(..length, period);
    // Now the sound stands at `period`; what precedes it is its own beginning, faded into it.
    for at in 0..fade {
        // `pcm[at + 2 * period]` is what followed originally, `pcm[at + period]` the repetition.
        let original = pcm[at + 2 * period];
        pcm[at + period] = cross(original, pcm[at + period], at, fade);
    }
}

/// The lag at which the beginning comes back best, and over how much to fade.
fn similar_period(pcm: &[i16], rate_hz: u32) -> Option<(usize, usize)> {
    let samples = |micros: usize| rate_hz as usize * micros / 1_000_000;
    let fade = samples(FADE_US);
    let longest = samples(MAX_PERIOD_US).min(pcm.len().checked_sub(fade)?);
    let shortest = samples(MIN_PERIOD_US);
    if longest < shortest || shortest == 0 {
        return None;
    }
    let coarse = (rate_hz as usize / 8000).max(1);
    let near = best_lag(pcm, fade, (shortest..=longest).step_by(coarse), coarse);
    let around = near.saturating_sub(coarse).max(shortest)..=(near + coarse).min(longest);
    Some((best_lag(pcm, fade, around, 1), fade))
}

fn best_lag(pcm: &[i16], span: usize, lags: impl Iterator<Item = usize>, stride: usize) -> usize {
    let mut best = (f32::MAX, 0);
    for lag in lags {
        let mut difference = 0.0;
        for (a, b) in pcm[..span]
            .iter()
            .zip(&pcm[lag..lag + span])
            .step_by(stride)
        {
            difference += (f32::from(*a) - f32::from(*b)).powi(2);
        }
        // Of equally good lags the longest, which moves the delay most.
        if difference <= best.0 {
            best = (difference, lag);
        }
    }
    best.1
}

fn cross(from: i16, to: i16, at: usize, length: usize) -> i16 {
    let weight = (at + 1) as f32 / (length + 1) as f32;
    (f32::from(from) + weight * (f32::from(to) - f32::from(from))).round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::probe;

    #[test]
    fn tones_are_changed_in_length_alone() {
        for rate in [8000u32, 16000, 48000] {
            for frequency in [200.0, 440.0, 1000.0] {
                let pcm = probe::tone(rate, frequency, -10.0, rate as usize / 50);
                let natural = probe::steepest(&pcm);
                let mut shorter = pcm.clone();
                shorten(&mut shorter, rate);
                let mut longer = pcm.clone();
                lengthen(&mut longer, rate);
                assert!(shorter.len() < pcm.len() && longer.len() > pcm.len());
                for (changed, name) in [(shorter, "shorter"), (longer, "longer")] {
                    let steep = probe::steepest(&changed);
                    assert!(
                        steep <= natural * 5 / 4,
                        "{rate} {frequency} {name}: {steep} {natural}"
                    );
                    assert_eq!(changed[changed.len() - 1], pcm[pcm.len() - 1]);
                }
            }
        }
    }

    #[test]
    fn what_is_too_short_is_left_alone() {
        for length in [0, 1, 50] {
            let mut pcm = vec![5; length];
            shorten(&mut pcm, 8000);
            lengthen(&mut pcm, 8000);
            assert_eq!(pcm.len(), length);
        }
    }
}
