//! Whole calls between programs that are not ours: what one sends is what the other gets.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use rtpbridge_tests::harness::client::Event;
use rtpbridge_tests::harness::http;
use rtpbridge_tests::harness::process::Process;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::{Description, Offer, Party, ffmpeg};
use serde_json::{Value, json};

/// Puts a program's address into the session; gives where it has to send.
fn add(client: &mut Client, at: std::net::SocketAddr) -> std::net::SocketAddr {
    let offer = Offer::with_codecs(at, &[(0, "PCMU/8000")]).write();
    let created = client.call("endpoint.create_from_offer", json!({"sdp": offer}));
    Description::parse(created["sdp_answer"].as_str().unwrap()).address()
}

/// Somebody who presses a digit and hears a tone end whenever nobody is in control.
struct Witness {
    client: Client,
    session: String,
    party: Party,
    tone: Value,
    digits: u64,
    digits_known: u64,
    /// How often the digit was over before anybody was in control again.
    alone: usize,
}

impl Witness {
    fn new(server: &Server) -> Self {
        let (mut client, session) = server.session();
        let party = Party::join(&mut client);
        Self {
            client,
            session,
            party,
            tone: Value::Null,
            digits: 0,
            digits_known: 0,
            alone: 0,
        }
    }

    /// A tone that ends, changing its state, when control is gone.
    fn prepare(&mut self) {
        let params = json!({"tone": "beep", "duration_ms": 100});
        self.tone = self.client.call("endpoint.create_tone", params)["endpoint_id"].clone();
    }

    fn act(&mut self, server: &Server) {
        self.party.press(101, self.digits as u8 % 10, 1);
        self.digits += 1;
        let asked = http::try_request(server.address(), "GET", "/health/live", &[]);
        self.alone += usize::from(asked.is_err());
    }

    /// Attaches anew: the change of state was told, the digit was told or counted.
    fn come_back(&mut self, server: &Server) {
        // What the old control may still have said.
        self.client.expect_close();
        let mut events = self.client.drain_events(Duration::ZERO);
        self.client = server.client();
        self.client
            .call("session.attach", json!({"session_id": self.session}));
        let is_finished = |event: &Event, tone: &Value| {
            event.name == "endpoint.state_changed"
                && event.data["endpoint_id"] == *tone
                && event.data["new_state"] == "finished"
        };
        let mut told = 0;
        loop {
            for event in events.drain(..) {
                told += usize::from(is_finished(&event, &self.tone));
                self.digits_known += match event.name.as_str() {
                    "dtmf" => 1,
                    "events.dropped" => event.data["count"].as_u64().unwrap(),
                    _ => 0,
                };
            }
            if told > 0 && self.digits_known >= self.digits {
                break;
            }
            let next = self.client.next_event(SOON);
            events.push(next.expect("the digit and the change of state are told or counted"));
        }
        self.client
            .call("endpoint.remove", json!({"endpoint_id": self.tone}));
    }
}

#[test]
fn ffmpeg_hears_from_ffmpeg_every_sample_in_order() {
    let server = Server::builder().supervised().start();
    let wav = server.path("noise.wav");
    let expected = ffmpeg::noise(&wav, 5);
    let (mut client, _) = server.session();
    let (from, at) = (ffmpeg::free_port(), ffmpeg::free_port());
    let recorder = ffmpeg::Recorder::start(at, server.directory());
    let target = add(&mut client, from);
    add(&mut client, at);
    let mut stream = ffmpeg::stream(&wav, from, target, server.path("stream.log"));
    assert!(stream.wait(3 * SOON).success());
    let heard = recorder.finish(expected.len());
    assert_eq!(heard.len(), expected.len());
    assert!(heard == expected, "the samples differ");
}

#[test]
fn killing_control_every_second_costs_no_sample_and_no_sequence_number() {
    const KILLS: usize = 10;
    let mut server = Server::builder().supervised().start();
    let wav = server.path("noise.wav");
    let expected = ffmpeg::noise(&wav, 14);
    let (mut client, session) = server.session();
    let (from, at) = (ffmpeg::free_port(), ffmpeg::free_port());
    let recorder = ffmpeg::Recorder::start(at, server.directory());
    let target = add(&mut client, from);
    add(&mut client, at);
    // A second call on the same server shows the sequence numbers.
    let (mut other, other_session) = server.session();
    let mut alice = Party::join(&mut other);
    let bob = Party::join(&mut other);
    let mut witness = Witness::new(&server);
    let talking = std::thread::spawn(move || {
        let sent = alice.talk(14 * 50);
        (alice, sent)
    });
    let mut stream = ffmpeg::stream(&wav, from, target, server.path("stream.log"));

    let dataplane = server.dataplane_pid();
    let mut controls = vec![server.control_pid()];
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_secs(1));
        let before = *controls.last().unwrap();
        witness.prepare();
        server.signal_control(Signal::SIGKILL);
        witness.act(&server);
        let now = eventually("a new control", SOON, || {
            server.try_control_pid().filter(|pid| *pid != before)
        });
        server.wait_healthy();
        controls.push(now);
        for (holder, session) in [(&mut client, &session), (&mut other, &other_session)] {
            *holder = server.client();
            holder.call("session.attach", json!({"session_id": session}));
        }
        witness.come_back(&server);
        assert_eq!(server.dataplane_pid(), dataplane);
    }
    controls.sort();
    controls.dedup();
    assert!(
        controls.len() > KILLS,
        "{} control processes",
        controls.len()
    );

    assert!(witness.alone > 0, "control was never away");

    assert!(stream.wait(3 * SOON).success());
    let heard = recorder.finish(expected.len());
    assert_eq!(heard.len(), expected.len());
    assert!(heard == expected, "the samples differ");
    let (_alice, sent) = talking.join().unwrap();
    let heard = bob.receive_exactly(sent.len());
    for (pair, original) in heard.windows(2).zip(&sent) {
        assert_eq!(pair[0].payload, original.payload);
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
    }
    server.supervisor().signal(Signal::SIGTERM);
    client.call("session.destroy", json!({}));
    witness.client.call("session.destroy", json!({}));
    other.call("session.destroy", json!({}));
    assert!(server.supervisor().wait(3 * SOON).success());
}

#[test]
fn gstreamer_speaks_and_is_heard() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let at = ffmpeg::free_port();
    let target = add(&mut client, at);
    let bob = Party::join(&mut client);
    let mut command = Command::new("gst-launch-1.0");
    command.args([
        "-q",
        "audiotestsrc",
        "num-buffers=100",
        "samplesperbuffer=160",
        "is-live=true",
    ]);
    command.args([
        "!",
        "audio/x-raw,rate=8000,channels=1",
        "!",
        "mulawenc",
        "!",
        "rtppcmupay",
    ]);
    command.args(["min-ptime=20000000", "max-ptime=20000000", "!", "udpsink"]);
    command.arg(format!("host={}", target.ip()));
    command.arg(format!("port={}", target.port()));
    command.arg(format!("bind-port={}", at.port()));
    let mut gstreamer = Process::start("gst-launch-1.0", command, server.path("gst.log"));
    let heard = bob.receive_exactly(95);
    assert!(gstreamer.wait(3 * SOON).success());
    for pair in heard.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        assert_eq!(pair[1].timestamp.wrapping_sub(pair[0].timestamp), 160);
    }
    assert!(heard.iter().all(|packet| packet.payload.len() == 160));
    let silence = heard
        .iter()
        .all(|packet| packet.payload.iter().all(|byte| *byte == 0xff));
    assert!(!silence, "a tone was sent");
}
