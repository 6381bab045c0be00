use super::*;

fn stranger(party: &Party) -> Party {
    Party {
        address: SocketAddr::from(([10, 9, 9, 9], 7000)),
        ssrc: 0xbad,
        sequence: 1,
        ..party.clone()
    }
}

#[test]
fn a_flood_of_strangers_is_neither_heard_nor_sent_to_while_the_party_speaks() {
    let mut world = World::new();
    let (mut one, mut two) = world.pair();
    let mut bad: Vec<_> = [0, 1, 2].map(|_| stranger(&one)).into();
    bad[1].address.set_port(4000);
    bad[2].address = SocketAddr::new(one.address.ip(), 4002);
    for n in 0..400 {
        if n >= 1 {
            for stranger in &mut bad {
                world.talk(stranger);
                world.talk(stranger);
            }
        }
        world.talk(&mut one);
        world.talk(&mut two);
        world.pass(20);
    }
    let heard = world.take_rtp(&two);
    assert_eq!(heard.len(), 400);
    for pair in heard.windows(2) {
        assert_eq!(pair[1].0.sequence, pair[0].0.sequence.wrapping_add(1));
    }
    let is_party = |sent: &Sent| sent.to.ip() == one.address.ip() && sent.to.port() <= 4001;
    let to_one = world
        .out
        .sent
        .iter()
        .filter(|s| s.socket.0 / 2 == one.socket.0 / 2);
    assert!(to_one.clone().count() > 400);
    assert!(to_one.into_iter().all(is_party));
    assert_eq!(world.out.counters.rejected_source, 399 * 6);
}

#[test]
fn a_party_behind_a_nat_is_heard_and_sent_to_where_it_is() {
    let mut world = World::new();
    let (mut one, mut two) = world.pair();
    one.address = SocketAddr::from(([192, 0, 2, 7], 61_000));
    for _ in 0..10 {
        world.talk(&mut one);
        world.pass(20);
    }
    assert_eq!(world.take_rtp(&two).len(), 6);
    world.talk(&mut two);
    assert_eq!(world.out.sent.last().map(|sent| sent.to), Some(one.address));
    let details = world.session.details();
    assert_eq!(details.endpoints[0].remote_rtp_addr, Some(one.address));
    // Its reports go to the same host.
    world.pass(10_000);
    let mut reports = world
        .out
        .sent
        .iter()
        .filter(|s| s.socket == SocketKey(one.socket.0 + 1));
    assert!(
        reports
            .next_back()
            .is_some_and(|s| s.to.ip() == one.address.ip())
    );
}

#[test]
fn a_nat_that_rebinds_is_followed_after_two_seconds() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    world.talk(&mut one);
    world.pass(2500);
    one.address.set_port(5555);
    world.talk(&mut one);
    assert_eq!(world.take_rtp(&two).len(), 2);
}

#[test]
fn reports_from_strangers_are_not_believed() {
    let mut world = World::new();
    let (mut one, _) = world.pair();
    world.talk(&mut one);
    let goodbye = [0x81, 203, 0, 1, 0, 0, 0, 1];
    let elsewhere = SocketAddr::from(([10, 9, 9, 9], 4001));
    world.receive_on(one.key, Channel::Second, elsewhere, &goodbye);
    assert_eq!(world.events().count(), 0);
    assert_eq!(world.out.counters.rejected_source, 1);
    let party = SocketAddr::new(one.address.ip(), 4001);
    for _ in 0..3 {
        world.receive_on(one.key, Channel::Second, party, &goodbye);
    }
    let byes: Vec<_> = world.events().collect();
    assert_eq!(byes.len(), 1, "one for each life of the source");
    assert!(matches!(byes[0], Event::RtcpBye { ssrc_list, .. } if *ssrc_list == [1]));
}

#[test]
fn reports_from_the_host_that_rtcp_was_signalled_at_are_believed() {
    let mut world = World::new();
    let address = SocketAddr::from(([10, 0, 0, 1], 4000));
    let sdp = offer(address, PCMU, "sendrecv") + "a=rtcp:5001 IN IP4 10.0.0.77\r\n";
    let mut one = world.join_with(sdp, address, Direction::Sendrecv);
    world.talk(&mut one);
    let goodbye = [0x81, 203, 0, 1, 0, 0, 0, 1];
    let host = |last| SocketAddr::from(([10, 0, 0, last], 5001));
    world.receive_on(one.key, Channel::Second, host(78), &goodbye);
    assert_eq!(world.events().next(), None);
    world.receive_on(one.key, Channel::Second, host(77), &goodbye);
    assert!(matches!(world.events().next(), Some(Event::RtcpBye { .. })));
    world.pass(10_000);
    let reports = world.out.sent.iter();
    let mut reports = reports.filter(|sent| sent.socket == SocketKey(one.socket.0 + 1));
    assert!(reports.next_back().is_some_and(|sent| sent.to == host(77)));
}
