//! media: telephone-events, detected, forwarded and injected.

use std::time::{Duration, Instant};

use rtpbridge_tests::harness::Server;
use rtpbridge_tests::peer::rtp::TelephoneEvent;
use rtpbridge_tests::peer::{Offer, Party, Rtp};
use serde_json::{Value, json};

fn is_event(packet: &Rtp, payload_type: u8) -> Option<TelephoneEvent> {
    (packet.payload_type == payload_type)
        .then(|| TelephoneEvent::parse(&packet.payload).expect("four bytes"))
}

#[test]
fn a_digit_is_reported_once_at_its_end() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    for (event, digit) in [(5, "5"), (10, "*"), (11, "#"), (12, "A"), (15, "D")] {
        alice.press_at_once(101, event, 5);
        let reported = client.expect_event("dtmf");
        assert_eq!(
            reported,
            json!({"endpoint_id": alice.endpoint, "digit": digit, "duration_ms": 100, "sensitive": false})
        );
    }
    client.expect_no_event("dtmf", Duration::from_millis(400));
    assert_eq!(server.metric("rtpbridge_dtmf_events_total"), 5.0);
}

#[test]
fn a_lost_end_is_made_up_for() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let begin = |alice: &mut Party, event: u8, packets: u16| {
        let timestamp = alice.timestamp;
        for number in 1..=packets {
            let payload = TelephoneEvent {
                event,
                end: false,
                volume: 10,
                duration: 160 * number,
            };
            let packet = Rtp {
                marker: number == 1,
                payload_type: 101,
                timestamp,
                ..alice.next_packet(&payload.write())
            };
            alice.send_packet(&packet);
        }
        // Some audio's time before the next one: it is no further segment of a long event.
        alice.timestamp = alice.timestamp.wrapping_add(4000);
    };
    // The next event ends it at once …
    begin(&mut alice, 1, 3);
    begin(&mut alice, 1, 2);
    begin(&mut alice, 2, 4);
    let digits: Vec<(Value, Value)> = (0..3)
        .map(|_| client.expect_event("dtmf"))
        .map(|event| (event["digit"].clone(), event["duration_ms"].clone()))
        .collect();
    // … and silence ends the last one.
    assert_eq!(
        digits,
        [
            (json!("1"), json!(60)),
            (json!("1"), json!(40)),
            (json!("2"), json!(80))
        ]
    );
    client.expect_no_event("dtmf", Duration::from_millis(400));
}

#[test]
fn events_cross_with_the_listeners_payload_type_on_one_time_stamp() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let mut bob = Party::bind();
    let offer = Offer::with_codecs(
        bob.address(),
        &[(0, "PCMU/8000"), (96, "telephone-event/8000")],
    );
    bob.offer(&mut client, &offer, json!({}));
    alice.talk(3);
    let sent = alice.press(101, 7, 4);
    alice.talk(3);
    let heard = bob.receive_exactly(3 + sent.len() + 3);
    for pair in heard.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
    }
    let events: Vec<&Rtp> = heard
        .iter()
        .filter(|packet| packet.payload_type == 96)
        .collect();
    assert_eq!(events.len(), sent.len());
    assert!(events[0].marker);
    for (event, original) in events.iter().zip(&sent) {
        assert_eq!(event.timestamp, events[0].timestamp);
        assert_eq!(event.payload, original.payload);
    }
}

#[test]
fn an_injected_digit_is_paced_and_well_formed() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    alice.talk(5);
    client.call(
        "endpoint.dtmf.inject",
        json!({"endpoint_id": bob.endpoint, "digit": "b", "duration_ms": 200, "volume": 7}),
    );
    let start = Instant::now();
    alice.talk(30);
    let heard = bob.receive_all(Duration::from_millis(300));
    for pair in heard.windows(2) {
        assert_eq!(
            pair[1].sequence,
            pair[0].sequence.wrapping_add(1),
            "numbers run on"
        );
    }
    let first = heard
        .iter()
        .position(|packet| packet.payload_type == 101)
        .expect("an event");
    let last = heard
        .iter()
        .rposition(|packet| packet.payload_type == 101)
        .expect("an event");
    let events: Vec<TelephoneEvent> = heard[first..=last]
        .iter()
        .map(|packet| is_event(packet, 101).expect("audio pauses meanwhile"))
        .collect();
    assert!(heard[first].marker && heard[first + 1..=last].iter().all(|packet| !packet.marker));
    assert!(
        heard[first..=last]
            .iter()
            .all(|packet| packet.timestamp == heard[first].timestamp)
    );
    assert!(
        events
            .iter()
            .all(|event| event.event == 13 && event.volume == 7)
    );
    let durations: Vec<u16> = events.iter().map(|event| event.duration).collect();
    assert!(
        durations.windows(2).all(|pair| pair[0] <= pair[1]),
        "{durations:?}"
    );
    assert!(durations[0] <= 320, "{durations:?}");
    let ends: Vec<&TelephoneEvent> = events.iter().filter(|event| event.end).collect();
    assert_eq!(ends.len(), 3);
    assert!(ends.iter().all(|event| event.duration == 1600));
    // A packet every 20 ms for 200 ms, and the repeated end.
    assert!(
        (10..=13).contains(&events.len()),
        "{} packets",
        events.len()
    );
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(heard.len() > last + 5, "the audio comes back");
    client.expect_no_event("dtmf", Duration::from_millis(50));
}

#[test]
fn injections_queue_with_a_pause_between_them() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let bob = Party::join(&mut client);
    let digits = ["1", "2", "3"];
    for digit in digits {
        client.call(
            "endpoint.dtmf.inject",
            json!({"endpoint_id": bob.endpoint, "digit": digit, "duration_ms": 60}),
        );
    }
    let mut seen: Vec<(u8, u32)> = Vec::new();
    for packet in bob.receive_all(Duration::from_millis(500)) {
        let event = is_event(&packet, 101).expect("nobody speaks");
        assert_eq!(event.volume, 10);
        if seen
            .last()
            .is_none_or(|(_, timestamp)| *timestamp != packet.timestamp)
        {
            assert!(packet.marker);
            seen.push((event.event, packet.timestamp));
        }
    }
    let order: Vec<u8> = seen.iter().map(|(event, _)| *event).collect();
    assert_eq!(order, [1, 2, 3]);
    for pair in seen.windows(2) {
        let apart = pair[1].1.wrapping_sub(pair[0].1);
        assert!(
            apart >= (60 + 50) * 8,
            "60 ms of digit and 50 ms of pause: {apart} samples"
        );
    }
}

#[test]
fn the_queue_of_injections_has_an_end() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let bob = Party::join(&mut client);
    let params = json!({"endpoint_id": bob.endpoint, "digit": "1", "duration_ms": 10_000});
    let accepted = (0..50)
        .take_while(
            |_| match client.request("endpoint.dtmf.inject", params.clone()) {
                Ok(_) => true,
                Err(error) => {
                    assert_eq!(error.code, "ENDPOINT_ERROR", "{}", error.message);
                    false
                }
            },
        )
        .count();
    // 32 wait; the one that plays may count among them or not.
    assert!((32..=33).contains(&accepted), "{accepted}");
}

#[test]
fn injections_have_bounds() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let bob = Party::join(&mut client);
    for digit in ["", "12", "ab"] {
        let message = client.refuse(
            "endpoint.dtmf.inject",
            json!({"endpoint_id": bob.endpoint, "digit": digit}),
            "INVALID_PARAMS",
        );
        assert!(message.contains("exactly one character"), "{message}");
    }
    for extra in [
        json!({"digit": "x"}),
        json!({"digit": 5}),
        json!({}),
        json!({"digit": "1", "duration_ms": 0}),
        json!({"digit": "1", "duration_ms": 10_001}),
        json!({"digit": "1", "duration_ms": "long"}),
        json!({"digit": "1", "volume": 64}),
        json!({"digit": "1", "volume": -1}),
    ] {
        let mut params = extra.clone();
        params["endpoint_id"] = json!(bob.endpoint);
        client.refuse("endpoint.dtmf.inject", params, "INVALID_PARAMS");
    }
    let mut plain = Party::bind();
    let offer = Offer::with_codecs(plain.address(), &[(0, "PCMU/8000")]);
    plain.offer(&mut client, &offer, json!({}));
    client.refuse(
        "endpoint.dtmf.inject",
        json!({"endpoint_id": plain.endpoint, "digit": "1"}),
        "ENDPOINT_ERROR",
    );
}

#[test]
fn a_sensitive_endpoints_digits_are_marked_and_not_logged() {
    let server = Server::builder().set_text("log_level", "debug").start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    client.call(
        "endpoint.dtmf.set_sensitive",
        json!({"endpoint_id": alice.endpoint, "enabled": true}),
    );
    alice.press(101, 11, 3);
    let reported = client.expect_event("dtmf");
    assert_eq!(reported["sensitive"], json!(true));
    assert_eq!(reported["digit"], json!("#"));
    let logs = server.logs();
    let told = logs.lines().find(|line| {
        line.to_lowercase().contains("digit") && (line.contains("\"#\"") || line.contains("=#"))
    });
    assert_eq!(told, None);
}
