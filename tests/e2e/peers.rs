//! The peers alone, without the bridge: when these fail, it is the machine's fault.

use std::rc::Rc;

use rtpbridge_tests::harness::{eventually, wait::SOON};
use rtpbridge_tests::peer::relay::Kind;
use rtpbridge_tests::peer::sdes::{Context, Crypto, SUITES};
use rtpbridge_tests::peer::{Relay, Rtp, Script, WebrtcPeer};
use serde_json::json;

#[test]
fn the_browser_and_the_other_implementation_hear_each_other_through_the_relay() {
    let (browser, aiortc) = (Rc::new(Script::browser()), Rc::new(Script::aiortc()));
    let page = WebrtcPeer::open(&browser);
    let other = WebrtcPeer::open(&aiortc);
    let relay = Relay::start();
    let offer = page.call_for_sdp("offer", json!({"frequency": 440}));
    // Nobody is at that candidate, so that the only way is through the relay.
    let nowhere = "a=candidate:1 1 udp 2113937151 127.0.0.1 9 typ host\r\n";
    let offer = with_one_candidate(&offer, |_| nowhere);
    let answer = other.call_for_sdp("answer", json!({"sdp": offer, "frequency": 1000}));
    let answer = with_one_candidate(&answer, |first| first);
    page.call("accept", json!({"sdp": relay.intercept(&answer)}));
    page.call("connected", json!({}));
    other.call("connected", json!({}));
    page.expect_tones(&[1000], &[440, 2000]);
    other.expect_tones(&[440], &[1000, 2000]);
    eventually("everything goes through the relay", SOON, || {
        (relay.passed() > 100).then_some(())
    });

    let (seen, kinds) = std::sync::mpsc::channel();
    relay.meddle(move |_, kind, datagram| {
        let _ = seen.send(kind);
        vec![datagram.to_vec()]
    });
    eventually("media passes the relay", SOON, || {
        kinds.try_iter().find(|kind| *kind == Kind::Rtp)
    });
    page.close();
    eventually("the goodbye arrives", SOON, || {
        (other.stats()["connection"] == json!("closed")).then_some(())
    });
}

/// The description with its first candidate alone, as `edit` leaves it.
fn with_one_candidate<'a>(sdp: &'a str, edit: impl Fn(&'a str) -> &'a str) -> String {
    let mut seen = false;
    sdp.split_inclusive("\r\n")
        .filter_map(|line| {
            if !line.starts_with("a=candidate:") {
                return Some(line);
            }
            (!std::mem::replace(&mut seen, true)).then(|| edit(line))
        })
        .collect()
}

#[test]
fn libsrtp_opens_what_it_sealed_also_after_the_sequence_numbers_rolled_over() {
    let script = Rc::new(Script::aiortc());
    for suite in SUITES {
        for rollovers in [0, 2] {
            let crypto = Crypto::random(suite);
            let sender = Context::new(&script, &crypto, true);
            let receiver = Context::new(&script, &crypto, false);
            let packets: Vec<Rtp> = (1..100)
                .map(|sequence| Rtp {
                    sequence,
                    ssrc: 7,
                    payload: vec![0x55; 160],
                    ..Rtp::default()
                })
                .collect();
            sender.advance(7, rollovers);
            receiver.advance(7, rollovers);
            let mut sealed = sender.protect_all(&packets);
            assert!(sealed.iter().zip(&packets).all(|(sealed, packet)| {
                sealed[..12] == packet.write()[..12] && sealed[12..172] != packet.payload[..]
            }));
            sealed[50][40] ^= 1;
            let opened = receiver.carry(&sealed, false);
            for (at, (opened, packet)) in opened.iter().zip(&packets).enumerate() {
                assert_eq!(opened.is_ok(), at != 50, "{suite} {opened:?}");
                assert!(at == 50 || *opened == Ok(packet.write()));
            }
            let again = receiver.carry(&sealed[..1], false);
            assert!(again[0].is_err(), "a repeated packet is refused");
        }
    }
}
