//! Randomness as the shell hands it in. Keys, SSRCs and sequence bases come from here, so in
//! production it must be the operating system's source; tests seed their own.

/// A source of random bytes.
pub trait Entropy {
    /// Fills `bytes`. There is no failure: a process without randomness must not serve calls.
    fn fill(&mut self, bytes: &mut [u8]);

    /// A random word of 16 bits.
    fn next_u16(&mut self) -> u16 {
        let mut bytes = [0; 2];
        self.fill(&mut bytes);
        u16::from_be_bytes(bytes)
    }

    /// A random word of 32 bits.
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        u32::from_be_bytes(bytes)
    }

    /// A random word of 64 bits.
    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }
}
