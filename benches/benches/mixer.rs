//! CPU of one tick of a conference in which everybody talks: jitter buffers, decoding, summing,
//! encoding. Divide by the parties for the cost of one packet sent.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rtpbridge_core::codec::opus::OpusSettings;
use rtpbridge_core::codec::{Codec, Encoder, MAX_PAYLOAD, audio_rate};
use rtpbridge_core::jitter::JitterBuffer;
use rtpbridge_core::mixer::{Bus, Tick, mix_rate};
use rtpbridge_core::time::Instant;
use rtpbridge_core::transcode::{EncodedFrame, SourcePacket, TargetFormat};

const PACKETS: usize = 100;

struct Conference {
    bus: Bus<usize>,
    sources: Vec<(JitterBuffer, Vec<Vec<u8>>, u32)>,
    index: u64,
}

impl Conference {
    fn new(codecs: &[Codec]) -> Self {
        let mix_hz = mix_rate(codecs.iter().map(|codec| audio_rate(*codec)));
        let mut bus = Bus::new(mix_hz);
        let mut sources = Vec::new();
        for (party, codec) in codecs.iter().enumerate() {
            let format = TargetFormat::new(*codec, 20, OpusSettings::default());
            bus.set_party(party, true, Some(format));
            let buffer = JitterBuffer::new(*codec, mix_hz).expect("buffer");
            sources.push((buffer, packets(*codec, party), codec.clock_rate() / 50));
        }
        Self {
            bus,
            sources,
            index: 1,
        }
    }

    fn tick(&mut self) {
        let tick = Tick { index: self.index };
        for (buffer, packets, ticks) in &mut self.sources {
            let packet = SourcePacket {
                sequence: self.index as u16,
                timestamp: (self.index as u32).wrapping_mul(*ticks),
                marker: false,
                payload: &packets[self.index as usize % PACKETS],
            };
            buffer.handle_packet(tick.at(), packet);
        }
        let now = Instant::from_nanos(tick.at().as_nanos() + 5_000_000);
        let sources = &mut self.sources;
        self.bus.handle_tick(
            tick,
            &mut |party, out| sources[party].0.pull(now, out),
            &mut |_, frame: EncodedFrame<'_>| {
                black_box(frame.payload);
            },
        );
        self.index += 1;
    }
}

fn packets(codec: Codec, party: usize) -> Vec<Vec<u8>> {
    let rate_hz = audio_rate(codec);
    let mut encoder = Encoder::new(codec, rate_hz, &OpusSettings::default()).expect("encoder");
    let mut payload = vec![0; MAX_PAYLOAD];
    (0..PACKETS)
        .map(|packet| {
            let frame: Vec<i16> = (0..rate_hz as usize / 50)
                .map(|n| {
                    let at = (packet * rate_hz as usize / 50 + n) as f64 / f64::from(rate_hz);
                    let hz = 200.0 * (party + 1) as f64;
                    ((at * hz * std::f64::consts::TAU).sin() * 3000.0) as i16
                })
                .collect();
            let length = encoder.encode(&frame, &mut payload).expect("encodes");
            payload[..length].to_vec()
        })
        .collect()
}

fn mixer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mixer tick");
    let conferences = [
        ("3 PCMU", vec![Codec::Pcmu; 3]),
        ("5 PCMU", vec![Codec::Pcmu; 5]),
        ("20 PCMU", vec![Codec::Pcmu; 20]),
        ("5 G722", vec![Codec::G722; 5]),
        (
            "5 mixed",
            vec![
                Codec::Pcmu,
                Codec::Pcma,
                Codec::G722,
                Codec::Opus,
                Codec::Opus,
            ],
        ),
    ];
    for (name, codecs) in conferences {
        let mut conference = Conference::new(&codecs);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| conference.tick());
        });
    }
    group.finish();
}

criterion_group!(benches, mixer);
criterion_main!(benches);
