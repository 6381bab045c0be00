//! Reads a recording and says what is in it: its streams, the sequence numbers they miss, and
//! whether the file ends with a whole record. The file may be anybody's: it is read record by record
//! in bounded memory, and nothing in it is believed.

mod frame;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::PcapReader;
use pcap_file::{DataLink, PcapError};
use rtpbridge_shared::sequence::SequenceWindow;
use serde::Serialize;

use super::table::counted;
use crate::clock::rfc3339;
use frame::{Content, Frame};

/// What made-up SSRCs may cost; a call has a handful.
const MAX_STREAMS: usize = 1024;
const FILE_HEADER_BYTES: u64 = 24;
const RECORD_HEADER_BYTES: u64 = 16;

/// Why a file is no sound recording.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerifyError {
    /// It cannot be opened or read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It does not begin as a recording does.
    #[error("not a recording: {0}")]
    NotARecording(String),
    /// The last record is cut short, or nothing after it can be read.
    #[error("the tail is not whole: {} after the last whole record", counted(*.bytes, "byte"))]
    TailCut {
        /// How much cannot be read.
        bytes: u64,
    },
}

/// What is in a recording.
#[derive(Serialize, Debug)]
pub(super) struct Verification {
    /// Whole records.
    pub(super) records: u64,
    /// Of these, RTCP.
    pub(super) rtcp: u64,
    /// Of these, what no recorder writes: broken headers, neither RTP nor RTCP.
    pub(super) foreign: u64,
    /// Of these, RTP of more streams than are told apart here.
    pub(super) beyond_streams: u64,
    /// Records older than the one before them.
    pub(super) out_of_order: u64,
    /// RFC 3339, time of the first record.
    pub(super) started_at: String,
    /// From the first to the last record.
    pub(super) duration_ms: u64,
    /// The end of the file.
    pub(super) tail: Tail,
    /// In order of appearance.
    pub(super) streams: Vec<StreamRow>,
}

/// How a file ends.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Tail {
    /// With a whole record.
    Whole,
    /// With bytes that are no record.
    Cut {
        /// How many.
        bytes: u64,
    },
}

/// One RTP stream; times in milliseconds from the first record.
#[derive(Serialize, Debug)]
pub(super) struct StreamRow {
    /// The made-up address of the leg.
    pub(super) leg: SocketAddrV4,
    /// `inbound` from the leg, `outbound` to it.
    pub(super) direction: &'static str,
    pub(super) ssrc: u32,
    pub(super) payload_types: Vec<u8>,
    pub(super) packets: u64,
    /// Missing sequence numbers, counted as in `streams` of recording.stop.
    pub(super) gaps: u64,
    pub(super) first_ms: u64,
    pub(super) last_ms: u64,
    /// The longest time between two packets.
    pub(super) longest_pause_ms: u64,
    #[serde(skip)]
    sequence: SequenceWindow,
    #[serde(skip)]
    last: Duration,
}

impl Verification {
    /// Whether the file is whole.
    pub(super) fn check(&self) -> Result<(), VerifyError> {
        match self.tail {
            Tail::Whole => Ok(()),
            Tail::Cut { bytes } => Err(VerifyError::TailCut { bytes }),
        }
    }
}

impl StreamRow {
    /// Missing packets in percent of those that were due.
    pub(super) fn loss_percent(&self) -> f64 {
        let due = self.packets.saturating_add(self.gaps).max(1);
        100.0 * self.gaps as f64 / due as f64
    }
}

/// Reads the file at `path` from one end to the other.
pub(super) fn read(path: &Path) -> Result<Verification, VerifyError> {
    read_from(File::open(path)?)
}

fn read_from(source: impl Read) -> Result<Verification, VerifyError> {
    let counted = Counted { source, bytes: 0 };
    let mut reader = PcapReader::new(counted).map_err(|error| match error {
        PcapError::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof => error.into(),
        error => VerifyError::NotARecording(error.to_string()),
    })?;
    let datalink = reader.header().datalink;
    if datalink != DataLink::ETHERNET {
        let reason = format!("link type {datalink:?} is not Ethernet");
        return Err(VerifyError::NotARecording(reason));
    }
    let mut count = Count::default();
    while let Some(next) = reader.next_packet() {
        match next {
            Ok(packet) => count.on_record(packet.timestamp, &packet.data),
            Err(PcapError::IoError(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(error.into());
            }
            // Where one record cannot be believed, the place of the next is not known either.
            Err(_) => break,
        }
    }
    let mut rest = reader.into_reader();
    io::copy(&mut rest, &mut io::sink())?;
    Ok(count.into_verification(rest.bytes))
}

/// Counts what was read.
struct Count {
    whole_bytes: u64,
    first: Option<Duration>,
    newest: Duration,
    report: Verification,
}

impl Default for Count {
    fn default() -> Self {
        Self {
            whole_bytes: FILE_HEADER_BYTES,
            first: None,
            newest: Duration::ZERO,
            report: Verification {
                records: 0,
                rtcp: 0,
                foreign: 0,
                beyond_streams: 0,
                out_of_order: 0,
                started_at: String::new(),
                duration_ms: 0,
                tail: Tail::Whole,
                streams: Vec::new(),
            },
        }
    }
}

impl Count {
    fn on_record(&mut self, at: Duration, record: &[u8]) {
        let first = *self.first.get_or_insert(at);
        self.whole_bytes += RECORD_HEADER_BYTES + record.len() as u64;
        self.report.records += 1;
        if at < self.newest {
            self.report.out_of_order += 1;
        }
        self.newest = self.newest.max(at);
        match Frame::parse(record) {
            None => self.report.foreign += 1,
            Some(Frame {
                content: Content::Rtcp,
                ..
            }) => self.report.rtcp += 1,
            Some(frame) => self.on_rtp(frame, at, millis(at.saturating_sub(first))),
        }
    }

    fn on_rtp(&mut self, frame: Frame, at: Duration, at_ms: u64) {
        let Content::Rtp {
            ssrc,
            payload_type,
            sequence,
        } = frame.content
        else {
            return;
        };
        let direction = if frame.inbound { "inbound" } else { "outbound" };
        let streams = &mut self.report.streams;
        let known = streams
            .iter()
            .position(|row| row.ssrc == ssrc && row.leg == frame.leg && row.direction == direction);
        if known.is_none() && streams.len() >= MAX_STREAMS {
            self.report.beyond_streams += 1;
            return;
        }
        let index = known.unwrap_or_else(|| {
            streams.push(StreamRow {
                leg: frame.leg,
                direction,
                ssrc,
                payload_types: Vec::new(),
                packets: 0,
                gaps: 0,
                first_ms: at_ms,
                last_ms: at_ms,
                longest_pause_ms: 0,
                sequence: SequenceWindow::starting_at(sequence),
                last: at,
            });
            streams.len() - 1
        });
        let Some(row) = streams.get_mut(index) else {
            return;
        };
        if !row.payload_types.contains(&payload_type) {
            row.payload_types.push(payload_type);
        }
        row.packets += 1;
        row.sequence.on_packet(sequence);
        row.gaps = row.sequence.missing();
        row.last_ms = row.last_ms.max(at_ms);
        let pause = millis(at.saturating_sub(row.last));
        row.longest_pause_ms = row.longest_pause_ms.max(pause);
        row.last = row.last.max(at);
    }

    fn into_verification(self, file_bytes: u64) -> Verification {
        let first = self.first.unwrap_or_default();
        let started_at = self.first.map_or(String::new(), |at| rfc3339(millis(at)));
        let rest = file_bytes.saturating_sub(self.whole_bytes);
        Verification {
            started_at,
            duration_ms: millis(self.newest.saturating_sub(first)),
            tail: match rest {
                0 => Tail::Whole,
                bytes => Tail::Cut { bytes },
            },
            ..self.report
        }
    }
}

/// Knows how much was read, which the records alone do not tell.
struct Counted<R> {
    source: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.bytes = self.bytes.saturating_add(count as u64);
        Ok(count)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
