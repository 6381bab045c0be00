//! endpoint.transfer: a party that is moved between sessions, and so between workers, while streams
//! run both ways, does not notice; nor does anybody find it in two sessions, or in none.

mod meanwhile;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::{Offer, Party, Rtp, Script, SdesParty, WebrtcPeer, audio};
use serde_json::{Value, json};

const SESSIONS: usize = 20;
const TRANSFERS: usize = 200;
const QUIET: Duration = Duration::from_millis(300);
/// Pace of the party that is moved: ten times that of a phone.
const FAST: Duration = Duration::from_millis(2);
const SLOW: Duration = Duration::from_millis(20);

/// A session with one party that stays.
struct Home {
    client: Client,
    session: String,
    party: Party,
}

/// Sends prepared datagrams at an even pace until it is stopped.
struct Stream {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<usize>>,
}

impl Stream {
    /// One datagram of each row every `pace`.
    fn start(rows: Vec<(UdpSocket, SocketAddr, Vec<Vec<u8>>)>, pace: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut due = Instant::now();
            let mut sent = vec![0; rows.len()];
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                for ((socket, to, datagrams), sent) in rows.iter().zip(&mut sent) {
                    if let Some(datagram) = datagrams.get(*sent) {
                        socket.send_to(datagram, to).unwrap();
                        *sent += 1;
                    }
                }
                due = Instant::now().max(due + pace);
            }
            sent
        });
        Self { stop, thread }
    }

    /// How many of each row were sent.
    fn finish(self) -> Vec<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn server() -> Server {
    Server::builder()
        .media_ports(200)
        .set("media_workers", 3)
        .set("max_lateness_ms", 0)
        .start()
}

fn home(server: &Server) -> Home {
    let (mut client, session) = server.session();
    Home {
        party: Party::join(&mut client),
        client,
        session,
    }
}

fn transfer(homes: &mut [Home], endpoint: &str, from: usize, to: usize) {
    let target = homes[to].session.clone();
    let params = json!({"endpoint_id": endpoint, "target_session_id": target});
    let moved = homes[from].client.call("endpoint.transfer", params.clone());
    assert_eq!(moved, params);
    let out = homes[from].client.expect_event("endpoint.transferred_out");
    assert_eq!(out, params);
    let arrived = homes[to].client.expect_event("endpoint.transferred_in");
    assert_eq!(arrived["endpoint_id"], json!(endpoint));
    assert_eq!(arrived["source_session_id"], json!(homes[from].session));
    assert_eq!(arrived["state"], json!("connected"));
    assert_eq!(arrived["direction"], json!("sendrecv"));
}

/// Where the endpoint is listed; it must be one place.
fn place_of(homes: &mut [Home], endpoint: &str) -> usize {
    let places: Vec<usize> = (0..homes.len())
        .filter(|index| listed(&mut homes[*index].client).contains(&endpoint.to_owned()))
        .collect();
    assert_eq!(places.len(), 1, "{places:?}");
    places[0]
}

fn listed(client: &mut Client) -> Vec<String> {
    let info = client.call("session.info", json!({}));
    let rows = info["endpoints"].as_array().unwrap();
    let id = |row: &Value| row["endpoint_id"].as_str().unwrap().to_owned();
    rows.iter().map(id).collect()
}

fn expect_totals(server: &Server, endpoints: usize) {
    let rows = server.sessions();
    let count = |row: &Value| row["endpoint_count"].as_u64().unwrap() as usize;
    assert_eq!(rows.iter().map(count).sum::<usize>(), endpoints);
    let active = server.metric("rtpbridge_endpoints_active");
    assert_eq!(active, endpoints as f64);
}

fn frames(party: &mut Party, count: usize) -> Vec<Rtp> {
    let packets = (0..count).map(|_| {
        let payload = party.distinct_frame();
        party.next_packet(&payload)
    });
    packets.collect()
}

fn plain(packets: &[Rtp]) -> Vec<Vec<u8>> {
    packets.iter().map(Rtp::write).collect()
}

/// One SSRC and every number once; gives the packets in order.
fn expect_one_stream(mut heard: Vec<Rtp>) -> Vec<Rtp> {
    let Some(first) = heard.first().cloned() else {
        return heard;
    };
    // The kernel may swap neighbours when a thread moves between processors.
    let start = first.sequence.wrapping_sub(32);
    heard.sort_by_key(|packet| packet.sequence.wrapping_sub(start));
    for pair in heard.windows(2) {
        assert_eq!(pair[0].ssrc, pair[1].ssrc);
        let next = pair[0].sequence.wrapping_add(1);
        assert_eq!(pair[1].sequence, next, "lost or twice");
    }
    heard
}

/// Everything that was sent was heard by exactly one of the homes, once, in unbroken streams.
fn expect_all_heard_once(homes: &[Home], sent: &[Rtp]) {
    let mut heard: HashMap<Vec<u8>, usize> = HashMap::new();
    for home in homes {
        for packet in expect_one_stream(home.party.receive_all(QUIET)) {
            *heard.entry(packet.payload).or_default() += 1;
        }
    }
    let lost = sent
        .iter()
        .filter(|packet| !heard.contains_key(&packet.payload));
    assert_eq!(lost.count(), 0, "of {}", sent.len());
    assert_eq!(heard.values().sum::<usize>(), sent.len(), "some came twice");
}

/// What the moved party heard is one stream, and of each stay in a session an unbroken part of its
/// party's stream. Gives the number of stays.
fn expect_unbroken_stays(heard: Vec<Rtp>, said: &[Vec<Rtp>]) -> usize {
    let mut names = HashMap::new();
    for (speaker, packets) in said.iter().enumerate() {
        for (number, packet) in packets.iter().enumerate() {
            names.insert(packet.payload.clone(), (speaker, number));
        }
    }
    let heard = expect_one_stream(heard);
    let named: Vec<(usize, usize)> = heard.iter().map(|packet| names[&packet.payload]).collect();
    let mut last = HashMap::new();
    let mut stays = usize::from(!named.is_empty());
    for pair in named.windows(2) {
        let ((speaker, number), (next_speaker, next)) = (pair[0], pair[1]);
        last.insert(speaker, number);
        if speaker == next_speaker && next == number + 1 {
            continue;
        }
        stays += 1;
        let before = last.get(&next_speaker);
        assert!(before.is_none_or(|before| *before < next), "came twice");
    }
    stays
}

/// Streams of all homes; the datagrams last for half a minute.
fn start_homes(homes: &mut [Home]) -> (Stream, Vec<Vec<Rtp>>) {
    let said: Vec<Vec<Rtp>> = homes
        .iter_mut()
        .map(|h| frames(&mut h.party, 1500))
        .collect();
    let rows = homes.iter().zip(&said).map(|(home, said)| {
        let socket = home.party.socket().try_clone().unwrap();
        (socket, home.party.bridge, plain(said))
    });
    (Stream::start(rows.collect(), SLOW), said)
}

/// Moves the party about while it speaks and is spoken to; gives what it was sent, undecoded.
fn wander(
    server: &Server,
    homes: &mut [Home],
    endpoint: &str,
    party: &Party,
    datagrams: Vec<Vec<u8>>,
    sent: &[Rtp],
) -> (Vec<Vec<u8>>, Vec<Vec<Rtp>>) {
    let mut random = StdRng::seed_from_u64(7);
    let (voices, said) = start_homes(homes);
    let socket = party.socket().try_clone().unwrap();
    let voice = Stream::start(vec![(socket, party.bridge, datagrams)], FAST);
    let mut place = 0;
    for _ in 0..TRANSFERS {
        let next = (place + random.random_range(1..homes.len())) % homes.len();
        transfer(homes, endpoint, place, next);
        place = next;
        thread::sleep(Duration::from_millis(random.random_range(0..25)));
    }
    let count = voice.finish()[0];
    voices.finish();
    assert!(count > TRANSFERS, "{count} packets are no stream");
    assert!(count < sent.len(), "the stream ended early");
    assert_eq!(place_of(homes, endpoint), place);
    expect_totals(server, homes.len() + 1);
    expect_all_heard_once(homes, &sent[..count]);
    let mut heard = Vec::new();
    let deadline = || Instant::now() + QUIET;
    while let Some((datagram, _)) =
        rtpbridge_tests::peer::party::receive_from(party.socket(), deadline())
    {
        if !matches!(datagram.get(1), Some(192..=223)) {
            heard.push(datagram);
        }
    }
    (heard, said)
}

#[test]
fn a_party_that_is_moved_two_hundred_times_loses_nothing_either_way() {
    let server = server();
    let mut homes: Vec<Home> = (0..SESSIONS).map(|_| home(&server)).collect();
    let mut party = Party::join(&mut homes[0].client);
    let sent = frames(&mut party, 20_000);
    let datagrams = plain(&sent);
    let endpoint = party.endpoint.clone();
    let (heard, said) = wander(&server, &mut homes, &endpoint, &party, datagrams, &sent);
    let heard: Vec<Rtp> = heard.iter().map(|d| Rtp::parse(d).unwrap()).collect();
    assert!(expect_unbroken_stays(heard, &said) <= TRANSFERS + 1);
    // Its statistics came along.
    let place = place_of(&mut homes, &endpoint);
    let row = statistics(&mut homes[place].client, &endpoint);
    assert!(row["inbound"]["packets"].as_u64().unwrap() > TRANSFERS as u64);
    assert_eq!(row["inbound"]["packets_lost"], json!(0));
}

#[test]
fn a_secured_party_keeps_its_keys_and_counters_on_the_way() {
    let server = server();
    let script = Rc::new(Script::aiortc());
    let mut homes: Vec<Home> = (0..SESSIONS).map(|_| home(&server)).collect();
    let client = &mut homes[0].client;
    let mut secured = SdesParty::join(&script, client, "AES_CM_128_HMAC_SHA1_80");
    // Its sequence numbers begin anew soon, in one session or another.
    secured.party.sequence = 65_300;
    let sent = secured.next_packets(20_000);
    let datagrams = secured.sender.protect_all(&sent);
    let endpoint = secured.party.endpoint.clone();
    let party = &secured.party;
    let (heard, said) = wander(&server, &mut homes, &endpoint, party, datagrams, &sent);
    // libsrtp refuses what is not authentic and what comes twice.
    let heard = secured.open_all(&heard);
    assert!(expect_unbroken_stays(heard, &said) <= TRANSFERS + 1);
    assert_eq!(server.metric("rtpbridge_srtp_errors_total"), 0.0);
}

#[test]
fn a_browser_that_is_moved_two_hundred_times_loses_nothing_either_way() {
    let server = server();
    let script = Rc::new(Script::browser());
    let mut homes: Vec<Home> = (0..SESSIONS).map(|_| opus_home(&server)).collect();
    let page = WebrtcPeer::join(&script, &mut homes[0].client, 440);
    // 20 ms of silence in Opus, 48 kHz.
    let silence = [0xf8, 0xff, 0xfe];
    let rows = homes.iter_mut().map(|home| {
        let datagrams = (0..6000_u32).map(|number| {
            let mut packet = home.party.next_packet(&silence);
            packet.timestamp = number.wrapping_mul(960);
            packet.write()
        });
        let datagrams = datagrams.collect();
        let socket = home.party.socket().try_clone().unwrap();
        (socket, home.party.bridge, datagrams)
    });
    let voices = Stream::start(rows.collect(), SLOW);
    page.expect_more_packets(10);
    let ssrc = page.stats()["ssrc"].clone();
    assert!(ssrc.is_u64(), "{ssrc}");
    let mut random = StdRng::seed_from_u64(8);
    let mut place = 0;
    for _ in 0..TRANSFERS {
        let next = (place + random.random_range(1..homes.len())) % homes.len();
        transfer(&mut homes, &page.endpoint, place, next);
        place = next;
        thread::sleep(Duration::from_millis(random.random_range(0..50)));
    }
    page.expect_more_packets(50);
    voices.finish();
    page.call("hush", json!({}));
    // What each sent the other has: what was lost or came twice would make a difference.
    let (stats, row) = eventually("both have what the other sent", SOON, || {
        let (stats, row) = (
            page.stats(),
            statistics(&mut homes[place].client, &page.endpoint),
        );
        let is_even = stats["packets_sent"] == row["inbound"]["packets"]
            && stats["packets_received"] == row["outbound"]["packets"];
        is_even.then_some((stats, row))
    });
    assert_eq!(stats["packets_lost"], json!(0), "{stats}");
    assert_eq!(stats["ssrc"], ssrc);
    assert_eq!(row["inbound"]["packets_lost"], json!(0), "{row}");
    let heard = homes.iter().map(|home| {
        let heard = home.party.receive_all(QUIET);
        expect_one_stream(heard).len()
    });
    assert_eq!(row["inbound"]["packets"], json!(heard.sum::<usize>()));
    page.close();
}

/// A session with a party that speaks Opus.
fn opus_home(server: &Server) -> Home {
    let (mut client, session) = server.session();
    let mut party = Party::bind();
    let offer = Offer::with_codecs(party.address(), &[(96, "opus/48000/2")]);
    party.offer(&mut client, &offer, json!({}));
    party.payload_type = 96;
    Home {
        client,
        session,
        party,
    }
}

/// The row of an endpoint in its session's statistics.
fn statistics(client: &mut Client, endpoint: &str) -> Value {
    let rows = client.call("stats.snapshot", json!({}));
    let mut rows = rows["endpoints"].as_array().unwrap().iter();
    let row = rows.find(|row| row["endpoint_id"] == json!(endpoint));
    row.unwrap().clone()
}

#[test]
fn parties_that_cross_each_other_and_are_refused_lose_nothing() {
    let server = Server::builder()
        .media_ports(200)
        .set("media_workers", 2)
        .set("max_lateness_ms", 0)
        .set("max_endpoints_per_session", 4)
        .start();
    let mut homes: Vec<Home> = (0..2).map(|_| home(&server)).collect();
    let mut movers: Vec<Party> = Vec::new();
    for home in &mut homes {
        movers.push(Party::join(&mut home.client));
    }
    let ends: Vec<String> = movers.iter().map(|party| party.endpoint.clone()).collect();
    let sent: Vec<Vec<Rtp>> = movers.iter_mut().map(|m| frames(m, 10_000)).collect();
    let rows = movers.iter().zip(&sent).map(|(party, sent)| {
        let socket = party.socket().try_clone().unwrap();
        (socket, party.bridge, plain(sent))
    });
    // Parties of one direction, so that each has one source: who hears whom stays countable.
    for (home, mover) in homes.iter_mut().zip(&movers) {
        let stays = json!({"endpoint_id": home.party.endpoint, "direction": "recvonly"});
        home.client.call("endpoint.update_direction", stays);
        let moves = json!({"endpoint_id": mover.endpoint, "direction": "sendonly"});
        home.client.call("endpoint.update_direction", moves);
    }
    let voices = Stream::start(rows.collect(), FAST);
    // Both at once, back and forth: whoever finds the other session full stays where it is.
    let mut at = [0, 1];
    for round in 0..100 {
        for index in 0..2 {
            let target = &homes[1 - at[index]].session;
            let params = json!({"endpoint_id": ends[index], "target_session_id": target});
            let request = json!({"id": "t", "method": "endpoint.transfer", "params": params});
            let text = request.to_string();
            homes[at[index]].client.send_text(&text);
        }
        for index in 0..2 {
            let answer = homes[at[index]].client.answer();
            assert!(answer["error"].is_null(), "round {round}: {answer}");
        }
        at = [1 - at[0], 1 - at[1]];
    }
    let counts = voices.finish();
    expect_totals(&server, 4);
    for index in 0..2 {
        assert_eq!(place_of(&mut homes, &ends[index]), at[index]);
    }
    // In the moments between, a home has two sources or none, so who hears what cannot be counted;
    // but all that the two said came in.
    for home in &homes {
        home.party.receive_all(QUIET);
    }
    for index in 0..2 {
        let row = statistics(&mut homes[at[index]].client, &ends[index]);
        assert_eq!(row["inbound"]["packets"], json!(counts[index]));
        assert_eq!(row["inbound"]["packets_lost"], json!(0));
    }

    let own = json!({"endpoint_id": ends[0], "target_session_id": homes[at[0]].session});
    let client = &mut homes[at[0]].client;
    client.refuse("endpoint.transfer", own, "INVALID_PARAMS");
    let nowhere = uuid();
    let unknown = json!({"endpoint_id": ends[0], "target_session_id": nowhere});
    client.refuse("endpoint.transfer", unknown, "SESSION_NOT_FOUND");
    let target = homes[1 - at[0]].session.clone();
    let client = &mut homes[at[0]].client;
    let nobody = json!({"endpoint_id": nowhere, "target_session_id": target});
    let text = client.refuse("endpoint.transfer", nobody, "ENDPOINT_ERROR");
    assert!(text.contains("not found"), "{text}");
    let full = &mut homes[1 - at[0]].client;
    let fillers: Vec<Party> = (0..2).map(|_| Party::join(full)).collect();
    let client = &mut homes[at[0]].client;
    let refused = json!({"endpoint_id": ends[0], "target_session_id": target});
    let text = client.refuse("endpoint.transfer", refused, "TRANSFER_FAILED");
    assert!(text.contains("MAX_ENDPOINTS_REACHED"), "{text}");
    assert_eq!(place_of(&mut homes, &ends[0]), at[0]);
    expect_totals(&server, 4 + fillers.len());
}

#[test]
fn files_and_tones_stay_where_they_are() {
    let server = server();
    let graph = "sine=frequency=440:sample_rate=16000:duration=9";
    audio::make(&server.path("media"), "tone.wav", graph, &[]);
    let ((mut here, _), (mut there, target)) = (server.session(), server.session());
    for (method, params) in [
        ("endpoint.create_tone", json!({"tone": "sine"})),
        ("endpoint.create_with_file", json!({"source": "tone.wav"})),
    ] {
        let endpoint = here.call(method, params)["endpoint_id"].clone();
        let params = json!({"endpoint_id": endpoint, "target_session_id": target});
        here.refuse("endpoint.transfer", params, "ENDPOINT_ERROR");
    }
    let info = here.call("session.info", json!({}));
    let rows = info["endpoints"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["state"] == "playing"), "{info}");
    assert_eq!(listed(&mut there).len(), 0);
    here.expect_no_event("endpoint.transferred_out", QUIET);
    there.expect_no_event("endpoint.transferred_in", Duration::ZERO);
}

/// An id that nobody has.
fn uuid() -> String {
    "00000000-0000-4000-8000-000000000000".to_owned()
}
