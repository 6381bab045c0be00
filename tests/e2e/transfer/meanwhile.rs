//! Transfers in the middle of something else: an ICE restart, a rekey, a digit, recordings, removals
//! and ends of sessions.

use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rtpbridge_tests::harness::client::Incoming;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server, procfs};
use rtpbridge_tests::peer::capture::Capture;
use rtpbridge_tests::peer::rtp::TelephoneEvent;
use rtpbridge_tests::peer::{Party, Rtp, Script, SdesParty, WebrtcPeer};
use serde_json::{Value, json};

use super::{
    Home, QUIET, expect_one_stream, expect_totals, home, listed, server, start_homes, transfer,
};

/// Moves an endpoint, whatever is told about it.
fn carry(client: &mut Client, endpoint: &str, target: &str) {
    let params = json!({"endpoint_id": endpoint, "target_session_id": target});
    client.call("endpoint.transfer", params);
}

/// They hear each other through a new pair of candidates, and have lost at most three packets.
fn expect_restarted([page, other]: [&WebrtcPeer; 2], pairs: i64) {
    eventually("the browser uses the new pair", SOON, || {
        (page.count("pair_changes") > pairs).then_some(())
    });
    page.expect_tones(&[1000], &[440]);
    other.expect_tones(&[440], &[1000]);
    page.expect_more_packets(100);
    let stats = page.stats();
    assert!(stats["packets_lost"].as_i64().unwrap() <= 3, "{stats}");
}

#[test]
fn a_browsers_ice_restart_goes_on_in_the_new_session() {
    let server = server();
    let browser = Rc::new(Script::browser());
    let ((mut here, home), (mut there, target)) = (server.session(), server.session());
    let page = WebrtcPeer::join(&browser, &mut here, 440);
    let other = WebrtcPeer::join(&browser, &mut there, 1000);

    // Ours: offered here, answered there.
    let pairs = page.count("pair_changes");
    let which = json!({"endpoint_id": page.endpoint});
    let offer = here.call("endpoint.ice_restart", which);
    let answer = page.call_for_sdp("answer", json!({"sdp": offer["sdp_offer"]}));
    carry(&mut here, &page.endpoint, &target);
    let answer = json!({
        "endpoint_id": page.endpoint,
        "sdp": answer,
        "offer_generation": offer["offer_generation"],
    });
    here.refuse("endpoint.accept_answer", answer.clone(), "ENDPOINT_ERROR");
    there.call("endpoint.accept_answer", answer);
    expect_restarted([&page, &other], pairs);

    // Theirs: moved before our answer, and while the browser looks for its new pair.
    let pairs = page.count("pair_changes");
    let offer = page.call_for_sdp("offer", json!({"restart": true}));
    carry(&mut there, &page.endpoint, &home);
    let offer = json!({"endpoint_id": page.endpoint, "sdp": offer});
    there.refuse("endpoint.accept_offer", offer.clone(), "ENDPOINT_ERROR");
    let answered = here.call("endpoint.accept_offer", offer);
    page.call("accept", json!({"sdp": answered["sdp_answer"]}));
    carry(&mut here, &page.endpoint, &target);
    expect_restarted([&page, &other], pairs);
}

/// Both say so much and hear each other: all of it, once.
fn converse(secured: &mut SdesParty, home: &mut Party, frames: usize) -> Vec<Rtp> {
    let payloads = |packets: &[Rtp]| -> Vec<Vec<u8>> {
        packets
            .iter()
            .map(|packet| packet.payload.clone())
            .collect()
    };
    let said = secured.talk(frames);
    assert_eq!(payloads(&home.receive_exactly(frames)), payloads(&said));
    let said = home.talk(frames);
    let heard = secured.receive_exactly(frames);
    assert_eq!(payloads(&heard), payloads(&said));
    heard
}

#[test]
fn a_rekey_goes_on_in_the_new_session() {
    let server = server();
    let script = Rc::new(Script::aiortc());
    for suite in ["AES_CM_128_HMAC_SHA1_80", "AEAD_AES_256_GCM"] {
        let mut homes: Vec<Home> = (0..2).map(|_| home(&server)).collect();
        let mut secured = SdesParty::join(&script, &mut homes[0].client, suite);
        let endpoint = secured.party.endpoint.clone();
        // Its counter of roll-overs is 1 before the keys change.
        secured.party.sequence = 65_520;
        let mut heard = converse(&mut secured, &mut homes[0].party, 30);
        let ours = heard.last().expect("30").clone();
        let rolled_over = u32::from(heard[0].sequence > ours.sequence);

        // We have a new key here; theirs comes there.
        let params = json!({"endpoint_id": endpoint});
        let offer = homes[0].client.call("endpoint.srtp_rekey", params);
        transfer(&mut homes, &endpoint, 0, 1);
        let offer = offer["sdp"].as_str().expect("an offer");
        secured.take_key(offer, ours.ssrc, rolled_over);
        heard.extend(converse(&mut secured, &mut homes[1].party, 30));
        let answer = secured.renew_key(1);
        let answer = json!({"endpoint_id": endpoint, "sdp": answer});
        let old = &mut homes[0].client;
        old.refuse("endpoint.accept_answer", answer.clone(), "ENDPOINT_ERROR");
        homes[1].client.call("endpoint.accept_answer", answer);
        // Nothing has been said under the new key when it moves again.
        transfer(&mut homes, &endpoint, 1, 0);
        heard.extend(converse(&mut secured, &mut homes[0].party, 30));
        assert_eq!(expect_one_stream(heard).len(), 90);
    }
    assert_eq!(server.metric("rtpbridge_srtp_errors_total"), 0.0);
}

#[test]
fn digits_that_are_being_sent_go_on_in_the_new_session() {
    let server = server();
    let mut homes: Vec<Home> = (0..2).map(|_| home(&server)).collect();
    let party = Party::join(&mut homes[0].client);
    let (voices, _) = start_homes(&mut homes);
    for (digit, duration_ms) in [("5", 1000), ("9", 400)] {
        let params = json!({
            "endpoint_id": party.endpoint, "digit": digit, "duration_ms": duration_ms,
        });
        homes[0].client.call("endpoint.dtmf.inject", params);
    }
    for [from, to] in [[0, 1], [1, 0], [0, 1]] {
        thread::sleep(Duration::from_millis(250));
        transfer(&mut homes, &party.endpoint, from, to);
    }
    // Audio comes back when the last digit is over.
    let is_event = |packet: &Rtp| packet.payload_type == 101;
    let is_over = |packet: &Rtp| {
        let event = TelephoneEvent::parse(&packet.payload).filter(|_| is_event(packet));
        event.is_some_and(|event| event.end && event.event == 9)
    };
    let mut heard: Vec<Rtp> = Vec::new();
    while !heard.iter().any(is_over) || heard.last().is_some_and(is_event) {
        heard.push(party.receive(SOON).expect("the stream goes on"));
    }
    voices.finish();
    heard.extend(party.receive_all(QUIET));
    let heard = expect_one_stream(heard);
    // Packets of one event have one time stamp, and audio is left out between them.
    let is_same = |one: &Rtp, next: &Rtp| is_event(one) && one.timestamp == next.timestamp;
    let stretches = heard.chunk_by(|one, next| is_same(one, next) && is_event(next));
    let digits: Vec<&[Rtp]> = stretches.filter(|packets| is_event(&packets[0])).collect();
    assert_eq!(digits.len(), 2);
    for (digit, (code, duration)) in digits.iter().zip([(5, 8000), (9, 3200)]) {
        assert!(digit[0].marker);
        let events: Vec<TelephoneEvent> = digit
            .iter()
            .map(|packet| TelephoneEvent::parse(&packet.payload).unwrap())
            .collect();
        assert!(events.iter().all(|event| event.event == code));
        assert!(events.windows(2).all(|p| p[0].duration <= p[1].duration));
        let ends = events.iter().filter(|event| event.end);
        let ends: Vec<u16> = ends.map(|event| event.duration).collect();
        assert_eq!(ends, [duration; 3]);
    }
    for home in &mut homes {
        home.client.expect_no_event("dtmf", Duration::ZERO);
    }
}

/// What comes over a connection, in order, up to the first message that is `last`.
fn story(client: &mut Client, last: &str) -> Vec<(String, Value)> {
    let deadline = Instant::now() + SOON;
    let mut story: Vec<(String, Value)> = Vec::new();
    while story.last().is_none_or(|(name, _)| name != last) {
        let Some(Incoming::Json(message)) = client.receive(deadline) else {
            panic!("no {last} after {story:?}");
        };
        let name = message["event"].as_str().unwrap_or("answer").to_owned();
        let what = if name == "answer" { "result" } else { "data" };
        story.push((name, message[what].clone()));
    }
    story
}

fn start_recording(server: &Server, client: &mut Client, name: &str, extra: Value) -> Value {
    let mut params = extra;
    params["file_path"] = json!(server.recording_path(name));
    client.call("recording.start", params)["recording_id"].clone()
}

/// The party's packets in a recording.
fn recorded(server: &Server, name: &str, party: &Party) -> Vec<Rtp> {
    let capture = Capture::read(server.recording_path(name));
    let packets = capture.rtp().map(|(_, packet)| packet);
    packets.filter(|packet| packet.ssrc == party.ssrc).collect()
}

#[test]
fn its_own_recording_ends_with_its_stay_and_those_of_sessions_hold_their_part() {
    let server = server();
    let ((mut here, home), (mut there, target)) = (server.session(), server.session());
    let mut party = Party::join(&mut here);
    let endpoint = party.endpoint.clone();
    let own = json!({"endpoint_id": endpoint});
    let own = start_recording(&server, &mut here, "own.pcap", own);
    let all_here = start_recording(&server, &mut here, "here.pcap", json!({}));
    let all_there = start_recording(&server, &mut there, "there.pcap", json!({}));
    let first = party.talk(30);
    let params = json!({"endpoint_id": endpoint, "target_session_id": target});
    let request = json!({"id": "t", "method": "endpoint.transfer", "params": params});
    here.send_text(&request.to_string());
    let told = story(&mut here, "recording.stopped");
    let (names, data): (Vec<String>, Vec<Value>) = told.into_iter().unzip();
    assert_eq!(
        names,
        ["answer", "endpoint.transferred_out", "recording.stopped"]
    );
    assert_eq!((&data[0], &data[1]), (&params, &params));
    let stopped = &data[2];
    assert_eq!(stopped["recording_id"], own);
    assert_eq!(stopped["reason"], json!("endpoint_transferred"));
    assert_eq!(
        stopped["file_path"],
        json!(server.recording_path("own.pcap"))
    );
    let frames = Capture::read(server.recording_path("own.pcap")).frames;
    assert_eq!(stopped["packets"], json!(frames.len()));
    assert_eq!(stopped["dropped_packets"], json!(0));
    assert!(stopped["duration_ms"].as_u64().unwrap() >= 580);

    let told = story(&mut there, "endpoint.transferred_in");
    assert_eq!(told.len(), 1, "{told:?}");
    let arrived = json!({
        "endpoint_id": endpoint, "source_session_id": home,
        "endpoint_type": "rtp", "direction": "sendrecv", "state": "connected",
    });
    assert_eq!(told[0].1, arrived);

    let second = party.talk(30);
    for (client, left) in [(&mut here, &all_here), (&mut there, &all_there)] {
        let info = client.call("session.info", json!({}));
        let recordings = info["recordings"].as_array().unwrap();
        assert_eq!(recordings.len(), 1, "{recordings:?}");
        assert_eq!(recordings[0]["recording_id"], *left);
        client.call("recording.stop", json!({"recording_id": left}));
        client.expect_no_event("recording.stopped", Duration::from_millis(200));
    }
    assert_eq!(server.metric("rtpbridge_recordings_active"), 0.0);
    assert_eq!(recorded(&server, "own.pcap", &party), first);
    assert_eq!(recorded(&server, "here.pcap", &party), first);
    assert_eq!(recorded(&server, "there.pcap", &party), second);
}

/// What happens beside a transfer.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Beside {
    /// The target wants it removed.
    Removal,
    /// The target sends it back.
    Return,
    /// The target ends.
    EndOfTarget,
    /// The session that it leaves ends.
    EndOfSource,
}

/// A transfer and something else at about the same time; true when the transfer was first.
/// `after_us` is how much later than the other it is asked for.
fn race(server: &Server, beside: Beside, after_us: i64) -> bool {
    let ((mut here, home), (mut there, target)) = (server.session(), server.session());
    let party = Party::join(&mut here);
    let endpoint = json!(party.endpoint);
    let ask = |client: &mut Client, method: &str, params: Value| {
        let request = json!({"id": "x", "method": method, "params": params});
        client.send_text(&request.to_string());
    };
    let go = |client: &mut Client| {
        let params = json!({"endpoint_id": endpoint, "target_session_id": target});
        ask(client, "endpoint.transfer", params);
    };
    if after_us < 0 {
        go(&mut here);
    }
    let moment = Instant::now() + Duration::from_micros(after_us.unsigned_abs());
    let wait = || while Instant::now() < moment {};
    let mut kick = None;
    if after_us < 0 {
        wait();
    }
    match beside {
        Beside::Removal => ask(
            &mut there,
            "endpoint.remove",
            json!({"endpoint_id": endpoint}),
        ),
        Beside::Return => {
            let params = json!({"endpoint_id": endpoint, "target_session_id": home});
            ask(&mut there, "endpoint.transfer", params);
        }
        Beside::EndOfTarget => ask(&mut there, "session.destroy", json!({})),
        Beside::EndOfSource => {
            let mut command = server.command("rtpbridgectl");
            kick = Some(command.args(["kick", &home]).spawn().unwrap());
        }
    }
    if after_us >= 0 {
        wait();
        go(&mut here);
    }
    let moved = here.answer();
    let is_moved = moved["error"].is_null();
    let is_done = match kick {
        None => there.answer()["error"].is_null(),
        Some(mut kick) => kick.wait().unwrap().success(),
    };
    // Where it has to be: in which of the two, if both are there, or in none.
    let (is_first, expected) = match beside {
        Beside::Removal => (is_done, if is_done { [0, 0] } else { [0, 1] }),
        Beside::Return => (is_done, if is_done { [1, 0] } else { [0, 1] }),
        Beside::EndOfTarget => (is_moved, if is_moved { [0, 0] } else { [1, 0] }),
        Beside::EndOfSource => (is_moved, if is_moved { [0, 1] } else { [0, 0] }),
    };
    let mut left = Vec::new();
    match beside {
        Beside::EndOfTarget => left.push((here, expected[0])),
        Beside::EndOfSource => {
            here.expect_event("session.lost");
            left.push((there, expected[1]));
        }
        Beside::Removal | Beside::Return => {
            assert!(is_moved, "{moved}");
            left.extend([(here, expected[0]), (there, expected[1])]);
        }
    }
    expect_totals(server, expected.iter().sum());
    for (mut client, expected) in left {
        assert_eq!(
            listed(&mut client).len(),
            expected,
            "{beside:?} {after_us}: {moved}"
        );
        client.call("session.destroy", json!({}));
    }
    is_first
}

#[test]
fn whatever_else_happens_at_the_same_time_it_is_in_one_place_or_in_none() {
    let server = server();
    let idle = procfs::fd_count(server.dataplane_pid());
    let mut random = StdRng::seed_from_u64(21);
    for beside in [
        Beside::Removal,
        Beside::Return,
        Beside::EndOfTarget,
        Beside::EndOfSource,
    ] {
        // Asked for later when it was first and earlier when not, so that the two keep meeting; the
        // steps grow until the outcome changes.
        let (mut after_us, mut step_us, mut outcomes) = (0, 0, Vec::new());
        for _ in 0..40 {
            let is_first = race(&server, beside, after_us);
            step_us = match outcomes.last() == Some(&is_first) {
                true => 2 * step_us,
                false => random.random_range(10..100),
            };
            after_us += if is_first { step_us } else { -step_us };
            outcomes.push(is_first);
        }
        let first = outcomes.iter().filter(|first| **first).count();
        assert!((5..=35).contains(&first), "{beside:?}: {outcomes:?}");
    }
    eventually("every socket is closed", SOON, || {
        (procfs::fd_count(server.dataplane_pid()) <= idle).then_some(())
    });
}
