use std::collections::HashMap;

use super::*;
use crate::codec::opus::OpusSettings;
use crate::codec::{Decoder, MAX_PACKET_SAMPLES, probe};

/// A mix with tones as parties, and what each of them is sent.
struct Room {
    bus: Bus<usize>,
    tones: Vec<Option<Vec<i16>>>,
    index: u64,
    sent: HashMap<usize, Vec<Sent>>,
}

#[derive(Clone, Debug)]
struct Sent {
    tick: u64,
    payload: Vec<u8>,
    timestamp: u32,
    marker: bool,
    restart: bool,
}

impl Room {
    fn new(rate_hz: u32, parties: &[(Codec, u8)]) -> Self {
        let mut bus = Bus::new(rate_hz);
        for (key, (codec, ptime)) in parties.iter().enumerate() {
            let format = TargetFormat::new(*codec, *ptime, OpusSettings::default());
            bus.set_party(key, true, Some(format));
        }
        Self {
            bus,
            tones: vec![None; parties.len()],
            index: 1000,
            sent: HashMap::new(),
        }
    }

    fn speak(&mut self, party: usize, frequency: f64, dbfs: f64) {
        let rate = self.bus.rate_hz();
        self.tones[party] = Some(probe::tone(rate, frequency, dbfs, rate as usize * 20));
    }

    fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.index += 1;
            let (tones, sent, tick) = (&self.tones, &mut self.sent, self.index);
            let samples = self.bus.rate_hz() as usize / 50;
            let start = (tick as usize * samples) % (samples * 900);
            self.bus.handle_tick(
                Tick { index: tick },
                &mut |party, out| match &tones[party] {
                    Some(tone) => {
                        out.copy_from_slice(&tone[start..start + samples]);
                        Contribution::of(out)
                    }
                    None => Contribution::None,
                },
                &mut |party, frame| {
                    sent.entry(party).or_default().push(Sent {
                        tick,
                        payload: frame.payload.to_vec(),
                        timestamp: frame.timestamp,
                        marker: frame.marker,
                        restart: frame.restart,
                    });
                },
            );
        }
    }

    fn heard(&self, party: usize, codec: Codec) -> Vec<i16> {
        let mut decoder = Decoder::new(codec, codec::audio_rate(codec)).expect("decoder");
        let mut out = vec![0; MAX_PACKET_SAMPLES];
        let mut pcm = Vec::new();
        for sent in &self.sent[&party] {
            let samples = decoder.decode(&sent.payload, &mut out).expect("decodes");
            pcm.extend_from_slice(&out[..samples]);
        }
        pcm
    }
}

const MIXED: [(Codec, u8); 5] = [
    (Codec::Pcmu, 20),
    (Codec::Pcma, 20),
    (Codec::G722, 20),
    (Codec::Opus, 20),
    (Codec::Opus, 20),
];

#[test]
fn each_hears_all_others_within_a_decibel_and_not_itself() {
    let frequencies = [400.0, 650.0, 1000.0, 1450.0, 2100.0];
    for rate_hz in [8000, 16000, 48000] {
        let mut room = Room::new(rate_hz, &MIXED);
        for (party, frequency) in frequencies.iter().enumerate() {
            room.speak(party, *frequency, -20.0);
        }
        room.run(150);
        for (party, (codec, _)) in MIXED.iter().enumerate() {
            let heard = room.heard(party, *codec);
            let rate = codec::audio_rate(*codec);
            // libopus spends 24 kbit/s on speech, not on four sines, each of which may suffer.
            let bound = if *codec == Codec::Opus { 3.5 } else { 1.0 };
            let power = heard[rate as usize..]
                .iter()
                .map(|s| f64::from(*s).powi(2))
                .sum::<f64>();
            let all = probe::dbfs((2.0 * power / (heard.len() - rate as usize) as f64).sqrt());
            assert!(
                (all + 20.0 - 6.02).abs() < 1.0,
                "{codec} at {rate_hz}: {all} in all"
            );
            for (other, frequency) in frequencies.iter().enumerate() {
                let level = probe::level_at(&heard[rate as usize..], rate, *frequency);
                let case = format!("{codec} at {rate_hz}: party {other} at {level}");
                if other == party {
                    assert!(level < -40.0, "{case}");
                } else {
                    assert!((level + 20.0).abs() < bound, "{case}");
                }
            }
        }
        assert_eq!(room.bus.take_errors(), 0);
    }
}

#[test]
fn silent_listeners_share_one_encode() {
    for codec in [Codec::Pcmu, Codec::G722, Codec::Opus] {
        let mut room = Room::new(codec::audio_rate(codec), &[(codec, 20); 6]);
        room.speak(0, 500.0, -10.0);
        room.run(50);
        assert_eq!(room.bus.groups.len(), 1, "{codec}");
        assert!(
            room.bus.parties[1..]
                .iter()
                .all(|party| party.own.is_none()),
            "{codec}"
        );
        for party in 2..6 {
            assert_eq!(room.sent[&party].len(), 50);
            for (a, b) in room.sent[&1].iter().zip(&room.sent[&party]) {
                assert_eq!((&a.payload, a.timestamp), (&b.payload, b.timestamp));
            }
        }
        assert!(!room.sent[&0].is_empty());
    }
}

#[test]
fn beginning_and_ceasing_to_speak_is_not_heard_as_a_break() {
    for (codec, rate_hz) in [
        (Codec::Pcmu, 8000),
        (Codec::G722, 16000),
        (Codec::Opus, 48000),
        (Codec::Pcmu, 16000),
    ] {
        let mut room = Room::new(rate_hz, &[(codec, 20), (codec, 20), (codec, 20)]);
        room.speak(0, 500.0, -12.0);
        room.run(120);
        room.speak(1, 900.0, -30.0);
        room.run(60);
        room.tones[1] = None;
        room.run(160);
        let heard = room.heard(1, codec);
        let rate = codec::audio_rate(codec);
        let natural = probe::amplitude(-12.0) * std::f64::consts::TAU * 500.0 / f64::from(rate);
        let steep = heard[rate as usize / 2..]
            .windows(2)
            .map(|w| (i32::from(w[1]) - i32::from(w[0])).abs())
            .max()
            .expect("samples");
        assert!(
            f64::from(steep) < natural * 1.5 + 500.0,
            "{codec}: {steep} of {natural}"
        );
        let stamps: Vec<u32> = room.sent[&1].iter().map(|sent| sent.timestamp).collect();
        let frame = codec.clock_rate() / 50;
        assert!(
            stamps.windows(2).all(|w| w[1].wrapping_sub(w[0]) == frame),
            "{codec}"
        );
        assert_eq!(
            room.sent[&1]
                .iter()
                .filter(|sent| sent.marker || sent.restart)
                .count(),
            1
        );
    }
}

#[test]
fn a_mix_that_nobody_feeds_sends_silence_for_200_ms_and_then_nothing() {
    let mut room = Room::new(
        8000,
        &[(Codec::Pcmu, 20), (Codec::Pcmu, 20), (Codec::Pcma, 20)],
    );
    room.speak(0, 500.0, -10.0);
    room.run(20);
    room.tones[0] = None;
    room.run(50);
    assert_eq!(room.sent[&1].len(), 30);
    assert!(
        room.sent[&1][20..]
            .iter()
            .all(|sent| sent.payload.iter().all(|b| *b == 0xff))
    );
    // The only talker has nobody to hear: it was sent 200 ms.
    assert_eq!(room.sent[&0].len(), 10);
    room.speak(2, 500.0, -10.0);
    room.run(5);
    let again = &room.sent[&1][30];
    assert!(again.marker && !again.restart);
    let before = &room.sent[&1][29];
    assert_eq!(
        u64::from(again.timestamp - before.timestamp),
        (again.tick - before.tick) * 160
    );
}

#[test]
fn skipped_ticks_show_in_the_timestamps() {
    let mut room = Room::new(
        16000,
        &[(Codec::G722, 20), (Codec::Opus, 20), (Codec::Opus, 20)],
    );
    room.speak(0, 500.0, -10.0);
    room.speak(1, 700.0, -10.0);
    room.run(10);
    room.index += 30;
    room.run(10);
    for (party, clock) in [(0, 8000), (1, 48000), (2, 48000)] {
        let sent = &room.sent[&party];
        let gap = sent[10].timestamp.wrapping_sub(sent[9].timestamp);
        assert_eq!(gap, 31 * clock / 50);
        assert!(sent[10].marker);
    }
}

#[test]
fn longer_packets_are_gathered_over_ticks() {
    let mut room = Room::new(
        8000,
        &[(Codec::Pcmu, 40), (Codec::Pcma, 20), (Codec::Pcma, 20)],
    );
    room.speak(1, 500.0, -10.0);
    room.run(20);
    assert_eq!(room.sent[&0].len(), 10);
    assert!(room.sent[&0].iter().all(|sent| sent.payload.len() == 320));
    assert!(
        room.sent[&0]
            .windows(2)
            .all(|w| w[1].timestamp - w[0].timestamp == 320)
    );
}

#[test]
fn parties_come_change_and_go() {
    let mut room = Room::new(8000, &[(Codec::Pcmu, 20), (Codec::Pcmu, 20)]);
    room.speak(0, 500.0, -10.0);
    room.run(5);
    room.bus.set_party(1, true, None);
    room.run(5);
    assert_eq!(room.sent[&1].len(), 5, "hears no more");
    let format = TargetFormat::new(Codec::Pcma, 20, OpusSettings::default());
    room.bus.set_party(1, true, Some(format));
    room.bus.remove_party(0);
    assert_eq!(room.bus.party_count(), 1);
    room.run(5);
    assert!(room.sent[&1].len() > 5);
}

#[test]
fn all_listeners_hear_the_first_frame_after_a_pause() {
    for codec in [Codec::Pcmu, Codec::Opus] {
        let mut room = Room::new(codec::audio_rate(codec), &[(codec, 20); 5]);
        room.run(150);
        assert!((0..5).all(|party| room.sent[&party].len() == 10), "{codec}");
        room.speak(4, 500.0, -10.0);
        room.run(3);
        for party in 0..4 {
            let begun = room.sent[&party][10].tick;
            assert_eq!(
                (room.sent[&party].len(), begun),
                (13, 1151),
                "{codec} {party}"
            );
        }
        room.tones[4] = None;
        room.run(50);
        assert!((0..4).all(|party| room.sent[&party].len() == 23), "{codec}");
    }
}

#[test]
fn a_shared_encode_expects_what_the_worst_of_its_listeners_loses() {
    let sent_at = |losses: [u8; 3]| {
        let mut room = Room::new(48000, &[(Codec::Opus, 20); 4]);
        for (party, percent) in (1..).zip(losses) {
            room.bus.set_expected_loss(party, percent);
        }
        room.speak(0, 500.0, -10.0);
        room.run(60);
        assert_eq!(room.bus.groups.len(), 1);
        let sent = &room.sent[&2][20..];
        sent.iter()
            .map(|sent| sent.payload.clone())
            .collect::<Vec<_>>()
    };
    let (none, some) = (sent_at([0, 0, 0]), sent_at([0, 0, 25]));
    assert!(none != some, "the encoder knows");
    assert!(some == sent_at([25, 25, 25]), "of the worst");
}
