//! The quadrature mirror filters of ITU-T G.722 section 3.1 and 4.4: 16 kHz ⇄ two bands at 8 kHz.

use super::saturate;
use super::tables::QMF_TAPS;

/// Splits 16 kHz into two bands; holds the last 24 input samples.
#[derive(Clone, Default)]
pub(super) struct Analysis {
    history: [i32; 24],
}

impl Analysis {
    /// Takes two 16-bit samples; returns the low and the high band's sample on a 15-bit scale.
    pub(super) fn split(&mut self, first: i16, second: i16) -> (i32, i32) {
        let (even, odd) = filter(&mut self.history, i32::from(first), i32::from(second));
        ((even + odd) >> 14, (even - odd) >> 14)
    }
}

/// Joins two bands into 16 kHz; holds the last 12 sums and differences.
#[derive(Clone, Default)]
pub(super) struct Synthesis {
    history: [i32; 24],
}

impl Synthesis {
    /// Takes one sample of each band; returns two 16-bit samples.
    pub(super) fn join(&mut self, low: i32, high: i32) -> (i16, i16) {
        let (even, odd) = filter(&mut self.history, low + high, low - high);
        (to_sample(even >> 11), to_sample(odd >> 11))
    }
}

/// Shifts two samples into the history and returns both polyphase sums: of the later samples of each
/// pair against the taps in reverse, and of the earlier ones against the taps in order.
fn filter(history: &mut [i32; 24], first: i32, second: i32) -> (i32, i32) {
    // Copies of a known length stay in registers; this runs for every sample.
    let mut moved = [0; 24];
    moved[..22].copy_from_slice(&history[2..]);
    (moved[22], moved[23]) = (first, second);
    *history = moved;
    let mut odd = 0;
    let mut even = 0;
    for (pair, (tap, mirrored)) in history
        .chunks_exact(2)
        .zip(QMF_TAPS.iter().zip(QMF_TAPS.iter().rev()))
    {
        odd += pair[0] * tap;
        even += pair[1] * mirrored;
    }
    (even, odd)
}

fn to_sample(value: i32) -> i16 {
    // Saturated just before, so the cast keeps the value.
    saturate(value) as i16
}
