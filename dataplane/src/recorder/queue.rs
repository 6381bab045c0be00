//! The bounded road from a worker to a writer thread: one ring of bytes per recording, counted in
//! packets. Pushing never blocks and never allocates; what does not fit is the caller's to count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};

use super::frame::Way;

const HEADER_BYTES: usize = 24;
/// Room per packet when the ring's size is chosen: a G.711 packet of 20 ms with its header. Longer
/// packets may fill the bytes before the count.
const TYPICAL_ENTRY_BYTES: usize = HEADER_BYTES + 172;
const MIN_RING_BYTES: usize = 16 * 1024;
const MAX_RING_BYTES: usize = 4 * 1024 * 1024;
/// Queued bytes at which the writer is asked to come at once.
pub(super) const NUDGE_BYTES: usize = 2 * 1024;
/// Stands for "not an RTP stream".
pub(crate) const NO_STREAM: u16 = u16::MAX;

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryHeader {
    /// Arrival, wall nanoseconds.
    pub(crate) at_ns: u64,
    /// When the worker handled it, monotonic nanoseconds.
    pub(crate) handled_ns: u64,
    /// Number of the endpoint inside the recording.
    pub(crate) endpoint: u16,
    /// Index in the account, or [`NO_STREAM`].
    pub(crate) stream: u16,
    /// From the endpoint or to it.
    pub(crate) way: Way,
    /// Bytes that follow.
    pub(crate) bytes: u16,
}

#[derive(Default)]
struct Gauge {
    packets: AtomicU32,
    written: AtomicU64,
    nudged: AtomicBool,
}

/// The worker's end.
pub(crate) struct QueueSender {
    ring: Producer<u8>,
    gauge: Arc<Gauge>,
    limit: u32,
}

/// The writer's end.
pub(crate) struct QueueReceiver {
    ring: Consumer<u8>,
    gauge: Arc<Gauge>,
}

/// What came of a push.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pushed {
    /// It is queued.
    Queued,
    /// It is queued, and the writer should come now.
    QueuedNudge,
    /// There was no place.
    Full,
}

/// A queue for at most `packets` packets.
pub(crate) fn queue(packets: usize) -> (QueueSender, QueueReceiver) {
    let bytes = packets.saturating_mul(TYPICAL_ENTRY_BYTES);
    let (producer, consumer) = RingBuffer::new(bytes.clamp(MIN_RING_BYTES, MAX_RING_BYTES));
    let gauge = Arc::new(Gauge::default());
    let sender = QueueSender {
        ring: producer,
        gauge: Arc::clone(&gauge),
        limit: u32::try_from(packets).unwrap_or(u32::MAX),
    };
    let receiver = QueueReceiver {
        ring: consumer,
        gauge,
    };
    (sender, receiver)
}

impl QueueSender {
    /// Packets that the writer has written so far.
    pub(super) fn written(&self) -> u64 {
        self.gauge.written.load(Ordering::Relaxed)
    }

    /// Queues `packet`, whose length `header.bytes` must be.
    pub(crate) fn push(&mut self, header: &EntryHeader, packet: &[u8]) -> Pushed {
        if self.gauge.packets.load(Ordering::Acquire) >= self.limit {
            return Pushed::Full;
        }
        let Ok(chunk) = self.ring.write_chunk_uninit(HEADER_BYTES + packet.len()) else {
            return Pushed::Full;
        };
        let head = header.to_bytes();
        chunk.fill_from_iter(head.iter().chain(packet).copied());
        self.gauge.packets.fetch_add(1, Ordering::AcqRel);
        let queued = self.ring.buffer().capacity() - self.ring.slots();
        if queued >= NUDGE_BYTES && !self.gauge.nudged.swap(true, Ordering::AcqRel) {
            Pushed::QueuedNudge
        } else {
            Pushed::Queued
        }
    }
}

impl QueueReceiver {
    /// Moves the next packet's bytes to the end of `buffer`.
    pub(crate) fn pop(&mut self, buffer: &mut Vec<u8>) -> Option<EntryHeader> {
        let mut head = [0; HEADER_BYTES];
        let chunk = self.ring.read_chunk(HEADER_BYTES).ok()?;
        copy_chunk(&mut head, chunk.as_slices());
        chunk.commit_all();
        let header = EntryHeader::from_bytes(&head);
        // The sender commits header and packet at once, so the packet is there.
        let chunk = self.ring.read_chunk(usize::from(header.bytes)).ok()?;
        let (first, second) = chunk.as_slices();
        buffer.extend_from_slice(first);
        buffer.extend_from_slice(second);
        chunk.commit_all();
        self.gauge.packets.fetch_sub(1, Ordering::AcqRel);
        Some(header)
    }

    /// So many packets more are written.
    pub(super) fn on_written(&self, packets: u64) {
        self.gauge.written.fetch_add(packets, Ordering::Relaxed);
    }

    /// Lets the sender ask again; call before emptying the queue.
    pub(crate) fn rearm(&self) {
        self.gauge.nudged.store(false, Ordering::Release);
    }
}

impl EntryHeader {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.at_ns.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.handled_ns.to_ne_bytes());
        bytes[16..18].copy_from_slice(&self.endpoint.to_ne_bytes());
        bytes[18..20].copy_from_slice(&self.stream.to_ne_bytes());
        bytes[20..22].copy_from_slice(&self.bytes.to_ne_bytes());
        bytes[22] = u8::from(self.way == Way::Out);
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Self {
        let eight = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(word)
        };
        let two = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            at_ns: eight(0),
            handled_ns: eight(8),
            endpoint: two(16),
            stream: two(18),
            bytes: two(20),
            way: if bytes[22] == 0 { Way::In } else { Way::Out },
        }
    }
}

fn copy_chunk(target: &mut [u8], (first, second): (&[u8], &[u8])) {
    let (head, tail) = target.split_at_mut(first.len());
    head.copy_from_slice(first);
    tail.copy_from_slice(second);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(at_ns: u64, bytes: usize) -> EntryHeader {
        EntryHeader {
            at_ns,
            handled_ns: at_ns + 1,
            endpoint: 3,
            stream: 4,
            way: Way::Out,
            bytes: u16::try_from(bytes).expect("short"),
        }
    }

    #[test]
    fn packets_come_out_as_they_went_in() {
        let (mut sender, mut receiver) = queue(10);
        let mut buffer = Vec::new();
        // Often enough for the ring to wrap around inside a header and inside a packet.
        for round in 0..1000_u64 {
            let packet = vec![round as u8; 100 + round as usize % 50];
            let header = header(round, packet.len());
            assert_eq!(sender.push(&header, &packet), Pushed::Queued);
            buffer.clear();
            assert_eq!(receiver.pop(&mut buffer), Some(header));
            assert_eq!(buffer, packet);
        }
        assert_eq!(receiver.pop(&mut buffer), None);
    }

    #[test]
    fn the_limit_is_in_packets_and_in_bytes() {
        let (mut sender, mut receiver) = queue(3);
        for at in 0..3 {
            assert_eq!(sender.push(&header(at, 1), &[1]), Pushed::Queued);
        }
        assert_eq!(sender.push(&header(3, 1), &[1]), Pushed::Full);
        assert!(receiver.pop(&mut Vec::new()).is_some());
        assert_eq!(sender.push(&header(3, 1), &[1]), Pushed::Queued);

        let (mut sender, _receiver) = queue(100);
        let packet = [0; 1500];
        let pushed =
            (0..100).take_while(|at| sender.push(&header(*at, 1500), &packet) != Pushed::Full);
        assert!((10..20).contains(&pushed.count()));
    }

    #[test]
    fn the_writer_is_asked_once_until_it_comes() {
        let (mut sender, receiver) = queue(1000);
        let packet = [0; 500];
        let mut push = || sender.push(&header(0, 500), &packet);
        let outcomes: Vec<Pushed> = (0..6).map(|_| push()).collect();
        let nudges = outcomes.iter().filter(|o| **o == Pushed::QueuedNudge);
        assert_eq!(nudges.count(), 1);
        receiver.rearm();
        assert_eq!(push(), Pushed::QueuedNudge);
    }
}
