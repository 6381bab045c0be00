//! The constants of ITU-T G.722 tables 14 to 17 and 20, and the two quantisers that search them.

/// Taps 0, 2, 4… of the 24-tap quadrature mirror filter; the other half is these mirrored (table 11).
pub(super) const QMF_TAPS: [i16; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

/// Decision levels of the low band's 60-level quantiser, in units of the step (table 14).
const LOW_DECISIONS: [u16; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023,
    1121, 1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919,
];

/// The same times sixteen, so that the product's upper half is the level; filled up with what nothing
/// reaches: whole vectors are compared at once.
const LOW_DECISIONS_BY_16: [u16; 32] = {
    let mut levels = [u16::MAX; 32];
    let mut at = 0;
    while at < LOW_DECISIONS.len() {
        levels[at] = LOW_DECISIONS[at] << 4;
        at += 1;
    }
    levels
};

/// Decision level of the high band's 4-level quantiser (table 14).
const HIGH_DECISION: i32 = 564;

/// Output levels of the low band by six-bit code (table 17). Codes 0–3 do not occur in mode 1.
pub(super) const LOW_LEVELS_6BIT: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232,
    -9360, -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776,
    -2400, -2032, -1688, -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280,
    11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776,
    2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];

/// Output levels of the low band by its upper four bits (table 17).
pub(super) const LOW_LEVELS_4BIT: [i32; 16] = [
    0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584,
    1200, 0,
];

/// Output levels of the high band by two-bit code (table 17).
pub(super) const HIGH_LEVELS: [i32; 4] = [-7408, -1616, 7408, 1616];

/// Logarithmic step multipliers of the low band by its upper four bits (tables 15 and 16 joined).
pub(super) const LOW_LOG_MULTIPLIERS: [i32; 16] = [
    -60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60,
];

/// Logarithmic step multipliers of the high band by two-bit code (tables 15 and 16 joined).
pub(super) const HIGH_LOG_MULTIPLIERS: [i32; 4] = [798, -214, 798, -214];

/// Inverse logarithm: 2^(11 + i/32) (table 20).
pub(super) const INVERSE_LOG: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834,
    2896, 2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

/// The six-bit code of a prediction difference (block QUANTL).
pub(super) fn quantize_low(difference: i32, step: i32) -> u8 {
    let magnitude = if difference >= 0 {
        difference
    } else {
        -(difference + 1)
    };
    let interval = low_interval(magnitude as u16, step as u16);
    match (difference >= 0, interval) {
        (true, _) => 61 - interval,
        (false, 0) => 63,
        (false, 1) => 62,
        (false, _) => 33 - interval,
    }
}

/// How many decision levels a magnitude of at most 15 bits reaches.
fn low_interval(magnitude: u16, step: u16) -> u8 {
    let mut reached = 0u16;
    for level in &LOW_DECISIONS_BY_16[..] {
        let level = ((u32::from(*level) * u32::from(step)) >> 16) as u16;
        reached += u16::from(magnitude >= level);
    }
    // Steps beyond the last level are reached with what fills up.
    reached.min(LOW_DECISIONS.len() as u16) as u8
}

/// The two-bit code of a prediction difference (block QUANTH).
pub(super) fn quantize_high(difference: i32, step: i32) -> u8 {
    let magnitude = if difference >= 0 {
        difference
    } else {
        -(difference + 1)
    };
    let outer = magnitude >= (HIGH_DECISION * step) >> 12;
    match (difference >= 0, outer) {
        (true, false) => 3,
        (true, true) => 2,
        (false, false) => 1,
        (false, true) => 0,
    }
}
