//! media: RTCP as sent and as understood, judged by tshark as well.

use std::fs::File;
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Server, tool};
use rtpbridge_tests::netem::Network;
use rtpbridge_tests::peer::rtcp::{ReportBlock, Rtcp};
use rtpbridge_tests::peer::{Offer, Party, Rtp};
use serde_json::json;

/// Writes datagrams as UDP in raw IPv4 (link type 101) from port 40001 to port 40003.
fn write_capture(path: &std::path::Path, datagrams: &[Vec<u8>]) {
    let header = PcapHeader {
        datalink: DataLink::RAW,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(File::create(path).unwrap(), header).unwrap();
    for (index, datagram) in (0_u64..).zip(datagrams) {
        let length = 28 + datagram.len();
        let mut packet = vec![0x45, 0];
        packet.extend((length as u16).to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(40_001_u16.to_be_bytes());
        packet.extend(40_003_u16.to_be_bytes());
        packet.extend((8 + datagram.len() as u16).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(datagram);
        let at = Duration::from_secs(index + 1);
        writer
            .write_packet(&PcapPacket::new(at, length as u32, &packet))
            .unwrap();
    }
}

#[test]
fn reports_say_what_was_sent_and_received_and_tshark_understands_them() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let mut bob = Party::join(&mut client);
    let mut datagrams = Vec::new();
    // Both talk until each has had a report about its own stream.
    let mut reported = false;
    let mut sent = 0;
    while !reported {
        assert!(sent < 800, "no report within 16 s of talking");
        alice.talk(10);
        bob.burst(10);
        sent += 10;
        while let Some(bytes) = bob.receive_rtcp_bytes(Duration::from_millis(1)) {
            let packets = Rtcp::parse_compound(&bytes).expect("compound");
            datagrams.push(bytes);
            let Some(Rtcp::SenderReport {
                ssrc,
                packets: count,
                octets,
                blocks,
                ..
            }) = packets.first()
            else {
                continue;
            };
            let heard = bob.receive_all(Duration::from_millis(20));
            assert!(heard.iter().all(|packet| packet.ssrc == *ssrc));
            assert!(*count <= sent as u32 && *octets == *count * 160);
            let Some(Rtcp::SourceDescription {
                ssrc: described,
                cname,
            }) = packets.get(1)
            else {
                panic!("a CNAME stands second: {packets:?}");
            };
            assert_eq!(described, ssrc);
            assert!(!cname.is_empty());
            if let Some(block) = blocks.first() {
                assert_eq!(block.ssrc, bob.ssrc);
                assert_eq!(block.cumulative_lost, 0);
                let low = block.highest_sequence as u16;
                assert!(bob.sequence.wrapping_sub(low) <= 10 * sent as u16);
                reported = true;
            }
        }
    }
    client.call("endpoint.remove", json!({"endpoint_id": bob.endpoint}));
    let mut goodbye = false;
    while let Some(bytes) = bob.receive_rtcp_bytes(Duration::from_millis(500)) {
        let packets = Rtcp::parse_compound(&bytes).expect("compound");
        goodbye |= packets
            .iter()
            .any(|packet| matches!(packet, Rtcp::Bye { .. }));
        datagrams.push(bytes);
    }
    assert!(goodbye, "removal says BYE");

    let capture = server.path("rtcp.pcap");
    write_capture(&capture, &datagrams);
    let capture = capture.to_string_lossy().into_owned();
    let rows = tool::run(
        "tshark",
        &[
            "-r",
            &capture,
            "-d",
            "udp.port==40003,rtcp",
            "-T",
            "fields",
            "-e",
            "rtcp.pt",
            "-e",
            "_ws.malformed",
            "-e",
            "rtcp.length_check",
        ],
    );
    let rows: Vec<&str> = rows.lines().collect();
    assert_eq!(rows.len(), datagrams.len());
    for row in &rows {
        let fields: Vec<&str> = row.split('\t').collect();
        assert!(fields[0].starts_with("20"), "{row}");
        assert_eq!(fields[1], "", "malformed: {row}");
        assert_ne!(fields[2], "0", "length check failed: {row}");
    }
    assert!(rows.last().unwrap().contains("203"));
}

#[test]
fn the_first_report_comes_within_a_second() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    alice.talk(2);
    // The deadline only says that it is not the usual five seconds.
    let report = alice
        .receive_rtcp(Duration::from_millis(2300))
        .expect("a report");
    match &report[0] {
        Rtcp::ReceiverReport { blocks, .. } | Rtcp::SenderReport { blocks, .. } => {
            assert_eq!(blocks[0].ssrc, alice.ssrc);
        }
        other => panic!("a report stands first: {other:?}"),
    }
}

#[test]
fn a_goodbye_is_passed_on_to_the_client() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    alice.burst(2);
    let report = Rtcp::ReceiverReport {
        ssrc: alice.ssrc,
        blocks: Vec::new(),
    };
    let bye = Rtcp::Bye {
        ssrcs: vec![alice.ssrc],
        reason: Some("hung up".to_owned()),
    };
    let goodbye = Rtcp::compound(&[report, bye]);
    alice.send_rtcp(&goodbye);
    let event = client.expect_event("endpoint.rtcp_bye");
    assert_eq!(
        event,
        json!({"endpoint_id": alice.endpoint, "ssrc_list": [alice.ssrc], "reason": "hung up"})
    );
    // Said again it is no news; of the party's next stream it is.
    alice.send_rtcp(&goodbye);
    client.expect_no_event("endpoint.rtcp_bye", Duration::from_millis(200));
    alice.ssrc = alice.ssrc.wrapping_add(1);
    alice.burst(2);
    let report = Rtcp::ReceiverReport {
        ssrc: alice.ssrc,
        blocks: Vec::new(),
    };
    let bye = Rtcp::Bye {
        ssrcs: vec![alice.ssrc],
        reason: None,
    };
    alice.send_rtcp(&Rtcp::compound(&[report, bye]));
    assert_eq!(
        client.expect_event("endpoint.rtcp_bye")["reason"],
        json!(null)
    );
    let info = client.call("session.info", json!({}));
    assert_eq!(info["endpoints"][0]["state"], json!("connected"));
}

#[test]
fn the_round_trip_is_measured_from_the_peers_answer() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let mut bob = Party::join(&mut client);
    bob.talk(3);
    alice.talk(3);
    let stats = client.call("stats.snapshot", json!({}));
    assert_eq!(stats["endpoints"][0]["rtt_ms"], json!(null));
    let (ssrc, ntp) = eventually("a sender report", SOON, || {
        bob.burst(1);
        alice
            .receive_rtcp(Duration::from_millis(20))?
            .iter()
            .find_map(|packet| match packet {
                Rtcp::SenderReport { ssrc, ntp, .. } => Some((*ssrc, *ntp)),
                _ => None,
            })
    });
    // An answer that says it was held for no time: all of the delay is the way.
    std::thread::sleep(Duration::from_millis(50));
    let block = ReportBlock {
        ssrc,
        last_report: (ntp >> 16) as u32,
        ..ReportBlock::default()
    };
    alice.send_rtcp(&Rtcp::compound(&[Rtcp::ReceiverReport {
        ssrc: alice.ssrc,
        blocks: vec![block],
    }]));
    let rtt = eventually("a round-trip time", SOON, || {
        let stats = client.call("stats.snapshot", json!({}));
        stats["endpoints"][0]["rtt_ms"].as_f64()
    });
    assert!((50.0..10_000.0).contains(&rtt), "{rtt} ms");
}

#[test]
fn loss_on_the_way_in_is_counted_exactly() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let packets: Vec<Rtp> = (0..400).map(|_| alice.next_packet(&[7; 160])).collect();
    let mut arriving = Network::lossy(99, 6.0, 3.0).carry(&packets[1..399]);
    arriving.insert(0, packets[0].clone());
    arriving.push(packets[399].clone());
    for (index, packet) in arriving.iter().enumerate() {
        alice.send_packet(packet);
        if index % 8 == 7 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let row = eventually("all have arrived", SOON, || {
        let stats = client.call("stats.snapshot", json!({}));
        let row = stats["endpoints"][0].clone();
        (row["inbound"]["packets"] == json!(arriving.len())).then_some(row)
    });
    assert_eq!(row["inbound"]["packets_lost"], json!(400 - arriving.len()));
    assert_eq!(row["inbound"]["bytes"], json!(arriving.len() * 160));
}

#[test]
fn multiplexed_and_signalled_rtcp_addresses_are_used() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let mut muxed = Party::bind();
    let offer = Offer::pcmu(muxed.address()).attribute("rtcp-mux");
    muxed.offer(&mut client, &offer, json!({}));
    assert!(muxed.description.audio().has("rtcp-mux"));
    let elsewhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut apart = Party::bind();
    let port = elsewhere.local_addr().unwrap().port();
    let offer = Offer::pcmu(apart.address()).attribute(&format!("rtcp:{port}"));
    apart.offer(&mut client, &offer, json!({}));
    assert!(
        !apart.description.audio().has("rtcp-mux"),
        "only what was offered is answered"
    );
    muxed.burst(2);
    apart.burst(2);
    let is_rtcp = |bytes: &[u8]| bytes.len() > 8 && (200..=204).contains(&bytes[1]);
    for socket in [muxed.socket(), &elsewhere] {
        eventually("a report", SOON, || {
            let deadline = std::time::Instant::now() + Duration::from_millis(100);
            let (bytes, _) = rtpbridge_tests::peer::party::receive_from(socket, deadline)?;
            is_rtcp(&bytes).then_some(())
        });
    }
}
