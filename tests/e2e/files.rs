//! media, Files: local files of every format are heard at their pitch and length, can be moved in, and
//! are shared; what is no file of sound is refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rtpbridge_tests::harness::wait::SOON;
use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::audio::{self, level, make, pitch, samples};
use rtpbridge_tests::peer::capture::Capture;
use rtpbridge_tests::peer::{Party, Rtp};
use serde_json::{Value, json};

/// Nothing more comes after so long.
const QUIET: Duration = Duration::from_millis(400);

const TONE: &str = "sine=frequency=440:sample_rate=48000:duration=1.5";

/// Format, name, and what ffmpeg needs to know.
const FORMATS: &[(&str, &[&str])] = &[
    ("u8.wav", &["-c:a", "pcm_u8"]),
    ("s16.wav", &["-c:a", "pcm_s16le"]),
    ("s24.wav", &["-c:a", "pcm_s24le"]),
    ("f32.wav", &["-c:a", "pcm_f32le"]),
    ("mulaw.wav", &["-c:a", "pcm_mulaw", "-ar", "8000"]),
    ("alaw.wav", &["-c:a", "pcm_alaw", "-ar", "8000"]),
    ("tone.mp3", &["-c:a", "libmp3lame", "-b:a", "64k"]),
    ("vorbis.ogg", &["-c:a", "libvorbis"]),
    ("opus.ogg", &["-c:a", "libopus"]),
    ("tone.opus", &["-c:a", "libopus", "-ac", "2"]),
    ("tone.flac", &["-c:a", "flac"]),
    ("11025.wav", &["-ar", "11025"]),
    ("22050.mp3", &["-ar", "22050", "-ac", "2"]),
    ("44100.flac", &["-ar", "44100", "-ac", "2"]),
    ("44100.ogg", &["-ar", "44100", "-c:a", "libvorbis"]),
    ("96000.wav", &["-ar", "96000", "-c:a", "pcm_s24le"]),
    ("96000.flac", &["-ar", "96000"]),
    ("surround.wav", &["-ac", "6"]),
    ("surround.flac", &["-ac", "6", "-ar", "44100"]),
    ("surround.ogg", &["-ac", "6", "-c:a", "libvorbis"]),
    ("surround.opus", &["-ac", "6", "-c:a", "libopus"]),
];

fn media(server: &Server) -> PathBuf {
    server.path("media")
}

fn play(client: &mut Client, source: &str, extra: Value) -> String {
    let mut params = json!({"source": source});
    for (key, value) in extra.as_object().unwrap() {
        params[key] = value.clone();
    }
    let created = client.call("endpoint.create_with_file", params);
    created["endpoint_id"].as_str().unwrap().to_owned()
}

fn expect_finished(client: &mut Client, endpoint: &str) -> Value {
    client.expect_event_where("endpoint.file.finished", |data| {
        data["endpoint_id"] == endpoint
    })
}

fn endpoint_in_info(client: &mut Client, endpoint: &str) -> Option<Value> {
    let info = client.call("session.info", json!({}));
    let endpoints = info["endpoints"].as_array().unwrap();
    let mut found = endpoints
        .iter()
        .filter(|row| row["endpoint_id"] == endpoint);
    found.next().cloned()
}

/// Every packet follows on the one before.
fn assert_continuous(packets: &[Rtp]) {
    for pair in packets.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert_eq!(step, 160, "at {}", pair[0].sequence);
    }
}

/// A file whose pitch tells the place: 400 Hz in its first second, 600 Hz in the next, and so on.
fn staircase(server: &Server, seconds: u32) {
    let graph: String = (0..seconds)
        .map(|second| {
            let frequency = 400 + 200 * second;
            format!("sine=frequency={frequency}:sample_rate=16000:duration=1[s{second}];")
        })
        .collect();
    let inputs: String = (0..seconds).map(|second| format!("[s{second}]")).collect();
    let graph = format!("{graph}{inputs}concat=n={seconds}:v=0:a=1");
    make(&media(server), "stairs.wav", &graph, &[]);
}

#[test]
fn every_format_and_rate_is_heard_at_its_pitch_and_length_and_nothing_after() {
    let server = Server::start();
    let mut calls = Vec::new();
    for (name, how) in FORMATS {
        make(&media(&server), name, TONE, how);
        let (mut client, _) = server.session();
        let party = Party::join(&mut client);
        let file = play(&mut client, name, json!({}));
        calls.push((name, client, party, file));
    }
    for (name, client, party, file) in &mut calls {
        let finished = expect_finished(client, file);
        assert_eq!(
            (&finished["reason"], &finished["error"]),
            (&json!("completed"), &Value::Null),
            "{name}"
        );
        let heard = party.receive_all(QUIET);
        let pcm = samples(&heard);
        // 1.5 s, to within the frame that is filled up.
        let off = pcm.len() as f64 - 1.5 * audio::RATE_HZ;
        assert!(off.abs() <= 2.0 * 160.0, "{name}: {} samples", pcm.len());
        let middle = &pcm[2000..10_000];
        let hz = pitch(middle);
        assert!((hz - 440.0).abs() < 3.0, "{name}: {hz} Hz");
        // ffmpeg's sine is at an eighth of full scale: 2896 RMS; surround goes over one speaker or more.
        let rms = level(middle);
        assert!((700.0..6000.0).contains(&rms), "{name}: {rms}");
        let row = endpoint_in_info(client, file).unwrap();
        assert_eq!(row["state"], "finished", "stays listed");
    }
}

#[test]
fn a_file_keeps_real_time_to_its_end() {
    let server = Server::start();
    let graph = "sine=frequency=440:sample_rate=44100:duration=10";
    make(&media(&server), "long.wav", graph, &[]);
    let (mut client, _) = server.session();
    let party = Party::join(&mut client);
    let begun = Instant::now();
    let file = play(&mut client, "long.wav", json!({}));
    let first = party.receive(SOON).unwrap();
    expect_finished(&mut client, &file);
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(10),
        "{took:?} is faster than life"
    );
    let mut heard = vec![first];
    heard.extend(party.receive_all(QUIET));
    assert_eq!(heard.len(), 500);
    assert_eq!(server.metric("rtpbridge_file_underruns_total"), 0.0);
}

#[test]
fn what_is_no_file_of_sound_in_the_directory_is_refused_at_once() {
    let server = Server::start();
    let directory = media(&server);
    make(&directory, "good.wav", TONE, &[]);
    fs::copy(directory.join("good.wav"), server.path("outside.wav")).unwrap();
    symlink(server.path("outside.wav"), directory.join("link.wav")).unwrap();
    symlink("/dev/zero", directory.join("zero")).unwrap();
    mkfifo(&directory.join("fifo"), Mode::S_IRWXU).unwrap();
    fs::create_dir(directory.join("folder")).unwrap();
    fs::write(
        directory.join("text.wav"),
        "no sound at all, whatever it says\n".repeat(99),
    )
    .unwrap();
    fs::write(directory.join("empty.mp3"), "").unwrap();
    let (mut client, _) = server.session();
    let outside = server.path("outside.wav").to_string_lossy().into_owned();
    let sources = [
        "missing.wav",
        "../outside.wav",
        &outside,
        "link.wav",
        "zero",
        "/dev/zero",
        "fifo",
        "folder",
        "text.wav",
        "empty.mp3",
        "file:///etc/passwd",
    ];
    for source in sources {
        let message = client.refuse(
            "endpoint.create_with_file",
            json!({"source": source}),
            "ENDPOINT_ERROR",
        );
        assert!(!message.is_empty(), "{source}");
    }
    let info = client.call("session.info", json!({}));
    assert_eq!(info["endpoints"], json!([]));
    let inside = directory.join("good.wav").to_string_lossy().into_owned();
    play(&mut client, &inside, json!({}));
}

#[test]
fn without_a_directory_local_files_are_disabled_and_the_error_says_so() {
    let server = Server::builder().set("media_dir", "\"\"").prepare();
    let config = fs::read_to_string(server.config_file()).unwrap();
    let without: String = config
        .lines()
        .filter(|line| !line.starts_with("media_dir"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(server.config_file(), without).unwrap();
    let mut server = server;
    server.start_dataplane();
    server.start_control();
    server.wait_healthy();
    let (mut client, _) = server.session();
    let source = json!({"source": "a.wav"});
    let message = client.refuse("endpoint.create_with_file", source, "ENDPOINT_ERROR");
    assert!(message.contains("media_dir"), "{message}");
}

/// Of every format what is left of a file that is cut off in its head or in the middle, and one in
/// which much is wrong.
pub(crate) fn damaged_files(server: &Server) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for (name, how) in FORMATS {
        let whole = fs::read(make(&media(server), name, TONE, how)).unwrap();
        let mut noisy = whole.clone();
        let mut word: u32 = 1;
        for byte in noisy.iter_mut().skip(60).step_by(7) {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte ^= (word >> 24) as u8;
        }
        let head = whole[..40.min(whole.len())].to_vec();
        let half = whole[..whole.len() / 2].to_vec();
        for (how, bytes) in [("head", head), ("half", half), ("noise", noisy)] {
            files.push((format!("{how}-{name}"), bytes));
        }
    }
    files
}

#[test]
fn damaged_files_of_every_format_are_refused_or_end_and_hurt_nobody() {
    let server = Server::builder()
        .set("max_endpoints_per_session", 0)
        .start();
    let (mut client, _) = server.session();
    let mut playing = Vec::new();
    for (file, bytes) in damaged_files(&server) {
        fs::write(media(&server).join(&file), bytes).unwrap();
        let params = json!({"source": file, "gain_db": -100.0});
        match client.request("endpoint.create_with_file", params) {
            Ok(created) => playing.push((file, created["endpoint_id"].clone())),
            Err(error) => assert_eq!(error.code, "ENDPOINT_ERROR", "{file}: {}", error.message),
        }
    }
    assert!(playing.len() >= 10, "{} play at all", playing.len());
    for (file, endpoint) in playing {
        let finished = expect_finished(&mut client, endpoint.as_str().unwrap());
        let is_error = finished["reason"] == "error";
        assert_eq!(
            finished["error"].is_string(),
            is_error,
            "{file}: {finished}"
        );
        let row = endpoint_in_info(&mut client, endpoint.as_str().unwrap());
        assert_eq!(row.is_none(), is_error, "{file}: {finished} {row:?}");
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn what_is_out_of_bounds_is_refused_by_name() {
    let server = Server::start();
    make(&media(&server), "tone.wav", TONE, &[]);
    let (mut client, _) = server.session();
    let method = "endpoint.create_with_file";
    for (field, value) in [
        ("source", json!("")),
        ("source", json!(7)),
        ("start_ms", json!(-1)),
        ("start_ms", json!("soon")),
        ("loop_count", json!(-1)),
        ("loop_count", json!(10_001)),
        ("cache_ttl_secs", json!(-1)),
        ("shared", json!("yes")),
        ("timeout_ms", json!(0)),
        ("timeout_ms", json!(60_001)),
        ("headers", json!(["Accept"])),
        ("headers", json!({"A B": "no name"})),
        ("headers", json!({"X-Split": "a\r\nb"})),
        ("gain_db", json!("loud")),
    ] {
        let mut params = json!({"source": "tone.wav"});
        params[field] = value;
        let message = client.refuse(method, params, "INVALID_PARAMS");
        assert!(message.contains(field), "{field}: {message}");
    }
    let message = client.refuse(method, json!({}), "INVALID_PARAMS");
    assert!(message.contains("source"), "{message}");
    let most = json!({"loop_count": 10_000, "timeout_ms": 60_000, "start_ms": 1000});
    let file = play(&mut client, "tone.wav", most);
    let position = json!({"endpoint_id": file, "position_ms": -1});
    for params in [position, json!({"endpoint_id": file})] {
        let message = client.refuse("endpoint.file.seek", params, "INVALID_PARAMS");
        assert!(message.contains("position_ms"), "{message}");
    }
}

#[test]
fn playing_starts_seeks_pauses_and_goes_on_where_it_is_told() {
    let server = Server::start();
    staircase(&server, 5);
    let (mut client, _) = server.session();
    let party = Party::join(&mut client);
    let file = play(&mut client, "stairs.wav", json!({"start_ms": 1000}));
    let id = json!({"endpoint_id": file});
    let pitch_of = |count: usize| pitch(&samples(&party.receive_exactly(count)));
    assert!((pitch_of(25) - 600.0).abs() < 15.0);
    client.call("endpoint.file.pause", id.clone());
    client.call("endpoint.file.pause", id.clone());
    let changed = client.expect_event("endpoint.state_changed");
    assert_eq!(
        (&changed["old_state"], &changed["new_state"]),
        (&json!("playing"), &json!("paused"))
    );
    party.receive_all(Duration::from_millis(200));
    party.expect_silence(Duration::from_millis(300));
    let position = json!({"endpoint_id": file, "position_ms": 3000});
    client.call("endpoint.file.seek", position);
    client.call("endpoint.file.resume", id.clone());
    client.call("endpoint.file.resume", id.clone());
    let changed = client.expect_event("endpoint.state_changed");
    assert_eq!(changed["new_state"], "playing");
    party.receive_exactly(3);
    let hz = pitch_of(25);
    assert!((hz - 1000.0).abs() < 25.0, "{hz}");
    let past = json!({"endpoint_id": file, "position_ms": 3_600_000});
    client.call("endpoint.file.seek", past);
    assert_eq!(expect_finished(&mut client, &file)["reason"], "completed");
    for method in ["pause", "resume"] {
        let method = format!("endpoint.file.{method}");
        client.refuse(&method, id.clone(), "ENDPOINT_ERROR");
    }
    let position = json!({"endpoint_id": file, "position_ms": 0});
    client.refuse("endpoint.file.seek", position, "ENDPOINT_ERROR");
    let other = json!({"endpoint_id": party.endpoint});
    client.refuse("endpoint.file.pause", other, "ENDPOINT_ERROR");
    // The same within a pause; a place short of the end is kept until it is resumed.
    let paused = play(&mut client, "stairs.wav", json!({}));
    client.call("endpoint.file.pause", json!({"endpoint_id": paused}));
    party.receive_all(Duration::from_millis(200));
    let near = json!({"endpoint_id": paused, "position_ms": 4500});
    client.call("endpoint.file.seek", near);
    client.expect_no_event("endpoint.file.finished", Duration::from_millis(500));
    client.call("endpoint.file.resume", json!({"endpoint_id": paused}));
    assert_eq!(party.receive_exactly(25).len(), 25);
    expect_finished(&mut client, &paused);
    party.expect_silence(Duration::from_millis(100));
    let paused = play(&mut client, "stairs.wav", json!({}));
    client.call("endpoint.file.pause", json!({"endpoint_id": paused}));
    let past = json!({"endpoint_id": paused, "position_ms": 5001});
    client.call("endpoint.file.seek", past);
    assert_eq!(expect_finished(&mut client, &paused)["reason"], "completed");
    client.call("endpoint.remove", id.clone());
    assert_eq!(endpoint_in_info(&mut client, &file), None);
    let message = client.refuse("endpoint.file.pause", id, "ENDPOINT_ERROR");
    assert!(message.contains("not found"), "{message}");
}

#[test]
fn a_file_is_played_as_often_and_as_loud_as_asked() {
    let server = Server::start();
    let graph = "sine=frequency=440:sample_rate=16000:duration=0.5";
    make(&media(&server), "short.wav", graph, &[]);
    let mut levels = Vec::new();
    for (gain_db, loops, packets) in [(0.0, 2, 75), (-20.0, 0, 25)] {
        let (mut client, _) = server.session();
        let party = Party::join(&mut client);
        let extra = json!({"gain_db": gain_db, "loop_count": loops});
        let file = play(&mut client, "short.wav", extra);
        expect_finished(&mut client, &file);
        let heard = party.receive_all(QUIET);
        assert_eq!(heard.len(), packets);
        assert_continuous(&heard);
        levels.push(level(&samples(&heard)));
    }
    let ratio = levels[0] / levels[1];
    assert!((9.0..11.0).contains(&ratio), "{levels:?}");
    let (mut client, _) = server.session();
    let party = Party::join(&mut client);
    let file = play(&mut client, "short.wav", json!({"loop_count": null}));
    party.receive_exactly(150);
    client.call("endpoint.remove", json!({"endpoint_id": file}));
    party.receive_all(QUIET);
    client.expect_no_event("endpoint.file.finished", Duration::ZERO);
}

#[test]
fn fifty_parties_on_a_shared_file_cost_one_decode_and_keep_their_own_pause() {
    let server = Server::builder().media_ports(200).start();
    staircase(&server, 4);
    let before = server.metric("rtpbridge_file_decodes_total");
    let shared = json!({"shared": true});
    let mut calls: Vec<_> = (0..50)
        .map(|n| {
            let (mut client, _) = server.session();
            let party = Party::join(&mut client);
            let mut how = shared.clone();
            how["gain_db"] = json!(if n == 1 { -20 } else { 0 });
            let file = play(&mut client, "stairs.wav", how);
            (client, party, file)
        })
        .collect();
    assert_eq!(server.metric("rtpbridge_file_decodes_total") - before, 1.0);
    let ids: Vec<Value> = calls
        .iter_mut()
        .map(|(client, _, file)| {
            endpoint_in_info(client, file).unwrap()["shared_playback_id"].clone()
        })
        .collect();
    assert!(
        ids[0].is_string() && ids.iter().all(|id| *id == ids[0]),
        "{ids:?}"
    );
    let (first, _, paused) = &mut calls[0];
    let seek = json!({"endpoint_id": paused, "position_ms": 0});
    first.refuse("endpoint.file.seek", seek, "ENDPOINT_ERROR");
    first.call("endpoint.file.pause", json!({"endpoint_id": paused}));
    let mut levels = Vec::new();
    for (at, (client, party, file)) in calls.iter_mut().enumerate().rev() {
        let finished = expect_finished(client, file);
        assert_eq!(finished["reason"], "completed", "of {at}");
        let heard = party.receive_all(Duration::from_millis(50));
        let expected = if at == 0 { 0..150 } else { 100..201 };
        assert!(
            expected.contains(&heard.len()),
            "{at} heard {}",
            heard.len()
        );
        levels.push(level(&samples(&heard)));
    }
    // The gain is each one's own.
    let ratio = levels[47] / levels[48];
    assert!((8.0..12.0).contains(&ratio), "{ratio}");
    let (client, _, _) = &mut calls[1];
    let alone = play(client, "stairs.wav", json!({}));
    assert_eq!(server.metric("rtpbridge_file_decodes_total") - before, 2.0);
    let row = endpoint_in_info(client, &alone).unwrap();
    assert_eq!(row.get("shared_playback_id"), None);
    // Others that begin elsewhere, or play more often, are others.
    for how in [json!({"start_ms": 500}), json!({"loop_count": 1})] {
        for _ in 0..2 {
            let mut how = how.clone();
            how["shared"] = json!(true);
            play(client, "stairs.wav", how);
        }
    }
    assert_eq!(server.metric("rtpbridge_file_decodes_total") - before, 4.0);
}

#[test]
fn a_file_is_in_the_recording_of_its_session_and_in_its_own() {
    let server = Server::start();
    make(&media(&server), "tone.wav", TONE, &[]);
    let (mut client, _) = server.session();
    let party = Party::join(&mut client);
    let path = server.recording_path("all.pcap");
    let all = client.call("recording.start", json!({"file_path": path}));
    let file = play(&mut client, "tone.wav", json!({}));
    let own = server.recording_path("own.pcap");
    client.call(
        "recording.start",
        json!({"file_path": own, "endpoint_id": file}),
    );
    expect_finished(&mut client, &file);
    party.receive_all(QUIET);
    let id = json!({"recording_id": all["recording_id"]});
    let stopped = client.call("recording.stop", id);
    let streams = stopped["streams"].as_array().unwrap();
    let row = streams.iter().find(|row| row["endpoint_id"] == json!(file));
    let row = row.unwrap();
    let packets = row["packets"].as_u64().unwrap();
    assert!((74..=76).contains(&packets), "{stopped}");
    assert_eq!(row["gaps"], 0);
    let capture = Capture::read(&path);
    let recorded: Vec<Rtp> = capture
        .rtp()
        .map(|(_, rtp)| rtp)
        .filter(|rtp| json!(rtp.ssrc) == row["ssrc"])
        .collect();
    let hz = pitch(&samples(&recorded)[..8000]);
    assert!((hz - 440.0).abs() < 5.0, "{hz}");
    client.call("endpoint.remove", json!({"endpoint_id": file}));
    let ended = client.expect_event_where("recording.stopped", |data| data["file_path"] == own);
    assert_eq!(ended["reason"], "endpoint_removed");
    assert!(ended["packets"].as_u64().unwrap() >= 60, "{ended}");
}

#[test]
fn a_file_plays_on_while_control_is_away_and_its_end_is_told_to_who_comes_next() {
    let mut server = Server::start();
    make(&media(&server), "tone.wav", TONE, &[]);
    let (mut client, session) = server.session();
    let party = Party::join(&mut client);
    let file = play(&mut client, "tone.wav", json!({}));
    party.receive_exactly(10);
    server.kill_control();
    drop(client);
    party.receive_exactly(64);
    server.start_control();
    server.wait_healthy();
    let mut client = server.client();
    client.call("session.attach", json!({"session_id": session}));
    let finished = expect_finished(&mut client, &file);
    assert_eq!(finished["reason"], "completed");
    assert!(finished["seq"].is_u64(), "{finished}");
}

#[test]
fn a_file_that_decodes_to_very_much_takes_little_memory() {
    let server = Server::builder()
        .set("max_endpoints_per_session", 0)
        .start();
    let graph = "anullsrc=sample_rate=48000:channel_layout=5.1:duration=1800";
    let flac = make(&media(&server), "long.flac", graph, &[]);
    let ratio = 1800 * 48000 * 12 / fs::metadata(flac).unwrap().len();
    assert!(ratio > 500, "only {ratio} bytes from one");
    let resident = |server: &Server| {
        let statm = format!("/proc/{}/statm", server.dataplane_pid());
        let statm = fs::read_to_string(statm).unwrap();
        let pages = statm.split(' ').nth(1).unwrap();
        pages.parse::<u64>().unwrap() * 4096
    };
    let (mut client, _) = server.session();
    let before = resident(&server);
    for n in 0..20 {
        let extra = json!({"loop_count": null, "start_ms": n * 60_000});
        play(&mut client, "long.flac", extra);
    }
    client.expect_no_event("endpoint.file.finished", Duration::from_secs(2));
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes more");
}
