//! PCAP files as the recorder writes them, read byte by byte: nothing is believed, every frame's
//! Ethernet, IPv4 and UDP headers are checked.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use super::rtcp::Rtcp;
use super::rtp::Rtp;

const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;

/// One frame of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Time stamp since the Unix epoch.
    pub at: Duration,
    /// From whom.
    pub source: SocketAddrV4,
    /// To whom.
    pub destination: SocketAddrV4,
    /// The UDP payload.
    pub payload: Vec<u8>,
    /// Bytes in the file, record header included.
    pub stored_bytes: usize,
}

/// A recording.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// Whole frames, in file order.
    pub frames: Vec<Frame>,
    /// Bytes of an unfinished frame at the end.
    pub torn_bytes: usize,
}

impl Capture {
    /// Reads a file.
    pub fn read(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(&bytes)
    }

    /// Reads a file's bytes; panics when anything but the tail is not as it must be.
    pub fn parse(bytes: &[u8]) -> Self {
        let header = bytes.get(..FILE_HEADER_BYTES).expect("a file header");
        assert_eq!(
            little(header, 0),
            0xa1b2_c3d4,
            "microseconds, written little-endian"
        );
        assert_eq!((header[4], header[6]), (2, 4), "version 2.4");
        assert_eq!(little(header, 20), 1, "Ethernet");
        let mut capture = Self::default();
        let mut rest = &bytes[FILE_HEADER_BYTES..];
        while !rest.is_empty() {
            let length = match rest.get(..RECORD_HEADER_BYTES) {
                Some(head) => little(head, 8) as usize,
                None => usize::MAX,
            };
            let total = length.saturating_add(RECORD_HEADER_BYTES);
            let Some(record) = rest.get(..total) else {
                capture.torn_bytes = rest.len();
                break;
            };
            assert_eq!(little(record, 8), little(record, 12), "frames are not cut");
            capture.frames.push(frame(record));
            rest = &rest[total..];
        }
        for pair in capture.frames.windows(2) {
            assert!(pair[0].at <= pair[1].at, "time runs forward");
        }
        capture
    }

    /// RTP packets with their frames.
    pub fn rtp(&self) -> impl Iterator<Item = (&Frame, Rtp)> {
        self.frames
            .iter()
            .filter(|frame| !is_rtcp(&frame.payload))
            .map(|frame| (frame, Rtp::parse(&frame.payload).expect("RTP or RTCP")))
    }

    /// RTP datagrams from one address, byte for byte.
    pub fn rtp_from(&self, source: SocketAddrV4) -> Vec<&[u8]> {
        self.rtp()
            .filter(|(frame, _)| frame.source == source)
            .map(|(frame, _)| frame.payload.as_slice())
            .collect()
    }

    /// RTCP compounds with their frames.
    pub fn rtcp(&self) -> impl Iterator<Item = (&Frame, Vec<Rtcp>)> {
        self.frames
            .iter()
            .filter(|frame| is_rtcp(&frame.payload))
            .map(|frame| (frame, Rtcp::parse_compound(&frame.payload).expect("RTCP")))
    }
}

/// The made-up address of the endpoint that appeared as number `number`, from 0.
pub fn leg(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, number + 1), 10_000)
}

/// The made-up address of the bridge.
pub fn bridge() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 255, 0, 1), 10_000)
}

fn is_rtcp(datagram: &[u8]) -> bool {
    datagram
        .get(1)
        .is_some_and(|second| (200..=207).contains(second))
}

fn frame(record: &[u8]) -> Frame {
    let at = Duration::from_secs(u64::from(little(record, 0)))
        + Duration::from_micros(u64::from(little(record, 4)));
    let ethernet = &record[RECORD_HEADER_BYTES..];
    assert_eq!(big(ethernet, 12), 0x0800, "IPv4 in Ethernet");
    let ip = &ethernet[14..];
    assert_eq!(ip[0], 0x45);
    assert_eq!(
        usize::from(big(ip, 2)),
        ip.len(),
        "the IP length is the frame's"
    );
    assert_eq!(ip[9], 17, "UDP");
    let sum: u32 = ip[..20].chunks(2).map(|pair| u32::from(big(pair, 0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    assert_eq!(
        (folded & 0xffff) + (folded >> 16),
        0xffff,
        "the header checksum holds"
    );
    let udp = &ip[20..];
    assert_eq!(
        usize::from(big(udp, 4)),
        udp.len(),
        "the UDP length is the packet's"
    );
    let address = |at: usize, port: usize| {
        let ip = Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        SocketAddrV4::new(ip, big(udp, port))
    };
    Frame {
        at,
        source: address(12, 0),
        destination: address(16, 2),
        payload: udp[8..].to_vec(),
        stored_bytes: record.len(),
    }
}

fn little(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn big(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
