//! The certificate that every handshake of this process shows: self-signed ECDSA P-256, made at
//! start and kept in memory only. Peers know it by the fingerprint in our descriptions (RFC 8122).

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rtpbridge_core::sdp::{Fingerprint, FingerprintHash};
use webrtc_dtls::crypto::{self, CryptoPrivateKey, CryptoPrivateKeyKind};

/// Certificate, private key and fingerprint.
pub(super) struct Certificate {
    chain: crypto::Certificate,
    fingerprint: Fingerprint,
}

/// Why the certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// Generating or signing failed.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The key just made was not accepted.
    #[error("cannot use the certificate's key: {0}")]
    Key(String),
}

impl Certificate {
    pub(super) fn generate() -> Result<Self, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "rtpbridge");
        let der = params.self_signed(&key)?.der().clone();
        let fingerprint = fingerprint_of(FingerprintHash::Sha256, &der);
        let serialized_der = key.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &serialized_der,
            &SystemRandom::new(),
        )
        .map_err(|rejected| CertificateError::Key(rejected.to_string()))?;
        Ok(Self {
            chain: crypto::Certificate {
                certificate: vec![der],
                private_key: CryptoPrivateKey {
                    kind: CryptoPrivateKeyKind::Ecdsa256(key),
                    serialized_der,
                },
            },
            fingerprint,
        })
    }

    pub(super) const fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// A copy in the form that the `dtls` crate takes.
    pub(super) fn chain(&self) -> crypto::Certificate {
        self.chain.clone()
    }
}

/// The fingerprint of a certificate in DER.
pub(super) fn fingerprint_of(hash: FingerprintHash, der: &[u8]) -> Fingerprint {
    let algorithm = match hash {
        FingerprintHash::Sha256 => &digest::SHA256,
        FingerprintHash::Sha384 => &digest::SHA384,
        FingerprintHash::Sha512 => &digest::SHA512,
    };
    Fingerprint {
        hash,
        digest: digest::digest(algorithm, der).as_ref().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_makes_another_certificate() {
        let one = Certificate::generate().expect("certificate");
        let two = Certificate::generate().expect("certificate");
        assert_ne!(one.fingerprint(), two.fingerprint());
        assert_eq!(one.fingerprint().digest.len(), 32);
        let der = &one.chain().certificate[0];
        assert_eq!(
            one.fingerprint(),
            &fingerprint_of(FingerprintHash::Sha256, der)
        );
        assert_eq!(
            fingerprint_of(FingerprintHash::Sha384, der).digest.len(),
            48
        );
        assert_eq!(
            fingerprint_of(FingerprintHash::Sha512, der).digest.len(),
            64
        );
    }
}
