//! `endpoint.create_tone`: each kind, in every codec, with its end.

use std::time::Duration;

use rtpbridge_tests::harness::Server;
use rtpbridge_tests::sound::{Coding, fit, level};
use serde_json::json;

use super::Speaker;

#[test]
fn a_tone_sounds_in_every_codec_and_ends_in_time() {
    let server = Server::start();
    let (mut client, session) = server.session();
    let mut listeners: Vec<_> = Coding::ALL
        .map(|coding| Speaker::join_as(&mut client, coding, "recvonly"))
        .into_iter()
        .collect();
    let path = server.recording_path("tone.pcap");
    let recording = client.call("recording.start", json!({"file_path": path}));
    let params = json!({"tone": "sine", "frequency": 1000, "duration_ms": 2000});
    let created = client.call("endpoint.create_tone", params);
    assert_eq!(created["tone"], "sine");
    let tone = created["endpoint_id"].clone();
    let listed = |server: &Server| {
        let details = server.get(&format!("/sessions/{session}")).json();
        let endpoints = details["endpoints"].as_array().expect("a list").clone();
        let found = endpoints.into_iter().find(|e| e["endpoint_id"] == tone);
        found.expect("it is listed")
    };
    let details = listed(&server);
    assert_eq!(details["endpoint_type"], "tone");
    assert_eq!(details["direction"], "sendonly");
    assert_eq!(details["state"], "playing");
    let finished = client.expect_event("endpoint.tone.finished");
    assert_eq!(finished["endpoint_id"], tone);
    assert_eq!(listed(&server)["state"], "finished");
    for listener in &mut listeners {
        listener.listen(Duration::from_millis(200));
        assert_eq!(listener.heard.len(), 100, "{:?}", listener.coding);
        listener.assert_continuous();
        let found = fit(
            &listener.last_sound(1.0),
            listener.coding.audio_hz(),
            1000.0,
        );
        assert!((found.level_dbfs + 10.0).abs() < 0.5, "{found:?}");
        let bar = if listener.coding == Coding::Opus {
            30.0
        } else {
            38.0
        };
        assert!(found.snr_db > bar, "{:?}: {found:?}", listener.coding);
    }
    let stopped = client.call(
        "recording.stop",
        json!({"recording_id": recording["recording_id"]}),
    );
    let streams = stopped["streams"].as_array().expect("a list").clone();
    let of_tone = streams.iter().find(|row| row["endpoint_id"] == tone);
    let of_tone = of_tone.expect("the tone has a row");
    assert_eq!(of_tone["packets"], 100);
    assert_eq!(of_tone["gaps"], 0);
    client.call("endpoint.remove", json!({"endpoint_id": tone}));
}

#[test]
fn call_progress_tones_have_their_frequencies_and_cadence() {
    let server = Server::start();
    for (name, frequencies) in [
        ("ringback", [440.0, 480.0]),
        ("ringing", [440.0, 480.0]),
        ("busy", [480.0, 620.0]),
        ("beep", [1000.0, 1000.0]),
        ("sine", [440.0, 440.0]),
    ] {
        let (mut client, _) = server.session();
        let mut listener = Speaker::join(&mut client, Coding::Pcma);
        let params = json!({"tone": name, "duration_ms": 1000});
        client.call("endpoint.create_tone", params);
        client.expect_event("endpoint.tone.finished");
        listener.listen(Duration::from_millis(200));
        let sound = listener.sound();
        for frequency in frequencies {
            let found = level(&sound[800..3200], 8000, frequency);
            assert!(found > -20.0, "{name}: {frequency} Hz at {found}");
        }
        let pause = &sound[4800..7200];
        let is_silent = pause.iter().all(|sample| sample.abs() <= 8);
        assert_eq!(is_silent, name == "busy", "{name}");
    }
}

#[test]
fn a_tone_takes_no_digits_and_no_impossible_frequency() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let created = client.call("endpoint.create_tone", json!({"tone": "ringback"}));
    let digit = json!({"endpoint_id": created["endpoint_id"], "digit": "5"});
    client.refuse("endpoint.dtmf.inject", digit, "ENDPOINT_ERROR");
    for (field, value) in [
        ("tone", json!("fanfare")),
        ("tone", json!(null)),
        ("frequency", json!(19.9)),
        ("frequency", json!(20_000.1)),
        ("frequency", json!("high")),
        ("duration_ms", json!(0)),
        ("duration_ms", json!(-5)),
    ] {
        let mut params = json!({"tone": "sine"});
        params[field] = value;
        let message = client.refuse("endpoint.create_tone", params, "INVALID_PARAMS");
        assert!(message.contains(field), "{field}: {message}");
    }
    let info = client.call("session.info", json!({}));
    assert_eq!(info["endpoints"].as_array().expect("a list").len(), 1);
}
