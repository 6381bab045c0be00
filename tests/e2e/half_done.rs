//! Control is killed while an endpoint is transferred, or a bridge made: what it had asked for has
//! happened wholly or not at all, and the next control finds it so.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server, procfs};
use rtpbridge_tests::peer::{Party, Rtp};
use serde_json::{Value, json};

const KILLS: usize = 40;
const QUIET: Duration = Duration::from_millis(300);

/// A session with one party that stays.
struct Room {
    client: Client,
    session: String,
    party: Party,
}

/// The moment of the next kill: earlier when the last request was carried out, later when it was not,
/// so that most kills come at the moment that decides.
struct Aim {
    after_us: f64,
    random: StdRng,
    done: usize,
    undone: usize,
}

/// Everything that a request may not leave different from what it shows.
#[derive(PartialEq, Debug)]
struct Resources {
    descriptors: usize,
    ports: usize,
    sessions: f64,
}

impl Aim {
    fn new(seed: u64) -> Self {
        Self {
            after_us: 400.0,
            random: StdRng::seed_from_u64(seed),
            done: 0,
            undone: 0,
        }
    }

    /// Sends the request, kills control, and starts the next one.
    fn shoot(&mut self, server: &mut Server, client: &mut Client, method: &str, params: &Value) {
        let request = json!({"id": "x", "method": method, "params": params});
        client.send_text(&request.to_string());
        let moment = Instant::now() + Duration::from_micros(self.after_us as u64);
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        server.kill_control();
        server.start_control();
        server.wait_healthy();
    }

    fn learn(&mut self, is_done: bool) {
        let step = self.random.random_range(0.05..0.4);
        if is_done {
            self.done += 1;
            self.after_us *= 1.0 - step;
        } else {
            self.undone += 1;
            self.after_us = self.after_us * (1.0 + step) + 10.0;
        }
    }

    /// Kills of both kinds: otherwise none can have come between.
    fn finish(&self) {
        assert_eq!(self.done + self.undone, KILLS);
        let few = KILLS / 8;
        assert!(self.done > few && self.undone > few, "{}", self.done);
    }
}

impl Resources {
    fn of(server: &Server) -> Self {
        let (first, last) = server.media_ports();
        Self {
            descriptors: procfs::fd_count(server.dataplane_pid()),
            ports: procfs::udp_ports().range(first..=last).count(),
            sessions: server.metric("rtpbridge_sessions_active"),
        }
    }
}

fn server() -> Server {
    Server::builder().set("media_workers", 2).start()
}

fn room(server: &Server) -> Room {
    let (mut client, session) = server.session();
    Room {
        party: Party::join(&mut client),
        client,
        session,
    }
}

/// Takes the sessions over from the connections of the dead control.
fn attach(server: &Server, rooms: &mut [Room]) {
    for room in rooms {
        room.client = server.client();
        let params = json!({"session_id": room.session});
        room.client.call("session.attach", params);
    }
}

/// Ids and types of the endpoints of each room, after a look at every place where they are counted.
fn listed(server: &Server, rooms: &mut [Room]) -> Vec<BTreeMap<String, String>> {
    let shown = server.sessions();
    assert_eq!(shown.len(), rooms.len());
    let of = |room: &mut Room| {
        let info = room.client.call("session.info", json!({}));
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        let rows = info["endpoints"].as_array().unwrap().iter();
        let rows: BTreeMap<_, _> = rows
            .map(|row| (text(row, "endpoint_id"), text(row, "endpoint_type")))
            .collect();
        let row = |row: &&Value| row["session_id"] == json!(room.session);
        let count = &shown.iter().find(row).unwrap()["endpoint_count"];
        assert_eq!(*count, json!(rows.len()));
        rows
    };
    let listed: Vec<_> = rooms.iter_mut().map(of).collect();
    let total: usize = listed.iter().map(BTreeMap::len).sum();
    assert_eq!(server.metric("rtpbridge_endpoints_active"), total as f64);
    listed
}

/// Sends the packets at 500 a second until told to stop; gives how many.
fn speak(party: &Party, packets: &[Rtp], stop: &Arc<AtomicBool>) -> thread::JoinHandle<usize> {
    let (socket, to): (UdpSocket, _) = (party.socket().try_clone().unwrap(), party.bridge);
    let datagrams: Vec<Vec<u8>> = packets.iter().map(Rtp::write).collect();
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let is_going_on = |_: &&Vec<u8>| !stop.load(Ordering::Relaxed);
        let said = datagrams.iter().take_while(is_going_on).map(|datagram| {
            thread::sleep(Duration::from_millis(2));
            socket.send_to(datagram, to).unwrap();
        });
        said.count()
    })
}

#[test]
fn a_transfer_that_control_does_not_survive_is_whole_or_was_none() {
    let mut server = server();
    let idle = Resources::of(&server);
    let mut rooms: Vec<Room> = (0..4).map(|_| room(&server)).collect();
    let mut party = Party::join(&mut rooms[0].client);
    let packets: Vec<Rtp> = (0..30_000)
        .map(|_| {
            let payload = party.distinct_frame();
            party.next_packet(&payload)
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let voice = speak(&party, &packets, &stop);
    let before = Resources::of(&server);
    let (mut aim, mut place) = (Aim::new(11), 0);
    for kill in 0..KILLS {
        let target = (place + 1 + kill % 3) % rooms.len();
        let params = json!({
            "endpoint_id": party.endpoint,
            "target_session_id": rooms[target].session,
        });
        let client = &mut rooms[place].client;
        aim.shoot(&mut server, client, "endpoint.transfer", &params);
        attach(&server, &mut rooms);
        let listed = listed(&server, &mut rooms);
        let is_there = |index: &usize| listed[*index].contains_key(&party.endpoint);
        let places: Vec<usize> = (0..rooms.len()).filter(is_there).collect();
        assert!(
            places == [place] || places == [target],
            "kill {kill}: {places:?}"
        );
        aim.learn(places == [target]);
        place = places[0];
        eventually("nothing is held twice", SOON, || {
            (Resources::of(&server) == before).then_some(())
        });
    }
    aim.finish();
    stop.store(true, Ordering::Relaxed);
    let said = voice.join().unwrap();
    // Whoever it was with heard it: all of it, and once.
    let mut heard: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for room in &rooms {
        for packet in room.party.receive_all(QUIET) {
            *heard.entry(packet.payload).or_default() += 1;
        }
    }
    for packet in &packets[..said] {
        assert_eq!(heard.remove(&packet.payload), Some(1));
    }
    assert!(heard.is_empty());
    for room in &mut rooms {
        room.client.call("session.destroy", json!({}));
    }
    eventually("everything is given back", SOON, || {
        (Resources::of(&server) == idle).then_some(())
    });
}

#[test]
fn a_bridge_that_control_does_not_survive_is_on_both_sides_or_on_none() {
    let mut server = server();
    let idle = Resources::of(&server);
    let mut rooms: Vec<Room> = (0..2).map(|_| room(&server)).collect();
    let before = Resources::of(&server);
    let mut aim = Aim::new(12);
    let mut made = 0;
    for kill in 0..KILLS {
        let [near, far] = [kill % 2, (kill + 1) % 2];
        let params = json!({"target_session_id": rooms[far].session});
        let client = &mut rooms[near].client;
        aim.shoot(&mut server, client, "session.bridge", &params);
        attach(&server, &mut rooms);
        let listed = listed(&server, &mut rooms);
        let is_end = |kind: &&String| *kind == "bridge";
        let ends = [0, 1].map(|index: usize| listed[index].values().filter(is_end).count());
        assert_eq!(ends[0], ends[1], "kill {kill}");
        assert!(ends[0] == made || ends[0] == made + 1, "kill {kill}");
        aim.learn(ends[0] > made);
        made = ends[0];
        if made == 5 {
            remove_bridges(&mut rooms[near], &listed[near]);
            made = 0;
            assert!(
                self::listed(&server, &mut rooms)
                    .iter()
                    .all(|rows| rows.len() == 1)
            );
        }
        eventually("nothing is held twice", SOON, || {
            (Resources::of(&server) == before).then_some(())
        });
    }
    aim.finish();
    // What came to be carries sound.
    if made == 0 {
        let params = json!({"target_session_id": rooms[1].session});
        rooms[0].client.call("session.bridge", params);
    }
    rooms[0].party.talk(50);
    assert!(rooms[1].party.receive_all(QUIET).len() >= 40);
    rooms[0].client.call("session.destroy", json!({}));
    eventually("their other ends are gone", SOON, || {
        let listed = listed(&server, &mut rooms[1..]);
        (listed[0].len() == 1).then_some(())
    });
    rooms[1].client.call("session.destroy", json!({}));
    eventually("everything is given back", SOON, || {
        (Resources::of(&server) == idle).then_some(())
    });
}

fn remove_bridges(room: &mut Room, rows: &BTreeMap<String, String>) {
    for (endpoint, kind) in rows {
        if kind == "bridge" {
            let params = json!({"endpoint_id": endpoint});
            room.client.call("endpoint.remove", params);
        }
    }
}
