//! The quadrature mirror filters of ITU-T G.722 section 3.1 and 4.4: 16 kHz ⇄ two bands at 8 kHz.
//!
//! Both run over a block at a time: sample by sample, moving the history would cost as much as the
//! filter.

use super::saturate;
use super::tables::QMF_TAPS;

/// Pairs of samples that are filtered at once.
pub(super) const BLOCK: usize = 160;
/// Samples that one output depends on.
const TAPS: usize = 24;
/// What of them the last block leaves for the next.
const KEPT: usize = TAPS - 2;

/// Taps for the earlier sample of each pair, none for the later.
const EARLIER: [i16; TAPS] = taps(1, 0);
/// Taps for the later sample of each pair, in reverse, none for the earlier.
const LATER: [i16; TAPS] = taps(0, 1);
const SUM: [i16; TAPS] = taps(1, 1);
const DIFFERENCE: [i16; TAPS] = taps(-1, 1);

/// Samples of a block and of what precedes it.
type Block = [i16; KEPT + 2 * BLOCK];

/// Splits 16 kHz into two bands.
#[derive(Clone)]
pub(super) struct Analysis {
    history: [i16; KEPT],
}

/// Joins two bands into 16 kHz.
#[derive(Clone)]
pub(super) struct Synthesis {
    history: [i16; KEPT],
}

impl Analysis {
    /// Silence so far.
    pub(super) const NEW: Self = Self { history: [0; KEPT] };

    /// Takes at most a block of pairs; writes the low and the high band's sample of each, on a 15-bit
    /// scale.
    pub(super) fn split(&mut self, pcm: &[i16], bands: &mut [(i32, i32)]) {
        let mut block = begin(&self.history);
        for (place, sample) in block[KEPT..].iter_mut().zip(pcm) {
            *place = *sample;
        }
        for (bands, window) in bands.iter_mut().zip(windows(&block)) {
            *bands = (dot(window, &SUM) >> 14, dot(window, &DIFFERENCE) >> 14);
        }
        keep(&mut self.history, &block, pcm.len());
    }
}

impl Synthesis {
    /// Silence so far.
    pub(super) const NEW: Self = Self { history: [0; KEPT] };

    /// Takes at most a block of samples of each band, within 15 bits; writes two 16-bit samples for
    /// each pair.
    pub(super) fn join(&mut self, bands: &[(i32, i32)], pcm: &mut [i16]) {
        let mut block = begin(&self.history);
        for (pair, (low, high)) in block[KEPT..].chunks_exact_mut(2).zip(bands) {
            // Both are within 15 bits, so the casts keep the values.
            (pair[0], pair[1]) = ((low + high) as i16, (low - high) as i16);
        }
        for (pair, window) in pcm.chunks_exact_mut(2).zip(windows(&block)) {
            pair[0] = to_sample(dot(window, &LATER) >> 11);
            pair[1] = to_sample(dot(window, &EARLIER) >> 11);
        }
        keep(&mut self.history, &block, bands.len() * 2);
    }
}

fn begin(history: &[i16; KEPT]) -> Block {
    let mut block = [0; KEPT + 2 * BLOCK];
    block[..KEPT].copy_from_slice(history);
    block
}

/// What the output for each pair depends on.
fn windows(block: &Block) -> impl Iterator<Item = &[i16; TAPS]> {
    let windows = block.windows(TAPS).step_by(2);
    windows.filter_map(|window| window.first_chunk())
}

/// Keeps the end of what precedes the next block, after `count` samples.
fn keep(history: &mut [i16; KEPT], block: &Block, count: usize) {
    if let Some(last) = block.get(count..count + KEPT) {
        history.copy_from_slice(last);
    }
}

fn dot(window: &[i16; TAPS], taps: &[i16; TAPS]) -> i32 {
    let mut sum = 0;
    for (sample, tap) in window.iter().zip(taps) {
        sum += i32::from(*sample) * i32::from(*tap);
    }
    sum
}

const fn taps(earlier: i16, later: i16) -> [i16; TAPS] {
    let mut taps = [0; TAPS];
    let mut pair = 0;
    while pair < TAPS / 2 {
        taps[2 * pair] = earlier * QMF_TAPS[pair];
        taps[2 * pair + 1] = later * QMF_TAPS[TAPS / 2 - 1 - pair];
        pair += 1;
    }
    taps
}

fn to_sample(value: i32) -> i16 {
    // Saturated just before, so the cast keeps the value.
    saturate(value) as i16
}
