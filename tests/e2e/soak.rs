//! What only shows after a while: leaks.

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rtpbridge_tests::harness::procfs;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server, tool};
use rtpbridge_tests::peer::Party;
use rtpbridge_tests::peer::capture::Capture;
use serde_json::json;

const SESSIONS: usize = 1000;
const ROUNDS: usize = 10;
/// The round whose memory the last one's is compared with.
const REFERENCE_ROUND: usize = 2;
/// How much more that may be.
const GROWTH_MAX: f64 = 1.05;
const SETTLED_KIB: u64 = 64;
const SETTLING: Duration = Duration::from_secs(3);
/// Sessions whose packets are on the way at the same time.
const GROUP: usize = 50;

struct Call {
    client: Client,
    alice: Party,
    bob: Party,
}

fn set_up(server: &Server) -> Call {
    let (mut client, _) = server.session();
    let alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    Call { client, alice, bob }
}

fn carry_media(calls: &mut [Call]) {
    for group in calls.chunks_mut(GROUP) {
        for call in group.iter_mut() {
            call.alice.send(&[1; 160]);
            call.bob.send(&[2; 160]);
        }
        for call in group.iter_mut() {
            for (heard, party) in [(2, &call.alice), (1, &call.bob)] {
                assert_eq!(party.receive_exactly(1)[0].payload, [heard; 160]);
            }
        }
    }
}

/// Resident memory in KiB once what was just given up is gone: the same for longer than allocators
/// keep it.
fn settled_memory(pids: [Pid; 2]) -> [u64; 2] {
    let mut last = [0; 2];
    let mut since = Instant::now();
    eventually("the memory settles", 6 * SOON, || {
        let now = pids.map(procfs::rss_kib);
        // A page or two come and go with every heartbeat.
        let changed = now
            .iter()
            .zip(last)
            .any(|(now, last)| now.abs_diff(last) > SETTLED_KIB);
        if changed {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > SETTLING).then_some(now)
    })
}

/// Open descriptors once connections that were just closed are gone: unchanged for a while.
fn settled_descriptors(pids: [Pid; 2]) -> [usize; 2] {
    let mut last = [0; 2];
    let mut same = 0;
    eventually("the descriptors settle", 3 * SOON, || {
        let now = pids.map(procfs::fd_count);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        // 50 polls are half a second.
        (same > 50).then_some(now)
    })
}

#[test]
fn a_thousand_sessions_ten_times_over_leave_nothing_behind() {
    raise_descriptor_limit();
    let server = Server::builder()
        .set("max_connections", 0)
        .media_ports(u16::try_from(SESSIONS * 4).unwrap() + 200)
        .start();
    let pids = [server.control_pid(), server.dataplane_pid()];
    let before = settled_descriptors(pids);
    let mut resident = Vec::new();
    for round in 1..=ROUNDS {
        let mut calls: Vec<Call> = (0..SESSIONS).map(|_| set_up(&server)).collect();
        assert_eq!(server.metric("rtpbridge_sessions_active"), SESSIONS as f64);
        assert_eq!(
            server.metric("rtpbridge_endpoints_active"),
            2.0 * SESSIONS as f64
        );
        carry_media(&mut calls);
        for (index, call) in calls.iter_mut().enumerate() {
            if index % 2 == 0 {
                for party in [&call.alice, &call.bob] {
                    call.client
                        .call("endpoint.remove", json!({"endpoint_id": party.endpoint}));
                }
            }
            call.client.call("session.destroy", json!({}));
        }
        assert_eq!(server.metric("rtpbridge_sessions_active"), 0.0);
        assert_eq!(server.metric("rtpbridge_endpoints_active"), 0.0);
        drop(calls);
        assert_eq!(
            settled_descriptors(pids),
            before,
            "control's and the dataplane's"
        );
        if round == REFERENCE_ROUND || round == ROUNDS {
            resident.push(settled_memory(pids));
        }
    }
    println!("resident KiB of control and dataplane: {resident:?}");
    let total = ROUNDS * SESSIONS;
    assert_eq!(server.metric("rtpbridge_sessions_total"), total as f64);
    assert!(server.metric("rtpbridge_packets_routed_total") >= 2.0 * total as f64);
    let [reference, last] = resident[..] else {
        panic!("two rounds are measured: {resident:?}");
    };
    for (name, (early, late)) in ["control", "dataplane"]
        .iter()
        .zip(reference.iter().zip(last))
    {
        assert!(
            late as f64 <= *early as f64 * GROWTH_MAX,
            "{name} grew from {early} to {late} KiB"
        );
    }
    // Every port can be had again.
    let mut client = set_up(&server).client;
    client.expect_no_event("session.lost", Duration::from_millis(10));
}

fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// The bounds of what a crash may cost a recording, and what the test adds for being scheduled late.
const LOST_BYTES_MAX: usize = 8 * 1024;
const LOST_TIME_MAX: Duration = Duration::from_millis(200);
const SCHEDULING: Duration = Duration::from_millis(100);
const CRASHES: usize = 50;

#[test]
fn fifty_crashes_leave_fifty_readable_recordings() {
    let mut server = Server::start();
    for crash in 0..CRASHES {
        let (mut client, _) = server.session();
        let mut parties = [Party::join(&mut client), Party::join(&mut client)];
        let path = server.recording_path(&format!("{crash}.pcap"));
        client.call("recording.start", json!({"file_path": path}));
        let until = Instant::now() + Duration::from_millis(rand::random_range(50..700));
        let mut sent: Vec<(Instant, Vec<u8>)> = Vec::new();
        while Instant::now() < until {
            for party in &mut parties {
                let payload = party.distinct_frame();
                let packet = party.send(&payload);
                sent.push((Instant::now(), packet.write()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let killed = Instant::now();
        server.dataplane().kill();
        let capture = Capture::read(&path);
        tool::run("capinfos", &[&path]);
        let kept: Vec<Vec<u8>> = capture
            .rtp()
            .map(|(frame, _)| frame.payload.clone())
            .collect();
        let expected: Vec<Vec<u8>> = sent.iter().map(|(_, packet)| packet.clone()).collect();
        assert_eq!(kept, expected[..kept.len()], "crash {crash}");
        let lost = &sent[kept.len()..];
        let record_bytes = 16 + 42 + 172;
        assert!(
            lost.len() * record_bytes <= LOST_BYTES_MAX + record_bytes,
            "crash {crash}: {}",
            lost.len()
        );
        if let Some((at, _)) = lost.first() {
            let age = killed.duration_since(*at);
            assert!(
                age <= LOST_TIME_MAX + SCHEDULING,
                "crash {crash}: {age:?} lost"
            );
        }
        server.start_dataplane();
        client.expect_event("session.lost");
        server.wait_healthy();
    }
}
