use super::*;
use crate::codec::{Codec, Decoder, Encoder, probe};

/// A detector fed in 20 ms packets on time, and when it said what (in ms).
struct Listener {
    vad: Vad,
    ms: u64,
    said: Vec<(u64, VadEvent)>,
}

impl Listener {
    fn new(threshold: f64, interval_ms: u64) -> Self {
        let vad = Vad::new(Instant::ZERO, threshold, Duration::from_millis(interval_ms));
        Self {
            vad,
            ms: 0,
            said: Vec::new(),
        }
    }

    fn hear(&mut self, rate_hz: u32, pcm: &[i16]) {
        for frame in pcm.chunks(rate_hz as usize / 50) {
            self.ms += 20;
            let (ms, said) = (self.ms, &mut self.said);
            let now = Instant::from_nanos(ms * 1_000_000);
            self.vad
                .handle_pcm(now, rate_hz, frame, &mut |event| said.push((ms, event)));
        }
    }

    /// No packets; the worker calls when a timeout is due.
    fn wait(&mut self, for_ms: u64) {
        let end = self.ms + for_ms;
        while let Some(at) = self
            .vad
            .next_timeout()
            .filter(|at| at.as_nanos() <= end * 1_000_000)
        {
            let (ms, said) = (at.as_nanos() / 1_000_000, &mut self.said);
            self.vad
                .handle_timeout(at, &mut |event| said.push((ms, event)));
        }
        self.ms = end;
    }

    fn silences(&self) -> Vec<u64> {
        self.said
            .iter()
            .filter_map(|(_, event)| match event {
                VadEvent::Silence { duration } => Some(duration.as_millis() as u64),
                VadEvent::SpeechStarted => None,
            })
            .collect()
    }

    fn starts(&self) -> Vec<u64> {
        let starts = self
            .said
            .iter()
            .filter(|(_, event)| *event == VadEvent::SpeechStarted);
        starts.map(|(ms, _)| *ms).collect()
    }
}

fn through(codec: Codec, pcm: &[i16]) -> Vec<i16> {
    let mut encoder = Encoder::new(codec, 8000, &Default::default()).expect("encoder");
    let mut decoder = Decoder::new(codec, 8000).expect("decoder");
    let mut heard = vec![0; pcm.len()];
    for (frame, out) in pcm.chunks(160).zip(heard.chunks_mut(160)) {
        let mut payload = [0; 160];
        encoder.encode(frame, &mut payload).expect("encodes");
        decoder.decode(&payload, out).expect("decodes");
    }
    heard
}

#[test]
fn a_half_scale_tone_from_a_g711_party_is_speech() {
    for codec in [Codec::Pcmu, Codec::Pcma] {
        let mut listener = Listener::new(0.5, 1000);
        listener.hear(
            8000,
            &through(codec, &probe::tone(8000, 440.0, -6.02, 8000 * 60)),
        );
        assert_eq!(listener.said.len(), 1, "{codec}: {:?}", listener.said);
        assert!(listener.starts()[0] <= 60, "{codec}: {:?}", listener.said);
    }
}

#[test]
fn a_half_scale_tone_is_speech_at_every_rate() {
    for rate in [8000, 16000, 48000] {
        let mut listener = Listener::new(0.5, 1000);
        listener.hear(rate, &probe::tone(rate, 440.0, -6.02, rate as usize * 10));
        assert_eq!(listener.starts().len(), 1, "{rate}");
        assert!(
            listener.silences().is_empty(),
            "{rate}: {:?}",
            listener.said
        );
    }
}

#[test]
fn line_noise_is_not_speech() {
    for level in [20, 300, 3000] {
        let noise: Vec<i16> = probe::noise(9, 80000)
            .map(|s| (i32::from(s) * level / 32768) as i16)
            .collect();
        let mut listener = Listener::new(0.5, 1000);
        listener.hear(8000, &through(Codec::Pcmu, &noise));
        assert!(listener.starts().is_empty(), "noise of {level}");
    }
}

#[test]
fn silence_is_told_at_every_interval_though_nothing_was_ever_said() {
    let mut listener = Listener::new(0.5, 1000);
    listener.hear(8000, &[0; 8000 * 5]);
    let silences = listener.silences();
    assert_eq!(silences.len(), 4, "{silences:?}");
    for (n, silence) in silences.iter().enumerate() {
        let wanted = (n as u64 + 1) * 1000;
        assert!((wanted..wanted + 20).contains(silence), "{silences:?}");
    }
}

#[test]
fn silence_counts_from_the_last_speech() {
    let mut listener = Listener::new(0.5, 500);
    listener.hear(8000, &probe::tone(8000, 440.0, -6.0, 8000 * 2));
    listener.hear(8000, &[0; 8000 * 2]);
    assert_eq!(listener.starts().len(), 1);
    for (at, event) in &listener.said[1..] {
        let VadEvent::Silence { duration } = event else {
            panic!("{:?}", listener.said)
        };
        let end = at - duration.as_millis() as u64;
        assert!((1960..=2060).contains(&end), "end of speech told as {end}");
    }
    listener.hear(8000, &probe::tone(8000, 440.0, -6.0, 8000));
    assert_eq!(listener.starts().len(), 2);
}

#[test]
fn short_pauses_do_not_end_speech_and_short_intervals_wait_for_silence() {
    let mut listener = Listener::new(0.5, 100);
    listener.hear(8000, &probe::tone(8000, 440.0, -6.0, 8000));
    listener.hear(8000, &[0; 800]);
    listener.hear(8000, &probe::tone(8000, 440.0, -6.0, 8000));
    assert_eq!(listener.said.len(), 1, "{:?}", listener.said);
    listener.hear(8000, &[0; 8000]);
    let silences = listener.silences();
    // 320 ms without a frame of speech, and what the score took to fall.
    assert_eq!(silences[0], 400, "{silences:?}");
    assert!((500..516).contains(&silences[1]), "{silences:?}");
}

#[test]
fn the_wall_clock_takes_over_when_packets_stop() {
    let mut listener = Listener::new(0.5, 1000);
    listener.wait(3500);
    assert_eq!(listener.silences(), [1000, 2000, 3000]);
    listener.hear(8000, &probe::tone(8000, 440.0, -6.0, 8000));
    assert_eq!(listener.starts().len(), 1);
    listener.said.clear();
    listener.wait(2500);
    let silences = listener.silences();
    assert_eq!(silences.len(), 2, "{silences:?}");
    assert!((1000..1030).contains(&silences[0]), "{silences:?}");
    listener.hear(8000, &[0; 8000]);
    assert_eq!(listener.silences().len(), 3, "counted on through the gap");
}

#[test]
fn bursts_and_jitter_do_not_stretch_time() {
    let mut vad = Vad::new(Instant::ZERO, 0.5, Duration::from_millis(1000));
    let mut silences = 0;
    for burst in 1..=50u64 {
        // Five packets at once, every 100 ms.
        for _ in 0..5 {
            let now = Instant::from_nanos(burst * 100_000_000);
            vad.handle_pcm(now, 8000, &[0; 160], &mut |_| silences += 1);
        }
    }
    assert_eq!(silences, 4);
}

#[test]
fn the_threshold_decides() {
    let pcm = probe::tone(8000, 440.0, -6.0, 8000);
    let mut never = Listener::new(1.0, 1000);
    never.hear(8000, &pcm);
    assert!(never.starts().is_empty());
    let mut always = Listener::new(0.0, 1000);
    always.hear(8000, &[0; 8000]);
    assert_eq!(always.starts().len(), 1);
    assert!(always.silences().is_empty());
}
