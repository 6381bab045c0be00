use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Any datagrams on any channel from anybody: no panic, and timers that end.
    #[test]
    fn any_datagrams_are_survived(
        datagrams in prop::collection::vec(
            (any::<bool>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..80), 0_u8..4),
            0..60,
        )
    ) {
        let mut world = World::new();
        let (one, _two) = world.pair();
        for (is_media, is_party, mut bytes, dress) in datagrams {
            let channel = if is_media { Channel::Media } else { Channel::Second };
            let from = if is_party { one.address } else { SocketAddr::from(([1, 2, 3, 4], 5)) };
            // Dressed up so that they get past the first look.
            let dressed = [None, Some([0x80, 0]), Some([0x80, 101]), Some([0x81, 200])];
            if let Some(start) = dressed[usize::from(dress)] && bytes.len() >= 2 {
                bytes[..2].copy_from_slice(&start);
            }
            world.receive_on(one.key, channel, from, &bytes);
            world.pass(u64::from(bytes.first().copied().unwrap_or(1)));
        }
        world.session.details();
        world.session.stats_rows(world.now.at);
    }

    /// Commands and packets in any order: the books stay balanced.
    #[test]
    fn any_order_of_commands_keeps_the_books(
        steps in prop::collection::vec((0_u8..9, any::<u8>()), 0..80)
    ) {
        let mut world = World::new();
        let mut parties: Vec<Party> = Vec::new();
        for (what, pick) in steps {
            let index = usize::from(pick) % parties.len().max(1);
            let has_room = parties.len() < 20;
            match (what, parties.get_mut(index)) {
                (0, _) if has_room => {
                    let party = world.join(["0 101", "8", "111 110"][usize::from(pick % 3)], Direction::Sendrecv);
                    parties.push(party);
                }
                (1, Some(party)) => {
                    let (now, id) = (world.now, party.id);
                    let removed = world.session.remove_endpoint(now, id, &mut world.out);
                    prop_assert!(removed.is_ok_and(|removed| removed.sockets.is_some()));
                    parties.remove(index);
                }
                (2, Some(party)) => {
                    let direction = Direction::ALL.get(usize::from(pick) % 5).copied();
                    world.set_direction(&party.clone(), direction);
                }
                (3, Some(party)) => {
                    let now = world.now;
                    let moving = world.session.detach(now, party.id).expect("it is here");
                    let back = world.session.insert(now, moving, None, &mut world.out);
                    party.key = back.map_err(|(_, error)| error).expect("it was here");
                }
                (4, _) => world.session.release(),
                (5, _) => { world.session.attach(world.now); }
                (_, Some(party)) => {
                    let packet = party.next_packet();
                    let party = party.clone();
                    world.receive(&party, &packet);
                    world.pass(20);
                }
                _ => world.pass(u64::from(pick) * 10),
            }
            prop_assert_eq!(world.session.counts().endpoints as usize, parties.len());
            let listed: Vec<_> = world.session.details().endpoints.iter().map(|e| e.endpoint).collect();
            prop_assert!(parties.iter().all(|party| listed.contains(&party.id)));
            prop_assert!(world.session.snapshot().last_event_number >= world.out.events.len() as u64);
        }
        let now = world.now;
        let closed = world.session.close(now, &mut world.out);
        prop_assert_eq!(closed.sockets.len(), parties.len());
        prop_assert_eq!(world.session.next_timeout(), None);
    }
}
