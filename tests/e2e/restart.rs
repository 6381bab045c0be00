//! processes: control is killed, upgraded, replaced and restarted while calls run. Media, sessions and
//! critical events survive all of it, and nobody finds the door closed.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server, http, procfs};
use rtpbridge_tests::peer::party::FRAME_TIME;
use rtpbridge_tests::peer::{Offer, Party, Rtp};
use serde_json::{Value, json};

const CALLS: usize = 200;
/// Sessions with a request in flight whenever control goes.
const NEGOTIATING: usize = 10;

/// Calls whose callers send 50 packets/s each, from one thread.
struct Load {
    listeners: Vec<Party>,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Vec<Vec<Rtp>>>,
}

impl Load {
    fn start(mut callers: Vec<Party>, listeners: Vec<Party>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let mut sent = vec![Vec::new(); callers.len()];
            let mut due = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                for (caller, sent) in callers.iter_mut().zip(&mut sent) {
                    let payload = caller.distinct_frame();
                    sent.push(caller.send(&payload));
                }
                // After a stall of this machine the pace stays that of a phone.
                due = Instant::now().max(due + FRAME_TIME);
            }
            sent
        });
        Self {
            listeners,
            stop,
            sender,
        }
    }

    /// Ends it; every packet must have come, once and under its place's number. Gives how many there
    /// were.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        for (listener, sent) in self.listeners.iter().zip(&sent) {
            let mut heard = listener.receive_exactly(sent.len());
            assert!(
                listener.receive(Duration::from_millis(1)).is_none(),
                "more than was sent"
            );
            // The kernel may swap neighbours when a thread moves between processors.
            let first = heard[0].sequence.wrapping_sub(32);
            heard.sort_by_key(|packet| packet.sequence.wrapping_sub(first));
            for (at, pair) in heard.windows(2).enumerate() {
                let next = pair[0].sequence.wrapping_add(1);
                assert_eq!(pair[1].sequence, next, "after {at} of {}", sent.len());
            }
            let differs = heard
                .iter()
                .zip(sent)
                .position(|(a, b)| a.payload != b.payload);
            assert_eq!(differs, None, "of {}: another content", sent.len());
        }
        sent.iter().map(Vec::len).sum()
    }
}

/// Somebody who asks all the time; being refused is what must not happen.
struct Knocker {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Knocker {
    fn start(server: &Server) -> Self {
        let (stop, served) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&served));
        let address = server.address();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match http::try_request(address, "GET", "/health/live", &[]) {
                    Ok(answer) => {
                        assert_eq!(answer.status, 200);
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
                        assert!(!refused, "connection refused");
                    }
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self {
            stop,
            served,
            thread,
        }
    }

    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.served.load(Ordering::Relaxed)
    }
}

/// A session whose endpoint has been offered and not yet answered.
struct Negotiation {
    session: String,
    client: Client,
    endpoint: Value,
    party: Party,
}

impl Negotiation {
    fn offer(mut client: Client, session: String) -> Self {
        let params = json!({"type": "rtp", "codecs": ["pcmu"]});
        let offered = client.call("endpoint.create_offer", params);
        Self {
            session,
            client,
            endpoint: offered["endpoint_id"].clone(),
            party: Party::bind(),
        }
    }

    /// Sends the answer and waits for nothing.
    fn answer(&mut self) {
        let sdp = Offer::pcmu(self.party.address()).write();
        let params = json!({"endpoint_id": self.endpoint, "sdp": sdp});
        let request = json!({"id": "a", "method": "endpoint.accept_answer", "params": params});
        self.client.send_text(&request.to_string());
    }

    /// After the restart: what happened is what was told, and the session is as it was.
    fn resume(mut self, server: &Server) -> Self {
        let mut told = 0;
        let deadline = Instant::now() + 2 * SOON;
        while let Some(message) = self.client.receive(deadline) {
            match message {
                rtpbridge_tests::harness::client::Incoming::Json(message) => {
                    told += usize::from(message["event"] == "endpoint.state_changed");
                }
                rtpbridge_tests::harness::client::Incoming::Closed(_) => break,
            }
        }
        let mut client = server.client();
        client.call("session.attach", json!({"session_id": self.session}));
        let info = client.call("session.info", json!({}));
        let again = client.drain_events(Duration::from_millis(20));
        let again = again
            .iter()
            .filter(|event| event.name == "endpoint.state_changed");
        let again = again.count();
        match info["endpoints"][0]["state"].as_str().unwrap() {
            "connecting" => assert_eq!(told + again, 0),
            "connected" => assert!((1..=2).contains(&(told + again)), "{told} and {again}"),
            other => panic!("state {other}"),
        }
        client.call("endpoint.remove", json!({"endpoint_id": self.endpoint}));
        Self::offer(client, self.session)
    }
}

/// Another test's bridge may still send to a former owner of this port: that is not ours to hear.
fn deaf_to_strangers(party: Party) -> Party {
    party.socket().connect(party.bridge).unwrap();
    while party.receive(Duration::from_millis(1)).is_some() {}
    party
}

/// Everything that has to get through.
struct Scene {
    server: Server,
    door: TcpListener,
    clients: Vec<(Client, String)>,
    negotiations: Vec<Negotiation>,
}

impl Scene {
    fn new() -> (Self, Load) {
        let mut server = Server::builder()
            .media_ports(u16::try_from(CALLS).unwrap() * 4 + 200)
            .set("max_lateness_ms", 0)
            .prepare();
        let door = TcpListener::bind(server.address()).unwrap();
        server.start_dataplane();
        server.start_control_behind(&door);
        server.wait_healthy();
        let (mut callers, mut listeners, mut clients) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..CALLS {
            let (mut client, session) = server.session();
            callers.push(Party::join(&mut client));
            listeners.push(deaf_to_strangers(Party::join(&mut client)));
            clients.push((client, session));
        }
        let negotiations = (0..NEGOTIATING)
            .map(|_| server.session())
            .map(|(client, session)| Negotiation::offer(client, session))
            .collect();
        let scene = Self {
            server,
            door,
            clients,
            negotiations,
        };
        (scene, Load::start(callers, listeners))
    }

    fn put_requests_in_flight(&mut self) {
        for negotiation in &mut self.negotiations {
            negotiation.answer();
        }
    }

    /// Every client comes back to its session, told to go with `code` if it was told.
    fn come_back(&mut self, code: Option<u16>) {
        self.server.wait_healthy();
        for (client, session) in &mut self.clients {
            assert_eq!(client.expect_close(), code);
            *client = self.server.client();
            client.call("session.attach", json!({"session_id": session}));
        }
        let before = std::mem::take(&mut self.negotiations);
        self.negotiations = before
            .into_iter()
            .map(|negotiation| negotiation.resume(&self.server))
            .collect();
        let listed = self.server.sessions();
        assert_eq!(listed.len(), CALLS + NEGOTIATING);
        assert!(listed.iter().all(|row| row["state"] == "active"));
    }
}

#[test]
fn calls_and_clients_get_through_every_way_in_which_control_can_go() {
    let (mut scene, load) = Scene::new();
    let knocker = Knocker::start(&scene.server);
    let dataplane = scene.server.dataplane_pid();

    // Killed, behind a socket that the service manager holds.
    scene.put_requests_in_flight();
    scene.server.kill_control();
    scene.server.start_control_behind(&scene.door);
    scene.come_back(None);

    // Upgraded by a signal.
    scene.put_requests_in_flight();
    scene.server.control().signal(Signal::SIGHUP);
    assert_eq!(scene.server.control().wait(2 * SOON).code(), Some(75));
    scene.server.start_control_behind(&scene.door);
    scene.come_back(Some(1012));

    // Replaced by one beside it, which gets the sockets from it.
    scene.put_requests_in_flight();
    let mut old = scene.server.start_successor();
    assert_eq!(old.wait(2 * SOON).code(), Some(0));
    scene.come_back(Some(1012));

    // Upgraded by the operator, with nobody there for a while: callers of the door wait.
    scene.put_requests_in_flight();
    assert!(scene.server.ctl(&["handover"]).status.success());
    assert_eq!(scene.server.control().wait(2 * SOON).code(), Some(75));
    thread::sleep(Duration::from_millis(500));
    scene.server.start_control_behind(&scene.door);
    scene.come_back(Some(1012));

    assert_eq!(scene.server.dataplane_pid(), dataplane);
    assert!(knocker.finish() > 0);
    let sent = load.finish();
    assert!(
        sent > 50 * CALLS,
        "{sent} packets are not a second of calls"
    );
    assert!(scene.server.metric("rtpbridge_packets_routed_total") >= sent as f64);
}

#[test]
fn the_operator_who_asks_for_a_handover_gets_an_answer_before_the_process_ends() {
    let mut server = Server::start();
    for _ in 0..10 {
        let asked = server.ctl(&["handover"]);
        assert!(asked.status.success(), "{asked:?}");
        assert_eq!(server.control().wait(SOON).code(), Some(75));
        server.start_control();
        server.wait_healthy();
    }
}

/// A session with an offered endpoint, whose answer brings a critical event to a control that is to
/// crash at `moment`; gives the events of before and after.
fn crash_with_a_critical_event(moment: &str) -> (Vec<Value>, Vec<Value>) {
    let mut server = Server::builder().prepare();
    server.start_dataplane();
    server.start_control_with("TEST_CRASH", moment);
    server.wait_healthy();
    let (client, session) = server.session();
    let mut negotiation = Negotiation::offer(client, session.clone());
    negotiation.answer();
    server.control().wait(SOON);
    let mut before = Vec::new();
    let deadline = Instant::now() + SOON;
    while let Some(rtpbridge_tests::harness::client::Incoming::Json(message)) =
        negotiation.client.receive(deadline)
    {
        before.push(message);
    }
    server.start_control();
    server.wait_healthy();
    let mut client = server.client();
    client.call("session.attach", json!({"session_id": session}));
    let after = client.expect_event("endpoint.state_changed");
    client.expect_no_event("endpoint.state_changed", Duration::from_millis(100));
    before.retain(|message| message["event"] == "endpoint.state_changed");
    // Once acknowledged, never again.
    server.kill_control();
    server.start_control();
    server.wait_healthy();
    let mut client = server.client();
    client.call("session.attach", json!({"session_id": session}));
    client.expect_no_event("endpoint.state_changed", Duration::from_millis(100));
    (before, vec![after])
}

#[test]
fn a_critical_event_that_control_took_with_it_is_delivered_by_the_next() {
    let (before, after) = crash_with_a_critical_event("before-write");
    assert!(before.is_empty(), "{before:?}");
    assert_eq!(after[0]["new_state"], json!("connected"));
}

#[test]
fn a_critical_event_that_was_written_but_not_acknowledged_is_repeated_with_its_number() {
    let (before, after) = crash_with_a_critical_event("before-acknowledge");
    assert_eq!(before.len(), 1);
    assert!(after[0]["seq"].is_u64());
    assert_eq!(before[0]["data"], after[0]);
}

#[test]
fn both_programs_are_activated_by_the_first_connection() {
    if std::process::Command::new("systemd-socket-activate")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("skipped: systemd-socket-activate is not installed");
        return;
    }
    let activate = |sockets: &[String], names: &str| {
        let mut command = std::process::Command::new("systemd-socket-activate");
        for socket in sockets {
            command.args(["--listen", socket]);
        }
        command.args(["--fdname", names]);
        command
    };
    let mut server = Server::builder().prepare();
    let ipc = server.ipc_socket().display().to_string();
    let admin = server.path("run/admin.sock").display().to_string();
    let dataplane = server.start_under(&mut activate(&[ipc], "dataplane"), "rtpbridge-dataplane");
    let sockets = [server.address().to_string(), admin];
    let control = server.start_under(
        &mut activate(&sockets, "control:admin"),
        "rtpbridge-control",
    );
    let pids = [dataplane.pid(), control.pid()];
    server.adopt(dataplane, control);
    // Nothing runs before somebody comes.
    let programs = || pids.map(|pid| procfs::program(pid).unwrap_or_default());
    eventually("both wait", SOON, || {
        let waiting = ["systemd-socket-activate", "systemd-socket-activate"];
        (programs() == waiting && server.ipc_socket().exists()).then_some(())
    });
    server.wait_healthy();
    assert_eq!(programs(), ["rtpbridge-dataplane", "rtpbridge-control"]);
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    alice.talk(3);
    bob.receive_exactly(3);
    let status = server.ctl(&["status"]);
    assert!(status.status.success(), "{status:?}");
    client.call("session.destroy", json!({}));
    for process in [server.control().pid(), server.dataplane().pid()] {
        nix::sys::signal::kill(process, Signal::SIGTERM).unwrap();
    }
    assert_eq!(server.control().wait(SOON).code(), Some(0));
    assert_eq!(server.dataplane().wait(SOON).code(), Some(0));
    assert!(
        server.ipc_socket().exists(),
        "a passed socket is the manager's"
    );
}
