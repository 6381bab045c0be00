use super::*;
use crate::codec::opus::OpusSettings;
use crate::codec::probe;
use crate::codec::{Encoder, MAX_PAYLOAD};

/// A frame as a listener got it.
#[derive(Clone, Debug)]
struct Got {
    place: usize,
    payload: Vec<u8>,
    timestamp: u32,
    marker: bool,
    restart: bool,
}

/// One pipeline, what is fed to it, and what came out.
struct Rig {
    transcoder: Transcoder,
    wanted: Vec<TargetFormat>,
    got: Vec<Got>,
    tapped: Vec<i16>,
}

impl TranscodeSink for (&mut Vec<Got>, &mut Vec<i16>) {
    fn on_frame(&mut self, place: usize, frame: EncodedFrame<'_>) {
        self.0.push(Got {
            place,
            payload: frame.payload.to_vec(),
            timestamp: frame.timestamp,
            marker: frame.marker,
            restart: frame.restart,
        });
    }

    fn on_pcm(&mut self, _rate_hz: u32, pcm: &[i16]) {
        self.1.extend_from_slice(pcm);
    }
}

impl Rig {
    fn new(source: Codec, wanted: &[(Codec, u8)]) -> Self {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(codec, ptime)| TargetFormat::new(*codec, *ptime, OpusSettings::default()))
            .collect();
        let mut transcoder = Transcoder::new(source);
        for format in &wanted {
            transcoder.add_target(format).expect("target");
        }
        Self {
            transcoder,
            wanted,
            got: Vec::new(),
            tapped: Vec::new(),
        }
    }

    fn packet(&mut self, sequence: u16, timestamp: u32, payload: &[u8]) {
        let now = Instant::from_nanos(u64::from(sequence) * 20_000_000);
        let packet = SourcePacket {
            sequence,
            timestamp,
            marker: false,
            payload,
        };
        let sink = &mut (&mut self.got, &mut self.tapped);
        self.transcoder.handle_timeout(now, &self.wanted, sink);
        self.transcoder
            .handle_packet(now, packet, &self.wanted, sink);
    }

    /// Feeds a coded tone in frames of `ms`, leaving out what `lost` names; returns what a listener
    /// of the first format hears.
    fn hear(
        &mut self,
        (pcm, rate, ms): (&[i16], u32, u32),
        lost: impl Fn(u16) -> bool,
    ) -> Vec<i16> {
        let codec = self.transcoder.codec();
        let ticks = codec.clock_rate() * ms / 1000;
        let frames = encoded(codec, rate, ms, pcm);
        for (n, payload) in frames.iter().enumerate() {
            if !lost(n as u16) {
                self.packet(n as u16, n as u32 * ticks, payload);
            }
        }
        self.decoded(0)
    }

    fn decoded(&self, place: usize) -> Vec<i16> {
        let codec = self.wanted[place].codec();
        let mut decoder = Decoder::new(codec, codec::audio_rate(codec)).expect("decoder");
        let mut out = vec![0; MAX_PACKET_SAMPLES];
        let mut pcm = Vec::new();
        for got in self.got.iter().filter(|got| got.place == place) {
            let samples = decoder.decode(&got.payload, &mut out).expect("decodes");
            pcm.extend_from_slice(&out[..samples]);
        }
        pcm
    }

    fn timestamps(&self, place: usize) -> Vec<u32> {
        self.got
            .iter()
            .filter(|got| got.place == place)
            .map(|got| got.timestamp)
            .collect()
    }
}

fn encoded(codec: Codec, rate: u32, ms: u32, pcm: &[i16]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(codec, rate, &OpusSettings::default()).expect("encoder");
    let mut payload = vec![0; MAX_PAYLOAD];
    pcm.chunks_exact((rate * ms / 1000) as usize)
        .map(|frame| {
            let length = encoder.encode(frame, &mut payload).expect("encodes");
            payload[..length].to_vec()
        })
        .collect()
}

#[test]
fn frames_of_any_length_become_frames_of_the_listeners_length() {
    for (ms, ptime) in [
        (10, 20),
        (20, 20),
        (30, 20),
        (40, 20),
        (60, 20),
        (20, 60),
        (30, 40),
    ] {
        let mut rig = Rig::new(Codec::Pcmu, &[(Codec::Pcma, ptime), (Codec::G722, ptime)]);
        let pcm = probe::tone(8000, 1000.0, -10.0, 24000);
        let heard = rig.hear((&pcm, 8000, ms), |_| false);
        let frame = usize::from(ptime) * 8;
        assert!(
            rig.got.iter().all(|got| got.payload.len() == frame),
            "{ms} to {ptime}"
        );
        let steps = rig.timestamps(0);
        assert!(
            steps.windows(2).all(|w| w[1] - w[0] == frame as u32),
            "{ms} to {ptime}"
        );
        let tone = probe::fit_tone(&heard[800..], 8000, 1000.0);
        assert!(tone.snr_db > 36.0, "{ms} to {ptime}: {tone:?}");
        assert_eq!(rig.transcoder.take_errors(), 0);
    }
}

#[test]
fn the_first_frame_alone_restarts_and_is_marked() {
    let mut rig = Rig::new(Codec::Pcmu, &[(Codec::G722, 20), (Codec::Opus, 20)]);
    rig.hear((&[0; 1600], 8000, 20), |_| false);
    for place in 0..2 {
        let flags: Vec<_> = rig
            .got
            .iter()
            .filter(|got| got.place == place)
            .map(|got| (got.marker, got.restart))
            .collect();
        assert_eq!(flags[0], (true, true));
        assert!(flags[1..].iter().all(|flags| *flags == (false, false)));
    }
}

#[test]
fn clocks_are_converted_both_ways() {
    let mut rig = Rig::new(Codec::Pcmu, &[(Codec::Opus, 20)]);
    rig.hear((&[0; 800], 8000, 20), |_| false);
    assert_eq!(rig.timestamps(0), [0, 960, 1920, 2880, 3840]);
    let mut rig = Rig::new(Codec::Opus, &[(Codec::G722, 20)]);
    rig.hear((&[0; 4800], 48000, 20), |_| false);
    assert_eq!(rig.timestamps(0), [0, 160, 320, 480, 640]);
}

#[test]
fn a_tenth_lost_at_random_is_heard_without_clicks_or_drift() {
    for (source, target) in [
        (Codec::Pcmu, Codec::Pcma),
        (Codec::Pcma, Codec::Opus),
        (Codec::G722, Codec::Pcmu),
        (Codec::Opus, Codec::Pcmu),
        (Codec::Opus, Codec::G722),
    ] {
        let rate = codec::audio_rate(source);
        let pcm = probe::tone(rate, 440.0, -10.0, rate as usize * 10);
        let draw: Vec<i16> = probe::noise(42, 500).collect();
        let lost = |n: u16| n > 2 && draw[usize::from(n)].unsigned_abs().is_multiple_of(10);
        let dropped = (0..500).filter(|n| lost(*n)).count();
        assert!(dropped > 25, "the draw loses {dropped}");
        let mut rig = Rig::new(source, &[(target, 20)]);
        let heard = rig.hear((&pcm, rate, 20), lost);
        let hears = codec::audio_rate(target);
        let case = format!("{source} to {target}");
        assert!(
            heard.len() >= hears as usize * 98 / 10,
            "{case}: {} samples",
            heard.len()
        );
        let steps = rig.timestamps(0);
        let frame = target.clock_rate() / 50;
        assert!(
            steps.windows(2).all(|w| (w[1] - w[0]) % frame == 0),
            "{case}"
        );
        let natural = probe::amplitude(-10.0) * std::f64::consts::TAU * 440.0 / f64::from(hears);
        let steep = probe::steepest(&heard[hears as usize / 2..]);
        assert!(
            f64::from(steep) < 2.5 * natural + 600.0,
            "{case}: jump of {steep}, {natural}"
        );
        assert_eq!(rig.transcoder.take_errors(), 0);
    }
}

#[test]
fn a_pause_of_the_source_is_a_pause_of_the_listener() {
    let mut rig = Rig::new(Codec::Opus, &[(Codec::Pcmu, 20)]);
    let frames = encoded(
        Codec::Opus,
        48000,
        20,
        &probe::tone(48000, 500.0, -10.0, 9600),
    );
    for n in 0..5u16 {
        rig.packet(n, u32::from(n) * 960, &frames[usize::from(n)]);
    }
    for n in 5..10u16 {
        rig.packet(n, u32::from(n) * 960 + 48000, &frames[usize::from(n)]);
    }
    let marked: Vec<_> = rig
        .got
        .iter()
        .filter(|got| got.marker)
        .map(|got| got.timestamp)
        .collect();
    assert_eq!(marked, [0, 800 + 8000]);
    assert_eq!(rig.timestamps(0)[4..6], [640, 8800]);
    assert_eq!(rig.got.iter().filter(|got| got.restart).count(), 1);
}

#[test]
fn a_half_full_frame_is_sent_before_a_pause() {
    let mut rig = Rig::new(Codec::Pcmu, &[(Codec::Pcma, 20)]);
    rig.packet(0, 0, &[0x10; 240]);
    rig.packet(1, 8000, &[0x10; 240]);
    assert_eq!(rig.timestamps(0), [0, 160, 8000]);
    assert!(rig.got[1].payload[..80].iter().all(|byte| *byte != 0xd5));
    assert!(rig.got[1].payload[80..].iter().all(|byte| *byte == 0xd5));
}

#[test]
fn a_jump_of_unknown_length_restarts() {
    let mut rig = Rig::new(Codec::Pcmu, &[(Codec::G722, 20)]);
    rig.packet(0, 1_000_000, &[0xff; 160]);
    rig.packet(1, 500, &[0xff; 160]);
    assert_eq!(
        rig.got
            .iter()
            .map(|got| (got.marker, got.restart))
            .collect::<Vec<_>>(),
        [(true, true), (true, true)]
    );
}

#[test]
fn a_format_left_out_for_a_while_restarts_without_stale_sound() {
    let mut rig = Rig::new(Codec::Pcmu, &[(Codec::Pcma, 20), (Codec::G722, 20)]);
    let both = rig.wanted.clone();
    rig.packet(0, 0, &[0xff; 240]);
    rig.wanted.truncate(1);
    for n in 1..10u16 {
        rig.packet(n, u32::from(n) * 240, &[0xff; 240]);
    }
    rig.wanted = both;
    let before = rig.got.len();
    rig.packet(10, 2400, &[0xff; 240]);
    let late: Vec<_> = rig.got[before..]
        .iter()
        .filter(|got| got.place == 1)
        .collect();
    assert_eq!(late.len(), 1);
    assert!(late[0].restart && late[0].marker);
    assert_eq!(late[0].timestamp, 2400);
}

#[test]
fn a_bad_packet_is_counted_concealed_and_survived() {
    let mut rig = Rig::new(Codec::Opus, &[(Codec::Pcmu, 20)]);
    let frames = encoded(
        Codec::Opus,
        48000,
        20,
        &probe::tone(48000, 500.0, -10.0, 9600),
    );
    for (n, payload) in frames.iter().enumerate() {
        // Code 3 with more frames than bytes: the table of contents is readable, the rest is not.
        let payload: &[u8] = if n == 4 {
            &[0xff, 0x01, 0xff, 0xff]
        } else {
            payload
        };
        rig.packet(n as u16, n as u32 * 960, payload);
    }
    assert_eq!(rig.got.len(), frames.len());
    rig.packet(10, 9600, &[]);
    assert!(rig.transcoder.take_errors() >= 1);
}

#[test]
fn taps_hear_the_source_with_or_without_listeners() {
    let pcm = probe::tone(8000, 440.0, -6.0, 8000);
    for wanted in [
        &[][..],
        &[(Codec::Opus, 20)],
        &[(Codec::Opus, 20), (Codec::G722, 20)],
    ] {
        let mut rig = Rig::new(Codec::Pcmu, wanted);
        rig.transcoder.set_tapped(true).expect("tap");
        let codec = rig.transcoder.codec();
        for (n, payload) in encoded(codec, 8000, 20, &pcm).iter().enumerate() {
            rig.packet(n as u16, n as u32 * 160, payload);
        }
        assert_eq!(rig.tapped.len(), 8000);
        assert!((probe::level_at(&rig.tapped, 8000, 440.0) + 6.0).abs() < 0.3);
        rig.transcoder.set_tapped(false).expect("untap");
        assert_eq!(rig.transcoder.target_count(), wanted.len());
    }
}

#[test]
fn any_packets_are_survived_and_stamped_in_order() {
    for seed in 1..40u64 {
        let source = [Codec::Pcmu, Codec::G722, Codec::Opus][seed as usize % 3];
        let mut rig = Rig::new(
            source,
            &[(Codec::Pcma, 20), (Codec::G722, 30), (Codec::Opus, 20)],
        );
        let draw: Vec<i16> = probe::noise(seed, 2000).collect();
        let mut timestamp = 0u32;
        for (n, three) in draw.chunks_exact(3).take(150).enumerate() {
            timestamp = timestamp.wrapping_add((three[0].unsigned_abs() % 2000).into());
            let sequence = (n as u16).wrapping_add(three[1].unsigned_abs() % 4);
            let length = usize::from(three[2].unsigned_abs() % 700);
            let payload: Vec<u8> = probe::noise(n as u64 + seed, length)
                .map(|sample| sample as u8)
                .collect();
            rig.packet(sequence, timestamp, &payload);
        }
        for place in 0..3 {
            let mut last = None;
            for got in rig.got.iter().filter(|got| got.place == place) {
                if let Some(last) = last.filter(|_| !got.restart) {
                    assert!(
                        got.timestamp > last,
                        "seed {seed}: {} after {last}",
                        got.timestamp
                    );
                }
                last = Some(got.timestamp);
            }
        }
    }
}
