//! WebRTC parties: pages of a real browser and peers of aiortc, behind one face.

use std::rc::Rc;

use serde_json::{Value, json};

use super::script::Script;
use crate::harness::{Client, eventually, wait::SOON};

/// A tone of more than this is heard. The parties send at −12 dBFS, and codecs cost a few dB at most.
pub const HEARD_DBFS: f64 = -24.0;
/// Less than this is silence.
const SILENT_DBFS: f64 = -50.0;

/// One RTCPeerConnection of a peer program.
#[derive(Clone, Debug)]
pub struct WebrtcPeer {
    script: Rc<Script>,
    name: String,
    /// The endpoint in the session, once it has one.
    pub endpoint: String,
}

impl WebrtcPeer {
    /// A new page, or a new peer of aiortc.
    pub fn open(script: &Rc<Script>) -> Self {
        Self::open_with(script, json!({}))
    }

    /// The same with options of the script's `open`.
    pub fn open_with(script: &Rc<Script>, options: Value) -> Self {
        let opened = script.call("open", options);
        Self {
            script: Rc::clone(script),
            name: opened["peer"].as_str().expect("a name").to_owned(),
            endpoint: String::new(),
        }
    }

    /// A new peer that offers itself into the client's session and sends a tone.
    pub fn join(script: &Rc<Script>, client: &mut Client, frequency: u32) -> Self {
        let mut peer = Self::open(script);
        peer.offer(client, json!({"frequency": frequency}), |sdp| sdp);
        peer.wait_connected(client);
        peer
    }

    /// A new peer that answers an offer of the session and sends a tone.
    pub fn invite(script: &Rc<Script>, client: &mut Client, frequency: u32) -> Self {
        let mut peer = Self::open(script);
        peer.accept(client, json!({"type": "webrtc"}), frequency, |sdp| sdp);
        peer.wait_connected(client);
        peer
    }

    /// Makes an offer (options: frequency, video, direction), has the session answer it, takes the
    /// answer as `edit` leaves it.
    pub fn offer(
        &mut self,
        client: &mut Client,
        options: Value,
        edit: impl FnOnce(String) -> String,
    ) -> String {
        let offer = self.call_for_sdp("offer", options);
        let created = client.call("endpoint.create_from_offer", json!({"sdp": offer}));
        self.endpoint = text(&created, "endpoint_id");
        let answer = edit(text(&created, "sdp_answer"));
        self.call("accept", json!({"sdp": answer}));
        answer
    }

    /// Has the session make an offer, answers it as `edit` leaves it.
    pub fn accept(
        &mut self,
        client: &mut Client,
        params: Value,
        frequency: u32,
        edit: impl FnOnce(String) -> String,
    ) {
        let created = client.call("endpoint.create_offer", params);
        self.endpoint = text(&created, "endpoint_id");
        let offer = edit(text(&created, "sdp_offer"));
        let answer = self.call_for_sdp("answer", json!({"sdp": offer, "frequency": frequency}));
        client.call(
            "endpoint.accept_answer",
            json!({"endpoint_id": self.endpoint, "sdp": answer}),
        );
    }

    /// Waits until both sides call it connected.
    pub fn wait_connected(&self, client: &mut Client) {
        self.call("connected", json!({}));
        client.expect_event_where("endpoint.state_changed", |data| {
            data["endpoint_id"] == json!(self.endpoint) && data["new_state"] == json!("connected")
        });
    }

    /// A request to this peer that must succeed.
    pub fn call(&self, method: &str, params: Value) -> Value {
        self.script.call(method, self.named(params))
    }

    /// A request that gives a description.
    pub fn call_for_sdp(&self, method: &str, params: Value) -> String {
        text(&self.call(method, params), "sdp")
    }

    /// Changes its tone; 0 is silence.
    pub fn speak(&self, frequency: u32) {
        self.call("speak", json!({"frequency": frequency}));
    }

    /// What it counts.
    pub fn stats(&self) -> Value {
        self.call("stats", json!({}))
    }

    /// One number of what it counts, 0 while it is not there.
    pub fn count(&self, name: &str) -> i64 {
        self.stats()[name].as_i64().unwrap_or(0)
    }

    /// Levels in dBFS of these frequencies in the last sixth of a second.
    pub fn listen(&self, frequencies: &[u32]) -> Vec<f64> {
        let heard = self.call("listen", json!({"frequencies": frequencies}));
        let levels = heard["levels_dbfs"].as_array().expect("levels");
        levels.iter().filter_map(Value::as_f64).collect()
    }

    /// Waits until it hears all the wanted tones and none of the others.
    pub fn expect_tones(&self, wanted: &[u32], others: &[u32]) {
        let all: Vec<u32> = wanted.iter().chain(others).copied().collect();
        let mut heard = Vec::new();
        let what = format!("{} hears {wanted:?} and not {others:?}", self.name);
        eventually(&what, 2 * SOON, || {
            heard = self.listen(&all);
            let (loud, quiet) = heard.split_at(wanted.len());
            (loud.iter().all(|level| *level > HEARD_DBFS)
                && quiet.iter().all(|level| *level < SILENT_DBFS))
            .then_some(())
        });
    }

    /// Waits until it has received this many packets more than now.
    pub fn expect_more_packets(&self, count: i64) {
        let before = self.count("packets_received");
        eventually("packets come", 2 * SOON, || {
            (self.count("packets_received") >= before + count).then_some(())
        });
    }

    /// Closes the connection as a program that hangs up does.
    pub fn close(&self) {
        self.call("close", json!({}));
    }

    /// Closes the page without closing the connection first.
    pub fn leave(&self) {
        self.call("leave", json!({}));
    }

    fn named(&self, mut params: Value) -> Value {
        params["peer"] = json!(self.name);
        params
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
        .to_owned()
}
