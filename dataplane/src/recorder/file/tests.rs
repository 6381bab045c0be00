use super::*;
use crate::recorder::frame::Way;
use crate::recorder::queue::{NO_STREAM, Pushed, QueueSender, queue};
use pcap_file::pcap::PcapReader;
use std::path::PathBuf;

const MS: u64 = 1_000_000;

struct Fixture {
    _dir: tempfile::TempDir,
    path: PathBuf,
    sender: QueueSender,
    recording: RecordingFile,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.pcap");
    let (sender, receiver) = queue(1000);
    let file = File::create(&path).expect("creates");
    Fixture {
        _dir: dir,
        path,
        sender,
        recording: RecordingFile::start(file, receiver).expect("starts"),
    }
}

impl Fixture {
    fn push(&mut self, at_ns: u64, handled_ns: u64, packet: &[u8]) {
        let header = EntryHeader {
            at_ns,
            handled_ns,
            endpoint: 0,
            stream: NO_STREAM,
            way: Way::In,
            bytes: u16::try_from(packet.len()).expect("short"),
        };
        assert_ne!(self.sender.push(&header, packet), Pushed::Full);
    }

    /// Microseconds and first payload byte of every record in the file.
    fn records(&self) -> Vec<(u128, u8)> {
        let bytes = std::fs::read(&self.path).expect("reads");
        let mut reader = PcapReader::new(&bytes[..]).expect("a pcap header");
        let mut records = Vec::new();
        while let Some(packet) = reader.next_packet() {
            let packet = packet.expect("a whole record");
            assert_eq!(packet.orig_len as usize, packet.data.len());
            records.push((packet.timestamp.as_micros(), packet.data[HEADER_BYTES]));
        }
        records
    }
}

#[test]
fn packets_stand_in_order_of_arrival() {
    let mut fixture = fixture();
    // A worker that stalled handles one socket's packets, then the other's.
    for (at, handled, name) in [(10, 50, 1), (30, 50, 2), (20, 51, 3), (40, 51, 4)] {
        fixture.push(at * MS, handled * MS, &[name]);
    }
    let early = Pass::Settled { now_ns: 60 * MS };
    assert_eq!(fixture.recording.pass(early).expect("writes"), 0);
    fixture.push(100 * MS, 100 * MS, &[5]);
    let later = Pass::Settled { now_ns: 101 * MS };
    assert_eq!(fixture.recording.pass(later).expect("writes"), 4);
    assert_eq!(fixture.recording.pass(Pass::Final).expect("writes"), 1);
    let expected = [
        (10_000, 1),
        (20_000, 3),
        (30_000, 2),
        (40_000, 4),
        (100_000, 5),
    ];
    assert_eq!(fixture.records(), expected);
}

#[test]
fn time_never_goes_back_even_for_a_packet_that_comes_far_too_late() {
    let mut fixture = fixture();
    fixture.push(50 * MS, 50 * MS, &[1]);
    fixture.recording.pass(Pass::Final).expect("writes");
    fixture.push(20 * MS, 90 * MS, &[2]);
    fixture.recording.pass(Pass::Final).expect("writes");
    assert_eq!(fixture.records(), [(50_000, 1), (50_000, 2)]);
}

#[test]
fn no_more_than_the_bound_is_held_back() {
    let mut fixture = fixture();
    for number in 0..40 {
        fixture.push(number * MS, number * MS, &[7; 172]);
    }
    let written = fixture.recording.pass(Pass::Settled { now_ns: 40 * MS });
    let held = 40 - written.expect("writes") as usize;
    assert!(held * (172 + HEADER_BYTES + PCAP_RECORD_BYTES) <= HOLD_BYTES);
    assert!(held > 10, "the newest are still held for their order");
    assert_eq!(fixture.records().len(), 40 - held);
}

#[test]
fn a_full_disk_leaves_whole_records_and_an_exact_account() {
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("opens");
    let mut fixture = fixture();
    fixture.push(MS, MS, &[1]);
    fixture.recording.pass(Pass::Final).expect("writes");
    fixture.recording.file = full;
    for number in 2..5 {
        fixture.push(number * MS, number * MS, &[number as u8]);
    }
    let error = fixture.recording.pass(Pass::Final).expect_err("no space");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    fixture.push(9 * MS, 9 * MS, &[9]);
    assert_eq!(fixture.recording.pass(Pass::Final).expect("once"), 0);
    assert_eq!(fixture.records(), [(1_000, 1)]);
    let (_, written, lost) = fixture.recording.into_parts();
    assert_eq!((written, lost), (1, vec![(NO_STREAM, 4)]));
}
