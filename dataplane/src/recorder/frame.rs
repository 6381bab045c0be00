//! One PCAP record as the files carry it: made-up Ethernet, IPv4 (RFC 791) and UDP (RFC 768)
//! headers around a packet of a call (media.md, Recording). Pure; knows no file.

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// Bytes before the packet itself.
pub(crate) const HEADER_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;

const PORT: u16 = 10_000;
const BRIDGE: [u8; 4] = [10, 255, 0, 1];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const PROTOCOL_UDP: u8 = 17;
const TTL: u8 = 64;

/// Which way a packet went, seen from the bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// From the endpoint.
    In,
    /// To the endpoint.
    Out,
}

/// The address that stands for endpoint `number`.
pub(crate) fn endpoint_address(number: u16) -> [u8; 4] {
    // 254 x 253 numbers fit beside the bridge's own network; what is beyond shares the last ones.
    let network = (number / 254 + 1).min(254);
    let host = number % 254 + 1;
    [10, network as u8, 0, host as u8]
}

/// The headers of a packet of `payload_bytes` between endpoint `number` and the bridge; none when
/// the packet is too long for IPv4.
pub(crate) fn headers(number: u16, way: Way, payload_bytes: usize) -> Option<[u8; HEADER_BYTES]> {
    let udp_bytes = u16::try_from(UDP_BYTES + payload_bytes).ok()?;
    let ip_bytes = udp_bytes.checked_add(IPV4_BYTES as u16)?;
    let endpoint = endpoint_address(number);
    let (from, to) = match way {
        Way::In => (endpoint, BRIDGE),
        Way::Out => (BRIDGE, endpoint),
    };
    let mut ip = [0; IPV4_BYTES];
    ip[0] = 0x45; // version 4, five words
    ip[2..4].copy_from_slice(&ip_bytes.to_be_bytes());
    ip[6] = 0x40; // don't fragment
    ip[8] = TTL;
    ip[9] = PROTOCOL_UDP;
    ip[12..16].copy_from_slice(&from);
    ip[16..20].copy_from_slice(&to);
    let checksum = ipv4_checksum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    let mut all = [0; HEADER_BYTES];
    all[0..6].copy_from_slice(&mac(to));
    all[6..12].copy_from_slice(&mac(from));
    all[12..14].copy_from_slice(&ETHERTYPE_IPV4);
    all[14..34].copy_from_slice(&ip);
    all[34..36].copy_from_slice(&PORT.to_be_bytes());
    all[36..38].copy_from_slice(&PORT.to_be_bytes());
    all[38..40].copy_from_slice(&udp_bytes.to_be_bytes());
    // A UDP checksum of 0 is "none" (RFC 768).
    Some(all)
}

/// Locally administered, and telling the same as the IP address.
fn mac(ip: [u8; 4]) -> [u8; 6] {
    [0x02, 0x00, ip[0], ip[1], ip[2], ip[3]]
}

fn ipv4_checksum(header: &[u8; IPV4_BYTES]) -> u16 {
    let words = header.chunks_exact(2);
    let sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_up_through_the_networks() {
        assert_eq!(endpoint_address(0), [10, 1, 0, 1]);
        assert_eq!(endpoint_address(253), [10, 1, 0, 254]);
        assert_eq!(endpoint_address(254), [10, 2, 0, 1]);
        assert_eq!(endpoint_address(u16::MAX)[1], 254);
    }

    #[test]
    fn the_checksum_covers_the_header() {
        let all = headers(3, Way::Out, 172).expect("fits");
        let ip: &[u8; IPV4_BYTES] = all[14..34].try_into().expect("20 bytes");
        assert_eq!(ipv4_checksum(ip), 0, "a valid header sums to zero");
        assert_eq!(&ip[12..16], &BRIDGE);
        assert_eq!(&ip[16..20], &[10, 1, 0, 4]);
        assert_eq!(u16::from_be_bytes([all[38], all[39]]), 180);
        assert!(headers(0, Way::In, 65_520).is_none());
    }
}
