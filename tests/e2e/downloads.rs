//! media, Files: URLs are downloaded once for all who ask, kept for their time, and played; what
//! servers do wrong is told, and leaves nothing behind.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rtpbridge_tests::harness::wait::{SOON, eventually, never};
use rtpbridge_tests::harness::web::Answer;
use rtpbridge_tests::harness::{Client, Server, WebServer, tool};
use rtpbridge_tests::peer::Party;
use rtpbridge_tests::peer::audio::{make, pitch, samples};
use serde_json::{Value, json};

use crate::files::damaged_files;

/// A second of 440 Hz.
fn sound(server: &Server) -> Vec<u8> {
    tone_of(server, "1")
}

fn tone_of(server: &Server, seconds: &str) -> Vec<u8> {
    let graph = format!("sine=frequency=440:sample_rate=16000:duration={seconds}");
    let path = make(server.directory(), "tone.wav", &graph, &[]);
    fs::read(path).unwrap()
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

fn expect_playing(client: &mut Client, endpoint: &str) {
    let changed = client.expect_event_where("endpoint.state_changed", |data| {
        data["endpoint_id"] == endpoint
    });
    assert_eq!(changed["old_state"], "buffering");
    assert_eq!(changed["new_state"], "playing");
}

fn state_of(client: &mut Client, endpoint: &str) -> Value {
    let info = client.call("session.info", json!({}));
    let rows = info["endpoints"].as_array().unwrap().iter();
    let mut found = rows.filter(|row| row["endpoint_id"] == endpoint);
    found.next().map_or(Value::Null, |row| row["state"].clone())
}

/// Names in `cache_dir`.
fn cached(server: &Server) -> Vec<String> {
    let files = fs::read_dir(server.path("cache")).unwrap();
    let name = |file: fs::DirEntry| file.file_name().to_string_lossy().into_owned();
    files.map(|file| name(file.unwrap())).collect()
}

fn expect_cached(server: &Server, count: usize) {
    eventually("the cache holds what it should", SOON, || {
        (cached(server).len() == count).then_some(())
    });
}

#[test]
fn a_url_is_waited_for_played_and_kept() {
    let server = Server::start();
    let web = WebServer::start();
    let slowly = Answer::Slow(sound(&server), Duration::from_millis(300));
    let url = web.answer("/tone.wav?x=1", slowly);
    let (mut client, _) = server.session();
    let party = Party::join(&mut client);
    let headers = json!({"headers": {"X-Token": "abc", "Accept": "audio/*"}});
    let file = play(&mut client, &url, headers.clone());
    assert_eq!(state_of(&mut client, &file), "buffering");
    for method in ["pause", "resume"] {
        let method = format!("endpoint.file.{method}");
        client.refuse(&method, json!({"endpoint_id": file}), "ENDPOINT_ERROR");
    }
    let position = json!({"endpoint_id": file, "position_ms": 0});
    client.refuse("endpoint.file.seek", position, "ENDPOINT_ERROR");
    expect_playing(&mut client, &file);
    let finished = expect_finished(&mut client, &file);
    assert_eq!(
        (&finished["reason"], &finished["error"]),
        (&json!("completed"), &Value::Null)
    );
    assert_eq!(state_of(&mut client, &file), "finished");
    let heard = samples(&party.receive_all(Duration::from_millis(300)));
    assert_eq!(heard.len(), 8000);
    assert!((pitch(&heard[800..7200]) - 440.0).abs() < 5.0);
    let asked = web.asked("/tone.wav?x=1");
    assert_eq!(asked[0].headers["x-token"], "abc");
    assert_eq!(asked[0].headers["accept"], "audio/*");
    expect_cached(&server, 1);
    let again = play(&mut client, &url, headers);
    expect_finished(&mut client, &again);
    assert_eq!(web.asked("/tone.wav?x=1").len(), 1, "it was there");
    let other = play(&mut client, &url, json!({"headers": {"X-Token": "other"}}));
    expect_finished(&mut client, &other);
    assert_eq!(web.asked("/tone.wav?x=1").len(), 2);
    expect_cached(&server, 2);
    assert_eq!(server.metric("rtpbridge_downloads_total"), 2.0);
    assert_eq!(server.metric("rtpbridge_cache_files"), 2.0);
}

#[test]
fn what_servers_do_wrong_is_told_and_leaves_nothing_behind() {
    let server = Server::builder()
        .set("max_file_download_bytes", 200_000)
        .set("max_endpoints_per_session", 0)
        .start();
    let web = WebServer::start();
    let whole = sound(&server);
    let half = whole[..whole.len() / 2].to_vec();
    web.answer("/a", Answer::Redirect("/b".into()));
    web.answer("/1", Answer::Redirect("/2".into()));
    web.answer("/2", Answer::Redirect("/3".into()));
    web.answer("/3", Answer::Redirect("/4".into()));
    web.answer("/4", Answer::Redirect("/5".into()));
    web.answer("/5", Answer::Redirect("/6".into()));
    web.answer("/6", Answer::Redirect("/good".into()));
    web.answer("/good", Answer::Whole(whole.clone()));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    let urls = [
        web.url("/missing"),
        web.answer("/500", Answer::Status(500)),
        web.answer("/204", Answer::Status(204)),
        web.answer("/b", Answer::Redirect("/a".into())),
        web.url("/1"),
        web.answer("/away", Answer::Redirect("file:///etc/passwd".into())),
        web.answer("/endless", Answer::Endless),
        web.answer("/long", Answer::Whole(vec![0; 200_001])),
        web.answer("/cut", Answer::Truncated(half.clone(), whole.len())),
        web.answer("/drip", Answer::Drip),
        web.answer("/silent", Answer::Silent),
        web.answer("/text", Answer::Whole(b"no sound at all".to_vec())),
        web.answer("/nothing", Answer::Whole(Vec::new())),
        format!("http://127.0.0.1:{closed_port}/closed"),
        "http://no-such-host.invalid/a.wav".to_owned(),
    ];
    let (mut client, _) = server.session();
    let files: Vec<_> = urls
        .iter()
        .map(|url| (url, play(&mut client, url, json!({"timeout_ms": 1500}))))
        .collect();
    for (url, file) in &files {
        let finished = expect_finished(&mut client, file);
        assert_eq!(finished["reason"], "error", "{url}: {finished}");
        let error = finished["error"].as_str().unwrap();
        assert!(
            !error.is_empty() && !error.contains(url.as_str()),
            "{error}"
        );
    }
    assert_eq!(
        client.call("session.info", json!({}))["endpoints"],
        json!([])
    );
    expect_cached(&server, 0);
    // Five are followed.
    let file = play(&mut client, &web.url("/2"), json!({}));
    assert_eq!(expect_finished(&mut client, &file)["reason"], "completed");
    client.refuse(
        "endpoint.create_with_file",
        json!({"source": "http://"}),
        "INVALID_PARAMS",
    );
}

#[test]
fn damaged_files_of_every_format_that_cannot_be_played_are_not_kept() {
    let server = Server::builder()
        .set("max_endpoints_per_session", 0)
        .start();
    let web = WebServer::start();
    let (mut client, _) = server.session();
    let mut files = Vec::new();
    for damaged in damaged_files(&server) {
        let (name, bytes) = damaged;
        let url = web.answer(&format!("/{name}"), Answer::Whole(bytes));
        files.push((name, play(&mut client, &url, json!({"gain_db": -100.0}))));
    }
    let mut kept = 0;
    for (name, file) in &files {
        let finished = expect_finished(&mut client, file);
        let is_error = finished["reason"] == "error";
        assert_eq!(
            finished["error"].is_string(),
            is_error,
            "{name}: {finished}"
        );
        kept += usize::from(!is_error);
    }
    let gone = files.len() - kept;
    assert!(kept > 0 && gone > 10, "{kept} and {gone}");
    expect_cached(&server, kept);
}

#[test]
fn headers_for_one_server_are_not_told_another() {
    let server = Server::start();
    let (one, other) = (WebServer::start(), WebServer::start());
    let target = other.answer("/tone.wav", Answer::Whole(sound(&server)));
    let url = one.answer("/go", Answer::Redirect(target));
    let (mut client, _) = server.session();
    let secret = json!({"headers": {"Authorization": "Bearer secret"}});
    let file = play(&mut client, &url, secret);
    assert_eq!(expect_finished(&mut client, &file)["reason"], "completed");
    let told = &one.asked("/go")[0].headers;
    assert_eq!(told["authorization"], "Bearer secret");
    assert_eq!(
        other.asked("/tone.wav")[0].headers.get("authorization"),
        None
    );
}

#[test]
fn many_who_ask_for_one_url_share_its_download_and_each_keeps_its_own_patience() {
    let server = Server::start();
    let web = WebServer::start();
    let slowly = Answer::Slow(sound(&server), Duration::from_millis(1000));
    let url = web.answer("/tone.wav", slowly);
    let mut calls: Vec<_> = (0..10)
        .map(|_| {
            let (mut client, _) = server.session();
            let file = play(&mut client, &url, json!({"shared": true}));
            (client, file)
        })
        .collect();
    let (mut hasty, _) = server.session();
    let file = play(&mut hasty, &url, json!({"timeout_ms": 200}));
    let finished = expect_finished(&mut hasty, &file);
    assert_eq!(finished["reason"], "error");
    for (client, file) in &mut calls {
        expect_playing(client, file);
        assert_eq!(expect_finished(client, file)["reason"], "completed");
    }
    assert_eq!(web.asked("/tone.wav").len(), 1);
    assert_eq!(server.metric("rtpbridge_file_decodes_total"), 1.0);
}

#[test]
fn downloads_at_a_time_are_bounded() {
    let server = Server::builder().set("max_concurrent_downloads", 2).start();
    let web = WebServer::start();
    let (mut client, _) = server.session();
    let files: Vec<_> = (0..4)
        .map(|n| {
            let url = web.answer(&format!("/{n}"), Answer::Silent);
            play(&mut client, &url, json!({"timeout_ms": 60_000}))
        })
        .collect();
    let asked = || {
        (0..4)
            .map(|n| web.asked(&format!("/{n}")).len())
            .sum::<usize>()
    };
    eventually("two are asked for", SOON, || (asked() == 2).then_some(()));
    never("more are asked for", Duration::from_millis(300), || {
        asked() > 2
    });
    let first = (0..4).find(|n| !web.asked(&format!("/{n}")).is_empty());
    let endpoint = &files[first.unwrap()];
    client.call("endpoint.remove", json!({"endpoint_id": endpoint}));
    eventually("a place is free", SOON, || (asked() == 3).then_some(()));
}

#[test]
fn a_download_ends_with_those_who_wait_for_it() {
    let server = Server::start();
    let web = WebServer::start();
    let patient = json!({"timeout_ms": 60_000});
    type End = fn(&mut Client, &str);
    let ends: [End; 2] = [
        |client, file| {
            client.call("endpoint.remove", json!({"endpoint_id": file}));
        },
        |client, _| {
            client.call("session.destroy", json!({}));
        },
    ];
    for (n, end) in ends.into_iter().enumerate() {
        let url = web.answer(&format!("/drip{n}"), Answer::Drip);
        let (mut client, _) = server.session();
        let file = play(&mut client, &url, patient.clone());
        expect_cached(&server, 1);
        end(&mut client, &file);
        expect_cached(&server, 0);
    }
}

#[test]
fn without_a_time_to_live_a_file_goes_with_its_last_use() {
    let server = Server::start();
    let web = WebServer::start();
    let (mut client, _) = server.session();
    let once = json!({"cache_ttl_secs": 0, "loop_count": null});
    let url = web.answer("/tone.wav", Answer::Whole(sound(&server)));
    let one = play(&mut client, &url, once.clone());
    let two = play(&mut client, &url, once.clone());
    expect_playing(&mut client, &one);
    expect_playing(&mut client, &two);
    client.call("endpoint.remove", json!({"endpoint_id": one}));
    assert_eq!(cached(&server).len(), 1, "in use");
    client.call("endpoint.remove", json!({"endpoint_id": two}));
    expect_cached(&server, 0);
    let three = play(&mut client, &url, once.clone());
    expect_playing(&mut client, &three);
    client.call("session.destroy", json!({}));
    expect_cached(&server, 0);
    client.call("session.create", json!({}));
    let four = play(&mut client, &url, json!({"cache_ttl_secs": 0}));
    expect_finished(&mut client, &four);
    expect_cached(&server, 0);
    assert_eq!(state_of(&mut client, &four), "finished");
}

#[test]
fn the_time_to_live_counts_from_the_last_use_and_a_file_in_use_stays() {
    let server = Server::builder()
        .set("cache_cleanup_interval_secs", 1)
        .start();
    let web = WebServer::start();
    let url = web.answer("/tone.wav", Answer::Whole(sound(&server)));
    let (mut client, _) = server.session();
    let short = json!({"cache_ttl_secs": 1, "loop_count": null});
    let file = play(&mut client, &url, short);
    expect_playing(&mut client, &file);
    never("a file in use goes", Duration::from_millis(3500), || {
        cached(&server).is_empty()
    });
    client.call("endpoint.remove", json!({"endpoint_id": file}));
    expect_cached(&server, 0);
}

#[test]
fn left_overs_of_an_earlier_life_go_at_the_start_and_nothing_else_does() {
    let mut server = Server::builder().prepare();
    let ours = "0".repeat(64);
    let part = format!("{ours}.wav.{}.part", "1".repeat(32));
    for name in [part.as_str(), &format!("{ours}.wav"), "somebody-elses.part"] {
        fs::write(server.path("cache").join(name), "x").unwrap();
    }
    server.start_dataplane();
    server.start_control();
    server.wait_healthy();
    expect_cached(&server, 2);
    assert!(!cached(&server).contains(&part));
}

#[test]
fn a_new_control_takes_up_downloads_and_knows_what_is_in_use() {
    let mut server = Server::builder()
        .set("cache_cleanup_interval_secs", 1)
        .start();
    let web = WebServer::start();
    let played = web.answer("/tone.wav", Answer::Whole(sound(&server)));
    let slowly = Answer::Slow(sound(&server), Duration::from_secs(2));
    let awaited = web.answer("/slow.wav", slowly);
    let (mut client, session) = server.session();
    let forever = json!({"loop_count": null, "cache_ttl_secs": 1});
    let playing = play(&mut client, &played, forever);
    expect_playing(&mut client, &playing);
    let waiting = play(&mut client, &awaited, json!({"timeout_ms": 60_000}));
    eventually("it is asked for", SOON, || {
        (web.asked("/slow.wav").len() == 1).then_some(())
    });
    server.kill_control();
    drop(client);
    server.start_control();
    server.wait_healthy();
    let mut client = server.client();
    client.call("session.attach", json!({"session_id": session}));
    expect_playing(&mut client, &waiting);
    assert_eq!(web.asked("/slow.wav").len(), 2);
    assert_eq!(
        expect_finished(&mut client, &waiting)["reason"],
        "completed"
    );
    assert_eq!(state_of(&mut client, &playing), "playing");
    expect_cached(&server, 2);
}

/// Every packet of a call arrives, in order and unchanged.
fn assert_undisturbed(alice: &mut Party, bob: &Party, frames: usize) {
    let sent = alice.talk(frames);
    let heard = bob.receive_exactly(frames);
    for (heard, sent) in heard.iter().zip(&sent) {
        assert_eq!(heard.payload, sent.payload);
    }
    for pair in heard.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
    }
}

#[test]
fn slow_servers_disturb_no_other_call() {
    let server = Server::builder()
        .set("max_endpoints_per_session", 0)
        .start();
    let web = WebServer::start();
    let (mut caller, _) = server.session();
    let mut alice = Party::join(&mut caller);
    let bob = Party::join(&mut caller);
    let (mut client, _) = server.session();
    let long = tone_of(&server, "10");
    for n in 0..20 {
        let answer = match n % 4 {
            0 => Answer::Drip,
            1 => Answer::Silent,
            2 => Answer::Slow(long.clone(), Duration::from_secs(2)),
            _ => Answer::Endless,
        };
        let url = web.answer(&format!("/{n}"), answer);
        play(&mut client, &url, json!({"timeout_ms": 2000}));
    }
    assert_undisturbed(&mut alice, &bob, 150);
}

/// A library whose reads from files of sound take their time.
fn slow_disk(server: &Server) -> String {
    let source = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <fcntl.h>
        #include <stdio.h>
        #include <string.h>
        #include <time.h>
        #include <unistd.h>
        ssize_t read(int fd, void *bytes, size_t count) {
            static ssize_t (*real)(int, void *, size_t);
            if (!real) real = dlsym(RTLD_NEXT, "read");
            char link[64], path[512];
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t length = readlink(link, path, sizeof path - 1);
            path[length < 0 ? 0 : length] = 0;
            if (strstr(path, ".wav")) {
                struct timespec pause = {0, 300000000};
                nanosleep(&pause, 0);
            }
            return real(fd, bytes, count);
        }
    "#;
    let (code, library) = (server.path("slow.c"), server.path("slow.so"));
    fs::write(&code, source).unwrap();
    let library = library.to_string_lossy().into_owned();
    let code = code.to_string_lossy();
    tool::run("cc", &["-shared", "-fPIC", "-o", &library, &code, "-ldl"]);
    library
}

#[test]
fn a_slow_disk_disturbs_no_other_call_and_is_heard_as_silence() {
    let mut server = Server::builder()
        .set("media_workers", 1)
        .set("max_endpoints_per_session", 0)
        .prepare();
    let library = slow_disk(&server);
    let mut env = Command::new("env");
    env.arg(format!("LD_PRELOAD={library}"));
    let dataplane = server.start_under(&mut env, "rtpbridge-dataplane");
    let control = server.start_under(&mut Command::new("env"), "rtpbridge-control");
    server.adopt(dataplane, control);
    server.wait_healthy();
    let stereo = ["-ar", "96000", "-ac", "2", "-c:a", "pcm_s24le"];
    let graph = "sine=frequency=440:sample_rate=48000:duration=8";
    make(&server.path("media"), "slow.wav", graph, &stereo);
    let (mut caller, _) = server.session();
    let mut alice = Party::join(&mut caller);
    let bob = Party::join(&mut caller);
    thread::scope(|scope| {
        let call = scope.spawn(|| assert_undisturbed(&mut alice, &bob, 400));
        for _ in 0..3 {
            let (mut client, _) = server.session();
            let listener = Party::join(&mut client);
            let opened = client.request(
                "endpoint.create_with_file",
                json!({"source": "slow.wav", "loop_count": null}),
            );
            assert!(opened.is_ok(), "{opened:?}");
            listener.receive_exactly(10);
        }
        call.join().unwrap();
    });
    let starved = server.metric("rtpbridge_file_underruns_total");
    assert!(starved > 0.0, "the disk was slow");
}

#[test]
fn no_client_makes_a_session_too_large_to_be_told() {
    let server = Server::start();
    let web = WebServer::start();
    let url = web.answer("/silent", Answer::Silent);
    let (mut client, session) = server.session();
    let play = |bytes: usize| {
        let headers = json!({"X-Long": "v".repeat(bytes - "X-Long".len())});
        json!({"source": url, "timeout_ms": 60_000, "headers": headers})
    };
    let method = "endpoint.create_with_file";
    let told = client.refuse(method, play(16 * 1024 + 1), "INVALID_PARAMS");
    assert!(told.contains("headers") && told.contains("16384"), "{told}");
    let mut endpoints = 0;
    let refused = loop {
        match client.request(method, play(16 * 1024)) {
            Ok(_) => endpoints += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code, "ENDPOINT_ERROR");
    assert_eq!(endpoints, 15, "{}", refused.message);
    let info = client.call("session.info", json!({}));
    assert_eq!(info["endpoints"].as_array().unwrap().len(), endpoints);
    // Those that wait are no burden for others.
    client.call(method, json!({"source": "http://127.0.0.1:9/"}));
    let mut other = server.client();
    other.call("session.create", json!({}));
    assert_eq!(server.sessions().len(), 2);
    assert_eq!(server.sessions()[0]["session_id"], json!(session));
}
