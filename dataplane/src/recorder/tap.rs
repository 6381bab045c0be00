//! The worker's side of one recording: numbers the legs, keeps the account, pushes into the queue.

use rtpbridge_core::session::{RecordFrame, RecordKind};
use rtpbridge_shared::id::{EndpointId, RecordingId};
use rtpbridge_shared::ipc::recording::{RecordedStream, RecordingSummary, StreamDirection};
use rtpbridge_shared::vocab::StopReason;

use super::account::{Account, Stream};
use super::frame::Way;
use super::queue::{EntryHeader, NO_STREAM, Pushed, QueueSender};
use super::writer::Closed;

/// What goes into one recording.
pub(crate) struct Tap {
    queue: QueueSender,
    started_ns: u64,
    account: Account,
    /// Legs of the recording, whether or not they send.
    legs: Vec<EndpointId>,
    /// Numbers in the file: by first appearance.
    numbers: Vec<EndpointId>,
    dropped: u64,
}

impl Tap {
    /// A recording that began at this wall time.
    pub(crate) fn new(queue: QueueSender, started_ns: u64) -> Self {
        Self {
            queue,
            started_ns,
            account: Account::default(),
            legs: Vec::new(),
            numbers: Vec::new(),
            dropped: 0,
        }
    }

    /// `leg` is part of the recording from now on.
    pub(crate) fn add_leg(&mut self, leg: EndpointId) {
        if !self.legs.contains(&leg) {
            self.legs.push(leg);
        }
    }

    /// Queues one packet, or counts it as lost.
    pub(crate) fn push(&mut self, frame: &RecordFrame<'_>, handled_ns: u64) -> Pushed {
        let at_ns = frame.at.as_nanos();
        let stream = match frame.kind {
            RecordKind::Rtcp => None,
            RecordKind::Rtp { payload_name } => self.account.on_rtp(
                frame.endpoint,
                frame.direction,
                frame.bytes,
                payload_name,
                at_ns,
            ),
        };
        let pushed = match (self.number_of(frame.endpoint), frame.bytes.len().try_into()) {
            (Some(endpoint), Ok(bytes)) => {
                let header = EntryHeader {
                    at_ns,
                    handled_ns,
                    endpoint,
                    stream: stream.unwrap_or(NO_STREAM),
                    way: match frame.direction {
                        StreamDirection::Inbound => Way::In,
                        StreamDirection::Outbound => Way::Out,
                    },
                    bytes,
                };
                self.queue.push(&header, frame.bytes)
            }
            _ => Pushed::Full,
        };
        if pushed == Pushed::Full {
            self.dropped += 1;
            if let Some(stream) = stream {
                self.account.on_dropped(stream);
            }
        }
        pushed
    }

    /// The account, given what the writer says; with none the file is not closed in
    /// time, and what was written so far counts.
    pub(crate) fn summary(
        &self,
        recording: RecordingId,
        file_path: String,
        duration_ms: u64,
        reason: StopReason,
        closed: Option<&Closed>,
    ) -> RecordingSummary {
        let lost: &[(u16, u64)] = closed.map_or(&[], |closed| closed.lost.as_slice());
        let all_lost: u64 = lost.iter().map(|(_, count)| count).sum();
        let rows = (0..).zip(self.account.streams()).map(|(index, stream)| {
            let lost = lost.iter().find(|(known, _)| *known == index);
            self.row(stream, lost.map_or(0, |(_, count)| *count))
        });
        let mut streams: Vec<RecordedStream> = rows.collect();
        for leg in &self.legs {
            let inbound = |row: &RecordedStream| {
                row.endpoint == *leg && row.direction == StreamDirection::Inbound
            };
            if !streams.iter().any(inbound) {
                streams.push(silent_row(*leg));
            }
        }
        RecordingSummary {
            recording,
            file_path,
            duration_ms,
            packets: closed.map_or_else(|| self.queue.written(), |closed| closed.packets),
            dropped_packets: self.dropped + all_lost,
            reason,
            flushed: closed.is_some_and(|closed| closed.synced),
            streams,
        }
    }

    fn row(&self, stream: &Stream, lost: u64) -> RecordedStream {
        let since_start = |ns: u64| ns.saturating_sub(self.started_ns) / 1_000_000;
        let names = stream.payload_types.iter();
        let dropped = stream.dropped + lost;
        RecordedStream {
            endpoint: stream.endpoint,
            ssrc: stream.ssrc,
            direction: stream.direction,
            payload_types: names.map(|(pt, name)| (*pt, (*name).to_owned())).collect(),
            packets: stream.seen.saturating_sub(dropped),
            dropped,
            gaps: stream.gaps(),
            first_ms: since_start(stream.first_ns),
            last_ms: since_start(stream.last_ns),
        }
    }

    fn number_of(&mut self, endpoint: EndpointId) -> Option<u16> {
        let known = self.numbers.iter().position(|known| *known == endpoint);
        let number = known.unwrap_or_else(|| {
            self.numbers.push(endpoint);
            self.numbers.len() - 1
        });
        u16::try_from(number).ok()
    }
}

fn silent_row(endpoint: EndpointId) -> RecordedStream {
    RecordedStream {
        endpoint,
        ssrc: 0,
        direction: StreamDirection::Inbound,
        payload_types: Vec::new(),
        packets: 0,
        dropped: 0,
        gaps: 0,
        first_ms: 0,
        last_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::file::{Pass, RecordingFile};
    use crate::recorder::queue::queue;
    use rtpbridge_core::time::WallTime;

    const START_NS: u64 = 1_000_000_000;

    fn rtp(sequence: u16) -> Vec<u8> {
        let mut packet = vec![0x80, 0];
        packet.extend(sequence.to_be_bytes());
        packet.extend([0, 0, 0, 0, 0, 0, 0, 7, 0xff]);
        packet
    }

    fn frame(endpoint: EndpointId, ms: u64, bytes: &[u8], kind: RecordKind) -> RecordFrame<'_> {
        RecordFrame {
            endpoint,
            direction: StreamDirection::Inbound,
            kind,
            at: WallTime::from_nanos(START_NS + ms * 1_000_000),
            bytes,
        }
    }

    #[test]
    fn the_summary_accounts_for_every_packet() {
        let (sender, mut receiver) = queue(3);
        let mut tap = Tap::new(sender, START_NS);
        let talker = EndpointId::from_bytes([1; 16]);
        let silent = EndpointId::from_bytes([2; 16]);
        tap.add_leg(talker);
        tap.add_leg(silent);
        tap.add_leg(talker);
        let kind = RecordKind::Rtp {
            payload_name: "PCMU",
        };
        tap.push(&frame(silent, 0, &[0x80, 200, 0, 0], RecordKind::Rtcp), 0);
        for (ms, sequence) in [(10, 1), (30, 3), (50, 4)] {
            tap.push(&frame(talker, ms, &rtp(sequence), kind), 0);
        }
        let closed = Closed {
            packets: 2,
            lost: vec![(0, 1)],
            synced: true,
        };
        let id = RecordingId::from_bytes([9; 16]);
        let path = "/r/a.pcap".to_owned();
        let summary = tap.summary(id, path, 60, StopReason::Requested, Some(&closed));
        assert_eq!((summary.packets, summary.dropped_packets), (2, 2));
        assert!(summary.flushed);
        let [row, quiet] = summary.streams.as_slice() else {
            panic!("{:?}", summary.streams);
        };
        assert_eq!((row.packets, row.dropped, row.gaps), (1, 2, 1));
        assert_eq!((row.first_ms, row.last_ms), (10, 50));
        assert_eq!(row.payload_types, [(0, "PCMU".to_owned())]);
        assert_eq!((quiet.endpoint, quiet.packets), (silent, 0));
        let first = receiver.pop(&mut Vec::new()).expect("queued");
        assert_eq!((first.endpoint, first.stream), (0, NO_STREAM));
        assert_eq!(receiver.pop(&mut Vec::new()).expect("queued").endpoint, 1);
    }

    #[test]
    fn a_file_that_is_not_closed_in_time_counts_what_was_written() {
        let (sender, receiver) = queue(10);
        let mut tap = Tap::new(sender, START_NS);
        let leg = EndpointId::from_bytes([1; 16]);
        for ms in 0..3 {
            let kind = RecordKind::Rtcp;
            tap.push(&frame(leg, ms, &[0x80, 200, 0, 0], kind), 0);
        }
        let mut file = RecordingFile::start(tempfile::tempfile().expect("a file"), receiver);
        let file = file.as_mut().expect("writes its header");
        assert_eq!(file.pass(Pass::Final).expect("writes"), 3);
        let id = RecordingId::from_bytes([9; 16]);
        let path = "/r/a.pcap".to_owned();
        let summary = tap.summary(id, path, 60, StopReason::WriteError, None);
        assert_eq!((summary.packets, summary.flushed), (3, false));
    }
}
