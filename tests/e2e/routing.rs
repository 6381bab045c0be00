//! media: who hears whom, and the one continuous stream that each party gets.

use std::time::Duration;

use rtpbridge_tests::harness::Server;
use rtpbridge_tests::harness::wait::SOON;
use rtpbridge_tests::netem::Network;
use rtpbridge_tests::peer::{Offer, Party, Rtp, Wiretap};
use serde_json::json;

fn payloads(packets: &[Rtp]) -> Vec<&[u8]> {
    packets
        .iter()
        .map(|packet| packet.payload.as_slice())
        .collect()
}

fn assert_continuous(packets: &[Rtp]) {
    for pair in packets.windows(2) {
        assert_eq!(
            pair[1].sequence,
            pair[0].sequence.wrapping_add(1),
            "{pair:?}"
        );
        assert_eq!(pair[1].ssrc, pair[0].ssrc);
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!(step < 0x8000_0000, "time stamps never decrease: {pair:?}");
    }
}

#[test]
fn the_payload_crosses_untouched_in_both_directions() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let mut bob = Party::accept(&mut client, json!({}));
    let from_alice = alice.talk(50);
    let from_bob = bob.talk(50);
    for (sent, heard, listener) in [
        (&from_alice, bob.receive_exactly(50), &bob),
        (&from_bob, alice.receive_exactly(50), &alice),
    ] {
        assert_eq!(payloads(sent), payloads(&heard));
        assert_continuous(&heard);
        assert!(heard[0].marker, "the first packet of a source is marked");
        assert!(heard[1..].iter().all(|packet| !packet.marker));
        assert!(heard.iter().all(|packet| packet.payload_type == 0));
        assert_ne!(heard[0].ssrc, listener.ssrc);
        assert_ne!(
            heard[0].ssrc, sent[0].ssrc,
            "every endpoint has an SSRC of its own"
        );
        for (pair, original) in heard.windows(2).zip(sent.windows(2)) {
            assert_eq!(
                pair[1].timestamp.wrapping_sub(pair[0].timestamp),
                original[1].timestamp.wrapping_sub(original[0].timestamp)
            );
        }
    }
    assert_eq!(server.metric("rtpbridge_packets_routed_total"), 100.0);
}

#[test]
fn payload_types_are_each_partys_own() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::bind();
    let offer = Offer::with_codecs(alice.address(), &[(96, "PCMA/8000")]);
    alice.offer(&mut client, &offer, json!({}));
    alice.payload_type = 96;
    let mut bob = Party::bind();
    let offer = Offer::with_codecs(bob.address(), &[(8, "PCMA/8000")]);
    bob.offer(&mut client, &offer, json!({}));
    bob.payload_type = 8;
    alice.talk(3);
    assert!(
        bob.receive_exactly(3)
            .iter()
            .all(|packet| packet.payload_type == 8)
    );
    bob.talk(3);
    assert!(
        alice
            .receive_exactly(3)
            .iter()
            .all(|packet| packet.payload_type == 96)
    );
}

#[test]
fn loss_and_reordering_stay_visible() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let mut sent = alice.burst(5);
    let rest: Vec<Rtp> = (0..600)
        .map(|_| {
            let payload = alice.distinct_frame();
            alice.next_packet(&payload)
        })
        .collect();
    let arriving = Network::lossy(20_260, 5.0, 4.0).carry(&rest);
    assert!(arriving.len() < rest.len());
    for (index, packet) in arriving.iter().enumerate() {
        alice.send_packet(packet);
        if index % 8 == 7 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    sent.extend(arriving);
    let heard = bob.receive_all(Duration::from_millis(500));
    assert_eq!(
        payloads(&heard),
        payloads(&sent),
        "nothing invented, nothing hidden"
    );
    let base = heard[0].sequence.wrapping_sub(sent[0].sequence);
    let clock = heard[0].timestamp.wrapping_sub(sent[0].timestamp);
    for (heard, sent) in heard.iter().zip(&sent) {
        assert_eq!(heard.sequence.wrapping_sub(sent.sequence), base);
        assert_eq!(heard.timestamp.wrapping_sub(sent.timestamp), clock);
    }
}

#[test]
fn directions_decide_who_hears_whom() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let mut bob = Party::join(&mut client);
    alice.burst(1);
    bob.receive_exactly(1);
    bob.burst(1);
    alice.receive_exactly(1);
    for (direction, speaks, hears) in [
        ("sendonly", true, false),
        ("recvonly", false, true),
        ("inactive", false, false),
        ("auto", true, true),
        ("sendrecv", true, true),
    ] {
        client.call(
            "endpoint.update_direction",
            json!({"endpoint_id": alice.endpoint, "direction": direction}),
        );
        alice.burst(4);
        bob.burst(4);
        // Both bursts are in; what is to come comes now.
        let heard_by_bob = bob.receive_all(Duration::from_millis(150)).len();
        let heard_by_alice = alice.receive_all(Duration::from_millis(150)).len();
        assert_eq!(heard_by_bob, if speaks { 4 } else { 0 }, "{direction}");
        assert_eq!(heard_by_alice, if hears { 4 } else { 0 }, "{direction}");
    }
    client.refuse(
        "endpoint.update_direction",
        json!({"endpoint_id": alice.endpoint, "direction": "up"}),
        "INVALID_PARAMS",
    );
}

#[test]
fn what_is_withheld_on_purpose_is_no_loss() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    alice.talk(5);
    for direction in ["inactive", "auto"] {
        client.call(
            "endpoint.update_direction",
            json!({"endpoint_id": alice.endpoint, "direction": direction}),
        );
        alice.talk(5);
    }
    let heard = bob.receive_exactly(10);
    assert_continuous(&heard);
    let muted = heard[5].timestamp.wrapping_sub(heard[4].timestamp);
    assert!(muted >= 5 * 160, "the pause is in the time stamps: {muted}");
    bob.expect_silence(Duration::from_millis(50));
}

#[test]
fn a_new_source_continues_the_stream() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    alice.talk(5);
    // The same party with another SSRC, sequence and clock.
    alice.ssrc = alice.ssrc.wrapping_add(77);
    alice.sequence = alice.sequence.wrapping_add(20_000);
    alice.timestamp = alice.timestamp.wrapping_sub(1_000_000);
    alice.talk(5);
    client.call("endpoint.remove", json!({"endpoint_id": alice.endpoint}));
    let mut carol = Party::join(&mut client);
    carol.talk(5);
    let heard = bob.receive_exactly(15);
    assert_continuous(&heard);
    let marked: Vec<usize> = (0..15).filter(|index| heard[*index].marker).collect();
    assert_eq!(marked, [0, 5, 10]);
}

#[test]
fn sequence_numbers_and_time_stamps_wrap() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    alice.sequence = 0xfff0;
    alice.timestamp = 0xffff_f800;
    let bob = Party::join(&mut client);
    let sent = alice.burst(64);
    let heard = bob.receive_exactly(64);
    assert_eq!(payloads(&sent), payloads(&heard));
    assert_continuous(&heard);
}

#[test]
fn header_extensions_csrcs_and_padding_do_not_disturb_the_payload() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let frame = alice.distinct_frame();
    let mut sent = Vec::new();
    for shape in 0..4_u8 {
        let packet = Rtp {
            csrc: vec![1, 2, 3][..usize::from(shape)].to_vec(),
            extension: (shape > 1).then(|| (0xbede, vec![0x10, 1, 0, 0])),
            padding: if shape == 3 { 8 } else { 0 },
            ..alice.next_packet(&frame)
        };
        alice.send_packet(&packet);
        sent.push(packet);
    }
    let heard = bob.receive_exactly(4);
    assert_eq!(payloads(&heard), payloads(&sent));
    assert!(heard.iter().all(|packet| packet.csrc.is_empty()));
}

#[test]
fn malformed_and_unknown_packets_are_dropped_and_counted() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    alice.burst(1);
    bob.receive_exactly(1);
    let good = alice.next_packet(&[1; 160]).write();
    let mut version = good.clone();
    version[0] = 0x40;
    let mut sources = good[..14].to_vec();
    sources[0] = 0x8f;
    let mut padding = good.clone();
    padding[0] |= 0x20;
    *padding.last_mut().unwrap() = 255;
    let mut extension = good[..20].to_vec();
    extension[0] |= 0x10;
    extension[14] = 0xff;
    let malformed = [version, sources, padding, extension, good[..11].to_vec()];
    for bytes in &malformed {
        alice.send_bytes(bytes);
    }
    let unknown = Rtp {
        payload_type: 77,
        ..alice.next_packet(&[1; 160])
    };
    alice.send_packet(&unknown);
    alice.burst(1);
    let heard = bob.receive_exactly(1);
    assert_eq!(heard[0].payload_type, 0);
    bob.expect_silence(Duration::from_millis(100));
    let rejected = |reason: &str| {
        server.metric(&format!(
            "rtpbridge_packets_rejected_total{{reason=\"{reason}\"}}"
        ))
    };
    assert_eq!(rejected("malformed"), malformed.len() as f64);
    assert_eq!(rejected("payload_type"), 1.0);
}

#[test]
fn waiting_for_inbound_holds_back_until_the_peer_was_heard() {
    let server = Server::builder().set("rtp_wait_for_inbound", true).start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let mut bob = Party::join(&mut client);
    alice.burst(4);
    bob.expect_silence(Duration::from_millis(150));
    bob.burst(1);
    alice.receive_exactly(1);
    alice.burst(4);
    assert_continuous(&bob.receive_exactly(4));
}

#[test]
fn what_is_sent_asks_for_expedited_forwarding_unless_configured_otherwise() {
    for (configured, expected) in [(None, 46), (Some(10), 10)] {
        let builder = configured
            .into_iter()
            .fold(Server::builder(), |builder, dscp: u8| {
                builder.set("media_dscp", dscp)
            });
        let server = builder.start();
        let (mut client, _) = server.session();
        let mut alice = Party::join(&mut client);
        let bob = Party::join(&mut client);
        let rtcp = bob.rtcp_address();
        let tap = Wiretap::start(vec![bob.address().port(), rtcp.port()]);
        alice.burst(5);
        bob.receive_exactly(5);
        bob.receive_rtcp(SOON).expect("a report");
        let heard = tap.finish();
        assert!(heard.len() > 5, "{heard:?}");
        let as_asked = heard.iter().all(|datagram| datagram.dscp == expected);
        assert!(as_asked, "{expected}: {heard:?}");
    }
}
