use super::*;
use crate::codec::opus::OpusSettings;
use crate::codec::{Encoder, probe};

/// A sender, a network and a mixer that asks every 20 ms.
struct Call {
    codec: Codec,
    frames: Vec<Vec<u8>>,
    /// Parts per million by which the sender's clock is slow.
    skew_ppm: i64,
    /// Delay of packet n in ms, `None` when lost.
    network: Box<dyn Fn(u64) -> Option<u64>>,
}

impl Call {
    fn tone(codec: Codec, frequency: f64, seconds: usize) -> Self {
        let rate = codec::audio_rate(codec);
        let pcm = probe::tone(rate, frequency, -10.0, rate as usize * seconds);
        let mut encoder = Encoder::new(codec, rate, &OpusSettings::default()).expect("encoder");
        let frames = pcm
            .chunks_exact(rate as usize / 50)
            .map(|frame| {
                let mut payload = vec![0; 4000];
                let length = encoder.encode(frame, &mut payload).expect("encodes");
                payload.truncate(length);
                payload
            })
            .collect();
        Self {
            codec,
            frames,
            skew_ppm: 0,
            network: Box::new(|_| Some(0)),
        }
    }

    fn over(mut self, network: impl Fn(u64) -> Option<u64> + 'static) -> Self {
        self.network = Box::new(network);
        self
    }

    /// What a mixer at `mix_hz` hears from the first sound on, and the buffer at the end.
    fn run(&self, mix_hz: u32) -> (Vec<i16>, JitterBuffer) {
        let mut arrivals: Vec<(u64, u64)> = (0..self.frames.len() as u64)
            .filter_map(|n| (self.network)(n).map(|ms| (self.sent_at(n) + ms * 1_000_000, n)))
            .collect();
        arrivals.sort_unstable();
        let mut buffer = JitterBuffer::new(self.codec, mix_hz).expect("buffer");
        let mut arrivals = arrivals.into_iter().peekable();
        let (mut heard, mut out) = (Vec::new(), vec![0; mix_hz as usize / 50]);
        for tick in 0..self.frames.len() as u64 {
            let now = Instant::from_nanos(tick * 20_000_000 + 7_000_000);
            while let Some((at, n)) = arrivals.next_if(|(at, _)| *at <= now.as_nanos()) {
                let packet = SourcePacket {
                    sequence: (n as u16).wrapping_add(65500),
                    timestamp: (n as u32)
                        .wrapping_mul(self.codec.clock_rate() / 50)
                        .wrapping_sub(3000),
                    marker: false,
                    payload: &self.frames[n as usize],
                };
                buffer.handle_packet(Instant::from_nanos(at), packet);
            }
            let contribution = buffer.pull(now, &mut out);
            if contribution != Contribution::None || !heard.is_empty() {
                heard.extend_from_slice(&out);
            }
        }
        (heard, buffer)
    }

    fn sent_at(&self, n: u64) -> u64 {
        let nanos = n as i64 * 20_000_000;
        (nanos + nanos / 1_000_000 * self.skew_ppm) as u64
    }
}

fn steepest(pcm: &[i16]) -> f64 {
    probe::steepest(pcm).into()
}

/// Steepest step of a −10 dBFS sine.
fn natural(frequency: f64, rate_hz: u32) -> f64 {
    probe::amplitude(-10.0) * std::f64::consts::TAU * frequency / f64::from(rate_hz)
}

/// Root mean square as the level of a sine.
fn level(pcm: &[i16]) -> f64 {
    let power = pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / pcm.len() as f64;
    probe::dbfs((2.0 * power).sqrt())
}

#[test]
fn a_steady_source_is_heard_whole_at_every_mix_rate() {
    for codec in [Codec::Pcmu, Codec::G722, Codec::Opus] {
        for mix_hz in [8000, 16000, 48000] {
            let (heard, mut buffer) = Call::tone(codec, 1000.0, 5).run(mix_hz);
            let tone = probe::fit_tone(&heard[mix_hz as usize * 2..], mix_hz, 1000.0);
            let case = format!("{codec} at {mix_hz}: {tone:?}");
            assert!(
                (tone.level_dbfs + 10.0).abs() < 0.5 && tone.snr_db > 28.0,
                "{case}"
            );
            assert!(
                heard.len() > mix_hz as usize * 49 / 10,
                "{case}: {}",
                heard.len()
            );
            assert_eq!(buffer.take_errors(), 0);
        }
    }
}

#[test]
fn jitter_and_reordering_within_the_buffer_lose_nothing() {
    let call = Call::tone(Codec::Pcmu, 440.0, 20).over(|n| Some(n * 7919 % 61));
    let (heard, buffer) = call.run(8000);
    assert!(buffer.target_delay() >= Duration::from_millis(60));
    let settled = &heard[8000 * 6..];
    assert!((level(settled) + 10.0).abs() < 0.5, "{}", level(settled));
    assert!(
        steepest(settled) < 1.6 * natural(440.0, 8000),
        "{}",
        steepest(settled)
    );
}

#[test]
fn a_tenth_lost_and_sixty_ms_of_jitter_stay_within_a_decibel() {
    for codec in [Codec::Pcmu, Codec::G722, Codec::Opus] {
        let draw: Vec<u16> = probe::noise(11, 1000).map(i16::unsigned_abs).collect();
        let call = Call::tone(codec, 440.0, 20).over(move |n| {
            let dice = draw[n as usize];
            (!dice.is_multiple_of(10)).then_some(u64::from(dice) / 10 % 61)
        });
        let (heard, _) = call.run(16000);
        let settled = &heard[16000 * 6..];
        assert!(
            (level(settled) + 10.0).abs() < 1.0,
            "{codec}: {}",
            level(settled)
        );
        // Coarse codecs put steps of their own on top.
        let bound = 2.5 * natural(440.0, 16000) + 700.0;
        assert!(
            steepest(settled) < bound,
            "{codec}: {} of {bound}",
            steepest(settled)
        );
    }
}

#[test]
fn clocks_that_run_apart_never_drift_out_of_the_buffer() {
    for skew_ppm in [-300, 300] {
        let mut call = Call::tone(Codec::Pcmu, 440.0, 600);
        call.skew_ppm = skew_ppm;
        let (heard, buffer) = call.run(8000);
        // 300 ppm are 180 ms in ten minutes: more than the delay there is to give.
        let quiet = heard[8000..8000 * 590]
            .chunks(160)
            .filter(|frame| level(frame) < -11.5)
            .count();
        assert!(quiet < 5, "{skew_ppm}: {quiet} frames broken");
        assert!(steepest(&heard[8000..8000 * 590]) < 1.6 * natural(440.0, 8000));
        assert!(
            buffer.buffered() < Duration::from_millis(80),
            "{:?}",
            buffer.buffered()
        );
    }
}

#[test]
fn the_delay_follows_the_network_both_ways() {
    let (_, bad) = Call::tone(Codec::Pcmu, 440.0, 10)
        .over(|n| Some(n * 31 % 101))
        .run(8000);
    assert!(
        bad.target_delay() > Duration::from_millis(100),
        "{:?}",
        bad.target_delay()
    );
    let better = |n: u64| Some(if n < 300 { n * 31 % 101 } else { 0 });
    let (_, good) = Call::tone(Codec::Pcmu, 440.0, 60).over(better).run(8000);
    assert!(
        good.target_delay() < Duration::from_millis(40),
        "{:?}",
        good.target_delay()
    );
    assert!(
        good.buffered() < Duration::from_millis(60),
        "{:?}",
        good.buffered()
    );
}

#[test]
fn a_source_that_stops_fades_and_is_gone_until_it_speaks_again() {
    let pause = |n: u64| (!(100..150).contains(&n)).then_some(0);
    let call = Call::tone(Codec::Pcmu, 440.0, 6).over(pause);
    let (heard, _) = call.run(8000);
    let frames: Vec<f64> = heard.chunks(160).map(level).collect();
    assert!(
        frames[60..95]
            .iter()
            .all(|level| (level + 10.0).abs() < 1.0)
    );
    assert!(
        frames[115..140].iter().all(|level| *level < -80.0),
        "{frames:?}"
    );
    assert!(frames[160..].iter().all(|level| (level + 10.0).abs() < 1.0));
    assert!(steepest(&heard[..8000 * 2 + 4000]) < 2.0 * natural(440.0, 8000));
}

#[test]
fn a_sender_that_begins_anew_is_followed() {
    let mut buffer = JitterBuffer::new(Codec::Pcmu, 8000).expect("buffer");
    let mut out = [0; 160];
    let mut sound = 0;
    for n in 0..200u64 {
        let now = Instant::from_nanos(n * 20_000_000);
        let (sequence, timestamp) = match n {
            0..100 => (n as u16 + 5000, n as u32 * 160),
            _ => (n as u16 + 40000, 0x9000_0000 + n as u32 * 160),
        };
        let packet = SourcePacket {
            sequence,
            timestamp,
            marker: false,
            payload: &[0x20; 160],
        };
        buffer.handle_packet(now, packet);
        sound += usize::from(buffer.pull(now, &mut out) == Contribution::Sound);
    }
    assert!(sound > 190, "{sound}");
}

#[test]
fn silence_and_absence_are_told_apart() {
    let mut buffer = JitterBuffer::new(Codec::Pcma, 8000).expect("buffer");
    let mut out = [1; 160];
    assert_eq!(buffer.pull(Instant::ZERO, &mut out), Contribution::None);
    assert_eq!(out, [0; 160]);
    let mut last = Contribution::None;
    for n in 0..10u64 {
        let now = Instant::from_nanos(n * 20_000_000);
        let packet = SourcePacket {
            sequence: n as u16,
            timestamp: n as u32 * 160,
            marker: false,
            payload: &[0xd5; 160],
        };
        buffer.handle_packet(now, packet);
        last = buffer.pull(now, &mut out);
    }
    assert_eq!(last, Contribution::Silent);
}

#[test]
fn any_packets_at_any_time_are_survived() {
    for seed in 1..30u64 {
        let codec = [Codec::Pcmu, Codec::G722, Codec::Opus][seed as usize % 3];
        let mut buffer = JitterBuffer::new(codec, 16000).expect("buffer");
        let mut out = [0; 320];
        let draw: Vec<u16> = probe::noise(seed, 3000).map(i16::unsigned_abs).collect();
        for (n, dice) in draw.chunks_exact(3).enumerate() {
            let now = Instant::from_nanos(n as u64 * 5_000_000);
            let payload: Vec<u8> = probe::noise(seed + n as u64, usize::from(dice[2] % 900))
                .map(|sample| sample as u8)
                .collect();
            let packet = SourcePacket {
                sequence: if dice[0] % 50 == 0 {
                    dice[1] * 2
                } else {
                    n as u16 + dice[0] % 7
                },
                timestamp: u32::from(dice[1]) * 1000,
                marker: false,
                payload: &payload,
            };
            buffer.handle_packet(now, packet);
            if n % 4 == 0 {
                buffer.pull(now, &mut out);
                assert!(buffer.pcm.len() < 3 * MAX_PACKET_SAMPLES);
            }
        }
    }
}
