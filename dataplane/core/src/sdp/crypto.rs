//! `a=crypto` lines: SDES keys for SRTP (RFC 4568 section 9, RFC 7714 section 14).
//! Key material is wiped when dropped, never shown by Debug and never part of an error.

use std::fmt;

use rtpbridge_shared::vocab::SrtpSuite;
use zeroize::Zeroizing;

/// Master key and master salt of one direction.
#[derive(Clone, PartialEq, Eq)]
pub struct SdesKey {
    suite: SrtpSuite,
    material: Zeroizing<Vec<u8>>,
}

/// One usable `a=crypto` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CryptoLine {
    /// Pairs a line of the answer with one of the offer.
    pub tag: u32,
    /// Key and salt, and the suite they are for.
    pub key: SdesKey,
    /// Packets that the key may protect, when said.
    pub lifetime: Option<u64>,
}

impl SdesKey {
    /// Longest key and salt of any suite, bytes.
    pub const MAX_LEN: usize = 44;

    /// Takes as much of `random` as the suite needs for key and salt. `random` must come from the
    /// operating system's random source.
    pub fn from_random(suite: SrtpSuite, random: &[u8; Self::MAX_LEN]) -> Self {
        let (used, _) = random.split_at(key_len(suite) + salt_len(suite));
        Self {
            suite,
            material: Zeroizing::new(used.to_vec()),
        }
    }

    /// The suite that the key is for.
    pub const fn suite(&self) -> SrtpSuite {
        self.suite
    }

    /// Master key: 16 or 32 bytes.
    pub fn master_key(&self) -> &[u8] {
        self.material.split_at(key_len(self.suite)).0
    }

    /// Master salt: 14 bytes for AES-CM, 12 for AES-GCM (RFC 7714 section 12).
    pub fn master_salt(&self) -> &[u8] {
        self.material.split_at(key_len(self.suite)).1
    }
}

impl fmt::Debug for SdesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SdesKey")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

const fn key_len(suite: SrtpSuite) -> usize {
    match suite {
        SrtpSuite::AeadAes256Gcm => 32,
        SrtpSuite::AeadAes128Gcm
        | SrtpSuite::AesCm128HmacSha1_80
        | SrtpSuite::AesCm128HmacSha1_32 => 16,
    }
}

const fn salt_len(suite: SrtpSuite) -> usize {
    match suite {
        SrtpSuite::AeadAes256Gcm | SrtpSuite::AeadAes128Gcm => 12,
        SrtpSuite::AesCm128HmacSha1_80 | SrtpSuite::AesCm128HmacSha1_32 => 14,
    }
}
