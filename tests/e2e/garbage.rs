//! Garbage on every input: nothing crashes or hangs, and nobody else notices.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rtpbridge_shared::ipc::frame;
use rtpbridge_shared::ipc::message::{Request, ToControl, ToDataplane};
use rtpbridge_tests::harness::client::Incoming;
use rtpbridge_tests::harness::http;
use rtpbridge_tests::harness::ipc::Link;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::{Offer, Party};
use serde_json::json;
use tungstenite::Message;

/// What damaged requests may be answered with.
const CODES: [&str; 6] = [
    "PARSE_ERROR",
    "INVALID_REQUEST",
    "UNKNOWN_METHOD",
    "INVALID_PARAMS",
    "ENDPOINT_ERROR",
    "RECORDING_ERROR",
];

/// A call that must not notice anything, and the processes that must stay the same.
struct Bystander {
    server: Server,
    client: Client,
    alice: Party,
    bob: Party,
    pids: [nix::unistd::Pid; 2],
}

impl Bystander {
    fn start() -> Self {
        let server = Server::start();
        let (mut client, _) = server.session();
        let mut alice = Party::join(&mut client);
        let bob = Party::join(&mut client);
        alice.burst(1);
        bob.receive_exactly(1);
        let pids = [server.control_pid(), server.dataplane_pid()];
        Self {
            server,
            client,
            alice,
            bob,
            pids,
        }
    }

    fn assert_unharmed(mut self) {
        let sent = self.alice.talk(10);
        let heard = self.bob.receive_exactly(10);
        assert!(
            sent.iter()
                .zip(&heard)
                .all(|(sent, heard)| sent.payload == heard.payload)
        );
        self.client.call("stats.snapshot", json!({}));
        assert_eq!(self.server.get("/health").status, 200);
        assert!(
            self.server.control().try_wait().is_none(),
            "control still runs"
        );
        assert!(
            self.server.dataplane().try_wait().is_none(),
            "the dataplane still runs"
        );
        assert_eq!(
            [self.server.control_pid(), self.server.dataplane_pid()],
            self.pids
        );
        let logs = self.server.logs();
        let panic = logs.lines().find(|line| line.contains("panicked"));
        assert_eq!(panic, None);
    }
}

/// Random changes to something valid, or nothing but noise.
fn damaged(dice: &mut StdRng, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    match dice.random_range(0..5) {
        0 => {
            bytes = vec![0; dice.random_range(0..1500)];
            dice.fill_bytes(&mut bytes);
        }
        1 => bytes.truncate(dice.random_range(0..=good.len())),
        2 => {
            let at = dice.random_range(0..=bytes.len());
            let mut noise = vec![0; dice.random_range(0..40)];
            dice.fill_bytes(&mut noise);
            bytes.splice(at..at, noise);
        }
        _ => {
            for _ in 0..dice.random_range(1..12) {
                let at = dice.random_range(0..bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = dice.random();
                }
            }
        }
    }
    bytes
}

#[test]
fn on_the_websocket() {
    let bystander = Bystander::start();
    let mut dice = StdRng::seed_from_u64(1);
    let (mut client, _) = bystander.server.session();
    let requests = [
        json!({"id": "1", "method": "endpoint.create_from_offer", "params": {"sdp": "v=0"}}),
        json!({"id": "1", "method": "endpoint.dtmf.inject", "params": {"endpoint_id": "x", "digit": "1"}}),
        json!({"id": "1", "method": "recording.start", "params": {"file_path": "/x"}}),
        json!({"id": "1", "method": "stats.subscribe", "params": {"interval_ms": 1e300}}),
    ];
    let mut answered = HashSet::new();
    for round in 0..600 {
        let good = requests[round % requests.len()].to_string();
        let bytes = damaged(&mut dice, good.as_bytes());
        client.send_text(&String::from_utf8_lossy(&bytes));
        let answer = client.answer();
        let code = answer["error"]["code"].as_str();
        let specified = code.is_none_or(|code| CODES.contains(&code));
        assert!(specified, "{answer} to {}", String::from_utf8_lossy(&bytes));
        assert_ne!(answer.get("result").is_some(), code.is_some(), "{answer}");
        answered.insert(code.map(ToOwned::to_owned));
    }
    for code in ["PARSE_ERROR", "UNKNOWN_METHOD", "INVALID_PARAMS"] {
        assert!(answered.contains(&Some(code.to_owned())), "{answered:?}");
    }
    // Frames that break the framing itself.
    for _ in 0..40 {
        let client = bystander.server.client();
        let mut noise = vec![0; dice.random_range(1..400)];
        dice.fill_bytes(&mut noise);
        let _ = client.stream().write_all(&noise);
    }
    let mut client = bystander.server.client();
    let _ = client.try_send(Message::Ping(vec![1; 125].into()));
    client.call("server.info", json!({}));
    bystander.assert_unharmed();
}

#[test]
fn on_http() {
    let bystander = Bystander::start();
    let mut dice = StdRng::seed_from_u64(2);
    let to = bystander.server.address();
    let good = format!("GET /sessions HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    for _ in 0..200 {
        let bytes = damaged(&mut dice, good.as_bytes());
        if let Ok(mut stream) = TcpStream::connect(to) {
            let _ = stream.write_all(&bytes);
        }
    }
    for path in [
        "/%",
        "/%00",
        "/sessions/%2e%2e",
        "/recordings?limit=x",
        "/recordings?skip=-1",
    ] {
        let status = http::get(to, path).status;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
    let long = format!("/{}", "a".repeat(200_000));
    let refused = http::try_request(to, "GET", &long, &[]);
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status >= 400));
    bystander.assert_unharmed();
}

#[test]
fn in_descriptions() {
    let bystander = Bystander::start();
    let mut dice = StdRng::seed_from_u64(3);
    let (mut client, _) = bystander.server.session();
    let good = Offer::with_codecs(
        ([127, 0, 0, 1], 40_000).into(),
        &[
            (0, "PCMU/8000"),
            (111, "opus/48000/2"),
            (101, "telephone-event/8000"),
        ],
    )
    .attribute("rtcp:40001")
    .attribute("crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz")
    .attribute("ptime:20")
    .write();
    let offered = client.call("endpoint.create_offer", json!({"type": "rtp"}));
    for _ in 0..400 {
        let bytes = damaged(&mut dice, good.as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        match client.request("endpoint.create_from_offer", json!({"sdp": text})) {
            Ok(created) => {
                let id = created["endpoint_id"].clone();
                client.call("endpoint.remove", json!({"endpoint_id": id}));
            }
            Err(error) => assert!(
                ["ENDPOINT_ERROR", "INVALID_PARAMS"].contains(&error.code.as_str()),
                "{error:?} for {text}"
            ),
        }
        let _ = client.request(
            "endpoint.accept_answer",
            json!({"endpoint_id": offered["endpoint_id"], "sdp": text}),
        );
    }
    bystander.assert_unharmed();
}

#[test]
fn on_the_media_ports() {
    let bystander = Bystander::start();
    let mut dice = StdRng::seed_from_u64(4);
    let (mut client, _) = bystander.server.session();
    let mut target = Party::join(&mut client);
    let other = Party::join(&mut client);
    let rtcp: Vec<u8> = rtpbridge_tests::peer::rtcp::Rtcp::compound(&[
        rtpbridge_tests::peer::rtcp::Rtcp::ReceiverReport {
            ssrc: 1,
            blocks: vec![rtpbridge_tests::peer::rtcp::ReportBlock::default()],
        },
        rtpbridge_tests::peer::rtcp::Rtcp::Bye {
            ssrcs: vec![1],
            reason: Some("x".to_owned()),
        },
    ]);
    for round in 0..4000 {
        let good = target.next_packet(&[3; 160]).write();
        target.send_bytes(&damaged(&mut dice, &good));
        target.send_rtcp(&damaged(&mut dice, &rtcp));
        if round % 16 == 0 {
            // The bystanders' ports get their share, from the party itself and from its RTCP port.
            bystander.alice.send_rtcp(&damaged(&mut dice, &rtcp));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    target.send_bytes(&[]);
    target.send_bytes(&vec![0x80; 60_000]);
    client.call("session.info", json!({}));
    drop(other);
    // Nothing of that was a valid stream for the bystander.
    bystander.bob.receive_all(Duration::from_millis(200));
    bystander.assert_unharmed();
}

#[test]
fn on_the_socket_between_the_processes() {
    let bystander = Bystander::start();
    let mut dice = StdRng::seed_from_u64(5);
    for _ in 0..200 {
        let Ok(mut stream) = UnixStream::connect(bystander.server.ipc_socket()) else {
            panic!("the dataplane listens");
        };
        let mut noise = vec![0; dice.random_range(1..3000)];
        dice.fill_bytes(&mut noise);
        if dice.random() {
            // A believable length in front.
            let length = (noise.len() as u32).to_le_bytes();
            noise.splice(0..0, length);
        }
        let _ = stream.write_all(&noise);
    }
    // From somebody who has said hello as is proper.
    let asked = ToDataplane::Request {
        number: 1,
        request: Request::Snapshot,
    };
    let mut good = Vec::new();
    frame::encode(&asked, &mut good).unwrap();
    for _ in 0..100 {
        // The places of those who were sent away are free a little later.
        let mut observer = eventually("an observer is let in", SOON, || {
            let (link, hello) = Link::observe(&bystander.server.ipc_socket());
            matches!(hello, Some(ToControl::Hello(_))).then_some(link)
        });
        observer.send_bytes(&damaged(&mut dice, &good));
    }
    bystander.assert_unharmed();
}

#[test]
fn a_client_that_floods_is_answered_or_dropped_but_delays_nobody() {
    let mut bystander = Bystander::start();
    let mut flooder = bystander.server.client();
    flooder
        .stream()
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let request = Message::text(r#"{"id":"1","method":"session.list"}"#);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end && flooder.try_send(request.clone()) {}
    let sent = bystander.alice.talk(25);
    assert_eq!(bystander.bob.receive_exactly(25).len(), sent.len());
    bystander.client.call("session.info", json!({}));
    // It still gets what it asked for, if it reads.
    let deadline = Instant::now() + Duration::from_secs(5);
    assert!(matches!(
        flooder.receive(deadline),
        Some(Incoming::Json(_) | Incoming::Closed(_))
    ));
    drop(flooder);
    bystander.assert_unharmed();
}
