//! Sources that change their codec.

use rtpbridge_shared::vocab::Codec;

use super::*;

impl World {
    /// The party says 20 ms in this payload type.
    fn talk_in(&mut self, party: &mut Party, payload_type: u8) {
        let packet = party.packet(payload_type, false, &[payload_type; 160]);
        party.step();
        self.receive(party, &packet);
    }

    fn incoming(&self, party: &Party) -> Option<Codec> {
        self.session.endpoints.get(party.key)?.incoming_codec()
    }
}

#[test]
fn a_source_that_changes_its_codec_is_followed_at_once() {
    let mut world = World::new();
    let mut one = world.join("0 8", Direction::Sendrecv);
    world.talk_in(&mut one, 0);
    world.talk_in(&mut one, 8);
    assert_eq!(world.incoming(&one), Some(Codec::Pcma));
    world.pass(100);
    world.talk_in(&mut one, 0);
    assert_eq!(world.incoming(&one), Some(Codec::Pcmu));
}

#[test]
fn a_source_that_alternates_its_codecs_changes_the_plan_ten_times_a_second() {
    let mut world = World::new();
    let mut one = world.join("0 8", Direction::Sendrecv);
    let two = world.join("0", Direction::Sendrecv);
    let (mut changes, mut before) = (0, None);
    for n in 0..1000 {
        world.talk_in(&mut one, if n % 2 == 0 { 0 } else { 8 });
        changes += u32::from(world.incoming(&one) != before);
        before = world.incoming(&one);
        world.pass(1);
    }
    assert!((5..=12).contains(&changes), "{changes} changes");
    let heard = world.take_rtp(&two);
    assert!(heard.len() > 200, "{} packets", heard.len());
    // What comes as A-law is transcoded.
    assert!(heard.iter().all(|(header, _)| header.payload_type == 0));
    assert!(heard.iter().any(|(_, payload)| payload != &[0; 160]));
    let row = &world.session.stats_rows(world.now.at)[0];
    assert_eq!((row.inbound.packets, row.inbound.packets_lost), (1000, 0));
}
