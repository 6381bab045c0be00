//! G.722 at 64 kbit/s (mode 1): two sub-bands of ADPCM behind a quadrature mirror filter.
//!
//! One byte carries two samples at 16 kHz: six bits for 0–4 kHz, two for 4–8 kHz. Bits are never
//! stolen for data (modes 2 and 3), which RTP does not use (RFC 3551 section 4.5.2). All arithmetic is
//! the integer arithmetic of ITU-T G.722 (sections 3 to 6), on which the two ends' adaptation depends.

mod band;
mod qmf;
mod tables;

use self::band::Band;
use self::qmf::{Analysis, Synthesis};
use self::tables::{HIGH_LEVELS, LOW_LEVELS_4BIT, LOW_LEVELS_6BIT};

/// Encoder state; `Default` is the state after reset.
#[derive(Clone)]
pub struct G722Encoder {
    split: Analysis,
    low: Band,
    high: Band,
}

/// Decoder state; `Default` is the state after reset.
#[derive(Clone)]
pub struct G722Decoder {
    join: Synthesis,
    low: Band,
    high: Band,
}

impl Default for G722Encoder {
    fn default() -> Self {
        Self {
            split: Analysis::default(),
            low: Band::LOW,
            high: Band::HIGH,
        }
    }
}

impl Default for G722Decoder {
    fn default() -> Self {
        Self {
            join: Synthesis::default(),
            low: Band::LOW,
            high: Band::HIGH,
        }
    }
}

impl G722Encoder {
    /// Encodes pairs of 16 kHz samples into one byte each; an odd last sample is left out.
    /// Returns the bytes written, at most `out.len()`.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> usize {
        let mut written = 0;
        for (pair, byte) in pcm.chunks_exact(2).zip(out.iter_mut()) {
            let (low, high) = self.split.split(pair[0], pair[1]);
            *byte = self.encode_high(high) << 6 | self.encode_low(low);
            written += 1;
        }
        written
    }

    fn encode_low(&mut self, sample: i32) -> u8 {
        let difference = saturate(sample - self.low.prediction());
        let code = tables::quantize_low(difference, self.low.step());
        let index4 = usize::from(code >> 2);
        let quantized = (self.low.step() * LOW_LEVELS_4BIT[index4]) >> 15;
        self.low.adapt_low(quantized, index4);
        code
    }

    fn encode_high(&mut self, sample: i32) -> u8 {
        let difference = saturate(sample - self.high.prediction());
        let code = tables::quantize_high(difference, self.high.step());
        let quantized = (self.high.step() * HIGH_LEVELS[usize::from(code)]) >> 15;
        self.high.adapt_high(quantized, usize::from(code));
        code
    }
}

impl G722Decoder {
    /// Decodes each byte into two 16 kHz samples; returns the samples written, at most `out.len()`.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> usize {
        let mut written = 0;
        for (byte, pair) in payload.iter().zip(out.chunks_exact_mut(2)) {
            let low = self.decode_low(byte & 0x3f);
            let high = self.decode_high(byte >> 6);
            (pair[0], pair[1]) = self.join.join(low, high);
            written += 2;
        }
        written
    }

    fn decode_low(&mut self, code: u8) -> i32 {
        let code = usize::from(code);
        let fine = (self.low.step() * LOW_LEVELS_6BIT[code]) >> 15;
        let sample = (self.low.prediction() + fine).clamp(-16384, 16383);
        // Adaptation sees only the four bits that every mode carries.
        let index4 = code >> 2;
        let quantized = (self.low.step() * LOW_LEVELS_4BIT[index4]) >> 15;
        self.low.adapt_low(quantized, index4);
        sample
    }

    fn decode_high(&mut self, code: u8) -> i32 {
        let code = usize::from(code);
        let quantized = (self.high.step() * HIGH_LEVELS[code]) >> 15;
        let sample = (self.high.prediction() + quantized).clamp(-16384, 16383);
        self.high.adapt_high(quantized, code);
        sample
    }
}

fn saturate(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

#[cfg(test)]
mod tests;
