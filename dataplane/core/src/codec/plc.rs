//! Concealment for codecs that bring none: the last pitch period is repeated and faded (the idea of
//! ITU-T G.711 Appendix I, without its delay).
//!
//! Works on PCM at any rate. Knows nothing of packets: `conceal` stands in for what is missing,
//! `accept` joins what comes after.

/// Shortest and longest pitch period looked for, and how long a repetition may last before it has
/// faded to nothing.
const MIN_PERIOD_US: usize = 2500;
const MAX_PERIOD_US: usize = 15000;
const HOLD_US: usize = 10_000;
const FADE_US: usize = 60_000;
/// Over which what comes after a gap is cross-faded with the repetition.
const JOIN_US: usize = 4000;

/// The recent past of one stream.
#[derive(Clone)]
pub struct Concealer {
    rate_hz: u32,
    /// The last two longest periods, oldest first.
    history: Vec<i16>,
    /// Period being repeated and samples made since the gap began.
    gap: Option<Gap>,
}

#[derive(Clone, Copy)]
struct Gap {
    period: usize,
    made: usize,
    /// What the first repeated sample misses of the last true one; faded over the join time.
    step: f32,
}

impl Concealer {
    /// A concealer with silence behind it.
    pub fn new(rate_hz: u32) -> Self {
        let length = samples(rate_hz, 2 * MAX_PERIOD_US);
        Self {
            rate_hz,
            history: vec![0; length],
            gap: None,
        }
    }

    /// Fills `out` with a continuation of what was last accepted.
    pub fn conceal(&mut self, out: &mut [i16]) {
        let mut gap = self.gap.unwrap_or_else(|| self.begin_gap());
        for sample in out.iter_mut() {
            *sample = self.continuation(&gap);
            gap.made += 1;
        }
        self.gap = Some(gap);
    }

    /// Takes true samples. The first after a gap are cross-faded, so that no edge is heard.
    pub fn accept(&mut self, pcm: &mut [i16]) {
        if let Some(mut gap) = self.gap.take() {
            let join = samples(self.rate_hz, JOIN_US).min(pcm.len());
            for (at, sample) in pcm.iter_mut().take(join).enumerate() {
                let weight = (at + 1) as f32 / (join + 1) as f32;
                let made = f32::from(self.continuation(&gap));
                *sample = (made + weight * (f32::from(*sample) - made)).round() as i16;
                gap.made += 1;
            }
        }
        let length = self.history.len();
        if pcm.len() >= length {
            self.history.copy_from_slice(&pcm[pcm.len() - length..]);
        } else {
            self.history.copy_within(pcm.len().., 0);
            self.history[length - pcm.len()..].copy_from_slice(pcm);
        }
    }

    fn begin_gap(&self) -> Gap {
        let period = pitch_period(&self.history, self.rate_hz);
        let length = self.history.len();
        // Where a perfect repetition would put the last true sample, against where it was.
        let step =
            f32::from(self.history[length - 1]) - f32::from(self.history[length - 1 - period]);
        Gap {
            period,
            made: 0,
            step,
        }
    }

    fn continuation(&self, gap: &Gap) -> i16 {
        let start = self.history.len() - gap.period;
        let repeated = f32::from(self.history[start + gap.made % gap.period]);
        let join = samples(self.rate_hz, JOIN_US) as f32;
        let edge = gap.step * (1.0 - gap.made as f32 / join).max(0.0);
        let hold = samples(self.rate_hz, HOLD_US) as f32;
        let end = samples(self.rate_hz, FADE_US) as f32;
        let gain = ((end - gap.made as f32) / (end - hold)).clamp(0.0, 1.0);
        ((repeated + edge) * gain).round() as i16
    }
}

/// The lag at which the end of `history` best resembles what stands before it.
pub(crate) fn pitch_period(history: &[i16], rate_hz: u32) -> usize {
    let longest = samples(rate_hz, MAX_PERIOD_US).min(history.len() / 2);
    let shortest = samples(rate_hz, MIN_PERIOD_US).min(longest);
    // Compared over a longest period; at high rates a coarse search comes first.
    let stride = (rate_hz as usize / 8000).max(1);
    let coarse = best_lag(
        history,
        longest,
        (shortest..=longest).step_by(stride),
        stride,
    );
    let near = coarse.saturating_sub(stride).max(shortest)..=(coarse + stride).min(longest);
    best_lag(history, longest, near, 1)
}

fn best_lag(
    history: &[i16],
    span: usize,
    lags: impl Iterator<Item = usize>,
    stride: usize,
) -> usize {
    let recent = &history[history.len() - span..];
    let mut best = (f32::MIN, span);
    for lag in lags {
        let earlier = &history[history.len() - span - lag..history.len() - lag];
        let (mut product, mut energy) = (0.0f32, 1.0f32);
        for (a, b) in recent.iter().zip(earlier).step_by(stride) {
            product += f32::from(*a) * f32::from(*b);
            energy += f32::from(*b) * f32::from(*b);
        }
        let score = product / energy.sqrt();
        if score > best.0 {
            best = (score, lag);
        }
    }
    best.1
}

fn samples(rate_hz: u32, micros: usize) -> usize {
    rate_hz as usize * micros / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::probe;

    #[test]
    fn a_tone_goes_on_through_one_lost_frame_without_a_click() {
        for rate in [8000, 16000, 48000] {
            let mut pcm = probe::tone(rate, 440.0, -10.0, rate as usize / 5);
            let natural = probe::steepest(&pcm);
            let frame = rate as usize / 50;
            let mut concealer = Concealer::new(rate);
            concealer.accept(&mut pcm[..5 * frame]);
            concealer.conceal(&mut pcm[5 * frame..6 * frame]);
            concealer.accept(&mut pcm[6 * frame..]);
            assert!(
                probe::steepest(&pcm) <= natural * 3 / 2,
                "{rate}: {} {natural}",
                probe::steepest(&pcm)
            );
            let filled = probe::level_at(&pcm[5 * frame..6 * frame], rate, 440.0);
            assert!(filled > -14.0, "{rate}: {filled}");
        }
    }

    #[test]
    fn a_long_gap_fades_to_silence() {
        let mut concealer = Concealer::new(8000);
        concealer.accept(&mut probe::tone(8000, 300.0, -3.0, 800));
        let mut gap = vec![1; 1600];
        concealer.conceal(&mut gap);
        assert!(gap[480..].iter().all(|sample| *sample == 0));
        assert!(probe::steepest(&gap) < 8000);
    }

    #[test]
    fn concealing_in_pieces_is_concealing_at_once() {
        let mut whole = Concealer::new(16000);
        whole.accept(&mut probe::noise(5, 2000).collect::<Vec<_>>());
        let mut pieces = whole.clone();
        let (mut a, mut b) = ([0; 900], [0; 900]);
        whole.conceal(&mut a);
        for part in b.chunks_mut(130) {
            pieces.conceal(part);
        }
        assert_eq!(a, b);
    }

    #[test]
    fn full_scale_noise_never_overflows() {
        let mut concealer = Concealer::new(8000);
        for seed in 0..50 {
            concealer.accept(&mut probe::noise(seed, 160).collect::<Vec<_>>());
            concealer.conceal(&mut [0; 200]);
        }
    }
}
