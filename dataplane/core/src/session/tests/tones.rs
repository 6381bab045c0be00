use rtpbridge_shared::ipc::playback::ToneCreate;
use rtpbridge_shared::ipc::recording::{RecordingStart, StreamDirection};
use rtpbridge_shared::vocab::{EndpointState, Tone};

use super::*;
use crate::codec::{Decoder, probe};
use crate::session::RecordKind;

impl World {
    /// A sine of this frequency at -10 dBFS, for ever.
    pub(super) fn tone_of(&mut self, frequency: f64) {
        self.tone_with(Tone::Sine, frequency, None);
    }

    pub(super) fn tone(&mut self, tone: Tone, duration_ms: Option<u64>) -> EndpointId {
        self.tone_with(tone, 1000.0, duration_ms)
    }

    fn tone_with(&mut self, tone: Tone, frequency: f64, duration_ms: Option<u64>) -> EndpointId {
        self.parties += 1;
        let request = ToneCreate {
            session: self.session.id(),
            endpoint: EndpointId::from_bytes([self.parties as u8; 16]),
            tone,
            frequency,
            duration_ms,
        };
        let created = self.session.create_tone(self.now, &request, &mut self.out);
        created.expect("room");
        request.endpoint
    }
}

pub(super) fn decoded(codec: Codec, packets: &[(RtpHeader, Vec<u8>)]) -> Vec<i16> {
    let rate_hz = crate::codec::audio_rate(codec);
    let mut decoder = Decoder::new(codec, rate_hz).expect("its own rate");
    let mut room = vec![0; 5760];
    let mut pcm = Vec::new();
    for (_, payload) in packets {
        let count = decoder.decode(payload, &mut room).expect("we encode well");
        pcm.extend_from_slice(&room[..count]);
    }
    pcm
}

/// Every packet follows on the one before.
pub(super) fn assert_continuous(packets: &[(RtpHeader, Vec<u8>)], step: u32) {
    for pair in packets.windows(2) {
        let (before, after) = (&pair[0].0, &pair[1].0);
        assert_eq!(after.sequence, before.sequence.wrapping_add(1));
        assert_eq!(after.timestamp, before.timestamp.wrapping_add(step));
        assert_eq!(after.ssrc, before.ssrc);
        assert!(!after.marker);
    }
}

#[test]
fn a_tone_is_heard_in_everybodys_codec() {
    let mut world = World::new();
    let mut listeners = Vec::new();
    for (formats, codec, step) in [
        ("0 101", Codec::Pcmu, 160),
        ("8 101", Codec::Pcma, 160),
        ("9 101", Codec::G722, 160),
        ("111 110", Codec::Opus, 960),
    ] {
        let party = world.join(formats, Direction::Recvonly);
        listeners.push((party, codec, step));
    }
    world.tone(Tone::Sine, None);
    world.pass(2000);
    for (party, codec, step) in &listeners {
        let packets = world.take_rtp(party);
        assert!((99..=100).contains(&packets.len()), "{}", packets.len());
        assert!(packets[0].0.marker);
        assert_continuous(&packets, *step);
        let pcm = decoded(*codec, &packets);
        let rate_hz = crate::codec::audio_rate(*codec);
        let tone = probe::fit_tone(&pcm[rate_hz as usize / 2..], rate_hz, 1000.0);
        assert!((tone.level_dbfs + 10.0).abs() < 0.5, "{codec}: {tone:?}");
        assert!(tone.snr_db > 30.0, "{codec}: {tone:?}");
    }
    assert_eq!(world.out.counters.transcode_errors, 0);
}

#[test]
fn a_tone_ends_after_its_duration_and_stays_listed() {
    let mut world = World::new();
    let party = world.join(PCMU, Direction::Recvonly);
    let tone = world.tone(Tone::Beep, Some(510));
    let listed = world.session.details().endpoints;
    assert_eq!(listed[1].state, EndpointState::Playing);
    assert_eq!(listed[1].direction, Direction::Sendonly);
    world.pass(3000);
    let packets = world.take_rtp(&party);
    assert_eq!(packets.len(), 26, "the last one half silent");
    assert_continuous(&packets, 160);
    let last = &packets[25].1;
    assert!(last[80..].iter().all(|byte| *byte == 0xff));
    let told: Vec<_> = world.events().cloned().collect();
    let changed = Event::StateChanged {
        endpoint: tone,
        old_state: EndpointState::Playing,
        new_state: EndpointState::Finished,
    };
    assert_eq!(told, [changed, Event::ToneFinished { endpoint: tone }]);
    let listed = world.session.details().endpoints;
    assert_eq!(listed[1].state, EndpointState::Finished);
    let rows = world.session.stats_rows(world.now.at);
    assert_eq!(rows[1].state, EndpointState::Finished);
    assert!(world.session.next_timeout().is_some_and(|due| {
        // Nothing ticks any more.
        due > world.now.at + Duration::from_millis(20)
    }));
}

#[test]
fn tones_are_recorded_as_pcmu() {
    let mut world = World::new();
    let _listener = world.join("111 110", Direction::Recvonly);
    let tone = world.tone(Tone::Sine, None);
    let request = RecordingStart {
        session: world.session.id(),
        recording: rtpbridge_shared::id::RecordingId::from_bytes([9; 16]),
        endpoint: Some(tone),
        file_path: "/x".into(),
        record_outbound: false,
    };
    world
        .session
        .start_recording(world.now, &request, RecordingKey(3), &mut world.out)
        .expect("allowed");
    world.pass(1000);
    let recorded: Vec<_> = world
        .out
        .recorded
        .iter()
        .map(|packet| {
            assert_eq!(packet.endpoint, tone);
            assert_eq!(packet.direction, StreamDirection::Inbound);
            let payload_name = "PCMU";
            assert_eq!(packet.kind, RecordKind::Rtp { payload_name });
            let header = RtpHeader::parse(&packet.bytes).expect("RTP");
            let payload = packet.bytes[header.payload.clone()].to_vec();
            (header, payload)
        })
        .collect();
    assert!(recorded.len() >= 49);
    assert_continuous(&recorded, 160);
    let pcm = decoded(Codec::Pcmu, &recorded);
    let level = probe::level_at(&pcm[1600..], 8000, 1000.0);
    assert!((level + 10.0).abs() < 0.5, "{level}");
}

#[test]
fn two_codecs_talk_through_pipelines() {
    let mut world = World::new();
    let mut one = world.join(PCMU, Direction::Sendrecv);
    let two = world.join("8 101", Direction::Sendrecv);
    for _ in 0..50 {
        world.talk(&mut one);
        world.pass(20);
    }
    let packets = world.take_rtp(&two);
    assert_eq!(packets.len(), 50);
    assert!(packets.iter().all(|(header, _)| header.payload_type == 8));
    assert_continuous(&packets, 160);
}
