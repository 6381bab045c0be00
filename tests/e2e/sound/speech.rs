//! What somebody says through every ordered pair of codecs: how much of it is left, how loud it is and
//! how much later it comes.

use rtpbridge_tests::harness::{Server, tool};
use rtpbridge_tests::sound::loudness;

use super::pairs::{has_opus, pairs, through};

const TEXT: &str = "Good morning, this is the practice of doctor Miller. Please stay on the phone.";
/// At which speech is compared.
const RATE_HZ: usize = 16_000;
/// What is compared: a second and a half, from where the pipelines have settled.
const COMPARED: std::ops::Range<usize> = RATE_HZ..5 * RATE_HZ / 2;
/// The longest delay that is looked for, in samples.
const LATEST: usize = RATE_HZ * 25 / 1000;

/// Speech at any rate.
struct Speech {
    wav: String,
    raw: String,
}

impl Speech {
    fn render(server: &Server) -> Self {
        let path = |name: &str| server.path(name).to_string_lossy().into_owned();
        let (wav, raw) = (path("speech.wav"), path("speech.raw"));
        // Below full scale even where a codec exaggerates.
        let how = ["-v", "en", "-s", "150", "-a", "60", "-w", &wav];
        tool::run("espeak-ng", &[&how[..], &[TEXT]].concat());
        Self { wav, raw }
    }

    fn at(&self, rate_hz: u32) -> Vec<i16> {
        self.convert(&["-i", &self.wav], rate_hz)
    }

    /// Some sound at the rate at which it is compared.
    fn to_compare(&self, pcm: &[i16], rate_hz: u32) -> Vec<i16> {
        let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let from = format!("{}.in", self.raw);
        std::fs::write(&from, bytes).expect("room");
        let rate = rate_hz.to_string();
        let input = ["-f", "s16le", "-ac", "1", "-ar", &rate, "-i", &from];
        self.convert(&input, RATE_HZ as u32)
    }

    fn convert(&self, input: &[&str], rate_hz: u32) -> Vec<i16> {
        let quiet = ["-hide_banner", "-loglevel", "error", "-y"];
        let rate = rate_hz.to_string();
        let output = ["-ac", "1", "-ar", &rate, "-f", "s16le", &self.raw];
        tool::run("ffmpeg", &[&quiet[..], input, &output].concat());
        let bytes = std::fs::read(&self.raw).expect("written");
        let samples = bytes.chunks_exact(2);
        samples
            .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
            .collect()
    }
}

/// How many samples later something of `said` is best found in `heard`, and how alike they are there:
/// 1 is the same but for its level.
fn best_match(said: &[i16], heard: &[i16]) -> (usize, f64) {
    let said = &said[COMPARED];
    let energy = |pcm: &[i16]| pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
    let likeness = |delay: usize| {
        let heard = &heard[COMPARED.start + delay..COMPARED.end + delay];
        let pairs = said.iter().zip(heard);
        let product: i64 = pairs.map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
        product as f64 / (energy(said) * energy(heard)).sqrt()
    };
    let found = (0..LATEST).map(|delay| (delay, likeness(delay)));
    found
        .max_by(|one, other| one.1.total_cmp(&other.1))
        .expect("delays")
}

#[test]
fn speech_crosses_every_pair_whole_and_within_a_frame() {
    let server = Server::start();
    let speech = Speech::render(&server);
    for pair in pairs() {
        let (from, to) = pair;
        let pcm = speech.at(from.audio_hz());
        let frames = pcm.len() / (from.audio_hz() as usize / 50);
        let heard = through(&server, pair, &pcm, None);
        assert_eq!(heard.heard.len(), frames, "{pair:?}: a frame for each");
        // What the narrower of the two can carry.
        let carried_hz = from.audio_hz().min(to.audio_hz());
        let said = speech.to_compare(&speech.at(carried_hz), carried_hz);
        let heard = speech.to_compare(&heard.sound(), to.audio_hz());
        let (delay, likeness) = best_match(&said, &heard);
        let delay_ms = delay as f64 * 1000.0 / RATE_HZ as f64;
        // Noise is what is not alike.
        let snr = 10.0 * (likeness.powi(2) / (1.0 - likeness.powi(2))).log10();
        let later = COMPARED.start + delay..COMPARED.end + delay;
        let off = loudness(&heard[later]) - loudness(&said[COMPARED]);
        let row = format!("{from:?} | {to:?} | {off:+.2} | {snr:.1} | {delay_ms:.1}");
        println!("| {row} |");
        let bar = if has_opus(pair) { 6.0 } else { 18.0 };
        assert!(off.abs() <= 1.0, "{row}");
        assert!(snr >= bar, "{row}");
        assert!(delay_ms <= 20.0, "{row}");
    }
}
