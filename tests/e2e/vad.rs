//! media, VAD: speech is found where it is and ends where it ends, whoever else listens, and silence
//! keeps being told.

use std::path::Path;
use std::time::Duration;

use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Event, Server, tool};
use rtpbridge_tests::peer::audio::level;
use rtpbridge_tests::peer::{Offer, Party};
use rtpbridge_tests::sound::Coding;
use serde_json::{Value, json};

const TOLERANCE_MS: i64 = 100;

/// A party that sends frame by frame, each when the one before has been heard. What the bridge finds
/// is then known to the frame, however busy the machine is.
struct Speaker {
    party: Party,
    coding: Coding,
    sent: u64,
    /// Events, and how many ms had been said when they came.
    found: Vec<(i64, Event)>,
}

impl Speaker {
    fn join(client: &mut Client, coding: Coding) -> Self {
        let mut party = Party::bind();
        let offer = Offer::with_codecs(party.address(), &[coding.format()]);
        party.offer(client, &offer, json!({}));
        party.payload_type = coding.format().0;
        Self {
            party,
            coding,
            sent: 0,
            found: Vec::new(),
        }
    }

    fn endpoint(&self) -> Value {
        json!({"endpoint_id": self.party.endpoint})
    }

    fn listen(&self, client: &mut Client, interval_ms: u32) {
        let mut params = self.endpoint();
        params["silence_interval_ms"] = json!(interval_ms);
        params["speech_threshold"] = json!(0.5);
        client.call("vad.start", params);
    }

    fn say(&mut self, client: &mut Client, pcm: &[i16]) {
        for payload in self.coding.encode(pcm) {
            let timestamp = self.party.timestamp;
            self.party.send(&payload);
            self.party.timestamp = timestamp.wrapping_add(self.coding.frame_ticks());
            self.sent += 1;
            let (sent, endpoint) = (self.sent, json!(self.party.endpoint));
            eventually("the frame is heard", SOON, || {
                let snapshot = client.call("stats.snapshot", json!({}));
                let rows = snapshot["endpoints"].as_array().unwrap().iter();
                let mut own = rows.filter(|row| row["endpoint_id"] == endpoint);
                (own.next()?["inbound"]["packets"] == json!(sent)).then_some(())
            });
            let at = self.sent as i64 * 20;
            for event in client.drain_events(Duration::ZERO) {
                self.found.push((at, event));
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        self.found.iter().map(|(_, e)| e.name.as_str()).collect()
    }
}

/// At 8 kHz.
fn tone(hz: f64, amplitude: f64, ms: usize) -> Vec<i16> {
    let turn = std::f64::consts::TAU * hz / 8000.0;
    let sample = |n: usize| (amplitude * (turn * n as f64).sin()) as i16;
    (0..ms * 8).map(sample).collect()
}

/// Somebody says this, without the silence around it.
fn speech(directory: &Path, text: &str, rate_hz: u32) -> Vec<i16> {
    let wav = directory.join("speech.wav");
    let raw = directory.join("speech.raw");
    let (wav, raw_path) = (wav.to_str().unwrap(), raw.to_str().unwrap());
    tool::run("espeak-ng", &["-v", "en", "-s", "150", "-w", wav, text]);
    let quiet = ["-hide_banner", "-loglevel", "error", "-y"];
    let rate = rate_hz.to_string();
    let convert = ["-i", wav, "-ar", &rate, "-ac", "1", "-f", "s16le", raw_path];
    tool::run("ffmpeg", &[&quiet[..], &convert].concat());
    let bytes = std::fs::read(raw).unwrap();
    let pcm = bytes.chunks_exact(2);
    let pcm: Vec<i16> = pcm
        .map(|two| i16::from_le_bytes([two[0], two[1]]))
        .collect();
    let peak = pcm
        .iter()
        .map(|sample| sample.unsigned_abs())
        .max()
        .unwrap();
    // 30 dB below the peak.
    let is_loud = |slice: &[i16]| level(slice) > f64::from(peak) / 31.6;
    let slices: Vec<&[i16]> = pcm.chunks(rate_hz as usize / 100).collect();
    let first = slices.iter().position(|slice| is_loud(slice)).unwrap();
    let last = slices.iter().rposition(|slice| is_loud(slice)).unwrap();
    slices[first..=last].concat()
}

#[test]
fn speech_is_found_where_it_begins_and_ends() {
    let server = Server::start();
    for coding in [Coding::Pcmu, Coding::G722, Coding::Opus] {
        expect_speech_found(&server, coding);
    }
}

fn expect_speech_found(server: &Server, coding: Coding) {
    let (mut client, _) = server.session();
    let mut speaker = Speaker::join(&mut client, coding);
    speaker.listen(&mut client, 500);
    let texts = [
        "Good morning, may I speak to the doctor?",
        "Thank you very much.",
        "Could you please repeat your account number?",
    ];
    let per_ms = coding.audio_hz() as usize / 1000;
    let mut truth = Vec::new();
    let mut pcm = vec![0; 900 * per_ms];
    for text in texts {
        let begins_ms = (pcm.len() / per_ms) as i64;
        pcm.extend(speech(server.directory(), text, coding.audio_hz()));
        truth.push((begins_ms, (pcm.len() / per_ms) as i64));
        pcm.resize(pcm.len() + 1600 * per_ms, 0);
    }
    speaker.say(&mut client, &pcm);
    let begins = speaker
        .found
        .iter()
        .filter(|(_, e)| e.name == "vad.speech_started");
    let begins: Vec<i64> = begins.map(|(at, _)| *at).collect();
    let what = format!("{coding:?}: {begins:?}, not {truth:?}");
    assert_eq!(begins.len(), texts.len(), "{what}");
    for (found, (begin, end)) in begins.iter().zip(&truth) {
        let off = found - begin;
        assert!(off.abs() <= TOLERANCE_MS, "{what}");
        let mut silences = speaker
            .found
            .iter()
            .filter(|(at, e)| e.name == "vad.silence" && *at > *end);
        let (at, event) = silences.next().unwrap();
        let silent_ms = event.data["silence_duration_ms"].as_i64().unwrap();
        let ended = at - silent_ms;
        println!("{coding:?}: begin {off:+}, end {:+}", ended - end);
        let off = (ended - end).abs();
        assert!(off <= TOLERANCE_MS, "{coding:?}: {ended}, not {end}");
    }
    let info = client.call("session.info", json!({}));
    assert_eq!(info["vad_active"], json!([speaker.party.endpoint]));
}

#[test]
fn a_tone_counts_as_speech_whoever_else_hears_it() {
    let server = Server::start();
    // Nobody; one with the same codec; one with another; several.
    for others in [
        &[][..],
        &["PCMU/8000"],
        &["G722/8000"],
        &["PCMA/8000", "PCMU/8000"],
    ] {
        let (mut client, _) = server.session();
        let mut speaker = Speaker::join(&mut client, Coding::Pcmu);
        for name in others {
            let mut other = Party::bind();
            let payload_type = match *name {
                "PCMU/8000" => 0,
                "PCMA/8000" => 8,
                _ => 9,
            };
            let offer = Offer::with_codecs(other.address(), &[(payload_type, name)]);
            other.offer(&mut client, &offer, json!({}));
        }
        speaker.listen(&mut client, 400);
        speaker.say(&mut client, &tone(440.0, 16384.0, 600));
        let found = speaker.names();
        assert_eq!(found, ["vad.speech_started"], "before {others:?}");
        let stop = speaker.endpoint();
        client.call("vad.stop", stop);
        let info = client.call("session.info", json!({}));
        assert_eq!(info["vad_active"], json!([]));
        speaker.say(&mut client, &[0; 600 * 8]);
        assert_eq!(speaker.names().len(), 1, "stopped is stopped");
    }
}

#[test]
fn silence_is_told_at_every_interval_though_no_packet_comes() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let party = Party::join(&mut client);
    let endpoint = json!(party.endpoint);
    client.call(
        "vad.start",
        json!({"endpoint_id": endpoint, "silence_interval_ms": 100}),
    );
    let mut told = Vec::new();
    for _ in 0..4 {
        let silence = client.expect_event("vad.silence");
        assert_eq!(silence["endpoint_id"], endpoint);
        told.push(silence["silence_duration_ms"].as_u64().unwrap());
    }
    assert!(told[0] >= 320, "{told:?}");
    assert!(
        told.windows(2).all(|pair| pair[1] >= pair[0] + 100),
        "{told:?}"
    );
    // Starting again replaces the settings.
    client.call(
        "vad.start",
        json!({"endpoint_id": endpoint, "silence_interval_ms": 3_600_000}),
    );
    client.drain_events(Duration::from_millis(100));
    client.expect_no_event("vad.silence", Duration::from_millis(600));
}

#[test]
fn unless_told_otherwise_silence_is_reported_every_second() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut speaker = Speaker::join(&mut client, Coding::Pcmu);
    client.call("vad.start", speaker.endpoint());
    speaker.say(&mut client, &[0; 2100 * 8]);
    assert_eq!(speaker.names(), ["vad.silence", "vad.silence"]);
    for ((_, event), seconds) in speaker.found.iter().zip(1..) {
        let told_ms = event.data["silence_duration_ms"].as_u64().unwrap();
        // Counted in frames of 16 ms.
        assert!((0..16).contains(&(told_ms - 1000 * seconds)), "{told_ms}");
    }
}

#[test]
fn what_cannot_be_listened_to_is_refused() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let party = Party::join(&mut client);
    let unknown = json!({"endpoint_id": "00000000-0000-4000-8000-000000000000"});
    for method in ["vad.start", "vad.stop"] {
        let message = client.refuse(method, unknown.clone(), "VAD_ERROR");
        assert!(message.contains("not found"), "{message}");
    }
    for (field, value) in [
        ("silence_interval_ms", json!(99)),
        ("silence_interval_ms", json!(3_600_001)),
        ("speech_threshold", json!(1.1)),
        ("speech_threshold", json!(-0.1)),
    ] {
        let mut params = json!({"endpoint_id": party.endpoint});
        params[field] = value;
        let message = client.refuse("vad.start", params, "INVALID_PARAMS");
        assert!(message.contains(field), "{message}");
    }
    // Any state will do.
    let offered = client.call("endpoint.create_offer", json!({"type": "rtp"}));
    let unanswered = json!({"endpoint_id": offered["endpoint_id"]});
    client.call("vad.start", unanswered.clone());
    client.call("vad.stop", unanswered.clone());
    client.call("vad.stop", unanswered);
}
