use super::*;

fn random_key(suite: SrtpSuite) -> MasterKey {
    let bytes: [u8; 44] = rand::random();
    MasterKey::new(suite, &bytes[..crate::srtp::master_len(suite)]).expect("length fits")
}

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).expect("hex")
}

fn gcm_keys(key_len: usize) -> SessionKeys {
    let algorithm = if key_len == 32 {
        &AES_256_GCM
    } else {
        &AES_128_GCM
    };
    let key: Vec<u8> = (0..key_len as u8).collect();
    let salt: [u8; 12] = *b"Quid pro quo";
    let cipher = || Cipher::gcm(algorithm, &key, Zeroizing::new(salt));
    SessionKeys {
        rtp: cipher(),
        rtcp: cipher(),
    }
}

fn cm_cipher(key: &str, salt: &str) -> Cm {
    let key: [u8; 16] = bytes(key).try_into().expect("16 bytes");
    let salt: [u8; 14] = bytes(salt).try_into().expect("14 bytes");
    match Cipher::cm(&key, &[0; 20], Zeroizing::new(salt), 10) {
        Cipher::Cm(cm) => *cm,
        Cipher::Gcm(_) => unreachable!("made as counter mode"),
    }
}

const RTP_7714: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 \
                        69736120 696e2070 61727465 73207472 6573";
const RTCP_7714: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 \
                         deadbeef deadbeef deadbeef deadbeef deadbeef";

fn check_rtp(key_len: usize, sealed: &str) {
    let keys = gcm_keys(key_len);
    let clear = bytes(RTP_7714);
    let mut packet = clear.clone();
    packet.resize(clear.len() + 16, 0);
    keys.seal_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b);
    assert_eq!(packet, bytes(sealed));
    let len = keys
        .open_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b)
        .expect("authentic");
    assert_eq!(packet[..len], clear);
}

fn check_rtcp(key_len: usize, sealed: &str) {
    let keys = gcm_keys(key_len);
    let clear = bytes(RTCP_7714);
    let mut packet = clear.clone();
    packet.resize(clear.len() + 20, 0);
    keys.seal_rtcp(&mut packet, 0x4d61_7273, 0x5d4);
    assert_eq!(packet, bytes(sealed));
    assert_eq!(keys.rtcp_index(&packet), Some(0x5d4));
    let len = keys
        .open_rtcp(&mut packet, 0x4d61_7273, 0x5d4)
        .expect("authentic");
    assert_eq!(packet[..len], clear);
}

#[test]
fn rfc_7714_section_16_rtp_under_aes_128_gcm() {
    check_rtp(
        16,
        "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f \
         42a5f47a 51c7d19b 36de3adf 8833 899d7f27 beb16a91 52cf765e e4390cce",
    );
}

#[test]
fn rfc_7714_section_16_rtp_under_aes_256_gcm() {
    check_rtp(
        32,
        "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 \
         b50b2a02 76ffae0f 1ba63799 b87b 7aa3db36 dfffd6b0 f9bb7878 d7a76c13",
    );
}

#[test]
fn rfc_7714_section_17_rtcp_under_aes_128_gcm() {
    check_rtcp(
        16,
        "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 \
         730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
    );
}

#[test]
fn rfc_3711_appendix_b2_key_stream() {
    let cm = cm_cipher(
        "2b7e151628aed2a6abf7158809cf4f3c",
        "f0f1f2f3f4f5f6f7f8f9fafbfcfd",
    );
    let mut stream = vec![0; 0xff02 * 16];
    cm.apply_key_stream(0, 0, &mut stream);
    assert_eq!(
        hex::encode(&stream[..48]),
        "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab\
         41e95b3bb0a2e8dd477901e4fca894c0"
    );
    assert_eq!(
        hex::encode(&stream[0xfeff * 16..]),
        "ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae\
         6a2cc3787889374fbeb4c81b17ba6c44"
    );
}

#[test]
fn packets_shorter_than_their_overhead_are_refused() {
    for suite in SrtpSuite::ALL.iter().copied() {
        let master = random_key(suite);
        let keys = SessionKeys::derive(&master);
        for len in 0..8 + keys.rtcp_overhead() {
            let mut packet = vec![0xff; len];
            assert_eq!(keys.rtcp_index(&packet), None);
            assert_eq!(keys.open_rtcp(&mut packet, 1, 1), Err(NotAuthentic));
        }
        for len in 12..12 + keys.rtp_overhead() {
            let mut packet = vec![0x80; len];
            assert_eq!(keys.open_rtp(&mut packet, 12, 1, 1), Err(NotAuthentic));
        }
    }
}

#[test]
fn rtcp_in_the_clear_has_no_index() {
    let master = random_key(SrtpSuite::AesCm128HmacSha1_80);
    let keys = SessionKeys::derive(&master);
    let mut packet = vec![0; 40];
    keys.seal_rtcp(&mut packet, 1, 77);
    assert_eq!(keys.rtcp_index(&packet), Some(77));
    packet[40 - 14] &= 0x7f;
    assert_eq!(keys.rtcp_index(&packet), None);
}
