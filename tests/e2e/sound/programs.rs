//! Transcoded calls between programs that others wrote: ffmpeg at both ends, and a real browser.

use std::rc::Rc;
use std::thread;

use rtpbridge_tests::harness::wait::SOON;
use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::sdp::Description;
use rtpbridge_tests::peer::{Offer, Script, WebrtcPeer, ffmpeg};
use rtpbridge_tests::sound::{Coding, fit, level, tone};
use serde_json::json;

use super::{Speaker, converse};

const G722: &[&str] = &["-c:a", "g722", "-ar", "16000", "-ac", "1"];
const OPUS: &[&str] = &[
    "-c:a",
    "libopus",
    "-b:a",
    "32k",
    "-vbr",
    "off",
    "-ar",
    "48000",
    "-ac",
    "1",
    "-payload_type",
    "111",
];
const PCM: &[&str] = &[
    "-c:a",
    "pcm_s16le",
    "-ar",
    "48000",
    "-ac",
    "1",
    "-f",
    "s16le",
];

fn add(client: &mut Client, at: std::net::SocketAddr, coding: Coding) -> std::net::SocketAddr {
    let offer = Offer::with_codecs(at, &[coding.format()]).write();
    let created = client.call("endpoint.create_from_offer", json!({"sdp": offer}));
    Description::parse(created["sdp_answer"].as_str().expect("an answer")).address()
}

#[test]
fn ffmpeg_hears_from_ffmpeg_what_another_codec_said() {
    let server = Server::start();
    for (from, how, to) in [
        (Coding::G722, G722, Coding::Opus),
        (Coding::Opus, OPUS, Coding::G722),
    ] {
        let (mut client, _) = server.session();
        let (source, sink) = (ffmpeg::free_port(), ffmpeg::free_port());
        let recorder = ffmpeg::Recorder::start_as(sink, server.directory(), to.format(), PCM);
        let target = add(&mut client, source, from);
        add(&mut client, sink, to);
        // A peak of an eighth: -18.06 dBFS.
        let sine = ["-f", "lavfi", "-i", "sine=frequency=1000:duration=5"];
        let log = server.path(&format!("stream-{from:?}.log"));
        let mut stream = ffmpeg::stream_as((&sine, how), (source, target), log);
        let ended = stream.wait(3 * SOON);
        assert!(ended.success(), "{from:?}: {ended}");
        let bytes = recorder.finish(5 * 48_000 * 2);
        let heard: Vec<i16> = bytes
            .chunks_exact(2)
            .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        let seconds = heard.len() as f64 / 48_000.0;
        assert!(
            (4.8..5.2).contains(&seconds),
            "{from:?} {to:?}: {seconds} s"
        );
        let found = fit(&heard[96_000..192_000], 48_000, 1000.0);
        assert!(
            (found.level_dbfs + 18.06).abs() < 0.5,
            "{from:?} {to:?}: {found:?}"
        );
        assert!(found.snr_db > 30.0, "{from:?} {to:?}: {found:?}");
        client.call("session.destroy", json!({}));
    }
    assert_eq!(server.metric("rtpbridge_transcode_errors_total"), 0.0);
}

/// A page that was offered this codec alone, and telephones of two others, hear each other.
fn expect_heard_by_telephones(offered: &str, name: &str, phones: [Coding; 2]) {
    let server = Server::start();
    let browser = Rc::new(Script::browser());
    let (mut client, _) = server.session();
    let mut page = WebrtcPeer::open(&browser);
    let params = json!({"type": "webrtc", "codecs": [offered]});
    page.accept(&mut client, params, 440, |sdp| sdp);
    page.wait_connected(&mut client);
    let info = client.call("session.info", json!({}));
    assert_eq!(info["endpoints"][0]["codec"], name, "{info}");
    for coding in phones {
        let pcm = tone(coding.audio_hz(), 1000.0, -12.0, 8.0);
        let phone = Speaker::join(&mut client, coding).with_script(&pcm);
        let talking = thread::spawn(move || {
            let mut speakers = [phone];
            converse(&mut speakers, 400);
            speakers
        });
        page.expect_tones(&[1000], &[440]);
        let [phone] = talking.join().expect("it talks to its end");
        phone.assert_continuous();
        let (sound, rate_hz) = (phone.last_sound(2.0), coding.audio_hz());
        let heard = level(&sound, rate_hz, 440.0);
        assert!((heard + 12.0).abs() < 3.0, "{coding:?} hears {heard} dBFS");
        let own = level(&sound, rate_hz, 1000.0);
        assert!(own < -50.0, "{coding:?} hears itself at {own} dBFS");
        let endpoint = json!({"endpoint_id": phone.party.endpoint});
        client.call("endpoint.remove", endpoint);
    }
    assert_eq!(server.metric("rtpbridge_transcode_errors_total"), 0.0);
}

#[test]
fn a_browser_that_speaks_opus_and_telephones_hear_each_other() {
    expect_heard_by_telephones("opus", "opus", [Coding::Pcmu, Coding::G722]);
}

#[test]
fn a_browser_that_speaks_g722_and_telephones_hear_each_other() {
    expect_heard_by_telephones("g722", "G722", [Coding::Pcma, Coding::Opus]);
}
