//! The few header fields that SRTP needs, read with every length checked (RFC 3550 sections 5.1,
//! 5.3.1, 6.4). What the extension holds is of no interest here, only how long it is.

/// What SRTP needs to know of an RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RtpHeader {
    /// Length with CSRCs and extension, in bytes: everything that stays in the clear.
    pub(super) len: usize,
    pub(super) sequence: u16,
    pub(super) ssrc: u32,
}

const RTP_FIXED_LEN: usize = 12;
/// Header and sender SSRC of the first packet of a compound: the part that stays in the clear.
pub(super) const RTCP_CLEAR_LEN: usize = 8;

/// `None` for what is not RTP version 2 or overruns its end.
pub(super) fn parse_rtp(packet: &[u8]) -> Option<RtpHeader> {
    let fixed = packet.first_chunk::<RTP_FIXED_LEN>()?;
    if fixed[0] >> 6 != 2 {
        return None;
    }
    let mut len = RTP_FIXED_LEN + usize::from(fixed[0] & 0x0f) * 4;
    if fixed[0] & 0x10 != 0 {
        let extension = packet.get(len..)?.first_chunk::<4>()?;
        let words = u16::from_be_bytes([extension[2], extension[3]]);
        len += 4 + usize::from(words) * 4;
    }
    (len <= packet.len()).then_some(RtpHeader {
        len,
        sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
        ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
    })
}

/// The sender SSRC of an RTCP packet; `None` for what is not RTCP version 2 or has none.
pub(super) fn parse_rtcp_ssrc(packet: &[u8]) -> Option<u32> {
    let clear = packet.first_chunk::<RTCP_CLEAR_LEN>()?;
    (clear[0] >> 6 == 2).then(|| u32::from_be_bytes([clear[4], clear[5], clear[6], clear[7]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtp(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![first, 0, 0x12, 0x34, 0, 0, 0, 0, 0xca, 0xfe, 0xba, 0xbe];
        packet.extend_from_slice(rest);
        packet
    }

    #[test]
    fn csrcs_and_extension_belong_to_the_header() {
        let header = parse_rtp(&rtp(0x80, &[1])).expect("plain header");
        assert_eq!(
            (header.len, header.sequence, header.ssrc),
            (12, 0x1234, 0xcafe_babe)
        );
        let header = parse_rtp(&rtp(
            0x92,
            &[0, 0, 0, 1, 0, 0, 0, 2, 0xbe, 0xde, 0, 1, 9, 9, 9, 9],
        ))
        .expect("two CSRCs and one word of extension");
        assert_eq!(header.len, 28);
    }

    #[test]
    fn lengths_that_overrun_are_refused() {
        assert_eq!(parse_rtp(&rtp(0x80, &[])[..11]), None);
        assert_eq!(parse_rtp(&rtp(0x8f, &[0; 59])), None);
        assert_eq!(parse_rtp(&rtp(0x90, &[0xbe, 0xde, 0])), None);
        assert_eq!(parse_rtp(&rtp(0x90, &[0xbe, 0xde, 0, 2, 0, 0, 0, 0])), None);
        assert_eq!(parse_rtp(&rtp(0x90, &[0xbe, 0xde, 0xff, 0xff])), None);
        assert_eq!(parse_rtp(&rtp(0x40, &[1])), None);
        assert_eq!(parse_rtcp_ssrc(&[0x80, 200, 0, 1, 0, 0, 0]), None);
        assert_eq!(parse_rtcp_ssrc(&[0x00, 200, 0, 1, 0, 0, 0, 7]), None);
        assert_eq!(parse_rtcp_ssrc(&[0x80, 200, 0, 1, 0, 0, 0, 7]), Some(7));
    }
}
