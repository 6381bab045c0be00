//! One sub-band's backward adaptation: quantiser step, and a predictor with two poles and six zeros
//! (ITU-T G.722 sections 3.5 and 3.6, blocks LOGSCL to PREDIC). Both ends run it on the same codes.

use super::saturate;
use super::tables::{HIGH_LOG_MULTIPLIERS, INVERSE_LOG, LOW_LOG_MULTIPLIERS};

/// The six zeros and two places that stay silent: arrays of this length are worked on at once.
const LANES: usize = 8;

/// State of one band.
#[derive(Clone)]
pub(super) struct Band {
    /// The predictor's guess of the next sample.
    prediction: i32,
    /// The zero section's part of the guess.
    zero_part: i32,
    /// Quantiser step.
    step: i32,
    /// Logarithm of the step.
    log_step: i32,
    /// Quantised differences times two, newest first; zeros in the last two places.
    doubled: [i16; LANES],
    zeros: [i16; LANES],
    /// The two latest reconstructed samples, newest first.
    reconstructed: [i32; 2],
    /// The two latest partly reconstructed samples, newest first.
    partial: [i32; 2],
    poles: [i32; 2],
}

impl Band {
    /// The low band after reset.
    pub(super) const LOW: Self = Self::after_reset(32);
    /// The high band after reset.
    pub(super) const HIGH: Self = Self::after_reset(8);

    const fn after_reset(step: i32) -> Self {
        Self {
            prediction: 0,
            zero_part: 0,
            step,
            log_step: 0,
            doubled: [0; LANES],
            zeros: [0; LANES],
            reconstructed: [0; 2],
            partial: [0; 2],
            poles: [0; 2],
        }
    }

    pub(super) fn prediction(&self) -> i32 {
        self.prediction
    }

    pub(super) fn step(&self) -> i32 {
        self.step
    }

    /// Moves on by one low-band sample, given the quantised difference and its four-bit index.
    pub(super) fn adapt_low(&mut self, quantized: i32, index4: usize) {
        let next = ((self.log_step * 127) >> 7) + LOW_LOG_MULTIPLIERS[index4];
        self.log_step = next.clamp(0, 18432);
        self.step = scale(self.log_step, 8);
        self.predict(quantized);
    }

    /// Moves on by one high-band sample, given the quantised difference and its two-bit index.
    pub(super) fn adapt_high(&mut self, quantized: i32, index2: usize) {
        let next = ((self.log_step * 127) >> 7) + HIGH_LOG_MULTIPLIERS[index2];
        self.log_step = next.clamp(0, 22528);
        self.step = scale(self.log_step, 10);
        self.predict(quantized);
    }

    fn predict(&mut self, quantized: i32) {
        let reconstructed = saturate(self.prediction + quantized);
        let partial = saturate(self.zero_part + quantized);
        self.adapt_poles(partial);
        self.adapt_zeros(quantized);

        // A step is at most 16384 and a level less than 1, so the cast keeps the value.
        let newest = quantized as i16;
        let [a, b, c, d, e, ..] = self.doubled;
        self.doubled = [newest.saturating_add(newest), a, b, c, d, e, 0, 0];
        self.reconstructed = [reconstructed, self.reconstructed[0]];
        self.partial = [partial, self.partial[0]];

        let pole_part = saturate(
            self.reconstructed
                .iter()
                .zip(self.poles)
                .map(|(sample, pole)| (saturate(2 * sample) * pole) >> 15)
                .sum(),
        );
        let mut products = [0; LANES];
        for ((product, doubled), zero) in products.iter_mut().zip(self.doubled).zip(self.zeros) {
            *product = (i32::from(doubled) * i32::from(zero)) >> 15;
        }
        self.zero_part = saturate(products.iter().sum());
        self.prediction = saturate(pole_part + self.zero_part);
    }

    /// Blocks UPPOL2 and UPPOL1; `partial` is not yet in the history.
    fn adapt_poles(&mut self, partial: i32) {
        let same_as_last = same_sign(partial, self.partial[0]);
        let same_as_before = same_sign(partial, self.partial[1]);

        let scaled = saturate(4 * self.poles[0]);
        let turned = if same_as_last {
            saturate(-scaled)
        } else {
            scaled
        };
        let nudge = if same_as_before { 128 } else { -128 };
        let second = ((turned >> 7) + nudge + ((self.poles[1] * 32512) >> 15)).clamp(-12288, 12288);

        let nudge = if same_as_last { 192 } else { -192 };
        let limit = 15360 - second;
        let first = (nudge + ((self.poles[0] * 32640) >> 15)).clamp(-limit, limit);
        self.poles = [first, second];
    }

    /// Block UPZERO; `quantized` is not yet in the history.
    fn adapt_zeros(&mut self, quantized: i32) {
        let gain: i16 = if quantized == 0 { 0 } else { 128 };
        let sign = (quantized >> 31) as i16;
        for (zero, difference) in self.zeros.iter_mut().zip(self.doubled) {
            let turned = sign ^ (difference >> 15);
            let nudge = (gain ^ turned) - turned;
            // Times 32640 / 32768, rounded down, within 16 bits.
            let kept = *zero - (*zero >> 8) - i16::from(*zero & 255 != 0);
            *zero = kept.saturating_add(nudge);
        }
    }
}

fn same_sign(a: i32, b: i32) -> bool {
    (a < 0) == (b < 0)
}

/// The linear step of a logarithmic one (blocks SCALEL and SCALEH).
fn scale(log_step: i32, largest_shift: i32) -> i32 {
    let mantissa = INVERSE_LOG[((log_step >> 6) & 31) as usize];
    let shift = largest_shift - (log_step >> 11);
    let linear = if shift < 0 {
        mantissa << -shift
    } else {
        mantissa >> shift
    };
    linear << 2
}
