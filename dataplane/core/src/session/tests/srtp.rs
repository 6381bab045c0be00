//! SRTP with keys from SDES, through a session.

use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::endpoint::{AcceptAnswer, CreateOffer, SrtpOffer};
use rtpbridge_shared::vocab::{Codec, Transport};

use super::*;
use crate::srtp::{MasterKey, Protector, SrtpSuite, Unprotector};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd";

/// A party that was offered SRTP and may answer without.
struct Secured {
    party: Party,
    offer: String,
}

fn secured(world: &mut World) -> Secured {
    let request = CreateOffer {
        session: world.session.id(),
        endpoint: EndpointId::from_bytes([9; 16]),
        transport: Transport::Rtp,
        direction: Direction::Sendrecv,
        srtp: SrtpOffer::Optional,
        codecs: vec![Codec::Pcmu],
    };
    let prepared = world.session.prepare_offer(&request).expect("possible");
    let created = world
        .session
        .create_endpoint(world.now, prepared, sockets(9), &mut world.out)
        .expect("room");
    let party = Party {
        id: request.endpoint,
        key: created.key,
        address: SocketAddr::from(([10, 0, 0, 9], 4000)),
        socket: sockets(9).media.key,
        ssrc: 99,
        sequence: 1,
        timestamp: 1,
    };
    let offer = created.sdp;
    Secured { party, offer }
}

impl Secured {
    fn answer(&self, world: &mut World, crypto: &str) -> Result<(), RequestError> {
        let request = AcceptAnswer {
            session: world.session.id(),
            endpoint: self.party.id,
            sdp: offer(self.party.address, "0", "sendrecv") + crypto,
            transport: None,
            offer_generation: None,
        };
        world
            .session
            .accept_answer(world.now, &request, &mut world.out)
    }
}

fn line(key: &str) -> String {
    format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n")
}

fn key_in(sdp: &str) -> MasterKey {
    use base64::Engine;
    let text = sdp.split_once("inline:").expect("a key").1;
    let text = text.split(['|', '\r']).next().expect("not empty");
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let bytes = bytes.expect("base64");
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    MasterKey::from_parts(suite, &bytes[..16], &bytes[16..]).expect("16 and 14 bytes")
}

#[test]
fn a_rekey_that_is_answered_in_the_clear_is_refused_and_the_call_stays_protected() {
    let mut world = World::new();
    let mut one = world.join("0", Direction::Sendrecv);
    let mut two = secured(&mut world);
    two.answer(&mut world, &line(KEY)).expect("agreed");
    let offer = world.session.srtp_rekey(world.now, two.party.id);
    let offer = offer.expect("it has keys");
    let refused = two.answer(&mut world, "");
    assert!(
        matches!(refused, Err(RequestError::Endpoint(_))),
        "{refused:?}"
    );
    world.talk(&mut one);
    let sent = world.out.sent.pop().expect("forwarded");
    let mut bytes = sent.bytes;
    let opened = Unprotector::new(&key_in(&offer)).unprotect_rtp(world.now.at, &mut bytes);
    assert!(opened.is_ok(), "{opened:?}");
    // The answer that fits is still waited for.
    let other = KEY.replace("AAEC", "BBEC");
    two.answer(&mut world, &line(&other)).expect("agreed");
    let mut packet = two.party.next_packet();
    let len = packet.len();
    packet.extend([0; 16]);
    let sealed = Protector::new(&key_in(&line(&other))).protect_rtp(&mut packet, len);
    packet.truncate(sealed.expect("room"));
    world.receive(&two.party, &packet);
    assert_eq!(world.take_rtp(&one).len(), 1);
}

#[test]
fn an_offer_of_optional_protection_may_be_answered_in_the_clear_once() {
    let mut world = World::new();
    let mut one = world.join("0", Direction::Sendrecv);
    let two = secured(&mut world);
    assert!(two.offer.contains("RTP/AVP") && two.offer.contains("a=crypto"));
    two.answer(&mut world, "").expect("agreed");
    world.talk(&mut one);
    assert_eq!(world.take_rtp(&two.party).len(), 1);
}

#[test]
fn packets_too_late_to_be_protected_are_not_sent_and_are_no_error() {
    let mut world = World::new();
    let mut one = world.join("0", Direction::Sendrecv);
    let two = secured(&mut world);
    two.answer(&mut world, &line(KEY)).expect("agreed");
    world.talk(&mut one);
    let late: Vec<_> = (0..90).map(|_| one.next_packet()).collect();
    world.talk(&mut one);
    for packet in late.iter().rev() {
        world.receive(&one, packet);
    }
    assert_eq!(world.out.counters.srtp_errors, 0);
    assert_eq!(world.take_rtp(&two.party).len(), 2 + 63);
}
