//! Sound through the real programs: pairs of codecs, conferences, tones. What parties hear is decoded
//! by codecs of the tests' own and measured.

mod conference;
mod pairs;
mod programs;
mod speech;
mod tones;

use std::thread;
use std::time::{Duration, Instant};

use rtpbridge_tests::harness::Client;
use rtpbridge_tests::peer::{Offer, Party, Rtp};
use rtpbridge_tests::sound::Coding;
use serde_json::json;

const FRAME: Duration = Duration::from_millis(20);
const EVENT: u8 = 101;

/// A party with a codec, what it has to say and what it heard.
struct Speaker {
    party: Party,
    coding: Coding,
    /// Frames to be said, once.
    script: Vec<Vec<u8>>,
    said: usize,
    last_said: Option<Instant>,
    heard: Vec<Rtp>,
}

impl Speaker {
    fn join(client: &mut Client, coding: Coding) -> Self {
        Self::join_as(client, coding, "sendrecv")
    }

    fn join_as(client: &mut Client, coding: Coding, direction: &str) -> Self {
        let mut party = Party::bind();
        let (payload_type, map) = coding.format();
        let events = (EVENT, "telephone-event/8000");
        let offer = Offer::with_codecs(party.address(), &[(payload_type, map), events]);
        party.offer(client, &offer, json!({"direction": direction}));
        party.payload_type = payload_type;
        Self {
            party,
            coding,
            script: Vec::new(),
            said: 0,
            last_said: None,
            heard: Vec::new(),
        }
    }

    fn with_script(mut self, pcm: &[i16]) -> Self {
        self.script = self.coding.encode(pcm);
        self
    }

    /// The next packet of what it has to say, after which its time runs on.
    fn next_packet(&mut self) -> Option<Rtp> {
        let payload = self.script.get(self.said)?.clone();
        self.said += 1;
        let timestamp = self.party.timestamp;
        let packet = self.party.next_packet(&payload);
        self.party.timestamp = timestamp.wrapping_add(self.coding.frame_ticks());
        Some(packet)
    }

    /// Says the next frame; time runs on while it says nothing.
    fn say(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last_said.replace(now) {
            let missed = ((now - last).as_millis() / 20).saturating_sub(2) as u32;
            let ticks = missed * self.coding.frame_ticks();
            self.party.timestamp = self.party.timestamp.wrapping_add(ticks);
        }
        if let Some(packet) = self.next_packet() {
            self.party.send_packet(&packet);
        }
    }

    /// Takes what has come until nothing comes for `quiet`.
    fn listen(&mut self, quiet: Duration) {
        self.heard.extend(self.party.receive_all(quiet));
    }

    /// All audio that was heard.
    fn sound(&self) -> Vec<i16> {
        let audio = self
            .heard
            .iter()
            .filter(|packet| packet.payload_type != EVENT);
        let payloads: Vec<_> = audio.map(|packet| packet.payload.clone()).collect();
        self.coding.decode(&payloads)
    }

    /// `seconds` of it, up to half a second before its end: there what was said fades out.
    fn last_sound(&self, seconds: f64) -> Vec<i16> {
        let mut sound = self.sound();
        let rate_hz = self.coding.audio_hz() as usize;
        sound.truncate(sound.len().saturating_sub(rate_hz / 2));
        let wanted = (seconds * rate_hz as f64) as usize;
        sound.split_off(sound.len().saturating_sub(wanted))
    }

    /// One stream: one SSRC, no hole in its numbers, time that never decreases.
    fn assert_continuous(&self) {
        for pair in self.heard.windows(2) {
            assert_eq!(pair[1].ssrc, pair[0].ssrc);
            let step = pair[1].sequence.wrapping_sub(pair[0].sequence);
            assert_eq!(step, 1, "{:?} {:?}", pair[0], pair[1]);
        }
        let is_audio = |packet: &&Rtp| packet.payload_type != EVENT;
        let audio: Vec<_> = self.heard.iter().filter(is_audio).collect();
        for pair in audio.windows(2) {
            let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp) as i32;
            assert!(step >= 0, "time goes back by {step}");
        }
    }
}

/// Everybody says a frame every 20 ms, so many times; then what was heard is taken.
fn converse(speakers: &mut [Speaker], frames: u32) {
    let start = Instant::now();
    for n in 0..frames {
        thread::sleep((start + FRAME * n).saturating_duration_since(Instant::now()));
        for speaker in speakers.iter_mut() {
            speaker.say();
        }
    }
    for speaker in speakers {
        speaker.listen(Duration::from_millis(100));
    }
}
