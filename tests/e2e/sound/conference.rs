//! Three and more parties in real time.

use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::Rtp;
use rtpbridge_tests::sound::{Coding, dbfs, level, loudness, tone};
use serde_json::json;

use super::{EVENT, FRAME, Speaker, converse};

/// One tone for each party, far enough apart to be told from the others, in whole periods of 100 ms.
fn frequency(n: usize) -> f64 {
    400.0 + 140.0 * n as f64
}

fn join(client: &mut Client, n: usize, coding: Coding, level_dbfs: f64) -> Speaker {
    let pcm = tone(coding.audio_hz(), frequency(n), level_dbfs, 8.0);
    Speaker::join(client, coding).with_script(&pcm)
}

/// What is measured of most pieces of `ms`, whatever a busy machine makes of the others.
fn median(sound: &[i16], (rate_hz, ms): (u32, u32), measure: impl Fn(&[i16]) -> f64) -> f64 {
    let pieces = sound.chunks_exact((rate_hz * ms / 1000) as usize);
    let mut found: Vec<f64> = pieces.map(measure).collect();
    found.sort_by(f64::total_cmp);
    found[found.len() / 2]
}

/// Each of `speakers` hears all others, each at `level_dbfs`, and not itself.
fn assert_hears_the_others(speakers: &[Speaker], level_dbfs: f64) {
    for (n, listener) in speakers.iter().enumerate() {
        listener.assert_continuous();
        let (sound, rate_hz) = (listener.last_sound(1.5), listener.coding.audio_hz());
        let of = |hz| median(&sound, (rate_hz, 500), |piece| level(piece, rate_hz, hz));
        let others = (speakers.len() - 1) as f64;
        let expected = level_dbfs + 10.0 * others.log10();
        let sum = median(&sound, (rate_hz, 100), loudness);
        let off = sum - expected;
        assert!(
            off.abs() < 1.0,
            "{n} ({:?}) hears {off:.2} dB off",
            listener.coding
        );
        let own = of(frequency(n));
        assert!(own < level_dbfs - 15.0, "{n} hears itself at {own}");
        for m in (0..speakers.len()).filter(|m| *m != n) {
            let found = of(frequency(m));
            // Opus does not keep many tones apart, but leaves none out.
            let bound = if listener.coding == Coding::Opus {
                9.0
            } else {
                2.0
            };
            let off = (found - level_dbfs).abs();
            assert!(
                off < bound,
                "{n} ({:?}) hears {m} at {found}",
                listener.coding
            );
        }
    }
}

fn conference(parties: usize, level_dbfs: f64, frames: u32) {
    let server = Server::builder()
        .set("max_endpoints_per_session", 20)
        // What is judged is the mix; at 24 kbit/s Opus loses some of 19 tones.
        .set("opus_bitrate", 64_000)
        .start();
    let (mut client, _) = server.session();
    let mut speakers: Vec<_> = (0..parties)
        .map(|n| join(&mut client, n, Coding::ALL[n % 4], level_dbfs))
        .collect();
    converse(&mut speakers, frames);
    assert_hears_the_others(&speakers, level_dbfs);
    assert_eq!(server.metric("rtpbridge_transcode_errors_total"), 0.0);
    assert!(server.metric("rtpbridge_mixer_lateness_seconds_count") > 100.0);
}

#[test]
fn three_hear_each_other() {
    conference(3, -20.0, 200);
}

#[test]
fn five_hear_each_other() {
    conference(5, -22.0, 200);
}

#[test]
fn twenty_hear_each_other() {
    conference(20, -34.0, 300);
}

#[test]
fn who_comes_late_hears_all_and_is_heard_and_who_leaves_leaves_a_call() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut speakers = vec![
        join(&mut client, 0, Coding::Pcmu, -20.0),
        join(&mut client, 1, Coding::Pcmu, -20.0),
    ];
    converse(&mut speakers, 50);
    speakers.push(join(&mut client, 2, Coding::Opus, -20.0));
    converse(&mut speakers, 150);
    assert_hears_the_others(&speakers, -20.0);
    let gone = speakers.pop().expect("three");
    let removed = json!({"endpoint_id": gone.party.endpoint});
    client.call("endpoint.remove", removed);
    let before = speakers[0].heard.len();
    converse(&mut speakers, 100);
    assert_hears_the_others(&speakers, -20.0);
    // A call of two of one codec is forwarded again: what arrives is what was said.
    let forwarded = &speakers[0].heard[before..];
    let said = &speakers[1].script;
    let untouched = forwarded
        .iter()
        .filter(|packet| said.contains(&packet.payload));
    assert!(untouched.count() >= 95, "of {}", forwarded.len());
    assert!(forwarded[0].marker || forwarded.iter().any(|packet| packet.marker));
}

#[test]
fn one_bad_line_delays_and_chops_nobody_else() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut speakers: Vec<_> = (0..3)
        .map(|n| join(&mut client, n, Coding::Pcmu, -20.0))
        .collect();
    let mut dice = StdRng::seed_from_u64(11);
    let mut late: Vec<(Instant, Rtp)> = Vec::new();
    let start = Instant::now();
    for n in 0..250u32 {
        while Instant::now() < start + FRAME * n {
            let due = late.iter().position(|(due, _)| *due <= Instant::now());
            match due {
                Some(at) => speakers[2].party.send_packet(&late.swap_remove(at).1),
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
        speakers[0].say();
        speakers[1].say();
        let packet = speakers[2].next_packet().expect("a script");
        if dice.random_range(0..100) >= 10 {
            let delay = Duration::from_millis(dice.random_range(0..60));
            late.push((Instant::now() + delay, packet));
        }
    }
    for speaker in &mut speakers {
        speaker.listen(Duration::from_millis(100));
        speaker.assert_continuous();
    }
    let sound = speakers[0].last_sound(3.0);
    let good = level(&sound, 8000, frequency(1));
    assert!((good + 20.0).abs() < 1.0, "the good line at {good}");
    let bad = level(&sound, 8000, frequency(2));
    assert!((bad + 20.0).abs() < 3.0, "the bad line at {bad}");
    let both = median(&sound, (8000, 100), loudness);
    assert!((both + 17.0).abs() < 1.0, "both at {both}");
    // The good line has no hole: no 20 ms without its tone.
    for (at, piece) in sound.chunks_exact(160).enumerate() {
        let found = loudness(piece);
        assert!(found > -26.0, "{found} at {} ms", at * 20);
    }
    let of_good_line = level(&speakers[2].last_sound(3.0), 8000, frequency(0));
    assert!((of_good_line + 20.0).abs() < 1.0, "{of_good_line}");
}

#[test]
fn a_party_that_stops_sending_stops_nobody() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut speakers: Vec<_> = (0..3)
        .map(|n| join(&mut client, n, Coding::Pcma, -20.0))
        .collect();
    speakers[2].script.truncate(50);
    let ran = || server.metric("rtpbridge_mixer_lateness_seconds_count") as usize;
    let (start, before) = (Instant::now(), ran());
    converse(&mut speakers, 200);
    for speaker in &mut speakers {
        speaker.listen(Duration::from_millis(300));
    }
    // What a worker that got no processor for 100 ms leaves out is nobody's fault.
    let ticks = start.elapsed().as_millis() as usize / 20;
    let left_out = ticks.saturating_sub(ran() - before);
    let silent = speakers.pop().expect("three");
    for (n, speaker) in speakers.iter().enumerate() {
        speaker.assert_continuous();
        // A frame for each tick while they spoke, for as long as a jitter buffer may hold (200 ms) and
        // stand in (100 ms), and 200 ms of comfort silence.
        let count = speaker.heard.len();
        assert!(count + left_out >= 190, "{n} heard {count} frames");
        assert!(count <= ticks, "{n} heard {count} frames in {ticks} ticks");
        let sound = speaker.last_sound(2.0);
        let found = median(&sound, (8000, 100), |piece| {
            level(piece, 8000, frequency(1 - n))
        });
        assert!((found + 20.0).abs() < 1.0, "{n}: {found}");
    }
    let both = median(&silent.last_sound(2.0), (8000, 100), loudness);
    assert!(
        (both + 17.0).abs() < 1.0,
        "who says nothing still hears: {both}"
    );
    // Now nobody says anything: comfort silence, then nothing.
    thread::sleep(Duration::from_millis(600));
    silent.party.receive_all(Duration::from_millis(10));
    silent.party.expect_silence(Duration::from_millis(300));
}

#[test]
fn two_at_full_scale_are_turned_down_without_harmonics() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let frequencies = [700.0, 1000.0];
    let mut speakers: Vec<_> = frequencies
        .iter()
        .map(|frequency| {
            let pcm = tone(16_000, *frequency, -0.1, 8.0);
            Speaker::join(&mut client, Coding::G722).with_script(&pcm)
        })
        .collect();
    speakers.push(Speaker::join(&mut client, Coding::G722));
    converse(&mut speakers, 150);
    let sound = speakers[2].last_sound(1.0);
    let carriers = frequencies.map(|frequency| level(&sound, 16_000, frequency));
    for carrier in carriers {
        assert!((-9.0..-4.0).contains(&carrier), "{carriers:?}");
    }
    for product in [
        300.0, 400.0, 1300.0, 1400.0, 1700.0, 2000.0, 2100.0, 2400.0, 2700.0, 3000.0,
    ] {
        let found = level(&sound, 16_000, product) - carriers[0];
        assert!(found < -30.0, "{product} Hz at {found} dBc");
    }
    // Wrapping around would make steps of a whole range.
    let steepest = rtpbridge_tests::sound::steepest(&sound);
    assert!(dbfs(f64::from(steepest)) < 0.0, "{steepest}");
}

#[test]
fn digits_pass_beside_the_mix() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut speakers: Vec<_> = (0..3)
        .map(|n| join(&mut client, n, Coding::ALL[n], -20.0))
        .collect();
    converse(&mut speakers, 50);
    for speaker in &mut speakers {
        speaker.heard.clear();
    }
    let [presser, others @ ..] = &mut speakers[..] else {
        unreachable!("there are three")
    };
    let sent = presser.party.press(EVENT, 7, 8);
    converse(others, 50);
    let told = client.expect_event("dtmf");
    assert_eq!(told["digit"], "7");
    for listener in others {
        listener.assert_continuous();
        let events: Vec<_> = listener
            .heard
            .iter()
            .filter(|p| p.payload_type == EVENT)
            .collect();
        assert_eq!(events.len(), sent.len());
        assert!(events[0].marker);
        assert!(
            events
                .iter()
                .all(|event| event.timestamp == events[0].timestamp)
        );
        assert!(events.iter().all(|event| event.payload[0] == 7));
    }
}
