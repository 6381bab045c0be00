//! Three and more parties, and what happens when their number changes.

use rtpbridge_shared::ipc::dtmf::DtmfInject;
use rtpbridge_shared::vocab::Digit;

use super::*;
use crate::codec::opus::OpusSettings;
use crate::codec::{Decoder, Encoder, audio_rate, probe};
use crate::entropy::Entropy;

/// Somebody who speaks a tone and remembers what they heard.
pub(super) struct Speaker {
    pub(super) party: Party,
    pub(super) codec: Codec,
    encoder: Encoder,
    frequency: f64,
    pub(super) level_dbfs: f64,
    spoken: usize,
    is_speaking: bool,
    pub(super) heard: Vec<(RtpHeader, Vec<u8>)>,
}

const FORMATS: [(&str, Codec, u8); 4] = [
    ("0 101", Codec::Pcmu, 0),
    ("8 101", Codec::Pcma, 8),
    ("9 101", Codec::G722, 9),
    ("111 110", Codec::Opus, 111),
];

impl Speaker {
    pub(super) fn join(world: &mut World, codec: Codec, frequency: f64, level_dbfs: f64) -> Self {
        let known = FORMATS.iter().find(|(_, known, _)| *known == codec);
        let (formats, ..) = known.expect("one of four");
        let settings = OpusSettings::default();
        Self {
            party: world.join(formats, Direction::Sendrecv),
            codec,
            encoder: Encoder::new(codec, audio_rate(codec), &settings).expect("its own rate"),
            frequency,
            level_dbfs,
            spoken: 0,
            is_speaking: true,
            heard: Vec::new(),
        }
    }

    /// The next 20 ms.
    pub(super) fn packet(&mut self) -> Vec<u8> {
        let rate_hz = audio_rate(self.codec);
        let count = rate_hz as usize / 50;
        let amplitude = probe::amplitude(self.level_dbfs);
        let step = std::f64::consts::TAU * self.frequency / f64::from(rate_hz);
        let sample = |n: usize| (amplitude * (step * (self.spoken + n) as f64).sin()) as i16;
        let pcm: Vec<i16> = (0..count).map(sample).collect();
        self.spoken += count;
        let mut payload = vec![0; 1500];
        let len = self.encoder.encode(&pcm, &mut payload).expect("room");
        let known = FORMATS.iter().find(|(_, known, _)| *known == self.codec);
        let payload_type = known.expect("one of four").2;
        let packet = self.party.packet(payload_type, false, &payload[..len]);
        self.party.sequence = self.party.sequence.wrapping_add(1);
        let ticks = self.codec.clock_rate() / 50;
        self.party.timestamp = self.party.timestamp.wrapping_add(ticks);
        packet
    }

    fn pcm(&self) -> Vec<i16> {
        let mut decoder = Decoder::new(self.codec, audio_rate(self.codec)).expect("its own rate");
        let mut room = vec![0; 5760];
        let mut pcm = Vec::new();
        let audio = self
            .heard
            .iter()
            .filter(|(header, _)| header.payload_type != 101);
        for (_, payload) in audio {
            let count = decoder.decode(payload, &mut room).expect("we encode well");
            pcm.extend_from_slice(&room[..count]);
        }
        pcm
    }

    /// Level of a sine as loud as all that was heard in the last second.
    fn loudness(&self) -> f64 {
        let pcm = self.pcm();
        let last = &pcm[pcm.len().saturating_sub(audio_rate(self.codec) as usize)..];
        let power = last.iter().map(|sample| f64::from(*sample).powi(2));
        let mean = power.sum::<f64>() / last.len() as f64;
        probe::dbfs((2.0 * mean).sqrt())
    }

    /// What of `frequency` was heard in the last second.
    fn level_of(&self, frequency: f64) -> f64 {
        let (pcm, rate_hz) = (self.pcm(), audio_rate(self.codec));
        let from = pcm.len().saturating_sub(rate_hz as usize);
        probe::level_at(&pcm[from..], rate_hz, frequency)
    }
}

/// Everybody speaks for so long, 20 ms at a time.
fn speak(world: &mut World, speakers: &mut [Speaker], ms: u64) {
    for _ in 0..ms / 20 {
        for speaker in speakers.iter_mut().filter(|speaker| speaker.is_speaking) {
            let packet = speaker.packet();
            world.receive(&speaker.party, &packet);
        }
        world.pass(20);
        for speaker in speakers.iter_mut() {
            let heard = world.take_rtp(&speaker.party);
            speaker.heard.extend(heard);
        }
    }
}

/// One SSRC, no jump in sequence, no timestamp that decreases among audio packets.
pub(super) fn assert_one_stream(heard: &[(RtpHeader, Vec<u8>)]) {
    for pair in heard.windows(2) {
        let (before, after) = (&pair[0].0, &pair[1].0);
        assert_eq!(after.ssrc, before.ssrc);
        assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    }
    let is_audio = |(header, _): &&(RtpHeader, Vec<u8>)| !matches!(header.payload_type, 101 | 110);
    let audio: Vec<_> = heard.iter().filter(is_audio).collect();
    for pair in audio.windows(2) {
        let step = pair[1].0.timestamp.wrapping_sub(pair[0].0.timestamp) as i32;
        assert!(step >= 0, "timestamps go back by {step}");
    }
}

#[test]
fn each_of_five_hears_the_others_and_not_itself() {
    let mut world = World::new();
    let codecs = [
        Codec::Pcmu,
        Codec::Pcma,
        Codec::G722,
        Codec::Opus,
        Codec::Opus,
    ];
    let mut speakers: Vec<_> = (0..5)
        .map(|n| Speaker::join(&mut world, codecs[n], 500.0 + 300.0 * n as f64, -25.0))
        .collect();
    speak(&mut world, &mut speakers, 3000);
    for (n, listener) in speakers.iter().enumerate() {
        assert_one_stream(&listener.heard);
        assert!(listener.heard.len() > 140, "{}", listener.heard.len());
        for (m, speaker) in speakers.iter().enumerate() {
            let level = listener.level_of(speaker.frequency);
            // Opus at its usual rate does not keep each of four tones apart.
            let bound = if listener.codec == Codec::Opus {
                4.0
            } else {
                1.0
            };
            match n == m {
                true => assert!(level < -45.0, "{n} hears itself at {level}"),
                false => assert!((level + 25.0).abs() < bound, "{n} hears {m} at {level}"),
            }
        }
        let sum = listener.loudness();
        let expected = -25.0 + 10.0 * 4f64.log10();
        assert!(
            (sum - expected).abs() < 1.0,
            "{n} hears the others at {sum}"
        );
    }
    assert_eq!(world.out.counters.transcode_errors, 0);
}

#[test]
fn a_mix_that_falls_silent_sends_comfort_for_200_ms_and_then_nothing() {
    let mut world = World::new();
    let mut speakers: Vec<_> = (0..3)
        .map(|n| Speaker::join(&mut world, Codec::Pcmu, 500.0 + 300.0 * n as f64, -25.0))
        .collect();
    speak(&mut world, &mut speakers, 1000);
    speakers[0].is_speaking = false;
    speakers[1].is_speaking = false;
    speak(&mut world, &mut speakers, 1000);
    for speaker in &mut speakers {
        speaker.heard.clear();
    }
    speak(&mut world, &mut speakers, 1000);
    assert_eq!(speakers[2].heard.len(), 0, "who speaks alone hears nothing");
    assert!((49..=50).contains(&speakers[0].heard.len()));
    speakers[0].is_speaking = true;
    speak(&mut world, &mut speakers, 1000);
    let resumed = &speakers[2].heard;
    assert!((40..=50).contains(&resumed.len()), "{}", resumed.len());
    assert!(resumed[0].0.marker);
    assert!(resumed[1..].iter().all(|(header, _)| !header.marker));
}

#[test]
fn calls_become_conferences_and_back_within_one_stream() {
    let mut world = World::new();
    let mut speakers = vec![
        Speaker::join(&mut world, Codec::Pcmu, 500.0, -20.0),
        Speaker::join(&mut world, Codec::Pcmu, 800.0, -20.0),
    ];
    speak(&mut world, &mut speakers, 500);
    assert!(speakers[0].heard.len() == 25, "forwarded at once");
    for codec in [Codec::Pcma, Codec::Opus] {
        let third = Speaker::join(&mut world, codec, 1100.0, -20.0);
        speakers.push(third);
        speak(&mut world, &mut speakers, 1500);
        assert!((speakers[0].level_of(1100.0) + 20.0).abs() < 1.0);
        assert!((speakers[0].level_of(800.0) + 20.0).abs() < 1.0);
        let third = speakers.pop().expect("pushed");
        let (now, out) = (world.now, &mut world.out);
        let removed = world.session.remove_endpoint(now, third.party.id, out);
        removed.expect("it exists");
        speak(&mut world, &mut speakers, 500);
    }
    for speaker in &speakers {
        assert_one_stream(&speaker.heard);
        let (first, last) = (
            &speaker.heard[0].0,
            &speaker.heard[speaker.heard.len() - 1].0,
        );
        let elapsed = i64::from(last.timestamp.wrapping_sub(first.timestamp)) / 8;
        let frames = 4500 - 20;
        assert!((elapsed - frames).abs() <= 40, "{elapsed} ms by timestamps");
        let marked = speaker.heard.iter().filter(|(header, _)| header.marker);
        assert_eq!(marked.count(), 1 + 4, "the first, and one for each change");
    }
}

#[test]
fn a_digit_pauses_its_destinations_audio_and_nobody_elses() {
    let mut world = World::new();
    let mut speakers: Vec<_> = (0..3)
        .map(|n| Speaker::join(&mut world, Codec::Pcmu, 500.0 + 300.0 * n as f64, -25.0))
        .collect();
    speak(&mut world, &mut speakers, 500);
    for speaker in &mut speakers {
        speaker.heard.clear();
    }
    let request = DtmfInject {
        session: world.session.id(),
        endpoint: speakers[0].party.id,
        digit: Digit::from_char('5').expect("a digit"),
        duration_ms: 200,
        volume: 10,
    };
    let injected = world
        .session
        .dtmf_inject(world.now, &request, &mut world.out);
    injected.expect("negotiated");
    speak(&mut world, &mut speakers, 1000);
    assert_one_stream(&speakers[0].heard);
    let is_event = |(header, _): &&(RtpHeader, Vec<u8>)| header.payload_type == 101;
    let events = speakers[0].heard.iter().filter(is_event).count();
    let audio = speakers[0].heard.len() - events;
    assert!((10..=14).contains(&events), "{events}");
    assert!((36..=40).contains(&audio), "{audio}");
    assert!((49..=50).contains(&speakers[1].heard.len()));
    let speeches: Vec<_> = speakers[0].heard.iter().map(is_event_of).collect();
    let switches = speeches
        .windows(2)
        .filter(|pair| pair[0] != pair[1])
        .count();
    assert!(switches <= 2, "audio runs between the packets of a digit");
}

fn is_event_of((header, _): &(RtpHeader, Vec<u8>)) -> bool {
    header.payload_type == 101
}

#[test]
fn who_takes_no_long_packets_is_sent_short_ones() {
    let mut world = World::new();
    let mut talker = world.join(PCMU, Direction::Sendonly);
    let any = world.join(PCMU, Direction::Recvonly);
    let address = SocketAddr::from(([10, 0, 0, 3], 4000));
    let sdp = offer(address, PCMU, "sendrecv") + "a=ptime:20\r\na=maxptime:30\r\n";
    let strict = world.join_with(sdp, address, Direction::Recvonly);
    let said: Vec<u8> = (0..480).map(|n| (n % 100) as u8).collect();
    for _ in 0..10 {
        let packet = talker.packet(0, false, &said);
        talker.sequence = talker.sequence.wrapping_add(1);
        talker.timestamp = talker.timestamp.wrapping_add(480);
        world.receive(&talker, &packet);
        world.pass(60);
    }
    let untouched = world.take_rtp(&any);
    assert_eq!(untouched.len(), 10);
    assert!(untouched.iter().all(|(_, payload)| *payload == said));
    let short = world.take_rtp(&strict);
    assert_eq!(short.len(), 30);
    assert_one_stream(&short);
    let payloads: Vec<u8> = short.into_iter().flat_map(|(_, payload)| payload).collect();
    assert_eq!(
        payloads,
        said.repeat(10),
        "mu-law comes through a pipeline as it was"
    );
}

/// Share of the payloads that carry the frame before once more (RFC 6716 sections 3.1 and 4.2.4).
fn share_with_redundancy(heard: &[(RtpHeader, Vec<u8>)]) -> f64 {
    let is_redundant = |(_, payload): &&(RtpHeader, Vec<u8>)| {
        let is_silk = payload[0] >> 3 < 16;
        is_silk && payload[1] & 0x40 != 0
    };
    heard.iter().filter(is_redundant).count() as f64 / heard.len() as f64
}

/// What a party says of what it was sent.
fn report_loss(world: &mut World, speaker: &Speaker, percent: u8) {
    let (last, _) = speaker.heard.last().expect("it heard something");
    let fraction = (u32::from(percent) * 256 / 100) as u8;
    let mut report = vec![0x81, 201, 0, 7];
    report.extend(speaker.party.ssrc.to_be_bytes());
    report.extend(last.ssrc.to_be_bytes());
    report.extend([fraction, 0, 0, 9]);
    report.extend(u32::from(last.sequence).to_be_bytes());
    report.extend([0; 12]);
    let SocketAddr::V4(address) = speaker.party.address else {
        unreachable!("parties are at 10.0.0.0/8")
    };
    let rtcp = SocketAddr::from((*address.ip(), address.port() + 1));
    world.receive_on(speaker.party.key, Channel::Second, rtcp, &report);
}

#[test]
fn opus_carries_redundancy_for_those_who_lose_packets() {
    for third in [None, Some(Codec::Pcma)] {
        let mut world = World::new();
        let mut speakers = vec![
            Speaker::join(&mut world, Codec::Opus, 500.0, -20.0),
            Speaker::join(&mut world, Codec::Pcmu, 800.0, -20.0),
        ];
        speakers.extend(third.map(|codec| Speaker::join(&mut world, codec, 1100.0, -20.0)));
        babble(&mut world, &mut speakers);
        for (percent, expected) in [(0, 0.0..0.01), (25, 0.3..1.01), (0, 0.0..0.01)] {
            report_loss(&mut world, &speakers[0], percent);
            babble(&mut world, &mut speakers);
            speakers[0].heard.clear();
            babble(&mut world, &mut speakers);
            let share = share_with_redundancy(&speakers[0].heard);
            assert!(expected.contains(&share), "{share} at {percent} %");
        }
    }
}

/// Two seconds of syllables: Opus takes a steady tone for noise, which it does not say twice.
fn babble(world: &mut World, speakers: &mut [Speaker]) {
    for level_dbfs in [-15.0, -60.0].repeat(10) {
        for speaker in speakers.iter_mut() {
            speaker.level_dbfs = level_dbfs;
        }
        speak(world, speakers, 100);
    }
}

#[test]
fn whatever_the_plan_does_each_party_is_sent_one_stream() {
    for seed in 1..9 {
        let mut dice = Seeded(seed);
        let mut world = World::new();
        let mut speakers = vec![Speaker::join(&mut world, Codec::Pcmu, 500.0, -25.0)];
        let mut left = Vec::new();
        for _ in 0..60 {
            match dice.below(6) {
                0 if speakers.len() < 6 => {
                    let codec = FORMATS[dice.below(4) as usize].1;
                    let frequency = 500.0 + 100.0 * dice.below(20) as f64;
                    speakers.push(Speaker::join(&mut world, codec, frequency, -25.0));
                }
                1 if speakers.len() > 1 => {
                    let gone = speakers.swap_remove(dice.below(speakers.len() as u64) as usize);
                    let (now, out) = (world.now, &mut world.out);
                    let removed = world.session.remove_endpoint(now, gone.party.id, out);
                    removed.expect("it exists");
                    left.push(gone);
                }
                2 => {
                    let directions = [
                        None,
                        Some(Direction::Recvonly),
                        Some(Direction::Sendonly),
                        Some(Direction::Inactive),
                    ];
                    let at = dice.below(speakers.len() as u64) as usize;
                    let party = speakers[at].party.clone();
                    world.set_direction(&party, directions[dice.below(4) as usize]);
                }
                3 => {
                    let at = dice.below(speakers.len() as u64) as usize;
                    speakers[at].is_speaking ^= true;
                }
                4 => {
                    // A new life of the source.
                    let at = dice.below(speakers.len() as u64) as usize;
                    let party = &mut speakers[at].party;
                    party.ssrc = dice.next_u32();
                    party.sequence = dice.next_u16();
                    party.timestamp = dice.next_u32();
                }
                _ => world.pass(dice.below(300)),
            }
            let ms = 20 * (1 + dice.below(20));
            speak(&mut world, &mut speakers, ms);
        }
        for speaker in speakers.iter().chain(&left) {
            assert_one_stream(&speaker.heard);
        }
    }
}
