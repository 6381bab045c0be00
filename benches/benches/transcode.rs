//! CPU of one packet through a transcoding pipeline: 20 ms of speech-like sound, one talker, one
//! listener of another codec. What the network costs comes on top (rtpbridge-bench measures that).

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use rtpbridge_core::codec::opus::OpusSettings;
use rtpbridge_core::codec::{Codec, Encoder, MAX_PAYLOAD, audio_rate};
use rtpbridge_core::time::Instant;
use rtpbridge_core::transcode::{EncodedFrame, SourcePacket, TargetFormat, Transcoder};

const CODECS: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];
/// Packets of the talker, played over and over.
const PACKETS: usize = 500;

/// Syllables: a voiced buzz with harmonics and formant-like weights, four to the second, and pauses.
fn speech(rate_hz: u32, samples: usize) -> Vec<i16> {
    (0..samples)
        .map(|n| {
            let at = n as f64 / f64::from(rate_hz);
            let pitch = 120.0 + 30.0 * (at * 3.1).sin();
            let envelope =
                (at * 4.0 * std::f64::consts::PI).sin().max(0.0) * f64::from(at % 3.0 < 2.2);
            let voice: f64 = (1..20)
                .map(|k| (at * pitch * f64::from(k) * std::f64::consts::TAU).sin() / f64::from(k))
                .sum();
            (voice * envelope * 6000.0) as i16
        })
        .collect()
}

fn packets(codec: Codec) -> Vec<Vec<u8>> {
    let rate_hz = audio_rate(codec);
    let frame = rate_hz as usize / 50;
    let mut encoder = Encoder::new(codec, rate_hz, &OpusSettings::default()).expect("encoder");
    let mut payload = vec![0; MAX_PAYLOAD];
    speech(rate_hz, frame * PACKETS)
        .chunks_exact(frame)
        .map(|pcm| {
            let length = encoder.encode(pcm, &mut payload).expect("encodes");
            payload[..length].to_vec()
        })
        .collect()
}

fn transcode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transcode one packet");
    for source in CODECS {
        let packets = packets(source);
        let ticks = source.clock_rate() / 50;
        for target in CODECS.into_iter().filter(|target| *target != source) {
            let wanted = [TargetFormat::new(target, 20, OpusSettings::default())];
            let mut transcoder = Transcoder::new(source);
            transcoder.add_target(&wanted[0]).expect("target");
            let mut n = 0u32;
            group.bench_function(format!("{source} to {target}"), |bencher| {
                bencher.iter(|| {
                    let packet = SourcePacket {
                        sequence: n as u16,
                        timestamp: n.wrapping_mul(ticks),
                        marker: false,
                        payload: &packets[n as usize % PACKETS],
                    };
                    let now = Instant::from_nanos(u64::from(n) * 20_000_000);
                    n = n.wrapping_add(1);
                    let mut sink = |_: usize, frame: EncodedFrame<'_>| {
                        black_box(frame.payload);
                    };
                    transcoder.handle_packet(now, packet, &wanted, &mut sink);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, transcode);
criterion_main!(benches);
