//! session.bridge: sound crosses one bridge and no more, however many sessions are joined and in
//! whatever shape, and a bridge is on both sides or on none.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::party::FRAME_TIME;
use rtpbridge_tests::peer::rtp::TelephoneEvent;
use rtpbridge_tests::peer::{Offer, Party, Rtp, audio};
use serde_json::{Value, json};

/// Sessions of the large shapes.
const SESSIONS: usize = 20;
/// What each party sends: so low that twenty of them stay clear of the limiter.
const LEVEL_DBFS: f64 = -32.0;
/// Below this nobody is heard.
const SILENT_DBFS: f64 = -55.0;
/// Samples of the stretches in which levels are taken: half a second.
const STRETCH: usize = 4000;
/// So many of them have to be right: most of what is heard at once where nothing disturbs.
const ENOUGH: usize = 6;

/// A session with one party that sends a tone of its own.
struct Room {
    client: Client,
    session: String,
    party: Party,
    hz: u32,
}

/// Tones of all parties, sent from one thread.
struct Choir {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Choir {
    fn start(rooms: &mut [Room]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let voices: Vec<(UdpSocket, SocketAddr, Vec<Vec<u8>>)> = rooms
            .iter_mut()
            .map(|room| {
                let frames = audio::tone(room.hz, LEVEL_DBFS);
                let frames = frames.iter().cycle().take(1500);
                let datagrams = frames.map(|frame| room.party.next_packet(frame).write());
                let datagrams = datagrams.collect();
                let socket = room.party.socket().try_clone().unwrap();
                (socket, room.party.bridge, datagrams)
            })
            .collect();
        let thread = thread::spawn(move || {
            let mut due = Instant::now();
            for index in 0..1500 {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(due.saturating_duration_since(Instant::now()));
                for (socket, to, datagrams) in &voices {
                    socket.send_to(&datagrams[index], to).unwrap();
                }
                due += FRAME_TIME;
            }
        });
        Self { stop, thread }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

fn server() -> Server {
    Server::builder()
        .media_ports(200)
        .set("media_workers", 3)
        .set("max_lateness_ms", 0)
        .start()
}

fn rooms(server: &Server, count: usize) -> Vec<Room> {
    let room = |index: usize| {
        let (mut client, session) = server.session();
        Room {
            party: Party::join(&mut client),
            client,
            session,
            hz: 400 + 140 * u32::try_from(index).unwrap(),
        }
    };
    (0..count).map(room).collect()
}

fn join(rooms: &mut [Room], here: usize, there: usize, extra: Value) -> (String, String) {
    let mut params = json!({"target_session_id": rooms[there].session});
    for (key, value) in extra.as_object().unwrap() {
        params[key] = value.clone();
    }
    let made = rooms[here].client.call("session.bridge", params);
    let id = |name: &str| made[name].as_str().unwrap().to_owned();
    (id("endpoint_id"), id("target_endpoint_id"))
}

fn rows(client: &mut Client) -> Vec<Value> {
    let info = client.call("session.info", json!({}));
    info["endpoints"].as_array().unwrap().clone()
}

/// Each party hears those whom `expected` names at their level, and nobody else. Nothing makes anybody
/// louder than they are, so that is wrong at once; a busy machine, though, keeps parties from speaking
/// in time, so stretches in which somebody is too low are left aside until there are enough others.
fn expect_heard(rooms: &mut [Room], expected: impl Fn(usize) -> Vec<usize>) {
    let choir = Choir::start(rooms);
    thread::sleep(Duration::from_secs(1));
    let mut right = BTreeMap::new();
    for _ in 0..6 {
        for room in &*rooms {
            room.party.receive_all(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(4200));
        listen(rooms, &expected, &mut right);
        if right.values().all(|stretches| *stretches >= ENOUGH) {
            break;
        }
    }
    choir.finish();
    right.retain(|_, stretches| *stretches < ENOUGH);
    assert!(right.is_empty(), "too low, too often: {right:?}");
}

/// Counts the stretches in which each (first) hears each of those expected (second) as they should.
fn listen(
    rooms: &[Room],
    expected: &impl Fn(usize) -> Vec<usize>,
    right: &mut BTreeMap<(usize, usize), usize>,
) {
    for (index, listener) in rooms.iter().enumerate() {
        let heard: Vec<Rtp> = (0..210)
            .map_while(|_| listener.party.receive(Duration::from_millis(1)))
            .collect();
        let wanted = expected(index);
        if wanted.is_empty() {
            assert!(heard.len() < 50, "{index} hears {} packets", heard.len());
            continue;
        }
        assert!(heard.windows(2).all(|pair| pair[0].ssrc == pair[1].ssrc));
        let samples = audio::samples(&heard);
        for (speaker, room) in rooms.iter().enumerate() {
            let stretches = samples.chunks_exact(STRETCH);
            let levels = stretches.map(|pcm| audio::level_dbfs(pcm, f64::from(room.hz)));
            let levels: Vec<f64> = levels.collect();
            let loudest = levels.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if !wanted.contains(&speaker) {
                let text = format!("{index} hears {speaker} at {loudest:.1} dBFS");
                assert!(loudest < SILENT_DBFS, "{text}");
                continue;
            }
            let text = format!("{index} hears {speaker} at {levels:.1?} dBFS");
            assert!(loudest < LEVEL_DBFS + 1.0, "{text}");
            let is_right = |level: &&f64| **level > LEVEL_DBFS - 1.0;
            *right.entry((index, speaker)).or_insert(0) += levels.iter().filter(is_right).count();
        }
    }
}

#[test]
fn in_a_star_the_hub_hears_all_and_all_hear_the_hub() {
    let server = server();
    let mut rooms = rooms(&server, SESSIONS);
    for spoke in 1..SESSIONS {
        let (hub, far) = if spoke % 2 == 0 {
            (0, spoke)
        } else {
            (spoke, 0)
        };
        join(&mut rooms, hub, far, json!({}));
    }
    expect_heard(&mut rooms, |index| match index {
        0 => (1..SESSIONS).collect(),
        _ => vec![0],
    });
}

#[test]
fn in_a_chain_each_hears_its_neighbours() {
    let server = server();
    let mut rooms = rooms(&server, SESSIONS);
    for link in 1..SESSIONS {
        join(&mut rooms, link - 1, link, json!({}));
    }
    expect_heard(&mut rooms, |index| {
        let before = index.checked_sub(1);
        let after = (index + 1 < SESSIONS).then_some(index + 1);
        before.into_iter().chain(after).collect()
    });
}

#[test]
fn in_a_triangle_everybody_hears_everybody_once_and_directions_hold() {
    let server = server();
    let mut rooms = rooms(&server, 5);
    for (one, other) in [(0, 1), (1, 2), (2, 0)] {
        join(&mut rooms, one, other, json!({}));
    }
    // The last two: seen from 3, the far session only speaks.
    let (near, _) = join(&mut rooms, 3, 4, json!({"direction": "sendonly"}));
    let row = rows(&mut rooms[3].client);
    let row = row
        .iter()
        .find(|row| row["endpoint_id"] == json!(near))
        .unwrap();
    assert_eq!(row["direction"], json!("sendonly"));
    assert_eq!(row["codec"], json!("L16/48000"));
    assert_eq!(row["endpoint_type"], json!("bridge"));
    assert_eq!(row["state"], json!("connected"));
    let far = rows(&mut rooms[4].client);
    assert_eq!(far[1]["direction"], json!("recvonly"));
    expect_heard(&mut rooms, |index| match index {
        0 => vec![1, 2],
        1 => vec![0, 2],
        2 => vec![0, 1],
        3 => vec![4],
        _ => vec![],
    });
}

#[test]
fn between_two_parties_of_one_codec_packets_cross_untouched() {
    let server = server();
    let mut rooms = rooms(&server, 2);
    join(&mut rooms, 0, 1, json!({}));
    // Which workers the sessions are on makes no difference; both ways.
    for (speaks, hears) in [(0, 1), (1, 0)] {
        // Only once each end knows what the other may be sent.
        rooms[speaks].party.talk(10);
        rooms[hears].party.receive_all(Duration::from_millis(200));
        let said = rooms[speaks].party.talk(50);
        let heard = rooms[hears].party.receive_exactly(50);
        for (heard, said) in heard.iter().zip(&said) {
            assert_eq!(heard.payload, said.payload);
        }
        for pair in heard.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
            let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
            assert_eq!(step, 160);
        }
    }
}

#[test]
fn an_end_that_is_transferred_is_heard_where_it_has_come_to() {
    let server = server();
    let mut rooms = rooms(&server, 3);
    let (_, far) = join(&mut rooms, 0, 1, json!({}));
    let target = rooms[2].session.clone();
    let params = json!({"endpoint_id": far, "target_session_id": target});
    let client = &mut rooms[1].client;
    client.call("endpoint.transfer", params.clone());
    assert_eq!(client.expect_event("endpoint.transferred_out"), params);
    let arrived = rooms[2].client.expect_event("endpoint.transferred_in");
    let expected = json!({
        "endpoint_id": far, "source_session_id": rooms[1].session,
        "endpoint_type": "bridge", "direction": "sendrecv", "state": "connected",
    });
    assert_eq!(arrived, expected);
    expect_heard(&mut rooms, |index| match index {
        0 => vec![2],
        2 => vec![0],
        _ => vec![],
    });
    // The counterpart has a session of its own to be in.
    let back = json!({"endpoint_id": far, "target_session_id": rooms[0].session});
    let client = &mut rooms[2].client;
    client.refuse("endpoint.transfer", back, "ENDPOINT_ERROR");
}

#[test]
fn digits_cross_a_bridge_and_are_told_where_they_were_pressed() {
    let server = server();
    let mut rooms = rooms(&server, 2);
    join(&mut rooms, 0, 1, json!({}));
    let codecs = [(0, "PCMU/8000"), (97, "telephone-event/8000")];
    let mut presser = Party::bind();
    let offer = Offer::with_codecs(presser.address(), &codecs);
    presser.offer(&mut rooms[0].client, &offer, json!({}));
    let listener = Party::bind();
    let offer = Offer::with_codecs(listener.address(), &codecs);
    let mut listening = listener;
    listening.offer(&mut rooms[1].client, &offer, json!({}));
    presser.talk(5);
    for event in [5, 9] {
        presser.press(97, event, 5);
        thread::sleep(Duration::from_millis(300));
    }
    let told = |client: &mut Client| -> Vec<Value> {
        let events = client.drain_events(Duration::from_millis(300));
        let digits = events.into_iter().filter(|event| event.name == "dtmf");
        digits.map(|event| event.data["digit"].clone()).collect()
    };
    assert_eq!(told(&mut rooms[0].client), ["5", "9"]);
    assert!(told(&mut rooms[1].client).is_empty());
    let heard = listening.receive_all(Duration::from_millis(100));
    let events = heard.iter().filter(|packet| packet.payload_type == 97);
    let mut ends: Vec<(u32, u8)> = events
        .filter_map(|packet| Some((packet.timestamp, TelephoneEvent::parse(&packet.payload)?)))
        .filter(|(_, event)| event.end)
        .map(|(timestamp, event)| (timestamp, event.event))
        .collect();
    ends.dedup();
    let ends: Vec<u8> = ends.into_iter().map(|(_, event)| event).collect();
    assert_eq!(ends, [5, 9]);
}

#[test]
fn a_bridge_goes_from_both_sides_and_a_refused_one_from_none() {
    let server = Server::builder()
        .media_ports(200)
        .set("media_workers", 2)
        .set("max_endpoints_per_session", 3)
        .set("max_lateness_ms", 0)
        .start();
    let mut rooms = rooms(&server, 3);
    let counts = |rooms: &mut [Room]| -> Vec<usize> {
        let listed: Vec<usize> = rooms
            .iter_mut()
            .map(|r| rows(&mut r.client).len())
            .collect();
        let total = server.metric("rtpbridge_endpoints_active");
        assert_eq!(total, listed.iter().sum::<usize>() as f64);
        let shown = server.sessions();
        for (room, count) in rooms.iter().zip(&listed) {
            let row = shown
                .iter()
                .find(|row| row["session_id"] == json!(room.session));
            assert_eq!(row.unwrap()["endpoint_count"], json!(count));
        }
        listed
    };
    let (near, _) = join(&mut rooms, 0, 1, json!({}));
    assert_eq!(counts(&mut rooms), [2, 2, 1]);
    let (_, far) = join(&mut rooms, 1, 2, json!({}));
    assert_eq!(counts(&mut rooms), [2, 3, 2]);
    for here in [0, 2] {
        let params = json!({"target_session_id": rooms[1].session});
        let client = &mut rooms[here].client;
        let text = client.refuse("session.bridge", params, "ENDPOINT_ERROR");
        assert!(text.contains("MAX_ENDPOINTS_REACHED"), "{text}");
    }
    let params = json!({"target_session_id": rooms[0].session});
    let full = &mut rooms[1].client;
    full.refuse("session.bridge", params, "ENDPOINT_ERROR");
    assert_eq!(counts(&mut rooms), [2, 3, 2]);
    let own = json!({"target_session_id": rooms[0].session});
    let client = &mut rooms[0].client;
    client.refuse("session.bridge", own, "INVALID_PARAMS");
    let unknown = json!({"target_session_id": "00000000-0000-4000-8000-000000000000"});
    client.refuse("session.bridge", unknown, "SESSION_NOT_FOUND");
    client.call("endpoint.remove", json!({"endpoint_id": near}));
    assert_eq!(counts(&mut rooms), [1, 2, 2]);
    let params = json!({"endpoint_id": far});
    rooms[2].client.call("endpoint.remove", params);
    assert_eq!(counts(&mut rooms), [1, 1, 1]);
    join(&mut rooms, 0, 1, json!({}));
    join(&mut rooms, 2, 0, json!({}));
    assert_eq!(counts(&mut rooms), [3, 2, 2]);
    rooms[0].client.call("session.destroy", json!({}));
    assert_eq!(counts(&mut rooms[1..]), [1, 1]);
}

#[test]
fn a_recorded_end_is_a_leg_whose_recording_goes_with_the_bridge() {
    let server = server();
    let mut rooms = rooms(&server, 2);
    let (near, far) = join(&mut rooms, 0, 1, json!({}));
    let path = server.recording_path("end.pcap");
    let params = json!({"endpoint_id": far, "file_path": path});
    rooms[1].client.call("recording.start", params);
    let choir = Choir::start(&mut rooms);
    thread::sleep(Duration::from_millis(1500));
    choir.finish();
    rooms[0]
        .client
        .call("endpoint.remove", json!({"endpoint_id": near}));
    let stopped = rooms[1].client.expect_event("recording.stopped");
    assert_eq!(stopped["reason"], json!("endpoint_removed"));
    assert!(stopped["packets"].as_u64().unwrap() > 20, "{stopped}");
    let capture = rtpbridge_tests::peer::capture::Capture::read(&path);
    let heard: Vec<Rtp> = capture.rtp().map(|(_, packet)| packet).collect();
    let samples = audio::samples(&heard);
    let level = audio::level_dbfs(
        &samples[..STRETCH.min(samples.len())],
        f64::from(rooms[0].hz),
    );
    assert!((level - LEVEL_DBFS).abs() < 3.0, "{level}");
}
