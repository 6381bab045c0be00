//! States, addresses and keys of WebRTC endpoints.

use rtpbridge_shared::ipc::recording::{RecordingStart, StreamDirection};
use rtpbridge_shared::vocab::{EndpointState, IceState};
use stun::message::{BINDING_ERROR, BINDING_SUCCESS};

use super::browser::{Browser, webrtc_config, webrtc_world};
use super::*;
use crate::rtcp::parse::{RtcpPacket, packets};
use crate::sdp::DtlsRole;

fn elsewhere(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], port))
}

/// The states that events told of, in order, and forgotten from now on.
fn take_states(world: &mut World) -> (Vec<IceState>, Vec<(EndpointState, EndpointState)>) {
    let (mut ice, mut endpoint) = (Vec::new(), Vec::new());
    for (event, is_held) in world.out.events.drain(..) {
        match event.event {
            Event::IceStateChanged { ice_state, .. } => ice.push(ice_state),
            Event::StateChanged {
                old_state,
                new_state,
                ..
            } => endpoint.push((old_state, new_state)),
            _ => continue,
        }
        assert!(is_held, "states must not get lost");
    }
    (ice, endpoint)
}

fn state(world: &World) -> EndpointState {
    world.session.details().endpoints[0].state
}

#[test]
fn nomination_starts_the_handshake_and_keys_connect() {
    let mut world = webrtc_world();
    let browser = Browser::offering(&mut world);
    let connecting = EndpointState::Connecting;
    assert_eq!(state(&world), connecting);
    browser.check(&mut world, browser.address);
    assert!(world.out.started.is_empty(), "nobody to say hello to yet");
    browser.nominate(&mut world, browser.address);
    let (socket, role, peer) = &world.out.started[0];
    assert_eq!((*socket, *role), (browser.socket, DtlsRole::Active));
    assert_eq!(peer[0].digest, [0xab; 32]);
    assert_eq!(state(&world), connecting);
    browser.take_keys(&mut world);
    browser.nominate(&mut world, browser.address);
    assert_eq!(world.out.started.len(), 1);
    let connected = EndpointState::Connected;
    let told = (vec![IceState::Connected], vec![(connecting, connected)]);
    assert_eq!(take_states(&mut world), told);
}

#[test]
fn fifteen_seconds_of_silence_disconnect_and_any_authentic_sign_reconnects() {
    let mut world = webrtc_world();
    let (connected, gone) = (EndpointState::Connected, EndpointState::Disconnected);
    let went = (vec![IceState::Disconnected], vec![(connected, gone)]);
    let came = (vec![IceState::Connected], vec![(gone, connected)]);
    let mut browser = Browser::connected(&mut world);
    take_states(&mut world);
    world.pass(14_999);
    assert_eq!(take_states(&mut world), (vec![], vec![]));
    world.pass(1);
    assert_eq!(take_states(&mut world), went);
    // Neither a forgery nor a packet from elsewhere is a sign.
    let mut forged = browser.next_packet();
    forged[20] ^= 1;
    world.receive_on(browser.key, Channel::Media, browser.address, &forged);
    browser.talk_from(&mut world, elsewhere(1));
    assert_eq!(take_states(&mut world), (vec![], vec![]));
    browser.talk(&mut world);
    assert_eq!(take_states(&mut world), came);
    world.pass(10_000);
    browser.check(&mut world, browser.address);
    world.pass(14_999);
    assert_eq!(take_states(&mut world), (vec![], vec![]));
    world.pass(1);
    assert_eq!(take_states(&mut world), went);
    browser.check(&mut world, browser.address);
    assert_eq!(take_states(&mut world), came);
}

#[test]
fn a_failed_handshake_or_a_goodbye_ends_it_for_good() {
    for is_connected in [false, true] {
        let mut world = webrtc_world();
        let mut browser = Browser::offering(&mut world);
        let mut party = world.join(PCMU, Direction::Sendrecv);
        browser.nominate(&mut world, browser.address);
        if is_connected {
            browser.take_keys(&mut world);
        }
        take_states(&mut world);
        world.handshake(&browser, HandshakeOutcome::Over);
        let (ice, endpoint) = take_states(&mut world);
        assert_eq!(ice, [IceState::Disconnected]);
        assert_eq!(endpoint[0].1, EndpointState::Disconnected);
        browser.nominate(&mut world, browser.address);
        browser.take_keys(&mut world);
        browser.talk(&mut world);
        world.talk(&mut party);
        assert!(world.take_rtp(&party).is_empty());
        assert!(browser.take_targets(&mut world).is_empty());
        assert_eq!(take_states(&mut world), (vec![], vec![]));
    }
}

#[test]
fn silence_of_a_connected_browser_is_reported_once() {
    let mut world = webrtc_world();
    let mut browser = Browser::connected(&mut world);
    let silences = |world: &World| {
        let is_silence = |event: &&Event| matches!(event, Event::MediaTimeout { .. });
        world.events().filter(is_silence).count()
    };
    world.pass(4_999);
    assert_eq!(silences(&world), 0);
    world.pass(3_000);
    assert_eq!(silences(&world), 1);
    browser.talk(&mut world);
    world.pass(5_000);
    assert_eq!(silences(&world), 2);
}

#[test]
fn media_crosses_between_a_browser_and_a_plain_party() {
    let mut world = webrtc_world();
    let mut browser = Browser::connected(&mut world);
    let mut party = world.join(PCMU, Direction::Sendrecv);
    for _ in 0..50 {
        browser.talk(&mut world);
        world.talk(&mut party);
        world.pass(20);
    }
    assert_eq!(world.take_rtp(&party).len(), 50);
    let heard = browser.take(&mut world);
    let media: Vec<_> = heard.iter().filter(|(_, control, _)| !control).collect();
    assert_eq!(media.len(), 50);
    assert!(media.len() < heard.len(), "reports go the same way");
    for (to, _, packet) in &heard {
        assert_eq!(*to, browser.address);
        assert!(packet[0] >> 6 == 2);
    }
    // The negotiated mid goes with every packet, under the browser's number for it.
    for (_, _, packet) in media {
        let header = RtpHeader::parse(packet).expect("RTP");
        assert_eq!(packet[12..18], [0xbe, 0xde, 0, 1, 4 << 4, b'0']);
        assert_eq!(header.payload.len(), 160);
    }
}

#[test]
fn only_checked_addresses_are_heard_and_only_the_nominated_one_is_sent_to() {
    let mut world = webrtc_world();
    let mut browser = Browser::connected(&mut world);
    let mut party = world.join(PCMU, Direction::Sendrecv);
    browser.talk_from(&mut world, elsewhere(1));
    assert!(world.take_rtp(&party).is_empty());
    assert_eq!(world.out.counters.rejected_source, 1);
    browser.check(&mut world, elsewhere(1));
    browser.talk_from(&mut world, elsewhere(1));
    assert_eq!(world.take_rtp(&party).len(), 1);
    world.talk(&mut party);
    assert_eq!(browser.take_targets(&mut world), [browser.address]);
    // The newest nomination moves it, and moves it back.
    for to in [elsewhere(1), elsewhere(2), browser.address] {
        browser.nominate(&mut world, to);
        world.talk(&mut party);
        assert_eq!(browser.take_targets(&mut world), [to]);
    }
}

#[test]
fn with_two_families_each_address_is_reached_over_its_own_socket() {
    let mut world = World::with(EngineConfig {
        media_ip: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        ..webrtc_config()
    });
    let mut browser = Browser::offering(&mut world);
    let mut party = world.join(PCMU, Direction::Sendrecv);
    let second = browser.second.expect("two sockets");
    let candidates = browser.sdp.lines().filter(|l| l.contains("a=candidate:"));
    let candidates: Vec<String> = candidates.map(str::to_owned).collect();
    let [ipv4, ipv6] = &candidates[..] else {
        panic!("{candidates:?}");
    };
    assert!(ipv4.contains(" 127.0.0.1 30002 ") && ipv6.contains(" ::1 30003 "));
    let priority = |line: &str| line.split(' ').nth(3)?.parse::<u32>().ok();
    assert!(priority(ipv4) > priority(ipv6), "preferred first");

    let local = |world: &World| world.session.details().endpoints[0].local_rtp_addr;
    let far = SocketAddr::from((Ipv6Addr::LOCALHOST, 5000));
    browser.nominate(&mut world, far);
    assert_eq!(local(&world), Some((Ipv6Addr::LOCALHOST, 30_003).into()));
    // The association is the endpoint's, whichever way its datagrams go.
    assert_eq!(world.out.started[0].0, browser.socket);
    let hello = [22, 0xfe, 0xfd, 0, 0];
    world.receive_on(browser.key, Channel::Second, far, &hello);
    assert_eq!(world.out.handshakes, [(browser.socket, hello.to_vec())]);
    world.handshake(&browser, HandshakeOutcome::Transmit(&[1, 2, 3]));
    let flight = world.out.sent.pop().expect("sent");
    assert_eq!((flight.socket, flight.to), (second, far));
    browser.take_keys(&mut world);
    for to in [far, browser.address, far] {
        browser.nominate(&mut world, to);
        browser.talk_from(&mut world, to);
        assert_eq!(world.take_rtp(&party).len(), 1);
        world.talk(&mut party);
        assert_eq!(browser.take_targets(&mut world), [to]);
    }
    let removed = world
        .session
        .remove_endpoint(world.now, browser.id, &mut world.out);
    let sockets = removed.expect("it is there").sockets.expect("two");
    let keys: Vec<_> = sockets.iter().map(|socket| socket.key).collect();
    assert_eq!(keys, [browser.socket, second]);
}

#[test]
fn a_browser_is_served_whatever_family_its_connection_line_names() {
    let mut world = World::with(EngineConfig {
        media_ip: vec![Ipv6Addr::LOCALHOST.into()],
        ..webrtc_config()
    });
    let browser = Browser::offering(&mut world);
    assert!(browser.second.is_none());
}

#[test]
fn handshake_datagrams_come_from_checked_addresses_and_go_to_the_last_of_them() {
    let mut world = webrtc_world();
    let browser = Browser::offering(&mut world);
    let hello = [22, 0xfe, 0xfd, 0, 0];
    let answer = HandshakeOutcome::Transmit(&[1, 2, 3]);
    world.handshake(&browser, answer);
    world.receive_on(browser.key, Channel::Media, elsewhere(1), &hello);
    assert!(world.out.sent.is_empty() && world.out.handshakes.is_empty());
    browser.check(&mut world, elsewhere(1));
    world.receive_on(browser.key, Channel::Media, elsewhere(1), &hello);
    assert_eq!(world.out.handshakes, [(browser.socket, hello.to_vec())]);
    world.handshake(&browser, HandshakeOutcome::Transmit(&[1, 2, 3]));
    assert_eq!(world.out.sent.pop().expect("sent").to, elsewhere(1));
    browser.nominate(&mut world, browser.address);
    browser.check(&mut world, elsewhere(1));
    world.handshake(&browser, HandshakeOutcome::Transmit(&[1, 2, 3]));
    assert_eq!(world.out.sent.pop().expect("sent").to, browser.address);
}

#[test]
fn nothing_is_heard_or_sent_before_the_keys() {
    let mut world = webrtc_world();
    let mut browser = Browser::offering(&mut world);
    let mut party = world.join(PCMU, Direction::Sendrecv);
    browser.nominate(&mut world, browser.address);
    browser.talk(&mut world);
    world.talk(&mut party);
    world.pass(3_000);
    assert!(world.take_rtp(&party).is_empty());
    assert!(browser.take(&mut world).is_empty());
}

#[test]
fn altered_and_repeated_packets_are_counted_and_unheard() {
    let mut world = webrtc_world();
    let mut browser = Browser::connected(&mut world);
    let party = world.join(PCMU, Direction::Sendrecv);
    let packet = browser.next_packet();
    // In the first byte a bit makes another protocol of it.
    for bit in 16..packet.len() * 8 {
        let mut altered = packet.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        world.receive_on(browser.key, Channel::Media, browser.address, &altered);
    }
    assert!(world.take_rtp(&party).is_empty());
    let altered = packet.len() as u64 * 8 - 16;
    assert_eq!(world.out.counters.srtp_errors, altered);
    for _ in 0..3 {
        world.receive_on(browser.key, Channel::Media, browser.address, &packet);
    }
    assert_eq!(world.take_rtp(&party).len(), 1);
    assert_eq!(world.out.counters.srtp_errors, altered + 2);
    browser.talk(&mut world);
    assert_eq!(world.take_rtp(&party).len(), 1);
}

#[test]
fn strangers_get_an_error_and_leave_nothing() {
    let mut world = webrtc_world();
    let mut browser = Browser::connected(&mut world);
    let mut party = world.join(PCMU, Direction::Sendrecv);
    let forged = browser.sdp.replace("a=ice-pwd:", "a=ice-pwd:x");
    for port in 1..200 {
        let answer = browser.check_with(&mut world, &forged, elsewhere(port), true);
        assert_eq!(answer.typ, BINDING_ERROR);
        browser.talk_from(&mut world, elsewhere(port));
    }
    assert_eq!(world.out.counters.rejected_stun, 199);
    assert_eq!(world.out.counters.rejected_source, 199);
    let sdp = browser.sdp.clone();
    let answer = browser.check_with(&mut world, &sdp, browser.address, false);
    assert_eq!(answer.typ, BINDING_SUCCESS);
    world.talk(&mut party);
    assert_eq!(browser.take_targets(&mut world), [browser.address]);
}

#[test]
fn a_recording_holds_the_browser_in_the_clear() {
    let mut world = webrtc_world();
    let mut browser = Browser::connected(&mut world);
    let mut party = world.join(PCMU, Direction::Sendrecv);
    let request = RecordingStart {
        session: world.session.id(),
        recording: rtpbridge_shared::id::RecordingId::from_bytes([1; 16]),
        endpoint: Some(browser.id),
        file_path: "/recordings/1.pcap".into(),
        record_outbound: true,
    };
    let (now, key) = (world.now, RecordingKey(1));
    world
        .session
        .start_recording(now, &request, key, &mut world.out)
        .expect("allowed");
    browser.talk(&mut world);
    world.talk(&mut party);
    let heard = world.take_rtp(&party);
    let sent = browser.take(&mut world);
    let recorded = |direction: StreamDirection| {
        let mut frames = world.out.recorded.iter();
        let frame = frames.find(|frame| frame.direction == direction);
        frame.expect("recorded").bytes.clone()
    };
    let said = recorded(StreamDirection::Inbound);
    assert_eq!(said[said.len() - 160..], heard[0].1);
    assert_eq!(recorded(StreamDirection::Outbound), sent[0].2);
}

#[test]
fn removal_says_goodbye_under_the_keys() {
    let mut world = webrtc_world();
    let mut browser = Browser::connected(&mut world);
    let mut party = world.join(PCMU, Direction::Sendrecv);
    world.talk(&mut party);
    browser.take(&mut world);
    let removed = world
        .session
        .remove_endpoint(world.now, browser.id, &mut world.out)
        .expect("it is there");
    assert_eq!(removed.sockets.expect("one").media.key, browser.socket);
    let goodbye = browser.take(&mut world);
    let (to, is_control, packet) = goodbye.last().expect("a goodbye");
    assert!(*is_control && *to == browser.address);
    let is_bye = |packet| matches!(packet, Ok(RtcpPacket::Goodbye { .. }));
    assert!(packets(packet).any(is_bye));
    // What is still on its way finds nobody.
    browser.talk(&mut world);
    browser.take_keys(&mut world);
    assert!(world.take_rtp(&party).is_empty());
}

#[test]
fn an_endpoint_that_moves_keeps_its_connection() {
    let mut world = webrtc_world();
    let mut browser = Browser::connected(&mut world);
    browser.talk(&mut world);
    let detached = world.session.detach(world.now, browser.id).expect("there");
    let mut other = webrtc_world();
    other.parties = 1;
    let mut party = other.join(PCMU, Direction::Sendrecv);
    let from = Some(world.session.id());
    let inserted = other
        .session
        .insert(other.now, detached, from, &mut other.out);
    browser.key = inserted.map_err(|(_, error)| error).expect("room");
    for _ in 0..10 {
        browser.talk(&mut other);
        other.talk(&mut party);
    }
    assert_eq!(other.take_rtp(&party).len(), 10);
    assert_eq!(browser.take_targets(&mut other), [browser.address; 10]);
}
