use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::endpoint::RemoteOffer;
use rtpbridge_shared::ipc::session::SessionEndReason;
use rtpbridge_shared::ipc::stats::StatsSubscribe;

use super::*;

fn config(change: impl FnOnce(&mut EngineConfig)) -> EngineConfig {
    let mut config = EngineConfig::default();
    change(&mut config);
    config
}

#[test]
fn silence_is_reported_once_and_again_after_the_next_packet() {
    let mut world = World::new();
    let mut one = world.join(PCMU, Direction::Sendrecv);
    let count = |world: &World| {
        let timeouts = |e: &&Event| matches!(e, Event::MediaTimeout { .. });
        world.events().filter(timeouts).count()
    };
    world.pass(4999);
    assert_eq!(count(&world), 0);
    world.pass(1);
    assert_eq!(count(&world), 1);
    world.pass(60_000);
    assert_eq!(count(&world), 1);
    world.talk(&mut one);
    world.pass(4999);
    assert_eq!(count(&world), 1);
    world.pass(1);
    assert_eq!(count(&world), 2);
    let last = world.events().last();
    assert!(matches!(
        last,
        Some(Event::MediaTimeout {
            duration_ms: 5000,
            ..
        })
    ));
}

#[test]
fn a_held_party_that_resumes_has_the_whole_timeout_to_speak() {
    let mut world = World::new();
    let mut one = world.join(PCMU, Direction::Sendrecv);
    world.talk(&mut one);
    world.pass(1000);
    reinvite(&mut world, &one, "recvonly");
    world.pass(60_000);
    reinvite(&mut world, &one, "sendrecv");
    world.pass(4999);
    assert_eq!(world.events().next(), None, "it was not expected to send");
    world.pass(1);
    let timeout = Event::MediaTimeout {
        endpoint: one.id,
        duration_ms: 5000,
    };
    assert_eq!(world.events().last(), Some(&timeout));
}

fn reinvite(world: &mut World, party: &Party, direction: &str) {
    let request = RemoteOffer {
        session: world.session.id(),
        endpoint: party.id,
        sdp: offer(party.address, PCMU, direction),
    };
    let answer = world.session.reinvite(world.now, &request, &mut world.out);
    assert!(answer.is_ok(), "{answer:?}");
}

#[test]
fn an_idle_session_asks_to_end_and_a_talking_one_does_not() {
    let mut world = World::with(config(|c| {
        c.session_idle_timeout = Some(Duration::from_secs(10))
    }));
    let mut one = world.join(PCMU, Direction::Sendrecv);
    for _ in 0..1000 {
        world.talk(&mut one);
        world.pass(20);
    }
    assert!(world.out.ended.is_empty());
    world.pass(9000);
    assert!(world.out.ended.is_empty());
    world.pass(1000);
    assert_eq!(world.out.ended, [SessionEndReason::IdleTimeout]);
    let idle = Event::IdleTimeout {
        idle_timeout_secs: 10,
    };
    assert_eq!(world.events().last(), Some(&idle));
    let request = StatsSubscribe {
        session: world.session.id(),
        interval_ms: 500,
    };
    let late = world.session.stats_subscribe(world.now, &request);
    assert_eq!(late, Err(RequestError::SessionGone));
}

#[test]
fn watching_a_session_keeps_it_no_longer() {
    let mut world = World::with(config(|c| {
        c.session_idle_timeout = Some(Duration::from_secs(10))
    }));
    world.join(PCMU, Direction::Sendrecv);
    for _ in 0..9 {
        world.pass(1000);
        world.session.stats_rows(world.now.at);
        world.session.details();
    }
    world.pass(1000);
    assert_eq!(world.out.ended, [SessionEndReason::IdleTimeout]);
}

#[test]
fn an_empty_session_asks_to_end() {
    let mut world = World::with(config(|c| {
        c.empty_session_timeout = Some(Duration::from_secs(10))
    }));
    let one = world.join(PCMU, Direction::Sendrecv);
    world.pass(60_000);
    let now = world.now;
    let removed = world.session.remove_endpoint(now, one.id, &mut world.out);
    assert_eq!(removed.expect("it exists").sockets, Some(sockets(1)));
    world.pass(9999);
    assert!(world.out.ended.is_empty());
    world.pass(1);
    assert_eq!(world.out.ended, [SessionEndReason::EmptyTimeout]);
}

#[test]
fn a_removed_endpoint_says_goodbye_and_its_key_is_dead() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    let now = world.now;
    world
        .session
        .remove_endpoint(now, one.id, &mut world.out)
        .expect("it exists");
    let goodbye = world.out.sent.last().expect("a last report");
    assert_eq!(goodbye.bytes[goodbye.bytes.len() - 7], 203);
    let three = world.join(PCMU, Direction::Sendrecv);
    assert_ne!(three.key, one.key);
    world.talk(&mut one);
    assert!(world.take_rtp(&two).is_empty());
    let again = world
        .session
        .remove_endpoint(world.now, one.id, &mut world.out);
    assert_eq!(again, Err(RequestError::EndpointNotFound));
}

#[test]
fn statistics_come_at_their_interval_while_somebody_listens() {
    let mut world = World::new();
    let (mut one, _) = world.pair();
    let request = |interval_ms| StatsSubscribe {
        session: SessionId::from_bytes([1; 16]),
        interval_ms,
    };
    let now = world.now;
    assert!(world.session.stats_subscribe(now, &request(499)).is_err());
    world
        .session
        .stats_subscribe(now, &request(500))
        .expect("in bounds");
    world.talk(&mut one);
    world.pass(499);
    let count = |world: &World| {
        let stats = |event: &&Event| matches!(event, Event::Stats(_));
        world.events().filter(stats).count()
    };
    assert_eq!(count(&world), 0);
    world.pass(1);
    let Some(Event::Stats(rows)) = world.events().next() else {
        panic!("a stats event");
    };
    assert_eq!((rows[0].inbound.packets, rows[0].inbound.bytes), (1, 160));
    assert_eq!(
        (rows[1].outbound.packets, rows[1].codec.as_str()),
        (1, "PCMU")
    );
    assert_eq!(rows[0].inbound.last_received_ms_ago, 500);
    world.session.release();
    world.pass(2000);
    assert_eq!(count(&world), 1);
    world.session.attach(world.now);
    world.pass(500);
    assert_eq!(count(&world), 2);
    world.session.stats_unsubscribe(world.now);
    world.pass(2000);
    assert_eq!(count(&world), 2);
}

#[test]
fn a_full_session_and_a_used_id_are_refused() {
    let mut world = World::with(config(|c| c.max_endpoints_per_session = 1));
    let one = world.join(PCMU, Direction::Sendrecv);
    let mut request = CreateFromOffer {
        session: world.session.id(),
        endpoint: one.id,
        sdp: offer(one.address, PCMU, "sendrecv"),
        direction: Direction::Sendrecv,
        transport: None,
    };
    let used = world.session.prepare_from_offer(&request).err();
    assert_eq!(used, Some(RequestError::IdInUse));
    request.endpoint = EndpointId::from_bytes([9; 16]);
    let full = world.session.prepare_from_offer(&request).err();
    assert_eq!(full, Some(RequestError::TooManyEndpoints { limit: 1 }));
    request.sdp = request.sdp.replace("IP4 10.0.0.1", "IP6 2001:db8::1");
    let mut world = World::new();
    let family = world.session.prepare_from_offer(&request).err();
    assert!(
        matches!(family, Some(RequestError::Endpoint(_))),
        "{family:?}"
    );
    world.pass(1);
}

#[test]
fn a_transferred_endpoint_keeps_its_stream() {
    let mut here = World::new();
    let mut there = World::new();
    let (mut one, two) = here.pair();
    let mut other = there.join(PCMU, Direction::Sendrecv);
    here.talk(&mut one);
    let before = here.take_rtp(&two);
    let now = here.now;
    let moving = here.session.detach(now, two.id).expect("it exists");
    assert_eq!(moving.sockets(), Some(sockets(2)));
    assert_eq!(here.session.counts().endpoints, 2, "until it has arrived");
    let from = Some(SessionId::from_bytes([5; 16]));
    let inserted = there
        .session
        .insert(there.now, moving, from, &mut there.out);
    let key = inserted.map_err(|(_, error)| error).expect("room");
    let target = SessionId::from_bytes([6; 16]);
    here.session
        .transferred_out(now, two.id, target, &mut here.out);
    assert_eq!(here.session.counts().endpoints, 1);
    assert!(matches!(
        here.events().last(),
        Some(Event::TransferredOut { .. })
    ));
    assert!(matches!(
        there.events().last(),
        Some(Event::TransferredIn { .. })
    ));
    there.pass(40);
    there.talk(&mut other);
    let after = there.take_rtp(&two);
    assert_eq!(after[0].0.ssrc, before[0].0.ssrc);
    assert_eq!(after[0].0.sequence, before[0].0.sequence.wrapping_add(1));
    assert!(after[0].0.marker);
    let moved = Party { key, ..two.clone() };
    there.talk(&mut moved.clone());
    assert_eq!(there.take_rtp(&other).len(), 1);
}

#[test]
fn an_endpoint_that_is_not_taken_comes_back_unharmed() {
    let mut here = World::new();
    let mut there = World::with(config(|c| c.max_endpoints_per_session = 1));
    there.join(PCMU, Direction::Sendrecv);
    let (mut one, two) = here.pair();
    here.talk(&mut one);
    let now = here.now;
    let moving = here.session.detach(now, two.id).expect("it exists");
    let refused = there
        .session
        .insert(now, moving, Some(here.session.id()), &mut there.out);
    let Err((moving, error)) = refused else {
        panic!("there is no room");
    };
    assert_eq!(error, RequestError::TooManyEndpoints { limit: 1 });
    let back = here.session.insert(now, moving, None, &mut here.out);
    assert!(back.is_ok());
    here.talk(&mut one);
    assert_eq!(here.take_rtp(&two).len(), 2);
    assert_eq!(here.events().count() + there.events().count(), 0);
}
