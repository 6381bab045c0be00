//! A party that speaks SRTP with keys from SDES (RFC 4568), protected and checked by libsrtp.

use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::party::{FRAME_TIME, Party, receive_from};
use super::rtp::Rtp;
use super::script::Script;
use super::sdp::{Description, Offer};
use crate::harness::Client;

/// The four suites.
pub const SUITES: [&str; 4] = [
    "AEAD_AES_256_GCM",
    "AEAD_AES_128_GCM",
    "AES_CM_128_HMAC_SHA1_80",
    "AES_CM_128_HMAC_SHA1_32",
];

/// A suite and a master key with its salt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crypto {
    /// The suite's name.
    pub suite: String,
    /// Key and salt in base64.
    pub inline: String,
    bytes: Option<Vec<u8>>,
}

impl Crypto {
    /// A fresh key.
    pub fn random(suite: &str) -> Self {
        let bytes: Vec<u8> = (0..master_length(suite)).map(|_| rand::random()).collect();
        Self {
            suite: suite.to_owned(),
            inline: base64(&bytes),
            bytes: Some(bytes),
        }
    }

    /// Key and salt in hexadecimal, of a key made here.
    pub fn hex(&self) -> String {
        hex(self.bytes.as_ref().expect("made here"))
    }

    /// The attribute of a description, without `a=`.
    pub fn attribute(&self, tag: u32) -> String {
        format!("crypto:{tag} {} inline:{}", self.suite, self.inline)
    }

    /// The only crypto line of a description.
    pub fn of(description: &Description) -> Self {
        let lines: Vec<&str> = description.audio().values("crypto").collect();
        let [line] = lines[..] else {
            panic!("not one crypto line: {lines:?}");
        };
        let words: Vec<&str> = line.split(' ').collect();
        let [_, suite, key, ..] = words[..] else {
            panic!("not a crypto line: {line}");
        };
        let inline = key.strip_prefix("inline:").expect("an inline key");
        Self {
            suite: suite.to_owned(),
            inline: inline.split('|').next().unwrap_or(inline).to_owned(),
            bytes: None,
        }
    }
}

/// One direction under one key.
#[derive(Debug)]
pub struct Context {
    script: Rc<Script>,
    number: u64,
}

impl Context {
    /// A context that protects (`sends`) or checks.
    pub fn new(script: &Rc<Script>, crypto: &Crypto, sends: bool) -> Self {
        let opened = script.call(
            "srtp_open",
            json!({"suite": crypto.suite, "key": crypto.inline, "sends": sends}),
        );
        Self {
            script: Rc::clone(script),
            number: opened["context"].as_u64().expect("a number"),
        }
    }

    /// Brings a source's roll-over counter to a value, as a context has it that saw the stream grow.
    pub fn advance(&self, ssrc: u32, rollovers: u32) {
        self.script.call(
            "srtp_advance",
            json!({"context": self.number, "ssrc": ssrc, "rollovers": rollovers}),
        );
    }

    /// Protects or checks packets in order; an error of libsrtp takes the place of its packet.
    pub fn carry(&self, packets: &[Vec<u8>], rtcp: bool) -> Vec<Result<Vec<u8>, String>> {
        let packets: Vec<String> = packets.iter().map(|packet| hex(packet)).collect();
        let params = json!({"context": self.number, "packets": packets, "rtcp": rtcp});
        let carried = self.script.call("srtp_carry", params);
        let carried = carried["packets"].as_array().expect("a list");
        carried.iter().map(outcome_of).collect()
    }

    /// Protects one packet.
    pub fn protect(&self, packet: &Rtp) -> Vec<u8> {
        self.protect_all(std::slice::from_ref(packet)).remove(0)
    }

    /// Protects packets in order.
    pub fn protect_all(&self, packets: &[Rtp]) -> Vec<Vec<u8>> {
        let plain: Vec<Vec<u8>> = packets.iter().map(Rtp::write).collect();
        let sealed: Result<_, _> = self.carry(&plain, false).into_iter().collect();
        sealed.unwrap_or_else(|error| panic!("libsrtp does not protect: {error}"))
    }
}

/// A party whose media is protected.
#[derive(Debug)]
pub struct SdesParty {
    /// Sockets and stream.
    pub party: Party,
    /// Protects what it sends.
    pub sender: Context,
    /// Checks what it receives.
    pub receiver: Context,
    /// The key it sends with.
    pub own: Crypto,
    /// The key the bridge sends with.
    pub bridges: Crypto,
    script: Rc<Script>,
}

impl SdesParty {
    /// Offers PCMU under a fresh key of this suite.
    pub fn join(script: &Rc<Script>, client: &mut Client, suite: &str) -> Self {
        Self::join_as(script, client, suite, "RTP/SAVP")
    }

    /// The same with any transport of the m-line.
    pub fn join_as(script: &Rc<Script>, client: &mut Client, suite: &str, transport: &str) -> Self {
        let mut party = Party::bind();
        let own = Crypto::random(suite);
        let mut offer = Offer::pcmu(party.address()).attribute(&own.attribute(1));
        transport.clone_into(&mut offer.transport);
        party.offer(client, &offer, json!({}));
        assert_eq!(party.description.audio().transport, transport);
        Self::with_keys(script, party, own)
    }

    /// Answers an offer of the bridge, made with these params, under a fresh key.
    pub fn accept(script: &Rc<Script>, client: &mut Client, params: Value) -> Self {
        let mut party = Party::bind();
        let created = client.call("endpoint.create_offer", params);
        party.endpoint = created["endpoint_id"].as_str().expect("an id").to_owned();
        party.take_description(created["sdp_offer"].as_str().expect("an offer"));
        let bridges = Crypto::of(&party.description);
        let own = Crypto::random(&bridges.suite);
        let mut answer = Offer::pcmu(party.address()).attribute(&own.attribute(1));
        answer.transport = party.description.audio().transport.clone();
        client.call(
            "endpoint.accept_answer",
            json!({"endpoint_id": party.endpoint, "sdp": answer.write()}),
        );
        Self::with_keys(script, party, own)
    }

    fn with_keys(script: &Rc<Script>, party: Party, own: Crypto) -> Self {
        let bridges = Crypto::of(&party.description);
        assert_eq!(bridges.suite, own.suite);
        assert_ne!(bridges.inline, own.inline, "each direction has its own key");
        Self {
            sender: Context::new(script, &own, true),
            receiver: Context::new(script, &bridges, false),
            script: Rc::clone(script),
            party,
            own,
            bridges,
        }
    }

    /// The next frames of its stream at the pace of a phone; gives what was sent, in the clear.
    pub fn talk(&mut self, frames: usize) -> Vec<Rtp> {
        let plain = self.next_packets(frames);
        let sealed = self.sender.protect_all(&plain);
        let start = Instant::now();
        for (index, datagram) in sealed.iter().enumerate() {
            let due = start + FRAME_TIME * u32::try_from(index).expect("few frames");
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.party.send_bytes(datagram);
        }
        plain
    }

    /// The next packets of its stream, unsent and in the clear.
    pub fn next_packets(&mut self, frames: usize) -> Vec<Rtp> {
        (0..frames)
            .map(|_| {
                let payload = self.party.distinct_frame();
                self.party.next_packet(&payload)
            })
            .collect()
    }

    /// Exactly this many RTP packets, each authentic; panics when they do not come.
    pub fn receive_exactly(&self, count: usize) -> Vec<Rtp> {
        let sealed: Vec<Vec<u8>> = (0..count)
            .map(|index| {
                self.receive_sealed(Duration::from_secs(5))
                    .unwrap_or_else(|| panic!("packet {index} of {count} did not come"))
            })
            .collect();
        self.open_all(&sealed)
    }

    /// Everything that is there or comes until `quiet` has passed without a packet.
    pub fn receive_all(&self, quiet: Duration) -> Vec<Rtp> {
        let sealed: Vec<Vec<u8>> = std::iter::from_fn(|| self.receive_sealed(quiet)).collect();
        self.open_all(&sealed)
    }

    /// The next RTP datagram as it came.
    pub fn receive_sealed(&self, within: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + within;
        loop {
            let (bytes, _) = receive_from(self.party.socket(), deadline)?;
            if !matches!(bytes.get(1), Some(192..=223)) {
                return Some(bytes);
            }
        }
    }

    /// Checks datagrams under the bridge's key; all must be authentic.
    pub fn open_all(&self, sealed: &[Vec<u8>]) -> Vec<Rtp> {
        self.receiver
            .carry(sealed, false)
            .into_iter()
            .map(|plain| {
                let plain = plain.unwrap_or_else(|error| panic!("libsrtp refuses: {error}"));
                Rtp::parse(&plain).expect("RTP inside")
            })
            .collect()
    }

    /// Takes the bridge's new key from a description; `rollovers` is its stream's counter.
    pub fn take_key(&mut self, sdp: &str, ssrc: u32, rollovers: u32) {
        self.party.take_description(sdp);
        self.bridges = Crypto::of(&self.party.description);
        self.receiver = Context::new(&self.script, &self.bridges, false);
        self.receiver.advance(ssrc, rollovers);
    }

    /// Makes a new key for what it sends, and the answer that says so. The stream goes on, so its
    /// roll-over counter does too (RFC 3711 section 3.3.1).
    pub fn renew_key(&mut self, rollovers: u32) -> String {
        self.own = Crypto::random(&self.own.suite);
        self.sender = Context::new(&self.script, &self.own, true);
        self.sender.advance(self.party.ssrc, rollovers);
        let mut answer = Offer::pcmu(self.party.address()).attribute(&self.own.attribute(1));
        answer.transport = self.party.description.audio().transport.clone();
        answer.write()
    }
}

fn outcome_of(carried: &Value) -> Result<Vec<u8>, String> {
    match carried.as_str() {
        Some(text) => Ok(unhex(text)),
        None => Err(carried["error"].as_str().unwrap_or("no packet").to_owned()),
    }
}

/// Length of master key and salt (RFC 4568 section 6.2, RFC 7714 section 14.2).
fn master_length(suite: &str) -> usize {
    match suite {
        "AEAD_AES_256_GCM" => 44,
        "AEAD_AES_128_GCM" => 28,
        _ => 30,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("hexadecimal") as u8;
    let pairs = text.as_bytes().chunks_exact(2);
    pairs
        .map(|two| digit(two[0]) << 4 | digit(two[1]))
        .collect()
}

/// Base64 with padding (RFC 4648 section 4).
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
        for place in 0..4 {
            if place <= three.len() {
                let index = word >> (18 - 6 * place) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        assert_eq!(base64(b""), "");
        assert_eq!(base64(b"f"), "Zg==");
        assert_eq!(base64(b"fo"), "Zm8=");
        assert_eq!(base64(b"foobar"), "Zm9vYmFy");
    }
}
