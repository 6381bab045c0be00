use rtpbridge_shared::vocab::EndpointState;

use super::*;
use crate::rtcp::parse::{RtcpPacket, packets};

#[test]
fn what_one_says_the_other_hears_untouched_in_its_own_stream() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    let said: Vec<_> = (0..100)
        .map(|_| {
            let packet = one.next_packet();
            world.pass(20);
            world.receive(&one, &packet);
            packet[12..].to_vec()
        })
        .collect();
    let heard = world.take_rtp(&two);
    assert!(heard.iter().map(|(_, payload)| payload).eq(&said));
    let (first, _) = &heard[0];
    assert!(first.marker && first.ssrc != one.ssrc);
    for (n, (header, _)) in heard.iter().enumerate() {
        assert_eq!(header.ssrc, first.ssrc);
        assert_eq!(header.sequence, first.sequence.wrapping_add(n as u16));
        assert_eq!(
            header.timestamp,
            first.timestamp.wrapping_add(n as u32 * 160)
        );
        assert!(n == 0 || !header.marker);
    }
    assert!(world.take_rtp(&one).is_empty(), "nobody hears oneself");
    assert_eq!(world.out.counters.packets_routed, 100);
}

#[test]
fn packets_leave_from_the_endpoint_to_its_signalled_address() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    world.talk(&mut one);
    let sent = world.out.sent.last().expect("one packet");
    assert_eq!((sent.socket, sent.to), (two.socket, two.address));
}

#[test]
fn csrcs_extension_and_padding_are_not_passed_on() {
    let mut world = World::new();
    let (one, two) = world.pair();
    let mut packet = one.packet(0, false, &[]);
    packet[0] = 0xb1;
    packet.extend([0, 0, 0, 9, 0xbe, 0xde, 0, 1, 1, 2, 3, 4, 7, 8, 0, 2]);
    world.receive(&one, &packet);
    let sent = &world.out.sent[0];
    assert_eq!((sent.bytes[0], &sent.bytes[12..]), (0x80, &[7, 8][..]));
    assert_eq!(world.take_rtp(&two).len(), 1);
}

/// 5 % loss, 5 % reordering, 5 % duplicates, in both directions, for many seeds.
#[test]
fn loss_and_order_come_out_as_they_went_in() {
    for seed in 1..40 {
        let noise = &mut Seeded(seed);
        let mut world = World::new();
        let (mut one, two) = world.pair();
        let mut path: Vec<Vec<u8>> = Vec::new();
        for _ in 0..400 {
            let packet = one.next_packet();
            match noise.below(100) {
                0..5 => {}
                5..10 => {
                    let back = path.len().saturating_sub(noise.below(4) as usize);
                    path.insert(back, packet);
                }
                10..15 => path.extend([packet.clone(), packet]),
                _ => path.push(packet),
            }
        }
        for packet in &path {
            world.pass(noise.below(30));
            world.receive(&one, packet);
        }
        let theirs = |packet: &[u8]| u16::from_be_bytes([packet[0], packet[1]]);
        let mut expected: Vec<u16> = Vec::new();
        for packet in &path {
            let number = theirs(&packet[12..]);
            let first = *expected.first().unwrap_or(&number);
            if !expected.contains(&number) && number.wrapping_sub(first) < 1000 {
                expected.push(number);
            }
        }
        let heard = world.take_rtp(&two);
        let numbers: Vec<u16> = heard.iter().map(|(_, payload)| theirs(payload)).collect();
        assert_eq!(numbers, expected, "seed {seed}");
        let base = heard[0].0.sequence.wrapping_sub(numbers[0]);
        let time = heard[0].0.timestamp;
        for ((header, _), number) in heard.iter().zip(&numbers) {
            assert_eq!(header.sequence, number.wrapping_add(base));
            let ahead = u32::from(number.wrapping_sub(numbers[0])) * 160;
            assert_eq!(header.timestamp, time.wrapping_add(ahead));
        }
        let row = &world.session.stats_rows(world.now.at)[0];
        assert_eq!(row.inbound.packets, path.len() as u64);
    }
}

#[test]
fn another_ssrc_goes_on_in_the_same_stream_and_its_statistics_begin_anew() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    for _ in 0..5 {
        world.talk(&mut one);
        world.pass(20);
    }
    let straggler = one.packet(0, false, &[1; 160]);
    (one.ssrc, one.sequence, one.timestamp) = (99, 7, 5);
    for _ in 0..3 {
        world.talk(&mut one);
        world.pass(20);
    }
    world.receive(&one, &straggler);
    let heard = world.take_rtp(&two);
    assert_eq!(
        heard.len(),
        8,
        "the straggler of the old stream is not heard"
    );
    for (n, (header, _)) in heard.iter().enumerate() {
        assert_eq!(header.sequence, heard[0].0.sequence.wrapping_add(n as u16));
        assert_eq!(header.marker, n == 0 || n == 5);
        let elapsed = n as u32 * 160;
        assert_eq!(header.timestamp, heard[0].0.timestamp.wrapping_add(elapsed));
    }
    let row = &world.session.stats_rows(world.now.at)[0];
    assert_eq!((row.inbound.packets, row.inbound.packets_lost), (3, 0));
}

#[test]
fn a_muted_party_is_not_heard_and_comes_back_at_last_plus_one() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    world.talk(&mut one);
    world.set_direction(&one, Some(Direction::Recvonly));
    for _ in 0..10 {
        world.pass(20);
        world.talk(&mut one);
    }
    world.set_direction(&one, None);
    world.pass(20);
    world.talk(&mut one);
    let heard = world.take_rtp(&two);
    assert_eq!(heard.len(), 2);
    let [(before, _), (after, _)] = &heard[..] else {
        panic!("two packets");
    };
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    assert_eq!(after.timestamp, before.timestamp.wrapping_add(11 * 160));
}

#[test]
fn an_unknown_payload_type_is_dropped_and_is_no_loss() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    world.talk(&mut one);
    world.receive(&one.clone(), &one.packet(13, false, &[1]));
    one.step();
    world.talk(&mut one);
    let heard = world.take_rtp(&two);
    assert_eq!(heard[1].0.sequence, heard[0].0.sequence.wrapping_add(1));
    assert_eq!(world.out.counters.rejected_payload_type, 1);
    assert_eq!(
        world.session.stats_rows(world.now.at)[0]
            .inbound
            .packets_lost,
        0
    );
}

#[test]
fn several_listeners_of_one_talker_each_hear_it() {
    let mut world = World::new();
    let mut one = world.join(PCMU, Direction::Sendonly);
    let listeners: Vec<_> = (0..3)
        .map(|_| world.join(PCMU, Direction::Recvonly))
        .collect();
    world.talk(&mut one);
    for listener in &listeners {
        let heard = world.take_rtp(listener);
        assert_eq!(heard[0].1[..2], 65_500_u16.to_be_bytes());
    }
}

#[test]
fn hold_and_resume_keep_the_stream_continuous() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    world.talk(&mut one);
    let reinvite = |world: &mut World, direction| {
        let request = rtpbridge_shared::ipc::endpoint::RemoteOffer {
            session: world.session.id(),
            endpoint: two.id,
            sdp: offer(two.address, PCMU, direction),
        };
        let (now, out) = (world.now, &mut world.out);
        world
            .session
            .reinvite(now, &request, out)
            .expect("answered")
    };
    let answer = reinvite(&mut world, "inactive");
    assert!(answer.contains("a=inactive"), "{answer}");
    for _ in 0..5 {
        world.pass(20);
        world.talk(&mut one);
    }
    reinvite(&mut world, "sendrecv");
    world.pass(20);
    world.talk(&mut one);
    let heard = world.take_rtp(&two);
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[1].0.sequence, heard[0].0.sequence.wrapping_add(1));
}

#[test]
fn srtp_parties_hear_each_other_and_forgeries_are_counted() {
    use crate::srtp::{MasterKey, SrtpSuite, Unprotector};
    let mut world = World::new();
    let mut one = world.join(PCMU, Direction::Sendrecv);
    let key =
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd\r\n";
    let address = SocketAddr::from(([10, 0, 0, 9], 4000));
    let sdp = offer(address, "0", "sendrecv").replace("RTP/AVP", "RTP/SAVP") + key;
    let request = CreateFromOffer {
        session: world.session.id(),
        endpoint: EndpointId::from_bytes([9; 16]),
        sdp,
        direction: Direction::Sendrecv,
        transport: None,
    };
    let prepared = world.session.prepare_from_offer(&request).expect("usable");
    let (now, out) = (world.now, &mut world.out);
    let created = world
        .session
        .create_endpoint(now, prepared, sockets(9), out)
        .expect("room");
    world.talk(&mut one);
    let mut sent = world.out.sent.pop().expect("one packet").bytes;
    let inline = created.sdp.split("inline:").nth(1).expect("our key");
    let inline = inline.split(['|', '\r']).next().expect("base64");
    let key = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, inline);
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    let key = MasterKey::new(suite, &key.expect("base64")).expect("30 bytes");
    let len = Unprotector::new(&key).unprotect_rtp(world.now.at, &mut sent);
    assert_eq!(len, Ok(172));
    assert_eq!(sent[12..14], 65_500_u16.to_be_bytes());
    let forged = one.next_packet();
    world.receive_on(created.key, Channel::Media, address, &forged);
    assert_eq!(world.out.counters.srtp_errors, 1);
}

#[test]
fn reports_name_loss_and_go_to_the_control_port() {
    let mut world = World::new();
    let (mut one, two) = world.pair();
    for n in 0..100 {
        let packet = one.next_packet();
        if n % 10 != 5 {
            world.receive(&one, &packet);
        }
        world.pass(20);
    }
    world.pass(10_000);
    let reports: Vec<_> = world
        .out
        .sent
        .iter()
        .filter(|sent| sent.socket == SocketKey(one.socket.0 + 1))
        .collect();
    assert!((2..=5).contains(&reports.len()), "{}", reports.len());
    let control = SocketAddr::new(one.address.ip(), one.address.port() + 1);
    assert!(reports.iter().all(|report| report.to == control));
    let lost: Vec<_> = reports
        .iter()
        .filter_map(|report| match packets(&report.bytes).next()?.ok()? {
            RtcpPacket::ReceiverReport { reports, .. } => reports.iter().next(),
            _ => None,
        })
        .map(|block| block.cumulative_lost)
        .collect();
    assert_eq!(lost.last(), Some(&10));
    let sender = world
        .out
        .sent
        .iter()
        .any(|sent| sent.socket == SocketKey(two.socket.0 + 1) && sent.bytes[1] == 200);
    assert!(sender, "who is sent audio is sent sender reports");
}

#[test]
fn an_offer_of_ours_connects_with_its_answer_and_hears_nothing_before() {
    use rtpbridge_shared::ipc::endpoint::{AcceptAnswer, CreateOffer, SrtpOffer};
    use rtpbridge_shared::vocab::Transport;
    let mut world = World::new();
    let other = world.join(PCMU, Direction::Sendrecv);
    let request = CreateOffer {
        session: world.session.id(),
        endpoint: EndpointId::from_bytes([9; 16]),
        transport: Transport::Rtp,
        direction: Direction::Sendrecv,
        srtp: SrtpOffer::Off,
        codecs: Vec::new(),
    };
    let prepared = world.session.prepare_offer(&request).expect("fine");
    let (now, out) = (world.now, &mut world.out);
    let created = world
        .session
        .create_endpoint(now, prepared, sockets(9), out)
        .expect("room");
    let mut party = Party {
        id: request.endpoint,
        key: created.key,
        address: SocketAddr::from(([10, 0, 0, 9], 4000)),
        socket: SocketKey(18),
        ssrc: 9,
        sequence: 1,
        timestamp: 1,
    };
    world.talk(&mut party);
    assert_eq!(world.out.counters.packets_received, 0);
    world.pass(1000);
    let answer = AcceptAnswer {
        session: world.session.id(),
        endpoint: party.id,
        sdp: offer(party.address, PCMU, "sendrecv"),
        offer_generation: None,
        transport: None,
    };
    let (now, out) = (world.now, &mut world.out);
    world
        .session
        .accept_answer(now, &answer, out)
        .expect("fits");
    let again = world.session.accept_answer(now, &answer, &mut world.out);
    assert!(again.is_err(), "there is no second answer");
    assert!(world.events().any(|event| *event
        == Event::StateChanged {
            endpoint: party.id,
            old_state: EndpointState::Connecting,
            new_state: EndpointState::Connected,
        }));
    // What the kernel had before the answer does not count, even now.
    let stale = party.next_packet();
    world.buffer.space()[..stale.len()].copy_from_slice(&stale);
    world.buffer.set_len(stale.len());
    let arrival = Moment {
        at: world.now.at,
        wall: WallTime::from_nanos(world.now.wall.as_nanos() - 1),
    };
    let (media, from) = (Channel::Media, party.address);
    let (buffer, out) = (&mut world.buffer, &mut world.out);
    world
        .session
        .handle_packet(arrival, party.key, media, from, buffer, out);
    assert!(world.take_rtp(&other).is_empty());
    world.talk(&mut party);
    assert_eq!(world.take_rtp(&other).len(), 1);
}

#[test]
fn who_must_speak_first_is_sent_nothing_before() {
    let mut world = World::with(EngineConfig {
        rtp_wait_for_inbound: true,
        ..EngineConfig::default()
    });
    let (mut one, mut two) = world.pair();
    world.talk(&mut one);
    assert!(world.take_rtp(&two).is_empty());
    world.talk(&mut two);
    world.talk(&mut one);
    assert_eq!(world.take_rtp(&two).len(), 1);
}
