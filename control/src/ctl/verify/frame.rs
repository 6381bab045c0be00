//! The packet inside one record of a recording: Ethernet, IPv4 (RFC 791) and UDP (RFC 768) headers
//! as the recorder makes them up, then RTP or RTCP (RFC 3550, told apart by RFC 5761 section 4).
//! Pure, and believes nothing of the bytes.

use std::net::{Ipv4Addr, SocketAddrV4};

const ETHERNET_BYTES: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const PROTOCOL_UDP: u8 = 17;
const UDP_BYTES: usize = 8;
const RTP_BYTES: usize = 12;
/// The address that stands for the bridge.
const BRIDGE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 255, 0, 1), 10_000);

/// A datagram between a leg and the bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// The made-up address of the leg.
    pub(super) leg: SocketAddrV4,
    /// Whether the leg sent it.
    pub(super) inbound: bool,
    /// What it carries.
    pub(super) content: Content,
}

/// What a datagram carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// An RTP packet.
    Rtp {
        ssrc: u32,
        payload_type: u8,
        sequence: u16,
    },
    /// A compound of reports.
    Rtcp,
}

impl Frame {
    /// Reads a record; none when the recorder cannot have written it.
    pub(super) fn parse(record: &[u8]) -> Option<Self> {
        let ip = record.get(ETHERNET_BYTES..)?;
        if be16(record, 12)? != ETHERTYPE_IPV4 || *ip.get(9)? != PROTOCOL_UDP {
            return None;
        }
        let header = ip.first_chunk::<20>()?;
        let is_whole = usize::from(be16(ip, 2)?) == ip.len();
        if header[0] != 0x45 || !is_whole || !checksum_holds(header) {
            return None;
        }
        let udp = ip.get(20..)?;
        if usize::from(be16(udp, 4)?) != udp.len() {
            return None;
        }
        let from = SocketAddrV4::new(address(ip, 12)?, be16(udp, 0)?);
        let to = SocketAddrV4::new(address(ip, 16)?, be16(udp, 2)?);
        let (leg, inbound) = match (from == BRIDGE, to == BRIDGE) {
            (false, true) => (from, true),
            (true, false) => (to, false),
            _ => return None,
        };
        let content = Content::parse(udp.get(UDP_BYTES..)?)?;
        Some(Self {
            leg,
            inbound,
            content,
        })
    }
}

impl Content {
    fn parse(datagram: &[u8]) -> Option<Self> {
        let [first, second, ..] = *datagram else {
            return None;
        };
        if first >> 6 != 2 {
            return None;
        }
        if (192..=223).contains(&second) {
            return Some(Self::Rtcp);
        }
        let header = datagram.first_chunk::<RTP_BYTES>()?;
        Some(Self::Rtp {
            ssrc: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([header[2], header[3]]),
        })
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*pair))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets = bytes.get(at..)?.first_chunk::<4>()?;
    Some(Ipv4Addr::from(*octets))
}

/// The ones' complement sum over a valid header is all ones.
fn checksum_holds(header: &[u8; 20]) -> bool {
    let words = header.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded & 0xffff) + (folded >> 16) == 0xffff
}
