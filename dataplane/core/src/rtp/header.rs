//! The RTP header (RFC 3550 section 5.1): reading a peer's, whatever it carries, and writing ours,
//! which is always the bare 12 bytes. A length that does not fit is an error, never a guess.

use std::ops::Range;

use thiserror::Error;

/// Length of a header without CSRCs and extension.
pub const HEADER_LEN: usize = 12;

/// A peer's packet, read but not copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RtpHeader {
    /// M bit.
    pub marker: bool,
    /// 0…127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Where the payload lies in the datagram: behind CSRCs and extension, before the padding.
    pub payload: Range<usize>,
}

/// Why a datagram is not RTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HeaderError {
    /// Shorter than its header says.
    #[error("{len} bytes are too short for this RTP header")]
    TooShort {
        /// The datagram's length.
        len: usize,
    },
    /// Version field other than 2.
    #[error("RTP version {version}")]
    Version {
        /// What it says.
        version: u8,
    },
    /// The padding count is 0 or overruns the payload.
    #[error("padding of {padding} bytes does not fit")]
    Padding {
        /// What it says.
        padding: u8,
    },
}

impl RtpHeader {
    /// Reads the header at the start of `datagram`.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn parse(datagram: &[u8]) -> Result<Self, HeaderError> {
        let too_short = HeaderError::TooShort {
            len: datagram.len(),
        };
        let Some((fixed, rest)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            return Err(too_short);
        };
        let [b0, b1, s0, s1, t0, t1, t2, t3, x0, x1, x2, x3] = *fixed;
        if b0 >> 6 != 2 {
            return Err(HeaderError::Version { version: b0 >> 6 });
        }
        let mut payload_at = usize::from(b0 & 0x0f) * 4;
        if b0 & 0x10 != 0 {
            // RFC 3550 section 5.3.1: profile, then the length in words without these four bytes.
            let words = rest.get(payload_at + 2..payload_at + 4).ok_or(too_short)?;
            let words = words
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            payload_at += 4 + words * 4;
        }
        let payload = rest.get(payload_at..).ok_or(too_short)?;
        let mut payload_len = payload.len();
        if b0 & 0x20 != 0 {
            let padding = payload.last().copied().unwrap_or(0);
            if padding == 0 || usize::from(padding) > payload_len {
                return Err(HeaderError::Padding { padding });
            }
            payload_len -= usize::from(padding);
        }
        let payload_at = HEADER_LEN + payload_at;
        Ok(Self {
            marker: b1 & 0x80 != 0,
            payload_type: b1 & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([x0, x1, x2, x3]),
            payload: payload_at..payload_at + payload_len,
        })
    }
}

/// A header of ours: no padding, no extension, no CSRC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnHeader {
    /// M bit.
    pub marker: bool,
    /// 0…127; a higher bit is cut.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

/// Longest header of ours: with a `sdes:mid` extension.
pub const MAX_OWN_HEADER_LEN: usize = HEADER_LEN + MAX_MID_BLOCK_LEN;

/// 4 bytes of 0xBEDE and length, one element header, 16 bytes of mid, padded to 32 bits.
const MAX_MID_BLOCK_LEN: usize = 24;
/// Longest value of a one-byte-header element (RFC 8285 section 4.2).
const MAX_MID_LEN: usize = 16;

/// The extension block that carries the stream's mid in every packet (RFC 8285, RFC 9143).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MidExtension {
    block: [u8; MAX_MID_BLOCK_LEN],
    len: usize,
}

impl MidExtension {
    /// None where a one-byte-header element cannot hold it: an id outside 1…14, an empty mid or one
    /// of more than 16 bytes.
    pub fn new(id: u8, mid: &str) -> Option<Self> {
        if !(1..=14).contains(&id) || mid.is_empty() || mid.len() > MAX_MID_LEN {
            return None;
        }
        let words = (1 + mid.len()).div_ceil(4);
        let mut block = [0; MAX_MID_BLOCK_LEN];
        block[..4].copy_from_slice(&[0xbe, 0xde, 0, words as u8]);
        block[4] = id << 4 | (mid.len() as u8 - 1);
        block[5..5 + mid.len()].copy_from_slice(mid.as_bytes());
        Some(Self {
            block,
            len: 4 + 4 * words,
        })
    }
}

/// A written header of ours, extension included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderBytes {
    bytes: [u8; MAX_OWN_HEADER_LEN],
    len: usize,
}

impl std::ops::Deref for HeaderBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl OwnHeader {
    /// The header, with the mid where that was negotiated.
    pub fn write_with(self, mid: Option<&MidExtension>) -> HeaderBytes {
        let mut bytes = [0; MAX_OWN_HEADER_LEN];
        bytes[..HEADER_LEN].copy_from_slice(&self.write());
        let mut len = HEADER_LEN;
        if let Some(mid) = mid {
            bytes[0] |= 0x10;
            bytes[HEADER_LEN..HEADER_LEN + mid.len].copy_from_slice(&mid.block[..mid.len]);
            len += mid.len;
        }
        HeaderBytes { bytes, len }
    }

    /// The 12 bytes.
    pub fn write(self) -> [u8; HEADER_LEN] {
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [x0, x1, x2, x3] = self.ssrc.to_be_bytes();
        let marker = u8::from(self.marker) << 7;
        let b1 = marker | (self.payload_type & 0x7f);
        [0x80, b1, s0, s1, t0, t1, t2, t3, x0, x1, x2, x3]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: OwnHeader = OwnHeader {
        marker: true,
        payload_type: 101,
        sequence: 0x1234,
        timestamp: 0x5678_9abc,
        ssrc: 0xdead_beef,
    };

    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = OWN.write().to_vec();
        packet[0] = first;
        packet.extend_from_slice(rest);
        packet
    }

    #[test]
    fn a_mid_is_written_as_a_one_byte_element() {
        for (mid, block) in [
            ("0", &[0xbe, 0xde, 0, 1, 0x30, b'0', 0, 0][..]),
            ("abc", &[0xbe, 0xde, 0, 1, 0x32, b'a', b'b', b'c']),
            (
                "audio",
                &[0xbe, 0xde, 0, 2, 0x34, b'a', b'u', b'd', b'i', b'o', 0, 0],
            ),
        ] {
            let extension = MidExtension::new(3, mid).expect("fits");
            let written = OWN.write_with(Some(&extension));
            assert_eq!(&written[HEADER_LEN..], block, "{mid}");
            let parsed = RtpHeader::parse(&written).expect("well-formed");
            assert_eq!(parsed.payload, written.len()..written.len());
        }
        let longest = MidExtension::new(14, "0123456789abcdef").expect("fits");
        assert_eq!(OWN.write_with(Some(&longest)).len(), MAX_OWN_HEADER_LEN);
        assert!(MidExtension::new(0, "0").is_none());
        assert!(MidExtension::new(15, "0").is_none());
        assert!(MidExtension::new(1, "").is_none());
        assert!(MidExtension::new(1, "0123456789abcdefg").is_none());
        assert_eq!(&OWN.write_with(None)[..], &OWN.write());
    }

    #[test]
    fn what_we_write_is_what_we_read() {
        let parsed = RtpHeader::parse(&packet(0x80, &[1, 2, 3])).expect("well-formed");
        let expected = RtpHeader {
            marker: true,
            payload_type: 101,
            sequence: 0x1234,
            timestamp: 0x5678_9abc,
            ssrc: 0xdead_beef,
            payload: 12..15,
        };
        assert_eq!(parsed, expected);
    }

    #[test]
    fn csrcs_extension_and_padding_are_skipped() {
        let mut rest = vec![9; 8];
        rest.extend_from_slice(&[0xbe, 0xde, 0, 1, 7, 7, 7, 7]);
        rest.extend_from_slice(&[5, 5, 0, 2]);
        let parsed = RtpHeader::parse(&packet(0xb2, &rest)).expect("well-formed");
        assert_eq!(parsed.payload, 28..30);
    }

    #[test]
    fn lengths_that_overrun_are_refused() {
        for (first, rest) in [
            (0x81, &[0_u8, 0, 0][..]),
            (0x90, &[0xbe, 0xde, 0]),
            (0x90, &[0xbe, 0xde, 0, 1, 0, 0, 0]),
            (0x90, &[0xbe, 0xde, 0xff, 0xff, 0, 0, 0]),
        ] {
            let packet = packet(first, rest);
            let len = packet.len();
            assert_eq!(
                RtpHeader::parse(&packet),
                Err(HeaderError::TooShort { len })
            );
        }
        assert_eq!(
            RtpHeader::parse(&[0x80; 11]),
            Err(HeaderError::TooShort { len: 11 })
        );
        assert_eq!(
            RtpHeader::parse(&packet(0x40, &[])),
            Err(HeaderError::Version { version: 1 })
        );
    }

    #[test]
    fn padding_fits_or_is_refused() {
        for (rest, padding) in [(&[][..], 0), (&[1, 0], 0), (&[1, 3], 3)] {
            assert_eq!(
                RtpHeader::parse(&packet(0xa0, rest)),
                Err(HeaderError::Padding { padding })
            );
        }
        let all_padding = RtpHeader::parse(&packet(0xa0, &[0, 2])).expect("fits exactly");
        assert!(all_padding.payload.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_payload_inside_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(header) = RtpHeader::parse(&bytes) {
                prop_assert!(bytes.get(header.payload).is_some());
            }
        }
    }
}
