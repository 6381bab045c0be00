//! One PCAP file being written: puts packets in order of arrival, writes whole batches with one
//! system call, and leaves a readable file behind whatever goes wrong.
//!
//! Packets of different sockets come out of order by as much as the worker was late. So they are
//! held until the worker has gone on for 30 ms after them (`progress`), then written by arrival. What is held plus what is queued stays under the 8 KiB that a crash may cost.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, Endianness, TsResolution};

use super::frame::{self, HEADER_BYTES};
use super::queue::{EntryHeader, QueueReceiver};

const HOLD_NS: u64 = 30_000_000;
const HOLD_BYTES: usize = 4 * 1024;
/// Most packets taken from the queue in one pass, so that one recording cannot starve the others.
const MAX_PASS_PACKETS: usize = 4096;
const PCAP_RECORD_BYTES: usize = 16;
const SNAPLEN: u32 = 65_535;

/// Packets that were not written because of a write error, per stream index of the account.
pub(super) type Lost = Vec<(u16, u64)>;

/// Which packets a pass writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pass {
    /// Those whose order is settled when the worker has come to this monotonic time.
    Settled { now_ns: u64 },
    /// All; the recording ends.
    Final,
}

/// A recording's file and the packets on their way into it.
pub(super) struct RecordingFile {
    file: File,
    queue: QueueReceiver,
    encoder: PcapWriter<Batch>,
    batch: Batch,
    held: Vec<(EntryHeader, usize)>,
    bytes: Vec<u8>,
    spare: Vec<u8>,
    newest_written_ns: u64,
    good_bytes: u64,
    written: u64,
    lost: Lost,
    failed: bool,
}

impl RecordingFile {
    /// Writes the file header to the new and empty `file`.
    pub(super) fn start(file: File, queue: QueueReceiver) -> io::Result<Self> {
        let batch = Batch::default();
        let header = PcapHeader {
            version_major: 2,
            version_minor: 4,
            ts_correction: 0,
            ts_accuracy: 0,
            snaplen: SNAPLEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::MicroSecond,
            endianness: Endianness::Little,
        };
        let encoder = PcapWriter::with_header(batch.clone(), header).map_err(io::Error::other)?;
        let mut this = Self {
            file,
            queue,
            encoder,
            batch,
            held: Vec::new(),
            bytes: Vec::new(),
            spare: Vec::new(),
            newest_written_ns: 0,
            good_bytes: 0,
            written: 0,
            lost: Vec::new(),
            failed: false,
        };
        let header = this.batch.take();
        this.file.write_all(&header)?;
        this.good_bytes = header.len() as u64;
        this.batch.give_back(header);
        Ok(this)
    }

    /// Moves packets from the queue to the file; gives how many were written. An error comes once;
    /// after it everything is lost and counted.
    pub(super) fn pass(&mut self, pass: Pass) -> io::Result<u64> {
        loop {
            self.queue.rearm();
            let taken = self.take_queued();
            let count = match pass {
                Pass::Settled { now_ns } => self.settled(now_ns),
                Pass::Final => {
                    self.held.sort_by_key(|(header, _)| header.at_ns);
                    self.held.len()
                }
            };
            let outcome = self.write_first(count);
            if outcome.is_err() || taken < MAX_PASS_PACKETS || pass != Pass::Final {
                return outcome;
            }
        }
    }

    /// The file and its account, after the final pass.
    pub(super) fn into_parts(self) -> (File, u64, Lost) {
        (self.file, self.written, self.lost)
    }

    fn take_queued(&mut self) -> usize {
        for taken in 0..MAX_PASS_PACKETS {
            let at = self.bytes.len();
            match self.queue.pop(&mut self.bytes) {
                Some(header) => self.held.push((header, at)),
                None => return taken,
            }
        }
        MAX_PASS_PACKETS
    }

    /// Sorts what is held and says how many of it may be written.
    fn settled(&mut self, now_ns: u64) -> usize {
        let horizon = now_ns.saturating_sub(HOLD_NS);
        let old = self.held.iter().filter(|(h, _)| h.handled_ns <= horizon);
        let newest_old = old.map(|(header, _)| header.at_ns).max();
        self.held.sort_by_key(|(header, _)| header.at_ns);
        let settled = newest_old.map_or(0, |newest| {
            self.held
                .partition_point(|(header, _)| header.at_ns <= newest)
        });
        let mut room = HOLD_BYTES;
        let fresh = self.held.iter().rev().take_while(|(header, _)| {
            let size = record_bytes(header);
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        });
        settled.max(self.held.len() - fresh.count())
    }

    /// Writes the first `count` held packets.
    fn write_first(&mut self, count: usize) -> io::Result<u64> {
        if count == 0 {
            return Ok(0);
        }
        let mut ends = Vec::with_capacity(count);
        if !self.failed {
            for (header, at) in &self.held[..count] {
                let payload = &self.bytes[*at..*at + usize::from(header.bytes)];
                self.newest_written_ns = self.newest_written_ns.max(header.at_ns);
                let time = Duration::from_nanos(self.newest_written_ns);
                encode(&mut self.encoder, header, time, payload)?;
                ends.push(self.batch.len());
            }
        }
        let encoded = self.batch.take();
        let (whole, outcome) = self.write_batch(&encoded, &ends);
        self.batch.give_back(encoded);
        self.written += whole as u64;
        self.queue.on_written(whole as u64);
        for (header, _) in &self.held[whole..count] {
            count_lost(&mut self.lost, header.stream);
        }
        self.forget_first(count);
        outcome.map(|()| whole as u64)
    }

    /// How many whole records of `encoded` (which end at `ends`) are in the file now.
    fn write_batch(&mut self, encoded: &[u8], ends: &[usize]) -> (usize, io::Result<()>) {
        if self.failed {
            return (0, Ok(()));
        }
        let mut done = 0;
        while done < encoded.len() {
            match self.file.write(&encoded[done..]) {
                Ok(0) => return self.on_write_error(done, ends, io::ErrorKind::WriteZero.into()),
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.on_write_error(done, ends, error),
            }
        }
        self.good_bytes += done as u64;
        (ends.len(), Ok(()))
    }

    /// Cuts the file after its last whole record.
    fn on_write_error(
        &mut self,
        done: usize,
        ends: &[usize],
        error: io::Error,
    ) -> (usize, io::Result<()>) {
        self.failed = true;
        let whole = ends.partition_point(|end| *end <= done);
        let good = whole.checked_sub(1).and_then(|last| ends.get(last));
        self.good_bytes += good.map_or(0, |end| *end as u64);
        // Shortening needs no space; should it fail, readers stop at the cut record by themselves.
        let _ = self.file.set_len(self.good_bytes);
        (whole, Err(error))
    }

    fn forget_first(&mut self, count: usize) {
        self.spare.clear();
        self.held.drain(..count);
        for (header, at) in &mut self.held {
            let from = *at;
            *at = self.spare.len();
            let bytes = &self.bytes[from..from + usize::from(header.bytes)];
            self.spare.extend_from_slice(bytes);
        }
        std::mem::swap(&mut self.bytes, &mut self.spare);
    }
}

fn encode(
    encoder: &mut PcapWriter<Batch>,
    header: &EntryHeader,
    time: Duration,
    payload: &[u8],
) -> io::Result<()> {
    let headers = frame::headers(header.endpoint, header.way, payload.len());
    let headers = headers.ok_or(io::ErrorKind::InvalidInput)?;
    let mut data = [0; HEADER_BYTES + MAX_STACK_PACKET];
    let total = HEADER_BYTES + payload.len();
    let Some(buffer) = data.get_mut(..total) else {
        let data = [&headers[..], payload].concat();
        return write_record(encoder, time, &data);
    };
    buffer[..HEADER_BYTES].copy_from_slice(&headers);
    buffer[HEADER_BYTES..].copy_from_slice(payload);
    write_record(encoder, time, buffer)
}

const MAX_STACK_PACKET: usize = 2048;

fn write_record(encoder: &mut PcapWriter<Batch>, time: Duration, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    let packet = PcapPacket::new(time, length, data);
    encoder.write_packet(&packet).map_err(io::Error::other)?;
    Ok(())
}

fn record_bytes(header: &EntryHeader) -> usize {
    PCAP_RECORD_BYTES + HEADER_BYTES + usize::from(header.bytes)
}

fn count_lost(lost: &mut Lost, stream: u16) {
    match lost.iter_mut().find(|(known, _)| *known == stream) {
        Some((_, count)) => *count += 1,
        None => lost.push((stream, 1)),
    }
}

/// What the PCAP encoder writes into, so that many records become one write. Shared with the
/// encoder, which does not give access to its own writer.
#[derive(Clone, Default)]
struct Batch(Rc<RefCell<Vec<u8>>>);

impl Batch {
    fn len(&self) -> usize {
        self.0.borrow().len()
    }

    fn take(&self) -> Vec<u8> {
        self.0.take()
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.0.replace(buffer);
    }
}

impl Write for Batch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
