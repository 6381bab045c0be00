//! One packet under one session key, in place: AES in counter mode with HMAC-SHA1 (RFC 3711
//! section 4) and AES-GCM (RFC 7714 sections 8 and 9). Which index a packet has, and whether it was
//! seen before, is decided elsewhere. Key schedules are computed once; nothing here allocates per
//! packet; keys are overwritten when dropped.

use std::hint::black_box;

use aes::Aes128Enc;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use ctr::{CtrCore, flavors::Ctr128BE};
use hmac::{Hmac, Mac};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rtpbridge_shared::vocab::SrtpSuite;
use sha1::Sha1;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::kdf::{self, Kdf, Labels};
use super::key::MasterKey;
use super::packet::RTCP_CLEAR_LEN;
use super::suite::{self, RTCP_INDEX_LEN};

const GCM_TAG_LEN: usize = 16;
const GCM_SALT_LEN: usize = 12;
const CM_SALT_LEN: usize = 14;
const CM_AUTH_KEY_LEN: usize = 20;
/// The E flag of an SRTCP packet: its payload is encrypted.
const ENCRYPTED: u32 = 1 << 31;

/// The session keys of one direction.
pub(super) struct SessionKeys {
    rtp: Cipher,
    rtcp: Cipher,
}

enum Cipher {
    Gcm(Box<Gcm>),
    Cm(Box<Cm>),
}

struct Gcm {
    key: LessSafeKey,
    salt: Zeroizing<[u8; GCM_SALT_LEN]>,
}

struct Cm {
    aes: Aes128Enc,
    salt: Zeroizing<[u8; CM_SALT_LEN]>,
    mac: Hmac<Sha1>,
    tag_len: usize,
}

/// The packet is not what the key's owner made, or too short to be anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NotAuthentic;

impl SessionKeys {
    pub(super) fn derive(master: &MasterKey) -> Self {
        let kdf = Kdf::new(master.key(), master.salt());
        let suite = master.suite();
        Self {
            rtp: Cipher::derive(&kdf, suite, kdf::RTP, suite::rtp_tag_len(suite)),
            rtcp: Cipher::derive(&kdf, suite, kdf::RTCP, suite::rtcp_tag_len(suite)),
        }
    }

    /// What protecting adds to an RTP packet, in bytes.
    pub(super) fn rtp_overhead(&self) -> usize {
        self.rtp.tag_len()
    }

    /// What protecting adds to an RTCP packet, in bytes.
    pub(super) fn rtcp_overhead(&self) -> usize {
        self.rtcp.tag_len() + RTCP_INDEX_LEN
    }

    /// Encrypts all of `packet` but its header and its last [`Self::rtp_overhead`] bytes, which
    /// become the tag.
    pub(super) fn seal_rtp(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64) {
        match &self.rtp {
            Cipher::Gcm(gcm) => {
                let end = packet.len() - GCM_TAG_LEN;
                let (header, rest) = packet.split_at_mut(header_len);
                let (payload, tag) = rest.split_at_mut(end - header_len);
                gcm.seal(ssrc, index, header, payload, tag);
            }
            Cipher::Cm(cm) => {
                let (message, tag) = packet.split_at_mut(packet.len() - cm.tag_len);
                cm.apply_key_stream(ssrc, index, &mut message[header_len..]);
                cm.write_tag(message, &roll_over_counter(index), tag);
            }
        }
    }

    /// Undoes [`Self::seal_rtp`] and returns the length without tag. `packet` is as it was when it
    /// is not authentic, except under GCM, where its payload is lost then.
    pub(super) fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, NotAuthentic> {
        let end = packet
            .len()
            .checked_sub(self.rtp.tag_len())
            .ok_or(NotAuthentic)?;
        if header_len > end {
            return Err(NotAuthentic);
        }
        match &self.rtp {
            Cipher::Gcm(gcm) => {
                let (header, sealed) = packet.split_at_mut(header_len);
                gcm.open(ssrc, index, header, sealed)?;
            }
            Cipher::Cm(cm) => {
                let (message, tag) = packet.split_at_mut(end);
                cm.check_tag(message, &roll_over_counter(index), tag)?;
                cm.apply_key_stream(ssrc, index, &mut message[header_len..]);
            }
        }
        Ok(end)
    }

    /// Encrypts all of `packet` but its first 8 bytes and its last [`Self::rtcp_overhead`] bytes,
    /// which become tag and index.
    pub(super) fn seal_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) {
        let trailer = (index | ENCRYPTED).to_be_bytes();
        let (message, overhead) = packet.split_at_mut(packet.len() - self.rtcp_overhead());
        match &self.rtcp {
            Cipher::Gcm(gcm) => {
                let (tag, index_place) = overhead.split_at_mut(GCM_TAG_LEN);
                index_place.copy_from_slice(&trailer);
                let (clear, payload) = message.split_at_mut(RTCP_CLEAR_LEN);
                let aad = rtcp_associated_data(clear, trailer);
                gcm.seal(ssrc, index.into(), &aad, payload, tag);
            }
            Cipher::Cm(cm) => {
                let (index_place, tag) = overhead.split_at_mut(RTCP_INDEX_LEN);
                index_place.copy_from_slice(&trailer);
                cm.apply_key_stream(ssrc, index.into(), &mut message[RTCP_CLEAR_LEN..]);
                cm.write_tag(message, &trailer, tag);
            }
        }
    }

    /// The index that a protected RTCP packet claims. `None` when the packet is too short, or not
    /// encrypted: nobody negotiates that with us.
    pub(super) fn rtcp_index(&self, packet: &[u8]) -> Option<u32> {
        let end = packet.len().checked_sub(self.rtcp_overhead())?;
        if end < RTCP_CLEAR_LEN {
            return None;
        }
        let overhead = &packet[end..];
        let trailer = match &self.rtcp {
            Cipher::Gcm(_) => overhead.last_chunk::<RTCP_INDEX_LEN>()?,
            Cipher::Cm(_) => overhead.first_chunk::<RTCP_INDEX_LEN>()?,
        };
        let word = u32::from_be_bytes(*trailer);
        (word & ENCRYPTED != 0).then_some(word & !ENCRYPTED)
    }

    /// Undoes [`Self::seal_rtcp`] for a packet whose index [`Self::rtcp_index`] gave, and returns
    /// the length without tag and index. On failure as with [`Self::open_rtp`].
    pub(super) fn open_rtcp(
        &self,
        packet: &mut [u8],
        ssrc: u32,
        index: u32,
    ) -> Result<usize, NotAuthentic> {
        let trailer = (index | ENCRYPTED).to_be_bytes();
        let end = packet
            .len()
            .checked_sub(self.rtcp_overhead())
            .ok_or(NotAuthentic)?;
        if end < RTCP_CLEAR_LEN {
            return Err(NotAuthentic);
        }
        match &self.rtcp {
            Cipher::Gcm(gcm) => {
                let (clear, rest) = packet.split_at_mut(RTCP_CLEAR_LEN);
                let aad = rtcp_associated_data(clear, trailer);
                let sealed_len = rest.len() - RTCP_INDEX_LEN;
                gcm.open(ssrc, index.into(), &aad, &mut rest[..sealed_len])?;
            }
            Cipher::Cm(cm) => {
                let (message, overhead) = packet.split_at_mut(end);
                cm.check_tag(message, &trailer, &overhead[RTCP_INDEX_LEN..])?;
                cm.apply_key_stream(ssrc, index.into(), &mut message[RTCP_CLEAR_LEN..]);
            }
        }
        Ok(end)
    }
}

impl Cipher {
    fn derive(kdf: &Kdf, suite: SrtpSuite, labels: Labels, tag_len: usize) -> Self {
        let salt = labels.salt;
        match suite {
            SrtpSuite::AeadAes256Gcm => Self::gcm(
                &AES_256_GCM,
                &*kdf.derive::<32>(labels.encryption),
                kdf.derive(salt),
            ),
            SrtpSuite::AeadAes128Gcm => Self::gcm(
                &AES_128_GCM,
                &*kdf.derive::<16>(labels.encryption),
                kdf.derive(salt),
            ),
            SrtpSuite::AesCm128HmacSha1_80 | SrtpSuite::AesCm128HmacSha1_32 => Self::cm(
                &kdf.derive(labels.encryption),
                &kdf.derive(labels.authentication),
                kdf.derive(salt),
                tag_len,
            ),
        }
    }

    fn gcm(
        algorithm: &'static ring::aead::Algorithm,
        key: &[u8],
        salt: Zeroizing<[u8; GCM_SALT_LEN]>,
    ) -> Self {
        let key = UnboundKey::new(algorithm, key).expect("the key has the algorithm's length");
        Cipher::Gcm(Box::new(Gcm {
            key: LessSafeKey::new(key),
            salt,
        }))
    }

    fn cm(
        key: &[u8; 16],
        auth_key: &[u8; CM_AUTH_KEY_LEN],
        salt: Zeroizing<[u8; CM_SALT_LEN]>,
        tag_len: usize,
    ) -> Self {
        Cipher::Cm(Box::new(Cm {
            aes: Aes128Enc::new(key.into()),
            salt,
            mac: hmac_with(auth_key),
            tag_len,
        }))
    }

    fn tag_len(&self) -> usize {
        match self {
            Cipher::Gcm(_) => GCM_TAG_LEN,
            Cipher::Cm(cm) => cm.tag_len,
        }
    }
}

impl Gcm {
    /// RFC 7714 sections 8.1 and 9.1: SSRC and index, mixed with the salt.
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut nonce = *self.salt;
        for (byte, value) in nonce[2..6].iter_mut().zip(ssrc.to_be_bytes()) {
            *byte ^= value;
        }
        for (byte, value) in nonce[6..].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *byte ^= value;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&self, ssrc: u32, index: u64, aad: &[u8], payload: &mut [u8], tag_place: &mut [u8]) {
        let nonce = self.nonce(ssrc, index);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), payload)
            .expect("a datagram is far below the cipher's limit");
        tag_place.copy_from_slice(tag.as_ref());
    }

    fn open(
        &self,
        ssrc: u32,
        index: u64,
        aad: &[u8],
        sealed: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        let nonce = self.nonce(ssrc, index);
        self.key
            .open_in_place(nonce, Aad::from(aad), sealed)
            .map(|_| ())
            .map_err(|_| NotAuthentic)
    }
}

impl Cm {
    /// RFC 3711 section 4.1.1: SSRC and index mixed with the salt, then 16 bits of block counter.
    fn apply_key_stream(&self, ssrc: u32, index: u64, payload: &mut [u8]) {
        let mut counter = [0; 16];
        counter[..CM_SALT_LEN].copy_from_slice(&*self.salt);
        for (byte, value) in counter[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
            *byte ^= value;
        }
        for (byte, value) in counter[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *byte ^= value;
        }
        let core: CtrCore<&Aes128Enc, Ctr128BE> =
            CtrCore::inner_iv_init(&self.aes, &counter.into());
        StreamCipherCoreWrapper::from_core(core).apply_keystream(payload);
    }

    fn write_tag(&self, message: &[u8], suffix: &[u8; 4], place: &mut [u8]) {
        let tag = self.tag(message, suffix);
        place.copy_from_slice(&tag[..place.len()]);
    }

    fn check_tag(&self, message: &[u8], suffix: &[u8; 4], tag: &[u8]) -> Result<(), NotAuthentic> {
        let expected = self.tag(message, suffix);
        if bool::from(expected[..self.tag_len].ct_eq(tag)) {
            Ok(())
        } else {
            Err(NotAuthentic)
        }
    }

    fn tag(&self, message: &[u8], suffix: &[u8; 4]) -> [u8; 20] {
        let mut mac = self.mac.clone();
        mac.update(message);
        mac.update(suffix);
        mac.finalize().into_bytes().into()
    }
}

// The key types of ring and hmac do not wipe themselves. Writing another key over them does it;
// `black_box` keeps the compiler from seeing that nobody reads it.
impl Drop for Gcm {
    fn drop(&mut self) {
        if let Ok(blank) = UnboundKey::new(
            self.key.algorithm(),
            &[0; 32][..self.key.algorithm().key_len()],
        ) {
            self.key = LessSafeKey::new(blank);
        }
        black_box(&mut self.key);
    }
}

impl Drop for Cm {
    fn drop(&mut self) {
        self.mac = hmac_with(&[0; CM_AUTH_KEY_LEN]);
        black_box(&mut self.mac);
    }
}

fn hmac_with(key: &[u8; CM_AUTH_KEY_LEN]) -> Hmac<Sha1> {
    <Hmac<Sha1> as Mac>::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn roll_over_counter(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// RFC 7714 section 9.2: the clear header, then E flag and index.
fn rtcp_associated_data(clear: &[u8], trailer: [u8; RTCP_INDEX_LEN]) -> [u8; 12] {
    let mut data = [0; 12];
    data[..RTCP_CLEAR_LEN].copy_from_slice(clear);
    data[RTCP_CLEAR_LEN..].copy_from_slice(&trailer);
    data
}

#[cfg(test)]
mod tests;
