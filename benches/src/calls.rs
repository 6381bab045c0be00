//! Calls on a running server, set up as a client does: a WebSocket, a session, an offer for each party.

use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use rtpbridge_tests::harness::{Client, RpcError};
use serde_json::{Value, json};

use crate::legs::Leg;

/// A call that stands; it ends when this is dropped.
#[derive(Debug)]
pub struct Call {
    client: Client,
    recording: Option<String>,
}

/// What a recording of a call accounts for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded {
    /// Packets in the file.
    pub packets: u64,
    /// Packets lost to the recording.
    pub dropped: u64,
}

/// Packets as the server counts them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Taken from the parties.
    pub inbound: u64,
    /// Sent to them.
    pub outbound: u64,
}

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.inbound += other.inbound;
        self.outbound += other.outbound;
    }
}

impl Call {
    /// Sets up one call for these legs, points them at the server, and says how long it took.
    pub fn set_up(server: SocketAddr, legs: &mut [Leg]) -> Result<(Self, Duration), String> {
        let offers: Vec<String> = legs
            .iter()
            .map(Leg::offer)
            .collect::<std::io::Result<_>>()
            .map_err(|error| error.to_string())?;
        let start = Instant::now();
        let mut client = Client::try_connect(server, "/", &[])
            .map_err(|refused| format!("upgrade: status {}", refused.status))?;
        client
            .request("session.create", json!({}))
            .map_err(|error| described("session.create", &error))?;
        let mut answers = Vec::with_capacity(legs.len());
        for offer in offers {
            let answer = client
                .request("endpoint.create_from_offer", json!({"sdp": offer}))
                .map_err(|error| described("endpoint.create_from_offer", &error))?;
            answers.push(answer);
        }
        let took = start.elapsed();
        for (leg, answer) in legs.iter_mut().zip(&answers) {
            let answer = answer["sdp_answer"].as_str().ok_or("no sdp_answer")?;
            leg.take_answer(answer)?;
        }
        let call = Self {
            client,
            recording: None,
        };
        Ok((call, took))
    }

    /// Reads what the server has said meanwhile, so that its pings are answered.
    pub fn keep_alive(&mut self) {
        self.client.drain_events(Duration::from_micros(50));
    }

    /// Has a file or a URL played to all legs.
    pub fn play(&mut self, file: Value) -> Result<(), String> {
        self.client
            .request("endpoint.create_with_file", file)
            .map(|_| ())
            .map_err(|error| described("endpoint.create_with_file", &error))
    }

    /// Starts recording all legs.
    pub fn record(&mut self, path: &str) -> Result<(), String> {
        let started = self
            .client
            .request("recording.start", json!({"file_path": path}))
            .map_err(|error| described("recording.start", &error))?;
        self.recording = started["recording_id"].as_str().map(str::to_owned);
        Ok(())
    }

    /// Stops the recording.
    pub fn stop_recording(&mut self) -> Result<Recorded, String> {
        let recording = self.recording.take().ok_or("not recording")?;
        let stopped = self
            .client
            .request("recording.stop", json!({"recording_id": recording}))
            .map_err(|error| described("recording.stop", &error))?;
        let count = |name: &str| stopped.get(name).and_then(Value::as_u64).unwrap_or(0);
        Ok(Recorded {
            packets: count("packets"),
            dropped: count("dropped_packets"),
        })
    }

    /// What the server has counted of all its parties.
    pub fn counted(&mut self) -> Result<Counted, String> {
        let snapshot = self
            .client
            .request("stats.snapshot", json!({}))
            .map_err(|error| described("stats.snapshot", &error))?;
        let mut total = Counted::default();
        for endpoint in snapshot["endpoints"].as_array().into_iter().flatten() {
            let count = |direction: &str| endpoint[direction]["packets"].as_u64().unwrap_or(0);
            total += Counted {
                inbound: count("inbound"),
                outbound: count("outbound"),
            };
        }
        Ok(total)
    }

    /// Ends the call in good order.
    pub fn end(mut self) -> Result<(), String> {
        self.client
            .request("session.destroy", json!({}))
            .map(|_| ())
            .map_err(|error| described("session.destroy", &error))
    }
}

fn described(method: &str, error: &RpcError) -> String {
    format!("{method}: {} ({})", error.code, error.message)
}
