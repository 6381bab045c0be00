//! G.711 mu-law and A-law, sample by sample, between 16-bit linear PCM and 8-bit companded PCM.
//!
//! The 14-bit (mu-law) and 13-bit (A-law) scales of ITU-T G.711 are shifted up to 16 bits. Encoding
//! picks the nearest level: the decision values of tables 1 and 2 are the midpoints between levels.

/// The 16-bit level of each mu-law byte (ITU-T G.711 table 2).
static ULAW_LEVELS: [i16; 256] = ulaw_levels();
/// The 16-bit level of each A-law byte (ITU-T G.711 table 1).
static ALAW_LEVELS: [i16; 256] = alaw_levels();

/// 33 on the 14-bit scale: added before companding so that segments start at powers of two.
const ULAW_BIAS: u16 = 33 << 2;
/// The largest magnitude the last mu-law segment can hold.
const ULAW_CLIP: u16 = 32635;

/// The linear value of one mu-law byte.
pub fn decode_ulaw(byte: u8) -> i16 {
    ULAW_LEVELS[usize::from(byte)]
}

/// The linear value of one A-law byte.
pub fn decode_alaw(byte: u8) -> i16 {
    ALAW_LEVELS[usize::from(byte)]
}

/// The mu-law byte nearest to one linear sample.
pub fn encode_ulaw(sample: i16) -> u8 {
    let biased = sample.unsigned_abs().min(ULAW_CLIP) + ULAW_BIAS;
    // Biased values lie in 132..=32767, so the highest set bit is 7..=14.
    let segment = 8 - biased.leading_zeros() as u16;
    let step = (biased >> (segment + 3)) & 0x0f;
    let sign = if sample < 0 { 0x80 } else { 0 };
    !(sign | (segment << 4 | step) as u8)
}

/// The A-law byte nearest to one linear sample.
pub fn encode_alaw(sample: i16) -> u8 {
    // A-law has no zero: -1 is in the first negative step, hence the one's complement.
    let (sign, magnitude) = if sample < 0 {
        (0, !sample as u16)
    } else {
        (0x80, sample as u16)
    };
    let code = if magnitude < 512 {
        magnitude >> 4
    } else {
        let segment = 7 - (magnitude.leading_zeros() as u16 - 1);
        (segment << 4) | ((magnitude >> (segment + 3)) & 0x0f)
    };
    (sign | code as u8) ^ 0x55
}

const fn ulaw_levels() -> [i16; 256] {
    let mut levels = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let code = !(byte as u8);
        let segment = (code >> 4) & 7;
        let step = (code & 0x0f) as i16;
        let magnitude = (((step << 3) + 132) << segment) - 132;
        levels[byte] = if code & 0x80 != 0 {
            -magnitude
        } else {
            magnitude
        };
        byte += 1;
    }
    levels
}

const fn alaw_levels() -> [i16; 256] {
    let mut levels = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let code = byte as u8 ^ 0x55;
        let segment = (code >> 4) & 7;
        let step = ((code & 0x0f) as i16) << 4;
        let magnitude = match segment {
            0 => step + 8,
            _ => (step + 0x108) << (segment - 1),
        };
        levels[byte] = if code & 0x80 != 0 {
            magnitude
        } else {
            -magnitude
        };
        byte += 1;
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_points_of_the_standard() {
        assert_eq!(decode_ulaw(0xff), 0);
        assert_eq!(decode_ulaw(0x80), 32124);
        assert_eq!(decode_ulaw(0x00), -32124);
        assert_eq!(decode_alaw(0xd5), 8);
        assert_eq!(decode_alaw(0xaa), 32256);
        assert_eq!(decode_alaw(0x2a), -32256);
        assert_eq!(encode_ulaw(0), 0xff);
        assert_eq!(encode_ulaw(i16::MIN), 0x00);
        assert_eq!(encode_ulaw(i16::MAX), 0x80);
        assert_eq!(encode_alaw(0), 0xd5);
        assert_eq!(encode_alaw(i16::MIN), 0x2a);
        assert_eq!(encode_alaw(i16::MAX), 0xaa);
    }

    #[test]
    fn every_byte_survives_a_round_trip() {
        for byte in 0..=255u8 {
            // 0x7f is mu-law's second zero.
            if byte != 0x7f {
                assert_eq!(encode_ulaw(decode_ulaw(byte)), byte);
            }
            assert_eq!(encode_alaw(decode_alaw(byte)), byte);
        }
    }

    /// Half the distance between levels where `level` stands.
    fn half_step(level: i16, bias: u16, smallest: i32) -> i32 {
        let segment = (16 - (level.unsigned_abs() + bias).leading_zeros() as i32 - 8).max(0);
        smallest << segment
    }

    #[test]
    fn every_sample_is_coded_within_half_a_step() {
        // The last segments are cut off at full scale, 644 and 512 above their last level.
        for sample in -32256..=32255i16 {
            let ulaw = decode_ulaw(encode_ulaw(sample));
            let error = (i32::from(ulaw) - i32::from(sample)).abs();
            assert!(
                error <= half_step(ulaw, ULAW_BIAS, 4),
                "mu-law {sample} became {ulaw}"
            );
            let alaw = decode_alaw(encode_alaw(sample));
            let error = (i32::from(alaw) - i32::from(sample)).abs();
            assert!(
                error <= half_step(alaw, 0, 8),
                "A-law {sample} became {alaw}"
            );
        }
    }

    #[test]
    fn louder_is_never_coded_quieter() {
        for sample in i16::MIN..i16::MAX {
            assert!(decode_ulaw(encode_ulaw(sample)) <= decode_ulaw(encode_ulaw(sample + 1)));
            assert!(decode_alaw(encode_alaw(sample)) <= decode_alaw(encode_alaw(sample + 1)));
        }
    }
}
