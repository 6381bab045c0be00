//! media: descriptions as they are answered, offered and refused.

use std::net::{IpAddr, Ipv6Addr};

use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::{Description, Offer, Party};
use serde_json::{Value, json};

fn answer_to(client: &mut Client, offer: &str) -> Description {
    let created = client.call("endpoint.create_from_offer", json!({"sdp": offer}));
    Description::parse(created["sdp_answer"].as_str().unwrap())
}

fn offer_of(created: &Value) -> Description {
    Description::parse(created["sdp_offer"].as_str().unwrap())
}

fn offer(codecs: &[(u8, &str)]) -> Offer {
    Offer::with_codecs(([127, 0, 0, 1], 40_000).into(), codecs)
}

#[test]
fn answers_keep_the_offers_order_and_payload_types() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let answer = answer_to(
        &mut client,
        &offer(&[
            (18, "G729/8000"),
            (8, "PCMA/8000"),
            (97, "opus/48000/2"),
            (0, "PCMU/8000"),
            (96, "telephone-event/8000"),
        ])
        .write(),
    );
    let audio = answer.audio();
    assert_eq!(audio.transport, "RTP/AVP");
    assert_eq!(audio.formats, ["8", "97", "0", "96"]);
    for format in &audio.formats {
        let mapped = audio
            .values("rtpmap")
            .any(|map| map.starts_with(&format!("{format} ")));
        assert!(mapped, "{format} has an rtpmap");
    }
    assert_eq!(answer.name, "rtpbridge");
    assert!(answer.origin.starts_with("rtpbridge "));
    let (first, last) = server.media_ports();
    assert!(audio.port.is_multiple_of(2) && (first..=last).contains(&audio.port));
    let info = client.call("session.info", json!({}));
    assert_eq!(info["endpoints"][0]["codec"], json!("PCMA"));
}

#[test]
fn static_payload_types_need_no_rtpmap_and_lines_may_end_in_lf() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let text = "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nt=0 0\nm=audio 40000 RTP/AVP 9 0\nc=IN IP4 127.0.0.1\n";
    let answer = answer_to(&mut client, text);
    assert_eq!(answer.audio().formats, ["9", "0"]);
    assert_eq!(answer.payload_type("G722"), Some(9));
}

#[test]
fn other_media_lines_are_mirrored_with_port_0() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let text = offer(&[(0, "PCMU/8000")]).write().replace(
        "m=audio",
        "m=video 50000 RTP/AVP 31\r\nm=image 50002 udptl t38\r\nm=audio 0 RTP/AVP 0\r\nm=audio",
    );
    let answer = answer_to(&mut client, &text);
    let kinds: Vec<(&str, bool)> = answer
        .sections
        .iter()
        .map(|section| (section.kind.as_str(), section.port != 0))
        .collect();
    assert_eq!(
        kinds,
        [
            ("video", false),
            ("image", false),
            ("audio", false),
            ("audio", true)
        ]
    );
}

#[test]
fn directions_are_mirrored_and_restricted() {
    let server = Server::start();
    for (offered, wanted, answered) in [
        ("sendrecv", "sendrecv", "sendrecv"),
        ("sendonly", "sendrecv", "recvonly"),
        ("recvonly", "sendrecv", "sendonly"),
        ("inactive", "sendrecv", "inactive"),
        ("sendrecv", "sendonly", "recvonly"),
        ("sendrecv", "recvonly", "sendonly"),
        ("sendonly", "recvonly", "inactive"),
        ("sendrecv", "inactive", "inactive"),
    ] {
        let (mut client, _) = server.session();
        let text = offer(&[(0, "PCMU/8000")]).attribute(offered).write();
        let created = client.call(
            "endpoint.create_from_offer",
            json!({"sdp": text, "direction": wanted}),
        );
        let answer = Description::parse(created["sdp_answer"].as_str().unwrap());
        assert_eq!(
            answer.direction(),
            answered,
            "{offered} restricted to {wanted}"
        );
    }
}

#[test]
fn an_offer_without_a_known_codec_is_still_answered() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let answer = answer_to(
        &mut client,
        &offer(&[(18, "G729/8000"), (101, "telephone-event/8000")]).write(),
    );
    assert_eq!(answer.audio().formats, ["101"]);
}

#[test]
fn what_cannot_be_a_party_is_refused_and_nothing_is_left_behind() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let good = offer(&[(0, "PCMU/8000")]).write();
    let address = "c=IN IP4 127.0.0.1";
    for (what, text) in [
        ("host name", good.replace(address, "c=IN IP4 phone.example")),
        ("multicast", good.replace(address, "c=IN IP4 224.1.1.1")),
        ("port 0", good.replace("m=audio 40000", "m=audio 0")),
        ("no address", good.replace("c=IN IP4 127.0.0.1\r\n", "")),
        ("no media", good.split("m=audio").next().unwrap().to_owned()),
        ("IPv6 unconfigured", good.replace(address, "c=IN IP6 ::1")),
        ("SAVP without crypto", good.replace("RTP/AVP", "RTP/SAVP")),
        ("not SDP", "hello".to_owned()),
        ("empty", String::new()),
    ] {
        let error = client
            .request("endpoint.create_from_offer", json!({"sdp": text}))
            .expect_err(what);
        assert_eq!(error.code, "ENDPOINT_ERROR", "{what}: {}", error.message);
    }
    let large = format!("{good}{}", "a=x-padding:0123456789\r\n".repeat(3000));
    let message = client.refuse(
        "endpoint.create_from_offer",
        json!({"sdp": large}),
        "INVALID_PARAMS",
    );
    assert!(message.contains("too large"), "{message}");
    client.refuse(
        "endpoint.create_from_offer",
        json!({"sdp": 5}),
        "INVALID_PARAMS",
    );
    client.refuse(
        "endpoint.create_from_offer",
        json!({"sdp": good, "direction": "both"}),
        "INVALID_PARAMS",
    );
    let info = client.call("session.info", json!({}));
    assert_eq!(info["endpoints"], json!([]));
    assert_eq!(server.metric("rtpbridge_endpoints_active"), 0.0);
}

#[test]
fn ice_attributes_on_plain_rtp_are_ignored() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let text = offer(&[(0, "PCMU/8000")])
        .attribute("ice-ufrag:abcd")
        .attribute("ice-pwd:abcdefghijklmnopqrstuv")
        .attribute("candidate:1 1 UDP 2130706431 127.0.0.1 40000 typ host")
        .write();
    let answer = answer_to(&mut client, &text);
    assert_eq!(answer.audio().transport, "RTP/AVP");
    assert!(answer.audio().values("candidate").next().is_none());
}

#[test]
fn our_offers_list_what_was_asked_for() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let created = client.call("endpoint.create_offer", json!({"type": "rtp"}));
    let offer = offer_of(&created);
    let maps: Vec<&str> = offer.audio().values("rtpmap").collect();
    assert_eq!(
        maps,
        [
            "0 PCMU/8000",
            "8 PCMA/8000",
            "9 G722/8000",
            "111 opus/48000/2",
            "101 telephone-event/8000",
            "110 telephone-event/48000",
        ]
    );
    assert!(offer.audio().has("rtcp-mux"));
    let info = client.call("session.info", json!({}));
    assert_eq!(info["endpoints"][0]["state"], json!("connecting"));
    assert_eq!(info["endpoints"][0]["codec"], Value::Null);

    let created = client.call(
        "endpoint.create_offer",
        json!({"type": "rtp", "codecs": ["PCMA", "telephone-event", "pcmu"], "direction": "sendonly"}),
    );
    let offer = offer_of(&created);
    assert_eq!(offer.audio().formats, ["8", "0", "101"]);
    assert_eq!(offer.direction(), "recvonly");

    let created = client.call(
        "endpoint.create_offer",
        json!({"type": "rtp", "codecs": []}),
    );
    assert_eq!(offer_of(&created).audio().formats.len(), 6);
    for wrong in [
        json!({"type": "rtp", "codecs": ["speex"]}),
        json!({"type": "rtp", "codecs": "pcmu"}),
        json!({"type": "sip"}),
        json!({}),
        json!({"type": "rtp", "srtp": true, "srtp_optional": true}),
    ] {
        client.refuse("endpoint.create_offer", wrong, "INVALID_PARAMS");
    }
}

#[test]
fn answers_decide_and_bad_ones_change_nothing() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let created = client.call(
        "endpoint.create_offer",
        json!({"type": "rtp", "codecs": ["pcmu"]}),
    );
    let id = created["endpoint_id"].clone();
    let before = client.call("session.info", json!({}));
    let good = offer(&[(0, "PCMU/8000"), (101, "telephone-event/8000")]).write();
    for bad in [
        offer(&[(8, "PCMA/8000")]).write(),
        good.replace("c=IN IP4 127.0.0.1\r\n", ""),
        good.replace("m=audio 40000", "m=audio 0"),
        "nonsense".to_owned(),
    ] {
        client.refuse(
            "endpoint.accept_answer",
            json!({"endpoint_id": id, "sdp": bad}),
            "ENDPOINT_ERROR",
        );
        assert_eq!(client.call("session.info", json!({})), before);
    }
    let accepted = client.call(
        "endpoint.accept_answer",
        json!({"endpoint_id": id, "sdp": good}),
    );
    assert_eq!(accepted, json!({}));
    let changed = client.expect_event("endpoint.state_changed");
    assert_eq!(changed["old_state"], json!("connecting"));
    assert_eq!(changed["new_state"], json!("connected"));
    assert!(
        changed["seq"].as_u64().is_some(),
        "critical events are numbered: {changed}"
    );
    let info = client.call("session.info", json!({}));
    assert_eq!(info["endpoints"][0]["codec"], json!("PCMU"));
}

#[test]
fn methods_named_for_the_other_transport_are_refused() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let text = offer(&[(0, "PCMU/8000")]).write();
    client.refuse(
        "endpoint.webrtc.create_from_offer",
        json!({"sdp": text}),
        "ENDPOINT_ERROR",
    );
    let created = client.call("endpoint.rtp.create_from_offer", json!({"sdp": text}));
    let id = created["endpoint_id"].clone();
    client.refuse(
        "endpoint.webrtc.ice_restart",
        json!({"endpoint_id": id}),
        "ENDPOINT_ERROR",
    );
    client.refuse(
        "endpoint.ice_restart",
        json!({"endpoint_id": id}),
        "ENDPOINT_ERROR",
    );
    client.refuse(
        "endpoint.srtp_rekey",
        json!({"endpoint_id": id}),
        "ENDPOINT_ERROR",
    );
    client.refuse(
        "endpoint.file.pause",
        json!({"endpoint_id": id}),
        "ENDPOINT_ERROR",
    );
}

#[test]
fn hold_and_resume_by_a_new_offer_keep_everything_outgoing() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let mut bob = Party::join(&mut client);
    bob.talk(3);
    let before = alice.receive_exactly(3);

    for hold in ["hold by address", "hold by direction"] {
        let text = Offer::pcmu(alice.address()).write();
        let text = match hold {
            "hold by address" => text.replace("c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0"),
            _ => format!("{text}a=inactive\r\n"),
        };
        let version = alice.description.version();
        let answer = client.call(
            "endpoint.rtp.reinvite",
            json!({"endpoint_id": alice.endpoint, "sdp": text}),
        );
        alice.take_description(answer["sdp_answer"].as_str().unwrap());
        assert!(alice.description.version() > version, "{hold}");
        bob.talk(3);
        alice.expect_silence(std::time::Duration::from_millis(100));
    }
    // Resumed at another address.
    let moved = Party::bind();
    let answer = client.call(
        "endpoint.update_remote_sdp",
        json!({"endpoint_id": alice.endpoint, "sdp": Offer::pcmu(moved.address()).write()}),
    );
    let resumed = Description::parse(answer["sdp_answer"].as_str().unwrap());
    assert_eq!(resumed.address(), alice.bridge);
    bob.talk(3);
    let after = moved.receive_exactly(3);
    assert_eq!(after[0].ssrc, before[0].ssrc);
    assert_eq!(after[0].sequence, before[2].sequence.wrapping_add(1));
    alice.expect_silence(std::time::Duration::from_millis(50));
}

#[test]
fn ipv6_is_as_good_as_ipv4() {
    let server = Server::builder()
        .set("media_ip", r#"["127.0.0.1", "::1"]"#)
        .start();
    let (mut client, _) = server.session();
    let mut alice = Party::bind_at(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let offer = Offer::pcmu(alice.address());
    alice.offer(&mut client, &offer, json!({}));
    assert!(alice.bridge.is_ipv6());
    let mut bob = Party::join(&mut client);
    assert!(bob.bridge.is_ipv4());
    let sent = alice.talk(5);
    let heard = bob.receive_exactly(5);
    assert_eq!(heard[4].payload, sent[4].payload);
    let sent = bob.talk(5);
    let heard = alice.receive_exactly(5);
    assert_eq!(heard[4].payload, sent[4].payload);
    // Offers of ours take the first configured family.
    let created = client.call("endpoint.create_offer", json!({"type": "rtp"}));
    assert!(offer_of(&created).address().is_ipv4());
}
