//! G.722 at 64 kbit/s (mode 1): two sub-bands of ADPCM behind a quadrature mirror filter.
//!
//! One byte carries two samples at 16 kHz: six bits for 0–4 kHz, two for 4–8 kHz. Bits are never
//! stolen for data (modes 2 and 3), which RTP does not use (RFC 3551 section 4.5.2). All arithmetic is
//! the integer arithmetic of ITU-T G.722 (sections 3 to 6), on which the two ends' adaptation depends.

mod band;
mod qmf;
mod tables;

use self::band::Band;
use self::qmf::{Analysis, BLOCK, Synthesis};
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
            split: Analysis::NEW,
            low: Band::LOW,
            high: Band::HIGH,
        }
    }
}

impl Default for G722Decoder {
    fn default() -> Self {
        Self {
            join: Synthesis::NEW,
            low: Band::LOW,
            high: Band::HIGH,
        }
    }
}

impl G722Encoder {
    /// Encodes pairs of 16 kHz samples into one byte each; an odd last sample is left out.
    /// Returns the bytes written, at most `out.len()`.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> usize {
        let pairs = (pcm.len() / 2).min(out.len());
        let blocks = pcm[..pairs * 2].chunks(2 * BLOCK);
        for (pcm, out) in blocks.zip(out[..pairs].chunks_mut(BLOCK)) {
            let mut bands = [(0, 0); BLOCK];
            self.split.split(pcm, &mut bands);
            for (byte, (low, high)) in out.iter_mut().zip(bands) {
                *byte = self.encode_high(high) << 6 | self.encode_low(low);
            }
        }
        pairs
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
        let pairs = payload.len().min(out.len() / 2);
        let blocks = payload[..pairs].chunks(BLOCK);
        for (payload, pcm) in blocks.zip(out[..pairs * 2].chunks_mut(2 * BLOCK)) {
            let mut bands = [(0, 0); BLOCK];
            for (bands, byte) in bands.iter_mut().zip(payload) {
                *bands = (self.decode_low(byte & 0x3f), self.decode_high(byte >> 6));
            }
            self.join.join(&bands[..payload.len()], pcm);
        }
        pairs * 2
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
