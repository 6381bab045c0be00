//! media: what many WebRTC endpoints hold is given back, they are where they shall be, and what
//! strangers send to their ports costs bounded work and leaves nothing behind.

use std::net::UdpSocket;
use std::time::Duration;

use nix::unistd::Pid;
use rtpbridge_tests::harness::ports::PortBlock;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server, procfs};
use rtpbridge_tests::peer::DtlsParty;
use rtpbridge_tests::peer::dtls::{binding_request, client_hello};
use rtpbridge_tests::peer::relay::Kind;
use serde_json::json;

const REJECTED_STUN: &str = "rtpbridge_packets_rejected_total{reason=\"stun\"}";
const REJECTED_SOURCE: &str = "rtpbridge_packets_rejected_total{reason=\"source\"}";
/// An address that is not this machine's.
const SHOWN: &str = "203.0.113.9";
/// Well above what the allocator does by itself, well below what would be kept.
const NOISE_KIB: u64 = 1024;

/// Descriptors and threads of a process.
fn holdings(pid: Pid) -> (usize, usize) {
    (procfs::fd_count(pid), procfs::thread_count(pid))
}

/// A call of two, in which each has heard the other.
fn call(server: &Server) -> (Client, [DtlsParty; 2]) {
    let (mut client, _) = server.session();
    let mut parties = [DtlsParty::join(&mut client), DtlsParty::join(&mut client)];
    for (talks, listens) in [(0, 1), (1, 0)] {
        let sent = parties[talks].send(&[talks as u8; 80]);
        let heard = parties[listens].receive(SOON).expect("is heard");
        assert_eq!(heard.payload, sent.payload);
    }
    (client, parties)
}

#[test]
fn descriptors_threads_and_memory_of_removed_endpoints_are_given_back() {
    const CALLS: usize = 15;
    let server = Server::start();
    let pid = server.dataplane_pid();
    let idle = holdings(pid);
    let mut memory_kib = Vec::new();
    for round in 0..5 {
        let calls: Vec<_> = (0..CALLS).map(|_| call(&server)).collect();
        let (descriptors, threads) = holdings(pid);
        assert_eq!(descriptors, idle.0 + 2 * CALLS, "a socket for each");
        assert_eq!(threads, idle.1, "and no thread");
        for (mut client, parties) in calls {
            // All the ways in which an endpoint goes.
            match round % 2 {
                0 => _ = client.call("session.destroy", json!({})),
                _ => {
                    for party in &parties {
                        let params = json!({"endpoint_id": party.endpoint});
                        client.call("endpoint.remove", params);
                    }
                }
            }
        }
        eventually("all is given back", SOON, || {
            (holdings(pid) == idle).then_some(())
        });
        memory_kib.push(procfs::pss_kib(pid));
    }
    // A handshake that stayed would hold some 29 KiB.
    let grown = memory_kib[4].saturating_sub(memory_kib[1]);
    assert!(grown < NOISE_KIB, "{memory_kib:?}");
}

#[test]
fn a_flood_of_hellos_and_checks_from_elsewhere_costs_no_state_and_no_packet_of_the_call() {
    const ROUNDS: usize = 500;
    let server = Server::start();
    let pid = server.dataplane_pid();
    let (mut client, [mut alice, mut bob]) = call(&server);
    let mut late = DtlsParty::bind();
    let answer = late.offer_into(&mut client);
    late.take_answer(&answer).unwrap();
    let targets = [alice.bridge, late.bridge];
    let (hello, check) = (client_hello(), binding_request("no:body", "guess").unwrap());
    assert_eq!(
        (Kind::of(&hello), Kind::of(&check)),
        (Kind::Dtls, Kind::Stun)
    );
    let strangers: Vec<UdpSocket> = (0..8)
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    let flood_round = || {
        for (stranger, target) in strangers.iter().flat_map(|s| targets.map(|t| (s, t))) {
            stranger.send_to(&hello, target).unwrap();
            stranger.send_to(&check, target).unwrap();
        }
    };
    let mut answered = Answered::default();
    flood_round();
    answered.take(&strangers, &check);
    let before = (holdings(pid), procfs::pss_kib(pid));
    let refused = [REJECTED_SOURCE, REJECTED_STUN].map(|name| server.metric(name));
    for round in 0..ROUNDS {
        flood_round();
        // Behind what the strangers sent to this port, and all the same in time and whole.
        let sent = alice.send(&(round as u32).to_be_bytes().repeat(20));
        let heard = bob.receive(SOON).expect("the call goes on");
        assert_eq!(heard.payload, sent.payload);
        answered.take(&strangers, &check);
    }
    let each = (ROUNDS * strangers.len() * targets.len()) as f64;
    eventually("all of it was refused and counted", SOON, || {
        let now = [REJECTED_SOURCE, REJECTED_STUN].map(|name| server.metric(name));
        (now[0] >= refused[0] + each && now[1] >= refused[1] + each).then_some(())
    });
    assert_eq!(holdings(pid), before.0);
    let grown = procfs::pss_kib(pid).saturating_sub(before.1);
    assert!(grown < NOISE_KIB, "{grown} KiB for strangers");
    assert!(answered.checks > 0, "they are told so");
    client.expect_no_event("endpoint.state_changed", Duration::from_millis(50));
    // The one they were for comes late, and is let in.
    late.connect(&answer).expect("connects");
    client.expect_event_where("endpoint.state_changed", |data| {
        data["endpoint_id"] == json!(late.endpoint) && data["new_state"] == json!("connected")
    });
}

/// What strangers got back: at most an error for a check, and never more than they sent.
#[derive(Default)]
struct Answered {
    checks: usize,
}

impl Answered {
    fn take(&mut self, strangers: &[UdpSocket], check: &[u8]) {
        let mut buffer = [0; 2048];
        for stranger in strangers {
            stranger.set_nonblocking(true).unwrap();
            while let Ok(length) = stranger.recv(&mut buffer) {
                assert_eq!(Kind::of(&buffer[..length]), Kind::Stun, "no handshake");
                assert!(length <= check.len(), "{length} bytes for {}", check.len());
                self.checks += 1;
            }
        }
    }
}

#[test]
fn the_configured_ports_and_the_address_to_show_are_kept_to() {
    let block = PortBlock::reserve(2);
    let (first, _) = block.media();
    let range = first..=first + 2;
    let server = Server::builder()
        .set("webrtc_port_range", format!("[{first}, {}]", first + 2))
        .set_text("media_advertise_ip", SHOWN)
        .start();
    let (mut client, _) = server.session();
    let mut parties = Vec::new();
    for _ in range.clone() {
        let mut party = DtlsParty::bind();
        let answer = party.offer_into(&mut client);
        let mut candidates = answer.lines().filter(|l| l.starts_with("a=candidate:"));
        let shown: Vec<&str> = candidates.next().expect("one").split(' ').collect();
        assert_eq!((shown[4], candidates.next()), (SHOWN, None), "{answer}");
        assert!(range.contains(&shown[5].parse().expect("a port")));
        // The translator on the way.
        party.connect(&answer.replace(SHOWN, "127.0.0.1")).unwrap();
        parties.push(party);
    }
    client.refuse(
        "endpoint.create_offer",
        json!({"type": "webrtc"}),
        "ENDPOINT_ERROR",
    );
    let params = json!({"endpoint_id": parties[1].endpoint});
    client.call("endpoint.remove", params);
    // Once its goodbye is out.
    eventually("its port is taken again", SOON, || {
        let offered = client.request("endpoint.create_offer", json!({"type": "webrtc"}));
        offered.is_ok().then_some(())
    });
    let sent = parties[0].send(&[1; 80]);
    let heard = parties[2].receive(SOON).expect("the others go on");
    assert_eq!(heard.payload, sent.payload);
}
