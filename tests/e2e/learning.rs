//! media: symmetric RTP. Who may become the address that a party is sent to, and who may not: the
//! ranks (a) signalled address and port, (b) signalled address with another port, (c) any other.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::party::receive_from;
use rtpbridge_tests::peer::{Offer, Party, Rtp};
use serde_json::json;

const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const SIGNALLED: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const QUIET: Duration = Duration::from_millis(120);
/// The window after the first valid packet, and a little.
const WINDOW: Duration = Duration::from_millis(5300);

/// Somebody who sends valid RTP to a party's port from an address of their own.
struct Source {
    socket: UdpSocket,
    next: Rtp,
}

impl Source {
    fn at(ip: IpAddr) -> Self {
        let first = Rtp {
            sequence: rand::random(),
            timestamp: rand::random(),
            ssrc: rand::random(),
            payload: vec![0xee; 160],
            ..Rtp::default()
        };
        Self {
            socket: UdpSocket::bind((ip, 0)).unwrap(),
            next: first,
        }
    }

    /// Goes on with a stream that another address began.
    fn continuing(ip: IpAddr, party: &Party) -> Self {
        let mut source = Self::at(ip);
        source.next.ssrc = party.ssrc;
        source.next.sequence = party.sequence;
        source.next.timestamp = party.timestamp;
        source
    }

    fn send(&mut self, to: &Party, count: usize) {
        for _ in 0..count {
            self.socket.send_to(&self.next.write(), to.bridge).unwrap();
            self.next.sequence = self.next.sequence.wrapping_add(1);
            self.next.timestamp = self.next.timestamp.wrapping_add(160);
        }
    }

    /// RTP packets that reach this source until it is quiet.
    fn heard(&self) -> usize {
        let mut count = 0;
        while let Some((bytes, _)) = receive_from(&self.socket, Instant::now() + QUIET) {
            let rtcp = bytes
                .get(1)
                .is_some_and(|second| (200..=207).contains(second));
            count += usize::from(!rtcp);
        }
        count
    }
}

struct Call {
    server: Server,
    client: Client,
    alice: Party,
    bob: Party,
}

fn call() -> Call {
    call_with("any")
}

fn call_with(learning: &str) -> Call {
    let server = Server::builder().set_text("rtp_learning", learning).start();
    let (mut client, _) = server.session();
    let alice = Party::join(&mut client);
    let mut bob = Party::join(&mut client);
    // Bob's own address is settled.
    bob.burst(1);
    alice.receive_exactly(1);
    Call {
        server,
        client,
        alice,
        bob,
    }
}

impl Call {
    /// How many of this many packets of Bob reach Alice's signalled address and the other source.
    fn where_bob_is_heard(&mut self, other: &Source) -> (usize, usize) {
        self.bob.burst(4);
        let elsewhere = other.heard();
        (self.alice.receive_all(QUIET).len(), elsewhere)
    }

    fn heard_by_bob(&self) -> usize {
        self.bob.receive_all(QUIET).len()
    }
}

#[test]
fn rank_a_locks_at_once() {
    let mut call = call();
    call.alice.burst(1);
    assert_eq!(call.heard_by_bob(), 1);
    for ip in [SIGNALLED, ELSEWHERE] {
        let mut stranger = Source::at(ip);
        stranger.send(&call.alice, 20);
        assert_eq!(call.heard_by_bob(), 0, "{ip}");
        assert_eq!(call.where_bob_is_heard(&stranger), (4, 0), "{ip}");
    }
    let rejected = "rtpbridge_packets_rejected_total{reason=\"source\"}";
    assert_eq!(call.server.metric(rejected), 40.0);
}

#[test]
fn rank_b_needs_three_packets_in_sequence() {
    let mut call = call();
    let mut source = Source::at(SIGNALLED);
    source.send(&call.alice, 2);
    assert_eq!(call.heard_by_bob(), 0);
    assert_eq!(call.where_bob_is_heard(&source), (4, 0));
    // A gap begins the count anew.
    source.next.sequence = source.next.sequence.wrapping_add(10);
    source.send(&call.alice, 2);
    assert_eq!(call.heard_by_bob(), 0);
    // So does another SSRC.
    source.next.ssrc = source.next.ssrc.wrapping_add(1);
    source.send(&call.alice, 2);
    assert_eq!(call.heard_by_bob(), 0);
    source.send(&call.alice, 3);
    assert!(call.heard_by_bob() >= 2);
    assert_eq!(call.where_bob_is_heard(&source), (0, 4));
}

#[test]
fn rank_c_needs_five_packets_in_sequence() {
    let mut call = call();
    let mut source = Source::at(ELSEWHERE);
    source.send(&call.alice, 4);
    assert_eq!(call.heard_by_bob(), 0);
    assert_eq!(call.where_bob_is_heard(&source), (4, 0));
    source.send(&call.alice, 3);
    assert!(call.heard_by_bob() >= 2);
    assert_eq!(call.where_bob_is_heard(&source), (0, 4));
}

#[test]
fn rank_c_is_not_believed_soon_after_a_better_one() {
    let mut call = call();
    let mut better = Source::at(SIGNALLED);
    let mut stranger = Source::at(ELSEWHERE);
    better.send(&call.alice, 1);
    stranger.send(&call.alice, 20);
    assert_eq!(call.heard_by_bob(), 0);
    assert_eq!(call.where_bob_is_heard(&stranger), (4, 0));
    thread::sleep(Duration::from_millis(600));
    stranger.send(&call.alice, 8);
    assert!(
        call.heard_by_bob() > 0,
        "later it may be, when nobody better speaks"
    );
}

#[test]
fn a_better_rank_displaces_a_worse_one_within_the_window() {
    let mut call = call();
    let mut third = Source::at(ELSEWHERE);
    third.send(&call.alice, 6);
    assert!(call.heard_by_bob() > 0);
    assert_eq!(call.where_bob_is_heard(&third), (0, 4));
    let mut second = Source::at(SIGNALLED);
    second.send(&call.alice, 4);
    assert!(call.heard_by_bob() > 0);
    assert_eq!(call.where_bob_is_heard(&second), (0, 4));
    call.alice.burst(1);
    assert_eq!(call.heard_by_bob(), 1);
    assert_eq!(call.where_bob_is_heard(&second), (4, 0));
    // And never the other way round.
    third.send(&call.alice, 10);
    second.send(&call.alice, 10);
    assert_eq!(call.heard_by_bob(), 0);
    assert_eq!(call.where_bob_is_heard(&second), (4, 0));
}

#[test]
fn the_window_ends_and_the_address_stays() {
    let mut call = call();
    let mut source = Source::at(SIGNALLED);
    source.send(&call.alice, 4);
    assert!(call.heard_by_bob() > 0);
    let end = Instant::now() + WINDOW;
    while Instant::now() < end {
        source.send(&call.alice, 1);
        thread::sleep(Duration::from_millis(100));
    }
    call.bob.receive_all(QUIET);
    // Even the signalled address comes too late now: the party has been heard from its own.
    call.alice.burst(4);
    source.send(&call.alice, 1);
    assert_eq!(call.heard_by_bob(), 1);
    assert_eq!(call.where_bob_is_heard(&source), (0, 4));
}

#[test]
fn strangers_are_neither_heard_nor_sent_anything_while_the_party_speaks() {
    let mut call = call();
    let mut strangers = [
        Source::at(SIGNALLED),
        Source::at(ELSEWHERE),
        Source::at(ELSEWHERE),
    ];
    // The third one tries to continue the party's own stream.
    strangers[2] = Source::continuing(ELSEWHERE, &call.alice);
    // Before the party's first packet: fewer than would be believed.
    strangers[0].send(&call.alice, 2);
    strangers[1].send(&call.alice, 4);
    strangers[2].send(&call.alice, 4);
    let mut expected = Vec::new();
    let end = Instant::now() + WINDOW + Duration::from_secs(1);
    while Instant::now() < end {
        let payload = call.alice.distinct_frame();
        expected.push(call.alice.send(&payload).payload);
        for stranger in &mut strangers {
            stranger.send(&call.alice, 3);
        }
        let payload = call.bob.distinct_frame();
        call.bob.send(&payload);
        thread::sleep(Duration::from_millis(20));
    }
    let heard: Vec<Vec<u8>> = call
        .bob
        .receive_all(QUIET)
        .into_iter()
        .map(|packet| packet.payload)
        .collect();
    assert_eq!(heard, expected);
    for stranger in &strangers {
        assert_eq!(stranger.heard(), 0);
    }
    assert_eq!(call.alice.receive_all(QUIET).len(), expected.len());
}

#[test]
fn a_flood_from_before_the_partys_first_packet_ends_with_it() {
    let mut call = call();
    let mut strangers = [Source::at(SIGNALLED), Source::at(ELSEWHERE)];
    for _ in 0..10 {
        for stranger in &mut strangers {
            stranger.send(&call.alice, 10);
        }
    }
    // Nobody better spoke yet: one of them may be taken for the party.
    call.heard_by_bob();
    let payload = call.alice.distinct_frame();
    let first = call.alice.send(&payload).payload;
    let settled = |packet: &Rtp| packet.payload == first;
    assert!(call.bob.receive_all(QUIET).iter().any(settled));
    let mut expected = Vec::new();
    for _ in 0..25 {
        for stranger in &mut strangers {
            stranger.send(&call.alice, 10);
        }
        let payload = call.alice.distinct_frame();
        expected.push(call.alice.send(&payload).payload);
        let payload = call.bob.distinct_frame();
        call.bob.send(&payload);
        thread::sleep(Duration::from_millis(20));
    }
    let heard = call.bob.receive_all(QUIET).into_iter();
    let heard: Vec<Vec<u8>> = heard.map(|packet| packet.payload).collect();
    assert_eq!(heard, expected);
    assert!(strangers.iter().all(|stranger| stranger.heard() == 0));
    assert_eq!(call.alice.receive_all(QUIET).len(), expected.len());
}

#[test]
fn the_same_stream_from_a_new_address_moves_after_two_seconds_of_silence() {
    let mut call = call();
    call.alice.burst(10);
    assert_eq!(call.heard_by_bob(), 10);
    let mut rebound = Source::continuing(SIGNALLED, &call.alice);
    rebound.send(&call.alice, 10);
    assert_eq!(call.heard_by_bob(), 0, "too early");
    thread::sleep(WINDOW);
    let mut other = Source::at(SIGNALLED);
    other.send(&call.alice, 10);
    assert_eq!(call.heard_by_bob(), 0, "another SSRC is another stream");
    let mut rebound = Source::continuing(SIGNALLED, &call.alice);
    rebound.send(&call.alice, 10);
    assert!(call.heard_by_bob() >= 9);
    assert_eq!(call.where_bob_is_heard(&rebound), (0, 4));
}

#[test]
fn learning_can_be_restricted_or_off() {
    for (learning, second_rank) in [("sdp_ip", true), ("off", false)] {
        let mut call = call_with(learning);
        let mut third = Source::at(ELSEWHERE);
        third.send(&call.alice, 20);
        assert_eq!(call.heard_by_bob(), 0, "{learning}");
        let mut second = Source::at(SIGNALLED);
        second.send(&call.alice, 6);
        assert_eq!(call.heard_by_bob() > 0, second_rank, "{learning}");
        let expected = if second_rank { (0, 4) } else { (4, 0) };
        assert_eq!(call.where_bob_is_heard(&second), expected, "{learning}");
        call.alice.burst(2);
        assert_eq!(call.heard_by_bob(), 2, "{learning}");
    }
}

#[test]
fn a_reinvite_opens_the_window_again() {
    let mut call = call();
    call.alice.burst(3);
    assert_eq!(call.heard_by_bob(), 3);
    let mut behind_nat = Source::at(SIGNALLED);
    behind_nat.send(&call.alice, 10);
    assert_eq!(call.heard_by_bob(), 0);
    let moved = Party::bind();
    call.client.call(
        "endpoint.rtp.reinvite",
        json!({"endpoint_id": call.alice.endpoint, "sdp": Offer::pcmu(moved.address()).write()}),
    );
    behind_nat.send(&call.alice, 6);
    assert!(call.heard_by_bob() > 0);
    assert_eq!(call.where_bob_is_heard(&behind_nat), (0, 4));
}

#[test]
fn what_came_before_the_answer_does_not_count() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let bob = Party::join(&mut client);
    let mut alice = Party::bind();
    let offered = client.call(
        "endpoint.create_offer",
        json!({"type": "rtp", "codecs": ["pcmu"]}),
    );
    alice.endpoint = offered["endpoint_id"].as_str().unwrap().to_owned();
    alice.take_description(offered["sdp_offer"].as_str().unwrap());
    let mut stranger = Source::at(ELSEWHERE);
    stranger.send(&alice, 30);
    assert_eq!(bob.receive_all(QUIET).len(), 0);
    let answer = Offer::pcmu(alice.address()).write();
    client.call(
        "endpoint.accept_answer",
        json!({"endpoint_id": alice.endpoint, "sdp": answer}),
    );
    stranger.send(&alice, 4);
    assert_eq!(bob.receive_all(QUIET).len(), 0);
    alice.burst(2);
    assert_eq!(bob.receive_all(QUIET).len(), 2);
}
