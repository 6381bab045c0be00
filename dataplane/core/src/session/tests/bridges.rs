//! Sessions joined by bridges.

use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::dtmf::DtmfSetSensitive;

use super::digits::{events_in, press};
use super::tones::{assert_continuous, decoded};
use super::*;
use crate::codec::probe;

fn end_id(n: u8) -> EndpointId {
    EndpointId::from_bytes([200 + n; 16])
}

/// Joins two sessions; their ends have the ids `2 * n` and `2 * n + 1`.
fn join(here: &mut World, there: &mut World, n: u8, direction: Direction) {
    let (near, far) = (end_id(2 * n), end_id(2 * n + 1));
    let (one, other) = bridge(near, far, direction);
    for (world, id, end) in [(here, near, one), (there, far, other)] {
        world.session.reserve(world.now, id).expect("room");
        let joined = world
            .session
            .join_bridge(world.now, id, end, &mut world.out);
        assert_eq!(joined, Ok(()));
    }
}

/// Time passes in all of them.
fn pass(worlds: &mut [&mut World], ms: u64) {
    for _ in 0..ms / 10 {
        for world in &mut *worlds {
            world.pass(10);
        }
    }
}

fn level(world: &mut World, party: &Party, hz: f64) -> f64 {
    let packets = world.take_rtp(party);
    if packets.len() < 20 {
        return f64::NEG_INFINITY;
    }
    assert_continuous(&packets, 160);
    let pcm = decoded(Codec::Pcmu, &packets[packets.len() / 2..]);
    probe::fit_tone(&pcm, 8000, hz).level_dbfs
}

#[test]
fn a_bridge_carries_sound_as_it_is_to_neighbours_only() {
    let (mut here, mut there, mut beyond) = (World::new(), World::new(), World::new());
    join(&mut here, &mut there, 0, Direction::Sendrecv);
    join(&mut there, &mut beyond, 1, Direction::Sendrecv);
    let listeners = [&mut here, &mut there, &mut beyond].map(|w| w.join(PCMU, Direction::Recvonly));
    here.tone_of(1000.0);
    pass(&mut [&mut here, &mut there, &mut beyond], 1500);
    let at_home = level(&mut here, &listeners[0], 1000.0);
    let next_door = level(&mut there, &listeners[1], 1000.0);
    assert!((at_home + 10.0).abs() < 0.5, "{at_home}");
    assert!((next_door - at_home).abs() < 0.2, "{next_door}");
    let beyond = level(&mut beyond, &listeners[2], 1000.0);
    assert_eq!(beyond, f64::NEG_INFINITY, "bridges do not feed bridges");
    for world in [&here, &there] {
        assert_eq!(world.out.counters.file_underruns, 0);
    }
}

#[test]
fn over_two_bridges_sound_comes_twice() {
    let (mut here, mut there) = (World::new(), World::new());
    join(&mut here, &mut there, 0, Direction::Sendrecv);
    join(&mut here, &mut there, 1, Direction::Sendrecv);
    let listener = there.join(PCMU, Direction::Recvonly);
    here.tone_of(1000.0);
    pass(&mut [&mut here, &mut there], 1500);
    let heard = level(&mut there, &listener, 1000.0);
    assert!((heard + 4.0).abs() < 0.5, "{heard}");
}

#[test]
fn a_bridge_of_one_direction_carries_one() {
    let (mut here, mut there) = (World::new(), World::new());
    // Seen from here the far session only listens.
    join(&mut here, &mut there, 0, Direction::Recvonly);
    let listeners = [&mut here, &mut there].map(|w| w.join(PCMU, Direction::Recvonly));
    here.tone_of(1000.0);
    there.tone_of(400.0);
    pass(&mut [&mut here, &mut there], 1500);
    let heard = level(&mut here, &listeners[0], 1000.0);
    assert!((heard + 10.0).abs() < 0.5, "{heard}");
    let details = there.session.details();
    let end = details
        .endpoints
        .iter()
        .find(|row| row.endpoint == end_id(1));
    let end = end.expect("listed");
    assert_eq!(end.direction, Direction::Sendonly);
    assert_eq!(end.codec, Some(Codec::L16));
}

/// Everybody says the next 20 ms, and time passes.
fn converse(worlds: &mut [(&mut World, &mut Party)], frames: usize) {
    for _ in 0..frames {
        for (world, party) in &mut *worlds {
            world.talk(party);
        }
        for (world, _) in &mut *worlds {
            world.pass(20);
        }
    }
}

/// Sequence numbers that payloads tell.
fn named(packets: &[(RtpHeader, Vec<u8>)]) -> Vec<u16> {
    let name = |(_, payload): &(RtpHeader, Vec<u8>)| u16::from_be_bytes([payload[0], payload[1]]);
    packets.iter().map(name).collect()
}

#[test]
fn between_two_parties_of_one_codec_packets_cross_untouched() {
    let (mut here, mut there) = (World::new(), World::new());
    let mut one = here.join(PCMU, Direction::Sendrecv);
    let mut other = there.join(PCMU, Direction::Sendrecv);
    join(&mut here, &mut there, 0, Direction::Sendrecv);
    converse(&mut [(&mut here, &mut one), (&mut there, &mut other)], 20);
    let before = one.sequence;
    there.take_rtp(&other);
    converse(&mut [(&mut here, &mut one), (&mut there, &mut other)], 50);
    let heard = there.take_rtp(&other);
    assert_continuous(&heard, 160);
    let names = named(&heard);
    assert!((49..=51).contains(&names.len()), "{}", names.len());
    let expected: Vec<u16> = (0..names.len() as u16)
        .map(|n| names[0].wrapping_add(n))
        .collect();
    assert_eq!(names, expected);
    assert!(names[0].wrapping_sub(before.wrapping_sub(2)) <= 3);
    // Digits keep their place among them.
    press(&mut here, &mut one, '7', 100, 101);
    there.pass(200);
    converse(&mut [(&mut here, &mut one), (&mut there, &mut other)], 5);
    let heard = there.take_rtp(&other);
    assert!(events_in(&heard, 101).iter().any(|(_, event)| event.end));
    for pair in heard.windows(2) {
        assert_eq!(pair[1].0.sequence, pair[0].0.sequence.wrapping_add(1));
    }
}

#[test]
fn a_third_party_turns_packets_into_sound_and_its_leaving_turns_them_back() {
    let (mut here, mut there) = (World::new(), World::new());
    let mut one = here.join(PCMU, Direction::Sendrecv);
    let mut other = there.join(PCMU, Direction::Sendrecv);
    join(&mut here, &mut there, 0, Direction::Sendrecv);
    converse(&mut [(&mut here, &mut one), (&mut there, &mut other)], 20);
    let third = there.join("8 101", Direction::Recvonly);
    converse(&mut [(&mut here, &mut one), (&mut there, &mut other)], 20);
    there.take_rtp(&third);
    converse(&mut [(&mut here, &mut one), (&mut there, &mut other)], 20);
    let mixed = there.take_rtp(&third);
    assert!((18..=21).contains(&mixed.len()), "{}", mixed.len());
    let removed = there
        .session
        .remove_endpoint(there.now, third.id, &mut there.out);
    assert!(removed.is_ok());
    converse(&mut [(&mut here, &mut one), (&mut there, &mut other)], 20);
    there.take_rtp(&other);
    converse(&mut [(&mut here, &mut one), (&mut there, &mut other)], 20);
    let names = named(&there.take_rtp(&other));
    let expected: Vec<u16> = (0..names.len() as u16)
        .map(|n| names[0].wrapping_add(n))
        .collect();
    assert_eq!(names, expected, "untouched again");
    assert_eq!(there.out.counters.transcode_errors, 0);
}

#[test]
fn who_takes_no_long_packets_is_sent_short_ones_over_a_bridge_too() {
    let (mut here, mut there) = (World::new(), World::new());
    let mut talker = here.join(PCMU, Direction::Sendonly);
    let address = SocketAddr::from(([10, 0, 0, 1], 4000));
    let sdp = offer(address, PCMU, "sendrecv") + "a=ptime:20\r\na=maxptime:30\r\n";
    let strict = there.join_with(sdp, address, Direction::Recvonly);
    join(&mut here, &mut there, 0, Direction::Sendrecv);
    pass(&mut [&mut here, &mut there], 100);
    for n in 0..50 {
        let packet = talker.packet(0, false, &[n; 480]);
        here.receive(&talker, &packet);
        talker.sequence = talker.sequence.wrapping_add(1);
        talker.timestamp = talker.timestamp.wrapping_add(480);
        pass(&mut [&mut here, &mut there], 60);
    }
    let heard = there.take_rtp(&strict);
    assert!((135..=151).contains(&heard.len()), "{}", heard.len());
    assert!(heard.iter().all(|(_, payload)| payload.len() == 160));
    assert_continuous(&heard[10..], 160);
    assert_eq!(there.out.counters.transcode_errors, 0);
}

/// Milliseconds from when the speaker begins a tone, so long after a tick, to when the listener hears
/// it. Speaker, listener and a third who says nothing are in the sessions of these numbers.
fn mouth_to_ear_ms(parties: [usize; 3], bridges: &[(usize, usize)], after_tick_ms: u64) -> f64 {
    let mut worlds = [World::new(), World::new(), World::new()];
    let [mut speaker, listener, mut third] =
        parties.map(|at| worlds[at].join(PCMU, Direction::Sendrecv));
    for (n, (one, other)) in (0..).zip(bridges) {
        let [one, other] = worlds.get_disjoint_mut([*one, *other]).expect("two");
        join(one, other, n, Direction::Sendrecv);
    }
    // Silence, and steps between 8316 and -8316.
    let frames = [0xff, 0x1f].map(|low| (0..160).map(|n| low | (n / 4 % 2) << 7).collect());
    let [silence, sound]: [Vec<u8>; 2] = frames;
    for ms in 0..2000 + after_tick_ms {
        let now = ms.saturating_sub(after_tick_ms);
        if ms >= after_tick_ms && now.is_multiple_of(20) {
            let said = if now < 1800 { &silence } else { &sound };
            let packet = speaker.packet(0, false, said);
            worlds[parties[0]].receive(&speaker, &packet);
            speaker.step();
            let packet = third.packet(0, false, &silence);
            worlds[parties[2]].receive(&third, &packet);
            third.step();
        }
        for world in &mut worlds {
            world.pass(1);
        }
        let heard = decoded(Codec::Pcmu, &worlds[parties[1]].take_rtp(&listener));
        let begins = heard.iter().position(|sample| sample.unsigned_abs() > 4158);
        if let Some(at) = begins {
            return (now - 1800) as f64 + at as f64 / 8.0;
        }
    }
    panic!("nothing was heard");
}

#[test]
fn what_a_bridge_adds_to_mixing_is_a_tick_and_the_change_of_rate() {
    for after_tick_ms in 0..20 {
        let mixed = mouth_to_ear_ms([0, 0, 0], &[], after_tick_ms);
        let shapes = [
            ([0, 1, 0], &[(0, 1)][..]),
            ([0, 1, 1], &[(0, 1)]),
            ([1, 0, 2], &[(0, 1), (0, 2)]),
            ([0, 1, 2], &[(0, 1), (1, 2), (2, 0)]),
        ];
        for (parties, bridges) in shapes {
            let bridged = mouth_to_ear_ms(parties, bridges, after_tick_ms);
            let added = bridged - mixed;
            assert!(
                added <= 25.0,
                "{after_tick_ms}: {mixed} and {bridged} in {parties:?}"
            );
        }
    }
}

#[test]
fn digits_cross_once_and_are_told_where_they_were_pressed() {
    let (mut here, mut there) = (World::new(), World::new());
    let mut presser = here.join(PCMU, Direction::Sendrecv);
    let listener = there.join("0 96", Direction::Sendrecv);
    join(&mut here, &mut there, 0, Direction::Sendrecv);
    here.talk(&mut presser);
    press(&mut here, &mut presser, '5', 160, 101);
    there.pass(300);
    press(&mut here, &mut presser, '6', 100, 101);
    there.pass(300);
    let heard = events_in(&there.take_rtp(&listener), 96);
    let ends = heard.iter().filter(|(_, event)| event.end);
    let mut ends: Vec<(u32, u8)> = ends.map(|(h, e)| (h.timestamp, e.event)).collect();
    ends.dedup();
    let digits: Vec<u8> = ends.iter().map(|(_, event)| *event).collect();
    assert_eq!(digits, [5, 6]);
    assert_eq!(
        (here.digits(), there.digits()),
        ("56".into(), String::new())
    );
    let sensitive = DtmfSetSensitive {
        session: here.session.id(),
        endpoint: end_id(0),
        enabled: true,
    };
    let refused = here.session.dtmf_set_sensitive(here.now, &sensitive);
    assert!(matches!(
        refused,
        Err(RequestError::WrongEndpointType { .. })
    ));
}

#[test]
fn an_end_without_a_counterpart_goes_at_the_next_tick() {
    let (mut here, mut there) = (World::new(), World::new());
    join(&mut here, &mut there, 0, Direction::Sendrecv);
    join(&mut here, &mut there, 1, Direction::Sendrecv);
    let removed = here
        .session
        .remove_endpoint(here.now, end_id(0), &mut here.out);
    assert_eq!(removed.expect("it was there").far_end, Some(end_id(1)));
    there.pass(40);
    assert_eq!(there.session.counts().endpoints, 1);
    let closed = here.session.close(here.now, &mut here.out);
    assert_eq!(closed.far_ends, [end_id(3)]);
    assert_eq!(there.session.counts().endpoints, 1, "until a tick");
    there.pass(40);
    assert_eq!(there.session.counts().endpoints, 0);
    assert_eq!(there.events().count(), 0, "a removal is no event");
}

#[test]
fn an_end_that_moves_takes_the_bridge_along() {
    let (mut here, mut there, mut other) = (World::new(), World::new(), World::new());
    join(&mut here, &mut there, 0, Direction::Sendrecv);
    here.tone_of(1000.0);
    let listener = other.join(PCMU, Direction::Recvonly);
    pass(&mut [&mut here, &mut there, &mut other], 200);
    let moving = there
        .session
        .detach(there.now, end_id(1))
        .expect("it is there");
    assert_eq!(moving.sockets(), None);
    let (from, to) = (
        SessionId::from_bytes([5; 16]),
        SessionId::from_bytes([6; 16]),
    );
    let arrived = other
        .session
        .insert(other.now, moving, Some(from), &mut other.out);
    assert!(arrived.is_ok());
    there
        .session
        .transferred_out(there.now, end_id(1), to, &mut there.out);
    pass(&mut [&mut here, &mut there, &mut other], 1500);
    let heard = level(&mut other, &listener, 1000.0);
    assert!((heard + 10.0).abs() < 0.5, "{heard}");
    assert_eq!(here.session.counts().endpoints, 2);
}

#[test]
fn a_place_is_kept_for_an_end() {
    let mut world = World::with(config_with_room_for(2));
    world.join(PCMU, Direction::Sendrecv);
    assert_eq!(world.session.reserve(world.now, end_id(0)), Ok(()));
    assert_eq!(world.session.counts().endpoints, 1, "it does not show");
    let full = Err(RequestError::TooManyEndpoints { limit: 2 });
    assert_eq!(world.session.reserve(world.now, end_id(1)), full);
    world.session.unreserve(world.now, end_id(0));
    assert_eq!(world.session.reserve(world.now, end_id(1)), Ok(()));
}

fn config_with_room_for(max_endpoints_per_session: u32) -> EngineConfig {
    EngineConfig {
        max_endpoints_per_session,
        ..EngineConfig::default()
    }
}
