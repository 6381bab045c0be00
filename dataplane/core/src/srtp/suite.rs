//! What each protection suite is made of: key, salt and tag sizes (RFC 4568 section 6.2, RFC 7714
//! section 14.2) and its number in DTLS (RFC 5764 section 4.1.2, RFC 7714 section 14.2).

pub use rtpbridge_shared::vocab::SrtpSuite;
use webrtc_srtp::protection_profile::ProtectionProfile;

/// The most that protecting an RTP packet adds to it, in bytes, whatever the suite.
pub const MAX_RTP_OVERHEAD: usize = 16;
/// The most that protecting an RTCP packet adds to it, in bytes, whatever the suite.
pub const MAX_RTCP_OVERHEAD: usize = 20;
/// Length of the E flag and index that every SRTCP packet carries (RFC 3711 section 3.4).
pub(super) const RTCP_INDEX_LEN: usize = 4;

/// Master key length of the suite, in bytes.
pub fn key_len(suite: SrtpSuite) -> usize {
    profile(suite).key_len()
}

/// Master salt length of the suite, in bytes.
pub fn salt_len(suite: SrtpSuite) -> usize {
    profile(suite).salt_len()
}

/// Length of the authentication tag of an RTP packet, in bytes.
pub fn rtp_tag_len(suite: SrtpSuite) -> usize {
    let profile = profile(suite);
    profile.rtp_auth_tag_len() + profile.aead_auth_tag_len()
}

/// Length of the authentication tag of an RTCP packet, in bytes. It stays 80 bits in the suite that
/// shortens it for RTP (RFC 4568 section 6.2.2).
pub fn rtcp_tag_len(suite: SrtpSuite) -> usize {
    let profile = profile(suite);
    profile.rtcp_auth_tag_len() + profile.aead_auth_tag_len()
}

/// The suite's number in the DTLS `use_srtp` extension.
pub fn dtls_profile(suite: SrtpSuite) -> u16 {
    profile(suite) as u16
}

/// The suite with this number in the DTLS `use_srtp` extension.
pub fn from_dtls_profile(profile: u16) -> Option<SrtpSuite> {
    SrtpSuite::ALL
        .iter()
        .copied()
        .find(|suite| dtls_profile(*suite) == profile)
}

fn profile(suite: SrtpSuite) -> ProtectionProfile {
    match suite {
        SrtpSuite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        SrtpSuite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpSuite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        SrtpSuite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_rfcs() {
        let sizes: Vec<_> = SrtpSuite::ALL
            .iter()
            .map(|suite| {
                let suite = *suite;
                let (key, salt) = (key_len(suite), salt_len(suite));
                (
                    key,
                    salt,
                    rtp_tag_len(suite),
                    rtcp_tag_len(suite),
                    dtls_profile(suite),
                )
            })
            .collect();
        assert_eq!(
            sizes,
            [
                (32, 12, 16, 16, 8),
                (16, 12, 16, 16, 7),
                (16, 14, 10, 10, 1),
                (16, 14, 4, 10, 2),
            ]
        );
    }

    #[test]
    fn overhead_constants_cover_every_suite() {
        for suite in SrtpSuite::ALL.iter().copied() {
            assert!(rtp_tag_len(suite) <= MAX_RTP_OVERHEAD);
            assert!(rtcp_tag_len(suite) + RTCP_INDEX_LEN <= MAX_RTCP_OVERHEAD);
            assert_eq!(from_dtls_profile(dtls_profile(suite)), Some(suite));
        }
        assert_eq!(from_dtls_profile(0x0005), None);
    }
}
