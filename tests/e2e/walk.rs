//! A random walk over the real programs: sessions, parties, transfers, bridges and deaths of control,
//! with everything that can be counted checked after each step against a model.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server, procfs};
use rtpbridge_tests::peer::Party;
use serde_json::{Value, json};

const STEPS: usize = 300;
const MAX_SESSIONS: usize = 8;
const MAX_ENDPOINTS: usize = 5;

/// What should be.
struct Walk {
    server: Server,
    /// Of the media, first and last.
    ports: (u16, u16),
    random: StdRng,
    clients: BTreeMap<String, Client>,
    /// Endpoint, its session, and its counterpart when it is an end of a bridge.
    endpoints: BTreeMap<String, (String, Option<String>)>,
    done: BTreeMap<&'static str, usize>,
}

impl Walk {
    fn any_session(&mut self) -> Option<String> {
        self.clients.keys().choose(&mut self.random).cloned()
    }

    fn any_endpoint(&mut self) -> Option<(String, String, Option<String>)> {
        let chosen = self.endpoints.iter().choose(&mut self.random);
        chosen.map(|(id, (session, far))| (id.clone(), session.clone(), far.clone()))
    }

    fn count_in(&self, session: &str) -> usize {
        let of = self
            .endpoints
            .values()
            .filter(|(known, _)| known == session);
        of.count()
    }

    fn client(&mut self, session: &str) -> &mut Client {
        self.clients.get_mut(session).unwrap()
    }

    fn forget(&mut self, endpoint: &str) {
        if let Some((_, Some(far))) = self.endpoints.remove(endpoint) {
            self.endpoints.remove(&far);
        }
    }

    fn step(&mut self) {
        let name = match self.random.random_range(0..100) {
            0..12 => self.create(),
            12..15 => self.destroy(),
            15..38 => self.join(),
            38..46 => self.remove(),
            46..76 => self.transfer(),
            76..96 => self.bridge(),
            _ => self.kill_control(),
        };
        *self.done.entry(name).or_default() += 1;
    }

    fn create(&mut self) -> &'static str {
        if self.clients.len() < MAX_SESSIONS {
            let (client, session) = self.server.session();
            self.clients.insert(session, client);
        }
        "create"
    }

    fn destroy(&mut self) -> &'static str {
        if let Some(session) = self.any_session() {
            self.client(&session).call("session.destroy", json!({}));
            self.clients.remove(&session);
            let gone = self.endpoints.iter().filter(|(_, (of, _))| *of == session);
            let gone: Vec<String> = gone.map(|(id, _)| id.clone()).collect();
            for endpoint in gone {
                self.forget(&endpoint);
            }
        }
        "destroy"
    }

    fn join(&mut self) -> &'static str {
        let Some(session) = self.any_session() else {
            return "join";
        };
        if self.count_in(&session) < MAX_ENDPOINTS {
            let party = Party::join(self.client(&session));
            self.endpoints.insert(party.endpoint, (session, None));
        }
        "join"
    }

    fn remove(&mut self) -> &'static str {
        if let Some((endpoint, session, _)) = self.any_endpoint() {
            let params = json!({"endpoint_id": endpoint});
            self.client(&session).call("endpoint.remove", params);
            self.forget(&endpoint);
        }
        "remove"
    }

    fn transfer(&mut self) -> &'static str {
        let (Some((endpoint, session, far)), Some(target)) =
            (self.any_endpoint(), self.any_session())
        else {
            return "transfer";
        };
        let params = json!({"endpoint_id": endpoint, "target_session_id": target});
        let far_session = far.as_ref().map(|far| self.endpoints[far].0.clone());
        let refusal = if target == session {
            Some("INVALID_PARAMS")
        } else if far_session.as_ref() == Some(&target) {
            Some("ENDPOINT_ERROR")
        } else if self.count_in(&target) == MAX_ENDPOINTS {
            Some("TRANSFER_FAILED")
        } else {
            None
        };
        let client = self.client(&session);
        if let Some(code) = refusal {
            client.refuse("endpoint.transfer", params, code);
            return "refused transfer";
        }
        client.call("endpoint.transfer", params.clone());
        assert_eq!(client.expect_event("endpoint.transferred_out"), params);
        let arrived = self.client(&target).expect_event("endpoint.transferred_in");
        assert_eq!(arrived["endpoint_id"], json!(endpoint));
        assert_eq!(arrived["source_session_id"], json!(session));
        self.endpoints.insert(endpoint, (target, far));
        "transfer"
    }

    fn bridge(&mut self) -> &'static str {
        let (Some(session), Some(target)) = (self.any_session(), self.any_session()) else {
            return "bridge";
        };
        let params = json!({"target_session_id": target});
        let is_full = |session: &str| self.count_in(session) == MAX_ENDPOINTS;
        let refusal = if target == session {
            Some("INVALID_PARAMS")
        } else if is_full(&session) || is_full(&target) {
            Some("ENDPOINT_ERROR")
        } else {
            None
        };
        let client = self.client(&session);
        if let Some(code) = refusal {
            client.refuse("session.bridge", params, code);
            return "refused bridge";
        }
        let made = client.call("session.bridge", params);
        let id = |name: &str| made[name].as_str().unwrap().to_owned();
        let (near, far) = (id("endpoint_id"), id("target_endpoint_id"));
        self.endpoints
            .insert(near.clone(), (session, Some(far.clone())));
        self.endpoints.insert(far, (target, Some(near)));
        "bridge"
    }

    fn kill_control(&mut self) -> &'static str {
        self.server.kill_control();
        self.server.start_control();
        self.server.wait_healthy();
        for (session, client) in &mut self.clients {
            *client = self.server.client();
            client.call("session.attach", json!({"session_id": session}));
        }
        "kill"
    }

    /// Everything that can be asked says the same.
    fn check(&mut self, step: usize) {
        let shown = self.server.sessions();
        assert_eq!(shown.len(), self.clients.len(), "step {step}");
        for (session, client) in &mut self.clients {
            let info = client.call("session.info", json!({}));
            let rows = info["endpoints"].as_array().unwrap();
            let id = |row: &Value| row["endpoint_id"].as_str().unwrap().to_owned();
            let mut listed: Vec<String> = rows.iter().map(id).collect();
            listed.sort();
            let of = self
                .endpoints
                .iter()
                .filter(|(_, (known, _))| known == session);
            let expected: Vec<String> = of.map(|(id, _)| id.clone()).collect();
            assert_eq!(listed, expected, "step {step}, session {session}");
            let row = shown.iter().find(|row| row["session_id"] == json!(session));
            let count = row.unwrap()["endpoint_count"].as_u64().unwrap();
            assert_eq!(count, expected.len() as u64, "step {step}");
        }
        let active = self.server.metric("rtpbridge_endpoints_active");
        assert_eq!(active, self.endpoints.len() as f64, "step {step}");
        let active = self.server.metric("rtpbridge_sessions_active");
        assert_eq!(active, self.clients.len() as f64, "step {step}");
        let parties = self.endpoints.values().filter(|(_, far)| far.is_none());
        let (first, last, wanted) = (self.ports.0, self.ports.1, 2 * parties.count());
        eventually(
            "parties have two ports each, and nobody else any",
            SOON,
            || (procfs::udp_ports().range(first..=last).count() == wanted).then_some(()),
        );
    }
}

#[test]
fn after_every_step_of_a_random_walk_all_counts_agree_and_nothing_is_left_over() {
    let server = Server::builder()
        .media_ports(200)
        .set("media_workers", 3)
        .set("max_endpoints_per_session", MAX_ENDPOINTS)
        .set("max_lateness_ms", 0)
        .start();
    let descriptors = procfs::fd_count(server.dataplane_pid());
    let mut walk = Walk {
        ports: server.media_ports(),
        server,
        random: StdRng::seed_from_u64(20_26),
        clients: BTreeMap::new(),
        endpoints: BTreeMap::new(),
        done: BTreeMap::new(),
    };
    for step in 0..STEPS {
        walk.step();
        walk.check(step);
    }
    assert!(walk.done["transfer"] > 20, "{:?}", walk.done);
    assert!(walk.done["bridge"] > 10, "{:?}", walk.done);
    assert!(walk.done["kill"] > 3, "{:?}", walk.done);
    for client in walk.clients.values_mut() {
        client.call("session.destroy", json!({}));
    }
    let pid = walk.server.dataplane_pid();
    eventually("every socket is closed", SOON, || {
        (procfs::fd_count(pid) <= descriptors).then_some(())
    });
    assert_eq!(walk.server.metric("rtpbridge_endpoints_active"), 0.0);
    assert_eq!(walk.server.metric("rtpbridge_sessions_active"), 0.0);
}
