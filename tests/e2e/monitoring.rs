//! operations, Metrics: a real Prometheus scrapes a server that works, with the rules and the
//! dashboard that are shipped; and a scrape never waits for the dead.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rtpbridge_tests::harness::process::Process;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Server, http};
use rtpbridge_tests::peer::Party;
use rtpbridge_tests::shipped::{dashboard_queries, systemd_dir};
use serde_json::{Value, json};

struct Prometheus {
    address: SocketAddr,
    _process: Process,
}

impl Prometheus {
    /// Scrapes the server every second and evaluates the shipped rules as often.
    fn start(server: &Server) -> Self {
        let address = server.other_address();
        let rules = systemd_dir().join("prometheus/rtpbridge.rules.yml");
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules.canonicalize().unwrap()],
            "scrape_configs": [{
                "job_name": "rtpbridge",
                "static_configs": [{"targets": [server.address().to_string()]}],
            }],
        });
        // JSON is YAML.
        let file = server.path("prometheus.yml");
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                server.path("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn");
        let log = server.path("prometheus.log");
        Self {
            address,
            _process: Process::start("prometheus", command, log),
        }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let answer = http::try_request(self.address, "GET", path, &[]).ok()?;
        (answer.status == 200).then(|| answer.json()["data"].clone())
    }

    /// The series that a query gives now.
    fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let data = self
            .get(&path)
            .unwrap_or_else(|| panic!("refused: {query}"));
        data["result"].as_array().unwrap().clone()
    }

    /// All rules, as (name, health, state of an alert).
    fn rules(&self) -> Vec<(String, String, String)> {
        let data = self.get("/api/v1/rules").unwrap();
        let groups = data["groups"].as_array().unwrap();
        let rules = groups
            .iter()
            .filter_map(|group| group["rules"].as_array())
            .flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        rules
            .map(|rule| {
                (
                    text(&rule["name"]),
                    text(&rule["health"]),
                    text(&rule["state"]),
                )
            })
            .collect()
    }
}

/// A call with a recording, digits and strangers for as long as the test wants.
fn work(server: &Server, until: impl Fn() -> bool) {
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let _bob = Party::join(&mut client);
    let path = server.recording_path("monitored.pcap");
    client.call("recording.start", json!({"file_path": path}));
    let deadline = Instant::now() + 4 * SOON;
    while !until() {
        assert!(Instant::now() < deadline, "it never comes");
        alice.talk(25);
        alice.press(101, 5, 3);
        alice.send_bytes(b"not RTP at all");
        client.call("stats.snapshot", json!({}));
    }
}

#[test]
fn every_query_and_rule_that_is_shipped_works_on_a_loaded_server() {
    if Command::new("prometheus")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("skipped: prometheus is not installed");
        return;
    }
    let mut server = Server::start();
    let prometheus = Prometheus::start(&server);
    eventually("Prometheus answers", 3 * SOON, || {
        prometheus.get("/api/v1/query?query=up")
    });
    let queries = dashboard_queries();
    let unanswered = || {
        let empty = queries
            .iter()
            .filter(|query| prometheus.query(query).is_empty());
        empty.collect::<Vec<_>>()
    };
    // Recording rules are evaluated a little after the scrape.
    let flowing = || {
        !prometheus
            .query("rtpbridge:packets_routed:rate1m > 0")
            .is_empty()
    };
    work(&server, || unanswered().is_empty() && flowing());
    let up = prometheus.query("up{job=\"rtpbridge\"}");
    assert_eq!(up[0]["value"][1], json!("1"));

    eventually("all rules were evaluated", SOON, || {
        let rules = prometheus.rules();
        rules
            .iter()
            .all(|(_, health, _)| health == "ok")
            .then_some(())
    });
    let firing: Vec<_> = prometheus
        .rules()
        .into_iter()
        .filter(|(_, _, state)| state == "firing")
        .collect();
    assert!(firing.is_empty(), "nothing is wrong: {firing:?}");
    server.dataplane().kill();
    eventually("the loss of the dataplane is noticed", 2 * SOON, || {
        let mut rules = prometheus.rules().into_iter();
        let rule = rules.find(|(name, _, _)| name == "RtpbridgeDataplaneDown")?;
        (rule.2 != "inactive").then_some(())
    });
}

#[test]
fn a_scrape_answers_within_a_second_whatever_the_dataplane_does() {
    let server = Server::start();
    server.signal_dataplane(Signal::SIGSTOP);
    // The link still counts as up, then as lost.
    let mut seen = [false; 2];
    eventually("the link is lost", SOON, || {
        let quickest = (0..3)
            .map(|_| {
                let asked = Instant::now();
                let up = server.metric("rtpbridge_dataplane_up");
                seen[usize::from(up == 1.0)] = true;
                asked.elapsed()
            })
            .min()?;
        // The best of three: this machine may be slow, the deadline inside the program is not.
        assert!(quickest < Duration::from_secs(1), "{quickest:?}");
        seen[0].then_some(())
    });
    server.signal_dataplane(Signal::SIGCONT);
}
