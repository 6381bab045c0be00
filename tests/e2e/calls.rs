//! Whole calls between programs that are not ours: what one sends is what the other gets.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use rtpbridge_tests::harness::process::Process;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::{Description, Offer, Party, ffmpeg};
use serde_json::json;

/// Puts a program's address into the session; gives where it has to send.
fn add(client: &mut Client, at: std::net::SocketAddr) -> std::net::SocketAddr {
    let offer = Offer::with_codecs(at, &[(0, "PCMU/8000")]).write();
    let created = client.call("endpoint.create_from_offer", json!({"sdp": offer}));
    Description::parse(created["sdp_answer"].as_str().unwrap()).address()
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
        server.signal_control(Signal::SIGKILL);
        let now = eventually("a new control", SOON, || {
            server.try_control_pid().filter(|pid| *pid != before)
        });
        server.wait_healthy();
        controls.push(now);
        for (holder, session) in [(&mut client, &session), (&mut other, &other_session)] {
            *holder = server.client();
            holder.call("session.attach", json!({"session_id": session}));
        }
        assert_eq!(server.dataplane_pid(), dataplane);
    }
    controls.sort();
    controls.dedup();
    assert!(
        controls.len() > KILLS,
        "{} control processes",
        controls.len()
    );

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
