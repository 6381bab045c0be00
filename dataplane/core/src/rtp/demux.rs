//! What kind of packet a datagram is, from its first two bytes (RFC 7983, RFC 5761 section 4).

/// Kinds of datagrams on a media socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketKind {
    /// First byte 0…3.
    Stun,
    /// First byte 20…63.
    Dtls,
    /// Version 2, and no RTCP packet type.
    Rtp,
    /// Version 2, second byte 192…223.
    Rtcp,
    /// None of these; not even two bytes.
    Unknown,
}

/// Tells datagrams apart; says nothing about whether they are well-formed.
pub fn classify(datagram: &[u8]) -> PacketKind {
    let &[first, second, ..] = datagram else {
        return PacketKind::Unknown;
    };
    match (first, second) {
        (0..=3, _) => PacketKind::Stun,
        (20..=63, _) => PacketKind::Dtls,
        (128..=191, 192..=223) => PacketKind::Rtcp,
        (128..=191, _) => PacketKind::Rtp,
        _ => PacketKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_bytes_decide() {
        for (datagram, kind) in [
            (&[0_u8, 1, 0, 0][..], PacketKind::Stun),
            (&[3, 1], PacketKind::Stun),
            (&[4, 1], PacketKind::Unknown),
            (&[22, 254], PacketKind::Dtls),
            (&[64, 0], PacketKind::Unknown),
            (&[0x80, 0], PacketKind::Rtp),
            (&[0xbf, 0x80 | 101], PacketKind::Rtp),
            (&[0x80, 191], PacketKind::Rtp),
            (&[0x80, 192], PacketKind::Rtcp),
            (&[0x81, 200], PacketKind::Rtcp),
            (&[0x80, 223], PacketKind::Rtcp),
            (&[0x80, 224], PacketKind::Rtp),
            (&[0xc0, 0], PacketKind::Unknown),
            (&[0x80], PacketKind::Unknown),
            (&[], PacketKind::Unknown),
        ] {
            assert_eq!(classify(datagram), kind, "{datagram:?}");
        }
    }
}
