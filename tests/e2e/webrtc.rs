//! media: WebRTC with a real browser and with aiortc, alone, with each other and with plain RTP, and
//! with somebody on the path who means harm.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server, procfs};
use rtpbridge_tests::peer::capture::Capture;
use rtpbridge_tests::peer::relay::{Kind, Way};
use rtpbridge_tests::peer::webrtc::HEARD_DBFS;
use rtpbridge_tests::peer::{Offer, Party, Relay, Rtp, Script, SdesParty, WebrtcPeer};
use serde_json::{Value, json};

/// Consent ends after 15 s; the rest is for a busy machine.
const CONSENT_GONE: Duration = Duration::from_secs(17);

const REJECTED_STUN: &str = "rtpbridge_packets_rejected_total{reason=\"stun\"}";
const REJECTED_SOURCE: &str = "rtpbridge_packets_rejected_total{reason=\"source\"}";

fn endpoint(client: &mut Client, id: &str) -> Value {
    let info = client.call("session.info", json!({}));
    let endpoints = info["endpoints"].as_array().expect("endpoints");
    let row = endpoints.iter().find(|row| row["endpoint_id"] == id);
    row.expect("the endpoint is listed").clone()
}

fn state(client: &mut Client, id: &str) -> Value {
    endpoint(client, id)["state"].clone()
}

fn wait_state(client: &mut Client, endpoint: &str, wanted: &str, within: Duration) {
    eventually(&format!("{endpoint} is {wanted}"), within, || {
        (state(client, endpoint) == wanted).then_some(())
    });
}

/// Both hear the other's tone and lose nothing on the way.
fn expect_dialogue(one: (&WebrtcPeer, u32), other: (&WebrtcPeer, u32)) {
    one.0.expect_tones(&[other.1], &[one.1]);
    other.0.expect_tones(&[one.1], &[other.1]);
    for peer in [one.0, other.0] {
        peer.expect_more_packets(100);
        let stats = peer.stats();
        assert_eq!(stats["packets_lost"], json!(0), "{stats}");
        assert!(stats["packets_sent"].as_i64().unwrap_or(0) > 50, "{stats}");
    }
}

fn remove_all(client: &mut Client, peers: &[&WebrtcPeer]) {
    for peer in peers {
        client.call("endpoint.remove", json!({"endpoint_id": peer.endpoint}));
        peer.close();
    }
}

#[test]
fn browsers_and_the_other_implementation_hear_each_other_whoever_offers() {
    let server = Server::start();
    let (browser, aiortc) = (Rc::new(Script::browser()), Rc::new(Script::aiortc()));
    let (mut client, _) = server.session();
    for (first, second) in [
        (&browser, &browser),
        (&browser, &aiortc),
        (&aiortc, &browser),
    ] {
        let offers = WebrtcPeer::join(first, &mut client, 440);
        let answers = WebrtcPeer::invite(second, &mut client, 1000);
        expect_dialogue((&offers, 440), (&answers, 1000));
        remove_all(&mut client, &[&offers, &answers]);
    }
    // A browser that offers video too gets audio.
    let mut with_video = WebrtcPeer::open(&browser);
    let options = json!({"frequency": 440, "video": true});
    let answer = with_video.offer(&mut client, options, |sdp| sdp);
    assert!(answer.contains("m=video 0 "), "{answer}");
    with_video.wait_connected(&mut client);
    let other = WebrtcPeer::join(&browser, &mut client, 1000);
    expect_dialogue((&with_video, 440), (&other, 1000));
    let energy = other.stats()["audio_energy"].as_f64().unwrap_or(0.0);
    assert!(energy > 0.0, "getStats hears it as well");
}

#[test]
fn a_third_implementation_hears_a_browser_whoever_offers() {
    let server = Server::start();
    let (browser, gstreamer) = (Rc::new(Script::browser()), Rc::new(Script::gstreamer()));
    let (mut client, _) = server.session();
    let page = WebrtcPeer::join(&browser, &mut client, 440);
    for is_offering in [true, false] {
        let bin = if is_offering {
            WebrtcPeer::join(&gstreamer, &mut client, 1000)
        } else {
            WebrtcPeer::invite(&gstreamer, &mut client, 1000)
        };
        page.expect_tones(&[1000], &[440]);
        bin.expect_tones(&[440], &[1000]);
        remove_all(&mut client, &[&bin]);
    }
}

#[test]
fn browsers_speak_with_plain_and_secured_parties_and_digits_cross() {
    let server = Server::start();
    let (browser, aiortc) = (Rc::new(Script::browser()), Rc::new(Script::aiortc()));
    let (mut client, _) = server.session();
    let page = WebrtcPeer::join(&browser, &mut client, 440);
    let mut plain = Party::bind();
    let codecs = [(96, "opus/48000/2"), (97, "telephone-event/48000")];
    plain.offer(
        &mut client,
        &Offer::with_codecs(plain.address(), &codecs),
        json!({}),
    );
    plain.payload_type = 96;

    // Passthrough: what arrives is the browser's Opus in one unbroken stream.
    let path = server.recording_path("browser.pcap");
    let params = json!({"file_path": path, "endpoint_id": page.endpoint});
    let recording = client.call("recording.start", params);
    let heard = plain.receive_exactly(50);
    assert!(heard.iter().all(|packet| packet.payload_type == 96));
    assert!(
        heard
            .windows(2)
            .all(|pair| pair[1].sequence == pair[0].sequence.wrapping_add(1))
    );
    let stopped = client.call(
        "recording.stop",
        json!({"recording_id": recording["recording_id"]}),
    );
    assert!(stopped["packets"].as_u64().unwrap_or(0) >= 49, "{stopped}");
    // The recording holds the same payloads in the clear.
    let capture = Capture::read(&path);
    let recorded: Vec<Rtp> = capture.rtp().map(|(_, packet)| packet).collect();
    let found = heard
        .iter()
        .filter(|packet| recorded.iter().any(|other| other.payload == packet.payload));
    assert!(found.count() >= 45);

    page.call("dtmf", json!({"tones": "15#", "duration_ms": 100}));
    for digit in ["1", "5", "#"] {
        let event = client.expect_event("dtmf");
        assert_eq!(
            (&event["digit"], &event["endpoint_id"]),
            (&json!(digit), &json!(page.endpoint))
        );
    }
    // The browser's stream never pauses, so what came is read until all three were in it.
    let mut missing = vec![1, 5, 11];
    let mut stream = std::iter::from_fn(|| plain.receive(SOON)).take(1000);
    while let Some(packet) = stream.next().filter(|_| !missing.is_empty()) {
        if packet.payload_type == 97 {
            missing.retain(|event| *event != packet.payload[0]);
        }
    }
    drop(stream);
    assert!(missing.is_empty(), "{missing:?} did not reach the RTP side");
    plain.press(97, 7, 5);
    assert_eq!(client.expect_event("dtmf")["digit"], json!("7"));

    // The other way: the party sends the page's own voice back.
    page.speak(1000);
    let mut timestamp = 0;
    eventually("the page hears its echo", 2 * SOON, || {
        for _ in 0..25 {
            let packet = plain.receive(SOON).expect("the stream goes on");
            if packet.payload_type == 96 {
                timestamp += 960;
                let echo = plain.next_packet(&packet.payload);
                plain.send_packet(&Rtp { timestamp, ..echo });
            }
        }
        (page.listen(&[1000])[0] > HEARD_DBFS).then_some(())
    });
    client.call("endpoint.remove", json!({"endpoint_id": plain.endpoint}));
    remove_all(&mut client, &[&page]);

    // SRTP with SDES on the other side: each has its own keys, the payload is the same.
    let mut page = WebrtcPeer::open(&browser);
    let params = json!({"type": "webrtc", "codecs": ["PCMU"]});
    page.accept(&mut client, params, 440, |sdp| sdp);
    page.wait_connected(&mut client);
    let mut secured = SdesParty::join(&aiortc, &mut client, "AES_CM_128_HMAC_SHA1_80");
    let heard = secured.receive_exactly(50);
    assert!(
        heard
            .iter()
            .all(|packet| packet.payload_type == 0 && packet.payload.len() == 160)
    );
    secured.talk(50);
    eventually("the browser has it all", SOON, || {
        (page.count("packets_received") == 50).then_some(())
    });
    assert_eq!(page.count("packets_lost"), 0);
}

#[test]
fn with_two_families_parties_of_either_are_reached_and_told_goodbye() {
    let addresses = "[\"127.0.0.1\", \"::1\"]";
    let server = Server::builder().set("media_ip", addresses).start();
    let (browser, aiortc) = (Rc::new(Script::browser()), Rc::new(Script::aiortc()));
    let (mut client, _) = server.session();
    let idle = procfs::fd_count(server.dataplane_pid());
    let page = WebrtcPeer::join(&browser, &mut client, 440);
    for (host, is_offering) in [("::1", true), ("::1", false), ("127.0.0.1", true)] {
        let mut other = WebrtcPeer::open_with(&aiortc, json!({"hosts": [host]}));
        if is_offering {
            other.offer(&mut client, json!({"frequency": 1000}), |sdp| sdp);
        } else {
            other.accept(&mut client, json!({"type": "webrtc"}), 1000, |sdp| sdp);
        }
        other.wait_connected(&mut client);
        expect_dialogue((&page, 440), (&other, 1000));
        let row = endpoint(&mut client, &other.endpoint);
        for name in ["local_rtp_addr", "remote_rtp_addr"] {
            let address: SocketAddr = row[name].as_str().expect("shown").parse().expect("one");
            assert_eq!(address.ip().to_string(), host, "{row}");
        }
        client.call("endpoint.remove", json!({"endpoint_id": other.endpoint}));
        eventually("the goodbye has come", SOON, || {
            (other.stats()["dtls"] == "closed").then_some(())
        });
    }
    remove_all(&mut client, &[&page]);
    eventually("the sockets are closed", SOON, || {
        (procfs::fd_count(server.dataplane_pid()) <= idle).then_some(())
    });
}

#[test]
fn an_ice_restart_does_not_interrupt_the_tone() {
    let server = Server::start();
    let browser = Rc::new(Script::browser());
    let (mut client, _) = server.session();
    let page = WebrtcPeer::join(&browser, &mut client, 440);
    let other = WebrtcPeer::invite(&browser, &mut client, 1000);
    expect_dialogue((&page, 440), (&other, 1000));
    let mut lost = [0; 2];

    // Ours: an answer to a superseded restart is refused before it is read.
    let restart = json!({"endpoint_id": page.endpoint});
    let first = client.call("endpoint.ice_restart", restart.clone());
    let second = client.call("endpoint.ice_restart", restart);
    assert_ne!(first["offer_generation"], second["offer_generation"]);
    let accept = |generation: &Value, sdp: &str| json!({"endpoint_id": page.endpoint, "sdp": sdp, "offer_generation": generation});
    let stale = accept(&first["offer_generation"], "not even SDP");
    client.refuse("endpoint.accept_answer", stale, "ENDPOINT_ERROR");
    let offer = second["sdp_offer"].as_str().expect("an offer");
    let answer = page.call_for_sdp("answer", json!({"sdp": offer}));
    let pairs = page.count("pair_changes");
    client.call(
        "endpoint.accept_answer",
        accept(&second["offer_generation"], &answer),
    );
    eventually("the browser uses the new pair", SOON, || {
        (page.count("pair_changes") > pairs).then_some(())
    });
    expect_dialogue_after_restart([&page, &other], &mut lost);

    // Theirs.
    let pairs = page.count("pair_changes");
    let offer = page.call_for_sdp("offer", json!({"restart": true}));
    let answered = client.call(
        "endpoint.accept_offer",
        json!({"endpoint_id": page.endpoint, "sdp": offer}),
    );
    page.call("accept", json!({"sdp": answered["sdp_answer"]}));
    eventually("the browser uses the new pair", SOON, || {
        (page.count("pair_changes") > pairs).then_some(())
    });
    expect_dialogue_after_restart([&page, &other], &mut lost);
}

/// They hear each other, and each has lost at most three packets since `lost`.
fn expect_dialogue_after_restart([page, other]: [&WebrtcPeer; 2], lost: &mut [i64; 2]) {
    page.expect_tones(&[1000], &[440]);
    other.expect_tones(&[440], &[1000]);
    for (peer, before) in [page, other].into_iter().zip(lost) {
        peer.expect_more_packets(100);
        let after = peer.count("packets_lost");
        let newly = after - *before;
        assert!(newly <= 3, "{newly} packets were lost in one restart");
        *before = after;
    }
}

#[test]
fn who_hangs_up_is_gone_at_once_and_who_dies_within_the_consent_time() {
    let server = Server::start();
    let browser = Rc::new(Script::browser());
    let aiortc = Rc::new(Script::aiortc());
    let (mut client, _) = server.session();
    let idle = procfs::fd_count(server.dataplane_pid());
    let polite = [
        WebrtcPeer::join(&browser, &mut client, 440),
        WebrtcPeer::join(&aiortc, &mut client, 1000),
    ];
    let victim = WebrtcPeer::join(&browser, &mut client, 2000);
    for peer in &polite {
        peer.close();
        wait_state(
            &mut client,
            &peer.endpoint,
            "disconnected",
            Duration::from_secs(3),
        );
    }
    let killed = Instant::now();
    browser.kill();
    wait_state(&mut client, &victim.endpoint, "disconnected", CONSENT_GONE);
    assert!(
        killed.elapsed() > Duration::from_secs(10),
        "not for a short pause"
    );
    for peer in polite.iter().chain([&victim]) {
        client.call("endpoint.remove", json!({"endpoint_id": peer.endpoint}));
    }
    eventually("the sockets are closed", SOON, || {
        (procfs::fd_count(server.dataplane_pid()) <= idle).then_some(())
    });
}

#[test]
fn a_wrong_fingerprint_is_never_connected() {
    let server = Server::start();
    let (browser, aiortc) = (Rc::new(Script::browser()), Rc::new(Script::aiortc()));
    let (mut client, _) = server.session();
    for script in [&browser, &aiortc] {
        let peer = WebrtcPeer::open(script);
        let offer = peer.call_for_sdp("offer", json!({"frequency": 440}));
        let forged: String = offer
            .split_inclusive("\r\n")
            .map(|line| match line.rsplit_once(':') {
                Some((start, _)) if line.starts_with("a=fingerprint:") => format!("{start}:00\r\n"),
                _ => line.to_owned(),
            })
            .collect();
        assert_ne!(forged, offer);
        let created = client.call("endpoint.create_from_offer", json!({"sdp": forged}));
        peer.call("accept", json!({"sdp": created["sdp_answer"]}));
        let endpoint = created["endpoint_id"].as_str().expect("an id").to_owned();
        client.expect_event_where("endpoint.state_changed", |data| {
            assert_ne!(data["new_state"], json!("connected"));
            data["endpoint_id"] == json!(endpoint) && data["new_state"] == json!("disconnected")
        });
        peer.close();
    }
}

#[test]
fn who_is_on_the_path_can_alter_nothing_and_a_stranger_reaches_nobody() {
    let server = Server::start();
    let (browser, aiortc) = (Rc::new(Script::browser()), Rc::new(Script::aiortc()));
    let (mut client, _) = server.session();
    let relay = Relay::start();
    let mut page = WebrtcPeer::open(&browser);
    let answer = page.offer(&mut client, json!({"frequency": 440}), |sdp| {
        relay.intercept(&sdp)
    });
    page.wait_connected(&mut client);
    let other = WebrtcPeer::join(&browser, &mut client, 1000);
    expect_dialogue((&page, 440), (&other, 1000));

    // Every packet is followed by its repetition and by altered copies.
    let before = server.metric("rtpbridge_srtp_errors_total");
    let mut bit = 16;
    relay.meddle(move |way, kind, datagram| {
        let mut onward = vec![datagram.to_vec()];
        if way == Way::ToBridge && matches!(kind, Kind::Rtp | Kind::Rtcp) {
            let mut altered = datagram.to_vec();
            altered[bit / 8 % datagram.len()] ^= 1 << (bit % 8);
            bit += 17;
            onward.extend([datagram.to_vec(), altered]);
        }
        onward
    });
    other.expect_more_packets(150);
    relay.behave();
    assert!(server.metric("rtpbridge_srtp_errors_total") >= before + 150.0);

    // A forged alert, a plaintext handshake record and noise, from the peer's own address.
    for forged in [
        &[21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40][..],
        &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 3, 1, 0, 0],
        &[20; 40],
        &[0x80; 20],
        &[0, 1, 0, 0],
    ] {
        relay.inject(forged);
    }
    // A second DTLS client and wrong passwords, from elsewhere.
    let bridge = relay.bridge();
    assert!(!dtls_client_connects(&bridge.to_string()));
    let ufrag = answer
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-ufrag:"))
        .expect("credentials");
    let refused_before = server.metric(REJECTED_STUN);
    for username in ["nobody:else", &format!("{ufrag}:peer")] {
        let wrong = json!({
            "host": bridge.ip().to_string(), "port": bridge.port(),
            "username": username, "password": "x".repeat(32), "nominate": true,
        });
        let refused = aiortc.call("stun", wrong);
        assert_eq!(
            (&refused["class"], &refused["code"]),
            (&json!("error"), &json!(401))
        );
    }
    assert!(server.metric(REJECTED_STUN) >= refused_before + 2.0);
    assert!(
        server.metric(REJECTED_SOURCE) > 0.0,
        "the second DTLS client"
    );
    expect_dialogue((&page, 440), (&other, 1000));
    assert_eq!(state(&mut client, &page.endpoint), "connected");
}

/// Whether openssl gets through a handshake within two seconds.
fn dtls_client_connects(address: &str) -> bool {
    let mut client = Command::new("openssl")
        .args(["s_client", "-dtls1_2", "-timeout", "-connect", address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    thread::sleep(Duration::from_secs(2));
    let _ = client.kill();
    let output = client.wait_with_output().expect("own child");
    String::from_utf8_lossy(&output.stdout).contains("BEGIN CERTIFICATE")
}

#[test]
fn lost_handshake_flights_are_repeated() {
    let server = Server::start();
    let (browser, aiortc) = (Rc::new(Script::browser()), Rc::new(Script::aiortc()));
    let (mut client, _) = server.session();
    for script in [&browser, &aiortc] {
        for lossy in [Way::ToPeer, Way::ToBridge] {
            for is_offering in [true, false] {
                let relay = Relay::start();
                let mut seen = 0;
                // The 2nd to the 4th datagram of the handshake this way are lost.
                relay.meddle(move |way, kind, datagram| {
                    if way == lossy && kind == Kind::Dtls {
                        seen += 1;
                        if (2..5).contains(&seen) {
                            return Vec::new();
                        }
                    }
                    vec![datagram.to_vec()]
                });
                let mut peer = WebrtcPeer::open(script);
                let through = |sdp: String| relay.intercept(&sdp);
                if is_offering {
                    peer.offer(&mut client, json!({"frequency": 440}), through);
                } else {
                    peer.accept(&mut client, json!({"type": "webrtc"}), 440, through);
                }
                peer.wait_connected(&mut client);
                remove_all(&mut client, &[&peer]);
            }
        }
    }
}
