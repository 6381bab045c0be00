//! Recordings made byte by byte, sound and spoilt.

use super::*;

const ALICE: [u8; 4] = [10, 1, 0, 1];
const BRIDGE: [u8; 4] = [10, 255, 0, 1];

fn file_header() -> Vec<u8> {
    let mut bytes = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    bytes.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(65_535_u32.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes
}

fn rtp(sequence: u16, ssrc: u32, payload_type: u8) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xd5; 160]);
    packet
}

fn frame(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let udp_bytes = u16::try_from(8 + payload.len()).expect("short");
    let mut ip = vec![0x45, 0];
    ip.extend((udp_bytes + 20).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    ip.extend(from);
    ip.extend(to);
    let words = ip.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from(folded).expect("folded");
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut bytes = vec![2; 12];
    bytes.extend([8, 0]);
    bytes.extend(ip);
    bytes.extend([0x27, 0x10, 0x27, 0x10]);
    bytes.extend(udp_bytes.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

fn record(at_ms: u32, frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).expect("short").to_le_bytes();
    let mut bytes = (1_700_000_000 + at_ms / 1000).to_le_bytes().to_vec();
    bytes.extend((at_ms % 1000 * 1000).to_le_bytes());
    bytes.extend(length);
    bytes.extend(length);
    bytes.extend(frame);
    bytes
}

/// 20 ms packets with these sequence numbers, from Alice.
fn spoken(sequences: &[u16]) -> Vec<u8> {
    let mut bytes = file_header();
    for (at, sequence) in (0..).zip(sequences) {
        let frame = frame(ALICE, BRIDGE, &rtp(*sequence, 7, 0));
        bytes.extend(record(at * 20, &frame));
    }
    bytes
}

fn verify(bytes: &[u8]) -> Verification {
    read_from(bytes).expect("a recording")
}

#[test]
fn streams_are_counted_per_leg_and_direction() {
    let mut bytes = spoken(&[10, 11, 14]);
    bytes.extend(record(900, &frame(BRIDGE, ALICE, &rtp(1, 7, 0))));
    bytes.extend(record(950, &frame(ALICE, BRIDGE, &rtp(15, 7, 101))));
    bytes.extend(record(
        960,
        &frame(ALICE, BRIDGE, &[0x80, 200, 0, 1, 0, 0, 0, 7]),
    ));
    let report = verify(&bytes);
    assert_eq!((report.records, report.rtcp, report.foreign), (6, 1, 0));
    assert_eq!(report.started_at, "2023-11-14T22:13:20.000Z");
    assert_eq!((report.duration_ms, report.out_of_order), (960, 0));
    let [alice, bridge] = report.streams.as_slice() else {
        panic!("two streams: {report:?}");
    };
    assert_eq!(alice.leg.to_string(), "10.1.0.1:10000");
    assert_eq!((alice.direction, bridge.direction), ("inbound", "outbound"));
    assert_eq!((alice.packets, alice.gaps, alice.ssrc), (4, 2, 7));
    assert_eq!(alice.payload_types, [0, 101]);
    assert_eq!((alice.first_ms, alice.last_ms), (0, 950));
    assert_eq!(alice.longest_pause_ms, 910);
    assert!((alice.loss_percent() - 100.0 * 2.0 / 6.0).abs() < 1e-9);
    assert!(report.check().is_ok());
}

#[test]
fn every_cut_of_the_tail_is_noticed() {
    let whole = spoken(&[1, 2]);
    let last = 16 + 42 + 172;
    for missing in 0..last {
        let report = verify(&whole[..whole.len() - missing]);
        let tail = match missing {
            0 => Tail::Whole,
            _ => Tail::Cut {
                bytes: (last - missing) as u64,
            },
        };
        assert_eq!(report.tail, tail);
        assert_eq!(report.records, if missing == 0 { 2 } else { 1 });
        assert_eq!(report.check().is_ok(), missing == 0);
    }
}

#[test]
fn a_record_of_absurd_length_ends_the_reading() {
    for length in [65_536_u32, 20_000_000, u32::MAX] {
        let mut bytes = spoken(&[1]);
        let mut spoilt = record(20, &frame(ALICE, BRIDGE, &rtp(2, 7, 0)));
        spoilt[8..12].copy_from_slice(&length.to_le_bytes());
        let cut = spoilt.len() as u64;
        bytes.extend(spoilt);
        let report = verify(&bytes);
        assert_eq!(report.records, 1);
        assert_eq!(report.tail, Tail::Cut { bytes: cut });
    }
}

#[test]
fn what_no_recorder_writes_is_counted_apart() {
    let sound = frame(ALICE, BRIDGE, &rtp(1, 7, 0));
    // Each of these bytes is checked: EtherType, IP version, lengths, checksum, protocol, version.
    for at in [12, 14, 16, 23, 24, 33, 38, 42] {
        let mut spoilt = sound.clone();
        spoilt[at] ^= 0xc0;
        let mut bytes = file_header();
        bytes.extend(record(0, &spoilt));
        let report = verify(&bytes);
        assert_eq!((report.records, report.foreign), (1, 1), "byte {at}");
        assert!(report.streams.is_empty(), "byte {at}");
    }
    for length in 0..54 {
        let mut bytes = file_header();
        bytes.extend(record(0, &sound[..length]));
        assert_eq!(verify(&bytes).foreign, 1, "{length} bytes");
    }
}

#[test]
fn a_flood_of_streams_is_bounded() {
    let mut bytes = file_header();
    for ssrc in 0..2000 {
        bytes.extend(record(0, &frame(ALICE, BRIDGE, &rtp(1, ssrc, 0))));
    }
    let report = verify(&bytes);
    assert_eq!(report.streams.len(), MAX_STREAMS);
    assert_eq!(report.beyond_streams, 2000 - MAX_STREAMS as u64);
}

#[test]
fn what_is_no_recording_is_refused() {
    let mut other_link = file_header();
    other_link[20] = 113;
    let files: [&[u8]; 4] = [
        b"",
        b"short",
        b"not a recording at all, only text",
        &other_link,
    ];
    for bytes in files {
        let error = read_from(bytes).expect_err("refused");
        assert!(matches!(error, VerifyError::NotARecording(_)), "{error}");
    }
}

#[test]
fn an_empty_recording_is_whole() {
    let report = verify(&file_header());
    assert_eq!((report.records, report.tail), (0, Tail::Whole));
}
