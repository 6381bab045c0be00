//! What a bridge adds to the time from mouth to ear, measured through the real programs: the same
//! parties speak at the same moments in one session and over bridges.

use std::net::{SocketAddr, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::{Party, Rtp, audio};
use serde_json::json;

/// Frames between the beginnings of two clicks.
const PERIOD: usize = 25;
const CLICKS: usize = 24;
/// The bridge's ticks come every 20 ms; parties speak at four moments between them.
const PHASES: usize = 4;
const STEP: Duration = Duration::from_millis(20 / PHASES as u64);
/// What a bridge may add, and by what our clock may err.
const ALLOWED_MS: f64 = 25.0;
const ERROR_MS: f64 = 2.0;

/// In which of some sessions each of three parties is, and which sessions are joined.
struct Shape {
    name: &'static str,
    sessions: usize,
    /// The speaker, the listener, and one who says nothing.
    parties: [usize; 3],
    bridges: &'static [(usize, usize)],
}

const SHAPES: [Shape; 5] = [
    Shape {
        name: "one session",
        sessions: 1,
        parties: [0, 0, 0],
        bridges: &[],
    },
    Shape {
        name: "a bridge, the third with the speaker",
        sessions: 2,
        parties: [0, 1, 0],
        bridges: &[(0, 1)],
    },
    Shape {
        name: "a bridge, the third with the listener",
        sessions: 2,
        parties: [0, 1, 1],
        bridges: &[(0, 1)],
    },
    Shape {
        name: "a star of two bridges, the listener in the hub",
        sessions: 3,
        parties: [1, 0, 2],
        bridges: &[(0, 1), (0, 2)],
    },
    Shape {
        name: "a triangle of three bridges",
        sessions: 3,
        parties: [0, 1, 2],
        bridges: &[(0, 1), (1, 2), (2, 0)],
    },
];

/// A shape in being.
struct Scene {
    _clients: Vec<Client>,
    speaker: Party,
    listener: Party,
    third: Party,
}

/// A party's packets, to be sent one by one.
struct Script {
    socket: UdpSocket,
    to: SocketAddr,
    datagrams: Vec<Vec<u8>>,
}

impl Scene {
    fn set(server: &Server, shape: &Shape) -> Self {
        let made = (0..shape.sessions).map(|_| server.session());
        let (mut clients, ids): (Vec<Client>, Vec<String>) = made.unzip();
        let parties = shape.parties.map(|at| Party::join(&mut clients[at]));
        let [speaker, listener, third] = parties;
        for (one, other) in shape.bridges {
            let params = json!({"target_session_id": ids[*other]});
            clients[*one].call("session.bridge", params);
        }
        Self {
            _clients: clients,
            speaker,
            listener,
            third,
        }
    }

    /// Clicks of the speaker, silence of the others.
    fn scripts(&mut self) -> [Script; 3] {
        let silence = vec![0xff; 160];
        let sound = audio::encode((0..160).map(|n| if n % 16 < 8 { 8000 } else { -8000 }));
        let script = |party: &mut Party, speaks: bool| {
            let frames = (0..(CLICKS + 1) * PERIOD).map(|at| {
                let clicks = speaks && at >= PERIOD && at % PERIOD < 3;
                party.next_packet(if clicks { &sound } else { &silence })
            });
            Script {
                datagrams: frames.map(|packet| packet.write()).collect(),
                socket: party.socket().try_clone().unwrap(),
                to: party.bridge,
            }
        };
        [
            script(&mut self.speaker, true),
            script(&mut self.listener, false),
            script(&mut self.third, false),
        ]
    }

    /// When each click began to be heard.
    fn listen(&self, until: Instant) -> JoinHandle<Vec<Instant>> {
        let socket = self.listener.socket().try_clone().unwrap();
        thread::spawn(move || {
            let (mut clicks, mut quiet) = (Vec::new(), 1000);
            while let Some((bytes, _)) = rtpbridge_tests::peer::party::receive_from(&socket, until)
            {
                let now = Instant::now();
                let Some(packet) = Rtp::parse(&bytes).filter(|packet| packet.payload_type == 0)
                else {
                    continue;
                };
                for (at, sample) in audio::samples(&[packet]).into_iter().enumerate() {
                    quiet += 1;
                    if sample.unsigned_abs() > 2000 {
                        if quiet > 1000 {
                            clicks.push(now + Duration::from_micros(125 * at as u64));
                        }
                        quiet = 0;
                    }
                }
            }
            clicks
        })
    }
}

/// The shortest time that a click took; a machine that is busy now and then does not count.
fn best(spoken: &[Instant], heard: &[Instant]) -> f64 {
    let delays = spoken.iter().filter_map(|spoken| {
        let delay = heard
            .iter()
            .find(|heard| *heard > spoken)?
            .duration_since(*spoken);
        Some(delay.as_secs_f64() * 1000.0)
    });
    delays.fold(f64::INFINITY, f64::min)
}

#[test]
fn a_bridge_adds_at_most_a_tick_to_what_mixing_takes() {
    let server = Server::builder()
        .media_ports(300)
        .set("media_workers", 2)
        .start();
    let place = |at: usize| Scene::set(&server, &SHAPES[at % SHAPES.len()]);
    let mut scenes: Vec<Scene> = (0..SHAPES.len() * PHASES).map(place).collect();
    let scripts: Vec<[Script; 3]> = scenes.iter_mut().map(Scene::scripts).collect();
    let frames = (CLICKS + 1) * PERIOD;
    let start = Instant::now() + Duration::from_millis(100);
    let until = start + STEP * (frames * PHASES) as u32 + Duration::from_millis(500);
    let ears: Vec<_> = scenes.iter().map(|scene| scene.listen(until)).collect();
    let mut spoken = vec![Vec::new(); PHASES];
    for step in 0..frames * PHASES {
        let (frame, phase) = (step / PHASES, step % PHASES);
        let due = start + STEP * step as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if frame >= PERIOD && frame % PERIOD == 0 {
            spoken[phase].push(Instant::now());
        }
        for script in scripts[phase * SHAPES.len()..][..SHAPES.len()]
            .iter()
            .flatten()
        {
            script
                .socket
                .send_to(&script.datagrams[frame], script.to)
                .unwrap();
        }
    }
    let heard: Vec<Vec<Instant>> = ears.into_iter().map(|ear| ear.join().unwrap()).collect();
    // Which ticks a packet just misses decides over as much as a bridge adds: phases are not compared.
    let mut least = [f64::INFINITY; SHAPES.len()];
    for phase in 0..PHASES {
        let heard = &heard[phase * SHAPES.len()..][..SHAPES.len()];
        let delays: Vec<f64> = heard
            .iter()
            .map(|heard| best(&spoken[phase], heard))
            .collect();
        for ((shape, delay), least) in SHAPES.iter().zip(&delays).zip(&mut least) {
            let added = delay - delays[0];
            eprintln!(
                "phase {phase}: {delay:5.1} ms, {added:+5.1} ms: {}",
                shape.name
            );
            *least = least.min(added);
        }
    }
    for (shape, added) in SHAPES.iter().zip(least) {
        let most = ALLOWED_MS + ERROR_MS;
        assert!(added <= most, "{}: {added:.1} ms more", shape.name);
    }
}
