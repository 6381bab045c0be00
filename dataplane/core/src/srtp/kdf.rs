//! Session keys out of a master key (RFC 3711 section 4.3, with the AES-256 function of RFC 6188
//! and the 96-bit salts of RFC 7714 section 11). The key derivation rate is always zero.

use aes::cipher::{BlockEncrypt, KeyInit};
use aes::{Aes128Enc, Aes256Enc, Block};
use zeroize::{Zeroize, Zeroizing};

/// What a session key is for: the label of RFC 3711 section 4.3.1 for its key, authentication key
/// and salt.
#[derive(Clone, Copy)]
pub(super) struct Labels {
    pub(super) encryption: u8,
    pub(super) authentication: u8,
    pub(super) salt: u8,
}

pub(super) const RTP: Labels = Labels {
    encryption: 0,
    authentication: 1,
    salt: 2,
};
pub(super) const RTCP: Labels = Labels {
    encryption: 3,
    authentication: 4,
    salt: 5,
};

/// The pseudo-random function keyed with one master key.
pub(super) struct Kdf {
    prf: Prf,
    /// Master salt, zero-padded at the end: 14 bytes of it, or 12 in the AEAD suites.
    salt: Zeroizing<[u8; 16]>,
}

enum Prf {
    Aes128(Box<Aes128Enc>),
    Aes256(Box<Aes256Enc>),
}

impl Kdf {
    /// `master_key` has 16 or 32 bytes and `master_salt` at most 14, as `MasterKey` guarantees.
    pub(super) fn new(master_key: &[u8], master_salt: &[u8]) -> Self {
        let prf = match Aes256Enc::new_from_slice(master_key) {
            Ok(aes) => Prf::Aes256(Box::new(aes)),
            Err(_) => Prf::Aes128(Box::new(
                Aes128Enc::new_from_slice(master_key).expect("master keys have 16 or 32 bytes"),
            )),
        };
        let mut salt = Zeroizing::new([0; 16]);
        salt[..master_salt.len()].copy_from_slice(master_salt);
        Self { prf, salt }
    }

    /// The first `N` bytes of the key stream that belongs to `label`.
    pub(super) fn derive<const N: usize>(&self, label: u8) -> Zeroizing<[u8; N]> {
        let mut out = Zeroizing::new([0; N]);
        for (number, chunk) in (0u16..).zip(out.chunks_mut(16)) {
            let mut block = Block::from(*self.salt);
            block[7] ^= label;
            block[14..].copy_from_slice(&number.to_be_bytes());
            match &self.prf {
                Prf::Aes128(aes) => aes.encrypt_block(&mut block),
                Prf::Aes256(aes) => aes.encrypt_block(&mut block),
            }
            chunk.copy_from_slice(&block[..chunk.len()]);
            block.as_mut_slice().zeroize();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived<const N: usize>(kdf: &Kdf, label: u8) -> String {
        hex::encode(*kdf.derive::<N>(label))
    }

    #[test]
    fn rfc_3711_appendix_b3_session_keys() {
        let key = hex::decode("e1f97a0d3e018be0d64fa32c06de4139").expect("hex");
        let salt = hex::decode("0ec675ad498afeebb6960b3aabe6").expect("hex");
        let kdf = Kdf::new(&key, &salt);
        assert_eq!(
            derived::<16>(&kdf, RTP.encryption),
            "c61e7a93744f39ee10734afe3ff7a087"
        );
        assert_eq!(
            derived::<14>(&kdf, RTP.salt),
            "30cbbc08863d8c85d49db34a9ae1"
        );
        assert_eq!(
            derived::<94>(&kdf, RTP.authentication),
            concat!(
                "cebe321f6ff7716b6fd4ab49af256a15",
                "6d38baa48f0a0acf3c34e2359e6cdbce",
                "e049646c43d9327ad175578ef7227098",
                "6371c10c9a369ac2f94a8c5fbcdddc25",
                "6d6e919a48b610ef17c2041e47403576",
                "6b68642c59bbfc2f34db60dbdfb2",
            )
        );
    }

    #[test]
    fn rfc_6188_section_7_2_session_keys_of_a_256_bit_master_key() {
        let key = hex::decode("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6")
            .expect("hex");
        let salt = hex::decode("3b04803de51ee7c96423ab5b78d2").expect("hex");
        let kdf = Kdf::new(&key, &salt);
        assert_eq!(
            derived::<32>(&kdf, RTP.encryption),
            "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"
        );
        assert_eq!(
            derived::<14>(&kdf, RTP.salt),
            "fa31791685ca444a9e07c6c64e93"
        );
        assert_eq!(
            derived::<20>(&kdf, RTP.authentication),
            "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"
        );
    }
}
