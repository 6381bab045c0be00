//! Master keys: where they come from and how they are kept. A key is wiped when it is dropped and
//! has no text form here (`sdp::crypto` has the one that the peer is sent).

use std::fmt;

use zeroize::Zeroizing;

use super::suite::{self, SrtpSuite};
use crate::sdp::SdesKey;

const MAX_LEN: usize = 32 + 14;

/// Master key and master salt of one direction, with the suite that they belong to.
#[derive(Clone)]
pub struct MasterKey {
    suite: SrtpSuite,
    bytes: Zeroizing<[u8; MAX_LEN]>,
}

/// Key material has not the length that its suite needs; lengths in bytes of key and salt together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{suite} needs {needed} bytes of key and salt, not {got}")]
pub struct KeyLengthError {
    /// The suite that the material was meant for.
    pub suite: SrtpSuite,
    /// What the suite needs.
    pub needed: usize,
    /// What there was.
    pub got: usize,
}

impl MasterKey {
    /// Takes `key || salt`, the order in which SDES carries them.
    ///
    /// # Errors
    /// [`KeyLengthError`] when the length is not exactly the suite's.
    pub fn new(suite: SrtpSuite, key_and_salt: &[u8]) -> Result<Self, KeyLengthError> {
        let needed = master_len(suite);
        let mut bytes = Zeroizing::new([0; MAX_LEN]);
        match bytes.get_mut(..needed) {
            Some(place) if key_and_salt.len() == needed => place.copy_from_slice(key_and_salt),
            _ => {
                return Err(KeyLengthError {
                    suite,
                    needed,
                    got: key_and_salt.len(),
                });
            }
        }
        Ok(Self { suite, bytes })
    }

    /// Takes key and salt that come apart, as DTLS exports them.
    ///
    /// # Errors
    /// [`KeyLengthError`] when either has not exactly the suite's length.
    pub fn from_parts(suite: SrtpSuite, key: &[u8], salt: &[u8]) -> Result<Self, KeyLengthError> {
        if key.len() != suite::key_len(suite) || salt.len() != suite::salt_len(suite) {
            return Err(KeyLengthError {
                suite,
                needed: master_len(suite),
                got: key.len() + salt.len(),
            });
        }
        let mut joined = Zeroizing::new([0; MAX_LEN]);
        let (key_place, rest) = joined.split_at_mut(key.len());
        key_place.copy_from_slice(key);
        rest[..salt.len()].copy_from_slice(salt);
        Self::new(suite, &joined[..key.len() + salt.len()])
    }

    /// The key of a crypto line, ours or the peer's.
    ///
    /// # Errors
    /// [`KeyLengthError`], never for a key that came out of SDP.
    pub fn from_sdes(key: &SdesKey) -> Result<Self, KeyLengthError> {
        Self::from_parts(key.suite(), key.master_key(), key.master_salt())
    }

    /// The suite that the key is for.
    pub const fn suite(&self) -> SrtpSuite {
        self.suite
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..suite::key_len(self.suite)]
    }

    pub(super) fn salt(&self) -> &[u8] {
        &self.bytes[suite::key_len(self.suite)..master_len(self.suite)]
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// Length of key and salt together, in bytes.
pub fn master_len(suite: SrtpSuite) -> usize {
    suite::key_len(suite) + suite::salt_len(suite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_length_is_refused() {
        for suite in SrtpSuite::ALL.iter().copied() {
            let needed = master_len(suite);
            for got in [0, needed - 1, needed + 1, 200] {
                assert_eq!(
                    MasterKey::new(suite, &vec![7; got]).map(|_| ()),
                    Err(KeyLengthError { suite, needed, got })
                );
            }
            assert!(MasterKey::new(suite, &vec![7; needed]).is_ok());
            assert!(MasterKey::from_parts(suite, &[1; 15], &[2; 15]).is_err());
        }
    }

    #[test]
    fn parts_and_joined_form_are_the_same_key() {
        let joined: Vec<u8> = (0..30).collect();
        let suite = SrtpSuite::AesCm128HmacSha1_80;
        for key in [
            MasterKey::new(suite, &joined),
            MasterKey::from_parts(suite, &joined[..16], &joined[16..]),
        ] {
            let key = key.expect("lengths fit");
            assert_eq!(key.key(), &joined[..16]);
            assert_eq!(key.salt(), &joined[16..]);
        }
    }

    #[test]
    fn debug_shows_no_byte_of_the_key() {
        let suite = SrtpSuite::AeadAes256Gcm;
        let texts = [0, 0xa7].map(|byte| {
            let key = MasterKey::new(suite, &[byte; 44]).expect("length fits");
            format!("{key:?}")
        });
        assert_eq!(texts[0], texts[1]);
    }
}
