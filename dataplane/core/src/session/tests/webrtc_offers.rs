//! Offers and answers of WebRTC endpoints, and ICE restarts.

use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::endpoint::{AcceptAnswer, IceRestarted, RemoteOffer};
use rtpbridge_shared::vocab::EndpointState;
use stun::message::{BINDING_ERROR, BINDING_SUCCESS};

use super::browser::{Browser, WORDS, Words, description, value, webrtc_world};
use super::*;
use crate::sdp::DtlsRole;

const MOVED: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 77)),
    7777,
);

impl World {
    fn accept_answer(
        &mut self,
        browser: &Browser,
        sdp: &str,
        offer_generation: Option<u64>,
    ) -> Result<(), RequestError> {
        let request = AcceptAnswer {
            session: self.session.id(),
            endpoint: browser.id,
            sdp: sdp.into(),
            offer_generation,
            transport: None,
        };
        self.session
            .accept_answer(self.now, &request, &mut self.out)
    }

    fn accept_offer(&mut self, browser: &Browser, words: Words) -> Result<String, RequestError> {
        let request = RemoteOffer {
            session: self.session.id(),
            endpoint: browser.id,
            sdp: description(words),
        };
        self.session.accept_offer(self.now, &request, &mut self.out)
    }

    fn restart(&mut self, browser: &Browser) -> IceRestarted {
        self.session
            .ice_restart(self.now, browser.id)
            .expect("agreed")
    }

    fn state(&self) -> EndpointState {
        self.session.details().endpoints[0].state
    }
}

fn answer(setup: &'static str) -> String {
    description(Words { setup, ..WORDS })
}

#[test]
fn an_invited_browser_settles_who_says_hello() {
    for (setup, role) in [("active", DtlsRole::Passive), ("passive", DtlsRole::Active)] {
        let mut world = webrtc_world();
        let browser = Browser::invited(&mut world);
        assert_eq!(value(&browser.sdp, "setup"), "actpass");
        assert_eq!(world.state(), EndpointState::Connecting);
        // Its checks may be here before its answer.
        browser.nominate(&mut world, browser.address);
        assert!(world.out.started.is_empty());
        world
            .accept_answer(&browser, &answer(setup), None)
            .expect("it fits");
        assert_eq!(world.out.started.len(), 1);
        assert_eq!(world.out.started[0].1, role);
        browser.take_keys(&mut world);
        assert_eq!(world.state(), EndpointState::Connected);
        let again = world.accept_answer(&browser, &answer(setup), None);
        assert!(matches!(again, Err(RequestError::Endpoint(_))));
    }
}

#[test]
fn a_passive_end_waits_from_the_answer_on() {
    let mut world = webrtc_world();
    let browser = Browser::invited(&mut world);
    world
        .accept_answer(&browser, &answer("active"), None)
        .expect("it fits");
    assert_eq!(world.out.started[0].1, DtlsRole::Passive);
    browser.nominate(&mut world, browser.address);
    assert_eq!(world.out.started.len(), 1);
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut world = webrtc_world();
    let browser = Browser::invited(&mut world);
    let early = world.accept_offer(&browser, WORDS);
    assert!(matches!(early, Err(RequestError::Endpoint(_))));
    let early = world.session.ice_restart(world.now, browser.id);
    assert!(matches!(early, Err(RequestError::Endpoint(_))));
    let anonymous = answer("active").replace("a=fingerprint", "a=x-fingerprint");
    for unfit in ["", "v=0", &answer("actpass"), &anonymous] {
        assert!(world.accept_answer(&browser, unfit, None).is_err());
    }
    assert!(world.out.started.is_empty());
    world
        .accept_answer(&browser, &answer("active"), None)
        .expect("it still waits");
    browser.nominate(&mut world, browser.address);
    browser.take_keys(&mut world);
    // Another certificate is another peer.
    for (fingerprint, setup) in [("CD", "actpass"), ("AB", "passive")] {
        let words = Words {
            ufrag: "other",
            fingerprint,
            setup,
        };
        let refused = world.accept_offer(&browser, words);
        assert!(matches!(refused, Err(RequestError::Endpoint(_))));
    }
    let sdp = browser.sdp.clone();
    let checked = browser.check_with(&mut world, &sdp, browser.address, true);
    assert_eq!(checked.typ, BINDING_SUCCESS);
    assert_eq!(world.state(), EndpointState::Connected);
}

#[test]
fn without_a_certificate_there_is_no_webrtc() {
    let world = World::new();
    let request = CreateFromOffer {
        session: world.session.id(),
        endpoint: EndpointId::from_bytes([1; 16]),
        sdp: description(WORDS),
        direction: Direction::Sendrecv,
        transport: None,
    };
    let refused = world.session.prepare_from_offer(&request);
    assert!(matches!(refused, Err(RequestError::Endpoint(_))));
}

#[test]
fn our_restart_leaves_media_alone_until_its_nomination() {
    let mut world = webrtc_world();
    let mut browser = Browser::connected(&mut world);
    let mut party = world.join(PCMU, Direction::Sendrecv);
    let first = world.restart(&browser);
    let second = world.restart(&browser);
    assert!(second.offer_generation > first.offer_generation);
    assert_ne!(
        value(&first.sdp_offer, "ice-pwd"),
        value(&second.sdp_offer, "ice-pwd")
    );
    let stale = world.accept_answer(&browser, "no SDP", Some(first.offer_generation));
    let Err(RequestError::Endpoint(text)) = stale else {
        panic!("{stale:?}");
    };
    assert!(text.contains("offer_generation"), "{text}");
    let restarted = answer("passive").replace("a=ice-ufrag:peer", "a=ice-ufrag:new!");
    assert!(world.accept_answer(&browser, &restarted, None).is_err());
    let restarted = answer("passive").replace("a=ice-ufrag:peer", "a=ice-ufrag:newer");
    world
        .accept_answer(&browser, &restarted, Some(second.offer_generation))
        .expect("the pending one");
    // The old pair goes on, and the peer may still move with it.
    let old = browser.sdp.clone();
    let checked = browser.check_with(&mut world, &old, MOVED, true);
    assert_eq!(checked.typ, BINDING_SUCCESS);
    browser.talk_from(&mut world, MOVED);
    world.talk(&mut party);
    assert_eq!(world.take_rtp(&party).len(), 1);
    assert_eq!(browser.take_targets(&mut world), [MOVED]);
    // The new pair takes over; the old credentials are worth nothing.
    browser.sdp = second.sdp_offer;
    let address = browser.address;
    browser.nominate(&mut world, address);
    browser.talk(&mut world);
    world.talk(&mut party);
    assert_eq!(world.take_rtp(&party).len(), 1);
    assert_eq!(browser.take_targets(&mut world), [address]);
    let refused = browser.check_with(&mut world, &old, MOVED, true);
    assert_eq!(refused.typ, BINDING_ERROR);
    assert_eq!(world.state(), EndpointState::Connected);
    assert_eq!(world.out.started.len(), 1, "the association stays");
}

#[test]
fn the_peers_restart_gets_fresh_credentials_and_a_mere_new_offer_does_not() {
    let mut world = webrtc_world();
    let mut browser = Browser::connected(&mut world);
    let mut party = world.join(PCMU, Direction::Sendrecv);
    let same = world.accept_offer(&browser, WORDS).expect("it fits");
    assert_eq!(value(&same, "ice-ufrag"), value(&browser.sdp, "ice-ufrag"));
    let words = Words {
        ufrag: "restarted",
        ..WORDS
    };
    let fresh = world.accept_offer(&browser, words).expect("it fits");
    assert_ne!(value(&fresh, "ice-ufrag"), value(&browser.sdp, "ice-ufrag"));
    for name in ["fingerprint", "setup", "ssrc"] {
        assert_eq!(value(&fresh, name), value(&browser.sdp, name));
    }
    browser.talk(&mut world);
    browser.sdp = fresh;
    browser.nominate(&mut world, MOVED);
    browser.talk_from(&mut world, MOVED);
    world.talk(&mut party);
    assert_eq!(world.take_rtp(&party).len(), 2);
    assert_eq!(browser.take_targets(&mut world), [MOVED]);
    assert_eq!(world.out.started.len(), 1, "the association stays");
}

#[test]
fn the_peers_offer_supersedes_ours() {
    let mut world = webrtc_world();
    let browser = Browser::connected(&mut world);
    let ours = world.restart(&browser);
    world.accept_offer(&browser, WORDS).expect("it fits");
    let late = world.accept_answer(&browser, &answer("passive"), Some(ours.offer_generation));
    assert!(matches!(late, Err(RequestError::Endpoint(_))));
}
