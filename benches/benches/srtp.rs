//! What SRTP costs per packet: 12 bytes of header and 160 of payload, as PCMU has every 20 ms.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rtpbridge_core::srtp::suite::MAX_RTP_OVERHEAD;
use rtpbridge_core::srtp::{MasterKey, Protector, SrtpSuite, Unprotector, master_len};
use rtpbridge_core::time;

const PACKET_LEN: usize = 172;
const BATCH: usize = 256;

type Buffer = [u8; PACKET_LEN + MAX_RTP_OVERHEAD];

/// A stream of packets with consecutive sequence numbers, a batch at a time.
struct Stream {
    sequence: u16,
    buffers: Vec<Buffer>,
}

impl Stream {
    fn new() -> Self {
        let mut buffer = [0x55; PACKET_LEN + MAX_RTP_OVERHEAD];
        buffer[..12].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        Self {
            sequence: 0,
            buffers: vec![buffer; BATCH],
        }
    }

    fn next_batch(&mut self) -> &mut [Buffer] {
        for buffer in &mut self.buffers {
            buffer[0] = 0x80;
            buffer[2..4].copy_from_slice(&self.sequence.to_be_bytes());
            self.sequence = self.sequence.wrapping_add(1);
        }
        &mut self.buffers
    }
}

fn key(suite: SrtpSuite) -> MasterKey {
    MasterKey::new(suite, &vec![7; master_len(suite)]).expect("the suite's length")
}

fn protect(suite: SrtpSuite, packets: u64) -> Duration {
    let mut protector = Protector::new(&key(suite));
    let mut stream = Stream::new();
    let mut spent = Duration::ZERO;
    for _ in 0..packets.div_ceil(BATCH as u64) {
        let batch = stream.next_batch();
        let begun = Instant::now();
        for buffer in batch {
            protector
                .protect_rtp(black_box(buffer), PACKET_LEN)
                .expect("protectable");
        }
        spent += begun.elapsed();
    }
    scaled(spent, packets)
}

fn unprotect(suite: SrtpSuite, packets: u64) -> Duration {
    let mut protector = Protector::new(&key(suite));
    let mut unprotector = Unprotector::new(&key(suite));
    let mut stream = Stream::new();
    let mut spent = Duration::ZERO;
    for _ in 0..packets.div_ceil(BATCH as u64) {
        let batch = stream.next_batch();
        let mut len = 0;
        for buffer in &mut *batch {
            len = protector
                .protect_rtp(buffer, PACKET_LEN)
                .expect("protectable");
        }
        let begun = Instant::now();
        for buffer in batch {
            unprotector
                .unprotect_rtp(time::Instant::ZERO, &mut black_box(buffer)[..len])
                .expect("authentic");
        }
        spent += begun.elapsed();
    }
    scaled(spent, packets)
}

/// Whole batches were measured; `packets` were asked for.
fn scaled(spent: Duration, packets: u64) -> Duration {
    let measured = packets.div_ceil(BATCH as u64) * BATCH as u64;
    spent.mul_f64(packets as f64 / measured as f64)
}

fn srtp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("srtp");
    group.throughput(Throughput::Elements(1));
    for suite in SrtpSuite::ALL.iter().copied() {
        group.bench_function(BenchmarkId::new("protect", suite), |bencher| {
            bencher.iter_custom(|packets| protect(suite, packets));
        });
        group.bench_function(BenchmarkId::new("unprotect", suite), |bencher| {
            bencher.iter_custom(|packets| unprotect(suite, packets));
        });
    }
    group.finish();
}

criterion_group!(benches, srtp);
criterion_main!(benches);
