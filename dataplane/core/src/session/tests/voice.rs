use std::f64::consts::TAU;

use rtpbridge_shared::ipc::vad::VadStart;
use rtpbridge_shared::vocab::EndpointState;

use super::*;
use crate::codec::{CodecError, g711};

fn start(world: &mut World, endpoint: EndpointId, interval_ms: u32) {
    let request = VadStart {
        session: world.session.id(),
        endpoint,
        silence_interval_ms: interval_ms,
        speech_threshold: 0.5,
    };
    let started = world.session.vad_start(world.now, &request);
    started.expect("it exists");
}

/// 20 ms of 440 Hz at half scale, or of silence.
fn say(world: &mut World, party: &mut Party, is_loud: bool) {
    let sample = |n: u32| {
        let at = f64::from(party.timestamp.wrapping_add(n)) / 8000.0;
        let level = if is_loud { 16384.0 } else { 0.0 };
        g711::encode_ulaw((level * (TAU * 440.0 * at).sin()) as i16)
    };
    let payload: Vec<u8> = (0..160).map(sample).collect();
    let packet = party.packet(0, false, &payload);
    world.receive(party, &packet);
    party.step();
    world.pass(20);
}

fn voice_events(world: &mut World) -> Vec<Event> {
    let events = std::mem::take(&mut world.out.events);
    let is_voice = |event: &Event| {
        matches!(
            event,
            Event::VadSpeechStarted { .. } | Event::VadSilence { .. }
        )
    };
    let events = events.into_iter().map(|(event, _)| event.event);
    events.filter(is_voice).collect()
}

fn silence(endpoint: EndpointId, silence_duration_ms: u64) -> Event {
    Event::VadSilence {
        endpoint,
        silence_duration_ms,
    }
}

#[test]
fn a_tone_from_a_party_that_nobody_hears_counts_as_speech() {
    let mut world = World::new();
    let mut party = world.join(PCMU, Direction::Sendrecv);
    start(&mut world, party.id, 500);
    assert_eq!(world.session.details().vad_active, [party.id]);
    for _ in 0..50 {
        say(&mut world, &mut party, true);
    }
    let endpoint = party.id;
    assert_eq!(
        voice_events(&mut world),
        [Event::VadSpeechStarted { endpoint }]
    );
    for _ in 0..60 {
        say(&mut world, &mut party, false);
    }
    let told = voice_events(&mut world);
    let [Event::VadSilence { .. }, Event::VadSilence { .. }] = told[..] else {
        panic!("{told:?}");
    };
    world.session.vad_stop(world.now, party.id).expect("exists");
    assert_eq!(world.session.details().vad_active, []);
    for _ in 0..50 {
        say(&mut world, &mut party, true);
    }
    assert_eq!(voice_events(&mut world), []);
}

#[test]
fn silence_is_told_by_the_wall_clock_when_packets_stop_or_never_came() {
    let mut world = World::new();
    let mut party = world.join(PCMU, Direction::Sendrecv);
    let id = party.id;
    start(&mut world, id, 1000);
    world.pass(2100);
    let told = voice_events(&mut world);
    assert_eq!(told, [silence(id, 1000), silence(id, 2000)]);
    for _ in 0..50 {
        say(&mut world, &mut party, true);
    }
    world.pass(3100);
    let told = voice_events(&mut world);
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(told[0], Event::VadSpeechStarted { endpoint: id });
}

#[test]
fn who_is_muted_or_transcoded_is_listened_to_all_the_same() {
    for direction in [Direction::Inactive, Direction::Sendrecv] {
        let mut world = World::new();
        let mut party = world.join(PCMU, Direction::Sendrecv);
        let other = world.join("111 110", Direction::Sendrecv);
        start(&mut world, party.id, 500);
        world.set_direction(&party, Some(direction));
        for _ in 0..50 {
            say(&mut world, &mut party, true);
        }
        let endpoint = party.id;
        assert_eq!(
            voice_events(&mut world),
            [Event::VadSpeechStarted { endpoint }]
        );
        let heard = world.take_rtp(&other).len();
        let expected = if direction == Direction::Inactive {
            0
        } else {
            50
        };
        assert_eq!(heard, expected);
    }
}

#[test]
fn listening_moves_along_with_the_endpoint() {
    let mut world = World::new();
    let mut party = world.join(PCMU, Direction::Sendrecv);
    start(&mut world, party.id, 500);
    let detached = world.session.detach(world.now, party.id).expect("moves");
    world.session.transferred_out(
        world.now,
        party.id,
        SessionId::from_bytes([2; 16]),
        &mut world.out,
    );
    assert_eq!(world.session.details().vad_active, []);
    let from = Some(world.session.id());
    let id = SessionId::from_bytes([2; 16]);
    let config = Arc::new(EngineConfig::default());
    world.session = Session::new(id, 5, config, Box::new(Seeded(8)), world.now.at);
    let inserted = world
        .session
        .insert(world.now, detached, from, &mut world.out);
    party.key = inserted.map_err(|(_, error)| error).expect("room");
    assert_eq!(world.session.details().vad_active, [party.id]);
    for _ in 0..50 {
        say(&mut world, &mut party, true);
    }
    let endpoint = party.id;
    assert_eq!(
        voice_events(&mut world),
        [Event::VadSpeechStarted { endpoint }]
    );
}

#[test]
fn a_tone_of_ours_is_listened_to_in_samples_and_by_the_clock_when_it_is_over() {
    let mut world = World::new();
    let tone = world.tone(rtpbridge_shared::vocab::Tone::Sine, Some(1000));
    start(&mut world, tone, 500);
    world.pass(3000);
    let told = voice_events(&mut world);
    // A lone high sine is no speech; what is counted comes in frames of 16 ms.
    assert_eq!(told[0], silence(tone, 512));
    assert_eq!(told.len(), 5, "{told:?}");
    let ended = world.session.details().endpoints[0].state;
    assert_eq!(ended, EndpointState::Finished);
}

#[test]
fn a_client_is_told_once_when_an_endpoint_can_be_listened_to_no_more() {
    let mut world = World::new();
    let party = world.join(PCMU, Direction::Sendrecv);
    start(&mut world, party.id, 500);
    let (now, error) = (
        world.now,
        CodecError::Rate {
            codec: Codec::Pcmu,
            rate_hz: 1,
        },
    );
    world
        .session
        .on_voice_lost(party.key, &error, now, &mut world.out);
    let lost = Event::VadError {
        endpoint: party.id,
        error: error.to_string(),
    };
    assert_eq!(world.events().collect::<Vec<_>>(), [&lost]);
    assert_eq!(world.session.details().vad_active, []);
    world.pass(5000);
    assert_eq!(voice_events(&mut world), []);
    // It may be tried again.
    start(&mut world, party.id, 500);
    world.pass(600);
    assert_eq!(voice_events(&mut world), [silence(party.id, 500)]);
}
