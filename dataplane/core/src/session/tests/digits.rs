use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::dtmf::{DtmfInject, DtmfSetSensitive};
use rtpbridge_shared::vocab::Digit;

use super::*;
use crate::dtmf::payload::EventPayload;

/// The party presses a key for `duration_ms`, a packet every 20 ms, the end three times.
pub(super) fn press(
    world: &mut World,
    party: &mut Party,
    digit: char,
    duration_ms: u16,
    payload_type: u8,
) {
    let event = Digit::from_char(digit).expect("a digit").event();
    let steps = duration_ms / 20;
    for step in 1..=steps + 2 {
        let payload = EventPayload {
            event,
            end: step >= steps,
            volume: 10,
            duration: step.min(steps) * 160,
        };
        let packet = party.packet(payload_type, step == 1, &payload.write());
        world.receive(party, &packet);
        party.sequence = party.sequence.wrapping_add(1);
        world.pass(20);
    }
    party.timestamp += u32::from(steps + 2) * 160;
}

fn inject(world: &mut World, party: &Party, digit: char) -> Result<(), RequestError> {
    let request = DtmfInject {
        session: world.session.id(),
        endpoint: party.id,
        digit: Digit::from_char(digit).expect("a digit"),
        duration_ms: 160,
        volume: 10,
    };
    world
        .session
        .dtmf_inject(world.now, &request, &mut world.out)
}

pub(super) fn events_in(
    heard: &[(RtpHeader, Vec<u8>)],
    payload_type: u8,
) -> Vec<(RtpHeader, EventPayload)> {
    heard
        .iter()
        .filter(|(header, _)| header.payload_type == payload_type)
        .filter_map(|(header, body)| Some((header.clone(), EventPayload::parse(body)?)))
        .collect()
}

#[test]
fn a_pressed_key_is_told_once_and_passed_on_in_the_stream() {
    let mut world = World::new();
    let mut one = world.join("0 101", Direction::Sendrecv);
    let two = world.join("0 96", Direction::Sendrecv);
    world.talk(&mut one);
    press(&mut world, &mut one, '5', 160, 101);
    world.talk(&mut one);
    assert_eq!(world.digits(), "5");
    let heard = world.take_rtp(&two);
    let events = events_in(&heard, 96);
    assert_eq!(events.len(), 10);
    assert!(events[0].0.marker);
    assert!(
        events
            .iter()
            .all(|(h, _)| h.timestamp == events[0].0.timestamp)
    );
    assert_eq!(events[9].1.duration, 1280);
    for (n, (header, _)) in heard.iter().enumerate() {
        assert_eq!(header.sequence, heard[0].0.sequence.wrapping_add(n as u16));
    }
}

#[test]
fn digits_cross_codecs_with_their_clock_and_on_one_timestamp() {
    let mut world = World::new();
    let mut one = world.join("0 101", Direction::Sendrecv);
    let two = world.join("111 110", Direction::Sendrecv);
    press(&mut world, &mut one, '#', 160, 101);
    let events = events_in(&world.take_rtp(&two), 110);
    assert_eq!(events.len(), 10);
    assert!(
        events
            .iter()
            .all(|(h, _)| h.timestamp == events[0].0.timestamp)
    );
    assert_eq!(events[9].1.duration, 1280 * 6);
    assert!(events[0].0.marker && !events[1].0.marker);
    assert_eq!(world.digits(), "#");
}

#[test]
fn a_party_without_telephone_event_hears_no_gap_where_a_digit_was() {
    let mut world = World::new();
    let mut one = world.join("0 101", Direction::Sendrecv);
    let two = world.join("0", Direction::Sendrecv);
    world.talk(&mut one);
    press(&mut world, &mut one, '1', 60, 101);
    world.talk(&mut one);
    let heard = world.take_rtp(&two);
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[1].0.sequence, heard[0].0.sequence.wrapping_add(1));
}

#[test]
fn an_injected_digit_takes_the_place_of_audio_and_the_numbers_run_on() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    for n in 0..40 {
        world.talk(&mut one);
        if n == 10 {
            inject(&mut world, &two, '7').expect("queued");
        }
        world.pass(20);
    }
    let heard = world.take_rtp(&two);
    let events = events_in(&heard, 101);
    assert_eq!(events.len(), 10);
    assert_eq!(events.iter().filter(|(_, e)| e.end).count(), 3);
    for pair in heard.windows(2) {
        assert_eq!(pair[1].0.sequence, pair[0].0.sequence.wrapping_add(1));
        assert!(pair[1].0.timestamp.wrapping_sub(pair[0].0.timestamp) < 0x8000_0000);
    }
    let suppressed = 40 + 10 - heard.len();
    assert!(
        (8..=11).contains(&suppressed),
        "{suppressed} packets of audio"
    );
    assert!(world.digits().is_empty(), "what we send is not reported");
}

#[test]
fn injections_queue_up_to_32_and_play_in_order() {
    let mut world = World::new();
    let (_, two) = world.pair();
    let digits: String = "0123456789*#ABCD".repeat(2);
    for digit in digits.chars() {
        inject(&mut world, &two, digit).expect("room");
    }
    assert!(matches!(
        inject(&mut world, &two, '1'),
        Err(RequestError::Endpoint(_))
    ));
    world.pass(32 * 230 + 1000);
    let ends: Vec<_> = events_in(&world.take_rtp(&two), 101)
        .into_iter()
        .filter(|(header, event)| header.marker && !event.end)
        .filter_map(|(_, event)| Digit::from_event(event.event))
        .map(char::from)
        .collect();
    assert_eq!(ends.into_iter().collect::<String>(), digits);
}

#[test]
fn a_digit_that_comes_while_another_is_sent_follows_it() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    inject(&mut world, &two, '1').expect("queued");
    press(&mut world, &mut one, '2', 100, 101);
    world.pass(1000);
    let started: Vec<_> = events_in(&world.take_rtp(&two), 101)
        .into_iter()
        .filter(|(header, _)| header.marker)
        .map(|(_, event)| event.event)
        .collect();
    assert_eq!(started, [1, 2]);
    assert_eq!(world.digits(), "2");
}

#[test]
fn digits_cannot_be_injected_where_they_were_not_negotiated_or_cannot_go() {
    let mut world = World::new();
    let deaf = world.join("0", Direction::Sendrecv);
    let talker = world.join(PCMU, Direction::Sendonly);
    for party in [&deaf, &talker] {
        assert!(matches!(
            inject(&mut world, party, '1'),
            Err(RequestError::Endpoint(_))
        ));
    }
}

#[test]
fn sensitive_digits_are_marked() {
    let mut world = World::new();
    let (mut one, _) = world.pair();
    let request = DtmfSetSensitive {
        session: world.session.id(),
        endpoint: one.id,
        enabled: true,
    };
    let now = world.now;
    world
        .session
        .dtmf_set_sensitive(now, &request)
        .expect("it exists");
    press(&mut world, &mut one, '3', 60, 101);
    assert!(world.events().any(|event| matches!(
        event,
        Event::Dtmf {
            sensitive: true,
            ..
        }
    )));
}

#[test]
fn a_source_that_begins_anew_under_its_ssrc_loses_no_digit() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    press(&mut world, &mut one, '1', 100, 101);
    // The same device, as if it had just been switched on.
    (one.sequence, one.timestamp) = (20_000, one.timestamp.wrapping_sub(1_000_000));
    world.talk(&mut one);
    press(&mut world, &mut one, '2', 100, 101);
    assert_eq!(world.digits(), "12");
    let heard = events_in(&world.take_rtp(&two), 101);
    assert_eq!(heard.last().map(|(_, event)| event.event), Some(2));
}

#[test]
fn an_event_whose_numbers_jump_is_still_one_digit() {
    let mut world = World::new();
    let (mut one, _) = world.pair();
    let begun = one.clone();
    press(&mut world, &mut one, '1', 60, 101);
    (one.sequence, one.timestamp) = (begun.sequence.wrapping_add(20_000), begun.timestamp);
    press(&mut world, &mut one, '1', 100, 101);
    assert_eq!(world.digits(), "1");
}

#[test]
fn digits_of_many_parties_at_once_wait_for_each_other() {
    let mut world = World::with(EngineConfig {
        max_endpoints_per_session: 30,
        ..EngineConfig::default()
    });
    let listener = world.join(PCMU, Direction::Sendrecv);
    let mut parties: Vec<_> = (0..20)
        .map(|_| world.join(PCMU, Direction::Sendrecv))
        .collect();
    let payload = |duration, end| EventPayload {
        event: 5,
        end,
        volume: 10,
        duration,
    };
    for (duration, end) in [(160, false), (800, true)] {
        for party in &mut parties {
            let packet = party.packet(101, !end, &payload(duration, end).write());
            world.receive(party, &packet);
            party.sequence = party.sequence.wrapping_add(1);
        }
        world.pass(20);
    }
    world.pass(20 * 300);
    let heard = events_in(&world.take_rtp(&listener), 101);
    let begun = heard.iter().filter(|(header, _)| header.marker);
    assert_eq!(begun.count(), 20);
}

/// One packet of a 5 that is held for nine.
fn press_on(world: &mut World, party: &mut Party, packet: u16) {
    let payload = EventPayload {
        event: 5,
        end: packet >= 9,
        volume: 10,
        duration: 160 * packet.min(9),
    };
    let bytes = party.packet(101, packet == 1, &payload.write());
    world.receive(party, &bytes);
    party.sequence = party.sequence.wrapping_add(1);
    world.pass(20);
}

#[test]
fn a_digit_that_is_pressed_during_a_transfer_is_told_once_where_it_ends() {
    for last in [8, 11] {
        let (mut here, mut there) = (World::new(), World::new());
        let (_, mut one) = here.pair();
        let listener = there.join(PCMU, Direction::Sendrecv);
        for packet in 1..=5 {
            press_on(&mut here, &mut one, packet);
            there.pass(20);
        }
        let moving = here.session.detach(here.now, one.id).expect("it exists");
        let (now, from) = (there.now, Some(SessionId::from_bytes([5; 16])));
        let inserted = there.session.insert(now, moving, from, &mut there.out);
        one.key = inserted.map_err(|(_, error)| error).expect("room");
        let target = SessionId::from_bytes([6; 16]);
        here.session
            .transferred_out(here.now, one.id, target, &mut here.out);
        for packet in 6..=last {
            press_on(&mut there, &mut one, packet);
        }
        here.pass(1000);
        there.pass(1000);
        assert_eq!((here.digits(), there.digits()), (String::new(), "5".into()));
        let heard = there.take_rtp(&listener);
        assert_eq!(events_in(&heard, 101).len(), usize::from(last) - 5);
    }
}
