//! media: SRTP with keys from SDES, against libsrtp, ffmpeg and GStreamer.

use std::process::Command;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rtpbridge_tests::harness::process::Process;
use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server};
use rtpbridge_tests::peer::capture::Capture;
use rtpbridge_tests::peer::rtcp::Rtcp;
use rtpbridge_tests::peer::sdes::{Context, Crypto, SUITES};
use rtpbridge_tests::peer::{Offer, Party, Rtp, Script, SdesParty};
use serde_json::json;

const QUIET: Duration = Duration::from_millis(300);

fn payloads(packets: &[Rtp]) -> Vec<&[u8]> {
    packets.iter().map(|packet| &packet.payload[..]).collect()
}

fn errors(server: &Server) -> f64 {
    server.metric("rtpbridge_srtp_errors_total")
}

/// Sends both ways at once and checks that every payload came through.
fn converse(secured: &mut SdesParty, plain: &mut Party) {
    let said = plain.talk(10);
    assert_eq!(payloads(&secured.receive_exactly(10)), payloads(&said));
    let said = secured.talk(10);
    assert_eq!(payloads(&plain.receive_exactly(10)), payloads(&said));
}

#[test]
fn every_suite_speaks_with_plain_rtp_whoever_offers() {
    let suites: Vec<String> = SUITES.iter().map(|suite| format!("{suite:?}")).collect();
    let server = Server::builder()
        .set("srtp_suites", format!("[{}]", suites.join(", ")))
        .start();
    let script = Rc::new(Script::aiortc());
    for suite in SUITES {
        let (mut client, _) = server.session();
        let mut plain = Party::join(&mut client);
        let mut secured = SdesParty::join(&script, &mut client, suite);
        converse(&mut secured, &mut plain);
        let info = client.call("session.info", json!({})).to_string();
        assert!(!info.contains(&secured.own.inline) && !info.contains(&secured.bridges.inline));
        client.call("session.destroy", json!({}));
    }
    assert_eq!(errors(&server), 0.0);
    let logs = server.logs();
    assert!(!logs.contains("inline:"), "keys are not logged");
}

#[test]
fn an_offer_of_ours_is_answered_with_srtp_or_refused() {
    let server = Server::start();
    let script = Rc::new(Script::aiortc());
    let (mut client, _) = server.session();
    let mut plain = Party::join(&mut client);
    let params = json!({"type": "rtp", "codecs": ["pcmu"], "srtp": true});
    let mut secured = SdesParty::accept(&script, &mut client, params.clone());
    assert_eq!(secured.own.suite, "AES_CM_128_HMAC_SHA1_80");
    assert_eq!(secured.party.description.audio().transport, "RTP/SAVP");
    converse(&mut secured, &mut plain);
    client.call(
        "endpoint.remove",
        json!({"endpoint_id": secured.party.endpoint}),
    );

    // A plain answer to it is refused, and the endpoint goes on waiting.
    let created = client.call("endpoint.create_offer", params);
    let unsafe_answer = Offer::pcmu(Party::bind().address()).write();
    client.refuse(
        "endpoint.accept_answer",
        json!({"endpoint_id": created["endpoint_id"], "sdp": unsafe_answer}),
        "ENDPOINT_ERROR",
    );
    client.call(
        "endpoint.remove",
        json!({"endpoint_id": created["endpoint_id"]}),
    );
    client.refuse(
        "endpoint.create_offer",
        json!({"type": "rtp", "srtp": true, "srtp_optional": true}),
        "INVALID_PARAMS",
    );
}

#[test]
fn optional_srtp_is_used_where_both_know_it() {
    let server = Server::start();
    let script = Rc::new(Script::aiortc());
    let (mut client, _) = server.session();
    let mut plain = Party::join(&mut client);
    // We offer it, with and without an answer in kind.
    let optional = json!({"type": "rtp", "codecs": ["pcmu"], "srtp_optional": true});
    let mut secured = SdesParty::accept(&script, &mut client, optional.clone());
    assert_eq!(secured.party.description.audio().transport, "RTP/AVP");
    converse(&mut secured, &mut plain);
    let remove = json!({"endpoint_id": secured.party.endpoint});
    client.call("endpoint.remove", remove);
    let mut other = Party::accept(&mut client, optional);
    assert_eq!(other.description.audio().values("crypto").count(), 1);
    let said = other.talk(5);
    assert_eq!(payloads(&plain.receive_exactly(5)), payloads(&said));
    client.call("endpoint.remove", json!({"endpoint_id": other.endpoint}));
    // They offer it.
    let suite = "AES_CM_128_HMAC_SHA1_32";
    let mut secured = SdesParty::join_as(&script, &mut client, suite, "RTP/AVP");
    converse(&mut secured, &mut plain);
}

#[test]
fn an_offer_of_srtp_without_a_usable_key_is_never_answered_in_the_clear() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let media = Party::bind().address();
    let key = Crypto::random("AES_CM_128_HMAC_SHA1_80").inline;
    for line in [
        None,
        Some("crypto:1 AES_CM_128_HMAC_SHA1_80 inline:short".to_owned()),
        Some(format!("crypto:1 F8_128_HMAC_SHA1_80 inline:{key}")),
        Some(format!(
            "crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key} UNENCRYPTED_SRTP"
        )),
        Some(format!(
            "crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}|2^20|1:4"
        )),
    ] {
        let mut offer = Offer::pcmu(media);
        "RTP/SAVP".clone_into(&mut offer.transport);
        offer.attributes.extend(line);
        let message = client.refuse(
            "endpoint.create_from_offer",
            json!({"sdp": offer.write()}),
            "ENDPOINT_ERROR",
        );
        assert!(!message.contains(&key), "keys are not in messages");
    }
    // The first line that can be used is the one answered, its lifetime understood.
    let offer = Offer::pcmu(media)
        .attribute("crypto:1 F8_128_HMAC_SHA1_80 inline:AAAA")
        .attribute(&format!(
            "crypto:7 AES_CM_128_HMAC_SHA1_80 inline:{key}|2^20"
        ));
    let mut party = Party::bind();
    party.offer(&mut client, &offer, json!({}));
    let lines: Vec<&str> = party.description.audio().values("crypto").collect();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("7 AES_CM_128_HMAC_SHA1_80 inline:"));
}

#[test]
fn different_suites_meet_and_digits_cross() {
    let server = Server::start();
    let script = Rc::new(Script::aiortc());
    let (mut client, _) = server.session();
    let mut alice = SdesParty::join(&script, &mut client, "AEAD_AES_256_GCM");
    let mut bob = SdesParty::join(&script, &mut client, "AES_CM_128_HMAC_SHA1_32");
    let said = alice.talk(20);
    assert_eq!(payloads(&bob.receive_exactly(20)), payloads(&said));
    let said = bob.talk(20);
    assert_eq!(payloads(&alice.receive_exactly(20)), payloads(&said));
    client.call(
        "endpoint.dtmf.inject",
        json!({"endpoint_id": bob.party.endpoint, "digit": "5"}),
    );
    let digits = bob.receive_all(QUIET);
    assert!(digits.len() >= 8, "{} packets of a digit", digits.len());
    assert!(digits.iter().all(|packet| packet.payload[0] == 5));
    assert_eq!(errors(&server), 0.0);
}

#[test]
fn forged_altered_and_repeated_packets_are_refused_and_the_call_is_unhurt() {
    let server = Server::start();
    let script = Rc::new(Script::aiortc());
    for suite in SUITES {
        let (mut client, _) = server.session();
        let plain = Party::join(&mut client);
        let mut secured = SdesParty::join(&script, &mut client, suite);
        let said = secured.talk(5);
        assert_eq!(payloads(&plain.receive_exactly(5)), payloads(&said));

        let before = errors(&server);
        let next = secured.next_packets(1);
        let sealed = secured.sender.protect(&next[0]);
        let mut attacks: Vec<Vec<u8>> = Vec::new();
        // Every bit of header, payload and tag; the first two bits decide what it is at all.
        for bit in (16..8 * sealed.len()).step_by(7) {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 0x80 >> (bit % 8);
            attacks.push(altered);
        }
        let stranger = Context::new(&script, &Crypto::random(suite), true);
        attacks.push(stranger.protect(&next[0]));
        attacks.push(next[0].write());
        attacks.push(sealed[..sealed.len() - 1].to_vec());
        for ssrc in 0..50 {
            let forged = Rtp {
                ssrc,
                ..next[0].clone()
            };
            attacks.push(stranger.protect(&forged));
        }
        for (at, attack) in attacks.iter().enumerate() {
            secured.party.send_bytes(attack);
            if at % 8 == 7 {
                thread::sleep(Duration::from_millis(2));
            }
        }
        eventually("every one is counted", SOON, || {
            (errors(&server) >= before + attacks.len() as f64).then_some(())
        });
        plain.expect_silence(Duration::from_millis(50));
        assert_eq!(errors(&server), before + attacks.len() as f64);

        // The genuine one is still welcome, once.
        secured.party.send_bytes(&sealed);
        assert_eq!(payloads(&plain.receive_exactly(1)), payloads(&next));
        secured.party.send_bytes(&sealed);
        eventually("the repetition is counted", SOON, || {
            (errors(&server) == before + attacks.len() as f64 + 1.0).then_some(())
        });
        plain.expect_silence(Duration::from_millis(50));
        let said = secured.talk(5);
        assert_eq!(payloads(&plain.receive_exactly(5)), payloads(&said));
        client.call("session.destroy", json!({}));
    }
}

#[test]
fn reports_are_protected_both_ways() {
    let server = Server::start();
    let script = Rc::new(Script::aiortc());
    for suite in ["AES_CM_128_HMAC_SHA1_80", "AEAD_AES_128_GCM"] {
        let (mut client, _) = server.session();
        let _plain = Party::join(&mut client);
        let mut secured = SdesParty::join(&script, &mut client, suite);
        secured.talk(5);
        let sealed = secured.party.receive_rtcp_bytes(SOON).expect("a report");
        let opened = secured
            .receiver
            .carry(std::slice::from_ref(&sealed), true)
            .remove(0);
        let opened = opened.expect("libsrtp opens it");
        assert_ne!(sealed[8..], opened[8..]);
        let compound = Rtcp::parse_compound(&opened).expect("RTCP inside");
        let block = match &compound[0] {
            Rtcp::ReceiverReport { blocks, .. } | Rtcp::SenderReport { blocks, .. } => blocks[0],
            other => panic!("begins with {other:?}"),
        };
        assert_eq!(block.ssrc, secured.party.ssrc);

        let bye = Rtcp::compound(&[
            Rtcp::ReceiverReport {
                ssrc: secured.party.ssrc,
                blocks: Vec::new(),
            },
            Rtcp::Bye {
                ssrcs: vec![secured.party.ssrc],
                reason: Some("done".to_owned()),
            },
        ]);
        let before = errors(&server);
        secured.party.send_rtcp(&bye);
        eventually("a report in the clear is refused", SOON, || {
            (errors(&server) > before).then_some(())
        });
        let sealed = secured.sender.carry(&[bye], true).remove(0);
        secured.party.send_rtcp(&sealed.expect("protected"));
        let event = client.expect_event("endpoint.rtcp_bye");
        assert_eq!(event["reason"], json!("done"));
        client.drain_events(Duration::from_millis(50));
        client.call("session.destroy", json!({}));
    }
}

/// What one party of a running call has sent and heard so far, by payload.
struct Load {
    secured: SdesParty,
    plain: Party,
    said: Vec<Vec<u8>>,
    heard: Vec<Vec<u8>>,
    said_to_secured: Vec<Vec<u8>>,
    /// What came for the secured party, unopened.
    sealed: Vec<Vec<u8>>,
}

impl Load {
    /// Frames both ways, a packet each per 5 ms.
    fn run(&mut self, frames: usize) {
        let packets = self.secured.next_packets(frames);
        let sealed = self.secured.sender.protect_all(&packets);
        let start = Instant::now();
        for (at, (datagram, packet)) in sealed.iter().zip(packets).enumerate() {
            self.secured.party.send_bytes(datagram);
            self.said.push(packet.payload);
            let frame = self.plain.distinct_frame();
            self.plain.send(&frame);
            self.said_to_secured.push(frame);
            let due = start + Duration::from_millis(5) * (at as u32 + 1);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    fn collect(&mut self) {
        while let Some(packet) = self.plain.receive(QUIET) {
            self.heard.push(packet.payload);
        }
        while let Some(datagram) = self.secured.receive_sealed(QUIET) {
            self.sealed.push(datagram);
        }
    }
}

#[test]
fn a_rekey_under_load_after_a_roll_over_loses_nothing() {
    let server = Server::start();
    let script = Rc::new(Script::aiortc());
    for suite in ["AES_CM_128_HMAC_SHA1_80", "AEAD_AES_256_GCM"] {
        let (mut client, _) = server.session();
        let mut plain = Party::join(&mut client);
        let mut secured = SdesParty::join(&script, &mut client, suite);
        // Both streams roll over before the rekey: their counters are 1 then.
        secured.party.sequence = 65_500;
        plain.sequence = 65_500;
        let (said, heard, said_to_secured, sealed) = Default::default();
        let mut load = Load {
            secured,
            plain,
            said,
            heard,
            said_to_secured,
            sealed,
        };
        load.run(100);
        load.collect();
        let before: Vec<Rtp> = load.secured.open_all(&std::mem::take(&mut load.sealed));
        assert_eq!(before.len(), 100);
        let ours = before.last().expect("100").clone();
        let ours_rolled_over = u32::from(before[0].sequence > ours.sequence);

        // Our new key is in use as soon as the answer is there; theirs comes 100 packets later.
        let endpoint = load.secured.party.endpoint.clone();
        let rekeyed = client.call("endpoint.srtp_rekey", json!({"endpoint_id": endpoint}));
        let offer = rekeyed["sdp"].as_str().expect("an offer").to_owned();
        let old_key = load.secured.bridges.clone();
        load.secured.take_key(&offer, ours.ssrc, ours_rolled_over);
        assert_ne!(load.secured.bridges, old_key);
        load.run(100);
        let old_sender_packets = load.secured.next_packets(20);
        let late = load.secured.sender.protect_all(&old_sender_packets);
        let retired = load.secured.own.clone();
        let answer = load.secured.renew_key(1);
        client.call(
            "endpoint.accept_answer",
            json!({"endpoint_id": endpoint, "sdp": answer}),
        );
        // What was under way under the old key still counts.
        for (datagram, packet) in late.iter().zip(old_sender_packets) {
            load.secured.party.send_bytes(datagram);
            load.said.push(packet.payload);
        }
        load.run(100);
        load.collect();
        let sealed = std::mem::take(&mut load.sealed);
        let after = load.secured.open_all(&sealed);
        let received: Vec<&[u8]> = payloads(&before)
            .into_iter()
            .chain(payloads(&after))
            .collect();
        assert_eq!(
            received, load.said_to_secured,
            "{suite}: to the secured party"
        );
        assert_eq!(load.heard, load.said, "{suite}: from the secured party");
        assert!(after.iter().all(|packet| packet.ssrc == ours.ssrc));

        // The first success of the new key has retired the old one.
        let failed = errors(&server);
        let ssrc = load.secured.party.ssrc;
        let old = Context::new(&script, &retired, true);
        old.advance(ssrc, 1);
        let stale = load.secured.next_packets(1);
        load.secured.party.send_bytes(&old.protect(&stale[0]));
        eventually("the old key is refused", SOON, || {
            (errors(&server) > failed).then_some(())
        });
        client.call("session.destroy", json!({}));
    }
    assert_eq!(errors(&server), 2.0);
}

#[test]
fn a_reinvite_brings_a_new_receiving_key() {
    let server = Server::start();
    let script = Rc::new(Script::aiortc());
    let (mut client, _) = server.session();
    let mut plain = Party::join(&mut client);
    let mut secured = SdesParty::join(&script, &mut client, "AES_CM_128_HMAC_SHA1_80");
    secured.party.sequence = 100;
    converse(&mut secured, &mut plain);
    let bridges = secured.bridges.clone();
    let offer = secured.renew_key(0);
    let answered = client.call(
        "endpoint.rtp.reinvite",
        json!({"endpoint_id": secured.party.endpoint, "sdp": offer}),
    );
    let answer = answered["sdp_answer"].as_str().expect("an answer");
    secured.party.take_description(answer);
    assert_eq!(
        Crypto::of(&secured.party.description),
        bridges,
        "our own key stays"
    );
    converse(&mut secured, &mut plain);
    assert_eq!(errors(&server), 0.0);
}

#[test]
fn a_rekey_needs_sdes() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let plain = Party::join(&mut client);
    client.refuse(
        "endpoint.srtp_rekey",
        json!({"endpoint_id": plain.endpoint}),
        "ENDPOINT_ERROR",
    );
}

#[test]
fn recordings_hold_it_decrypted() {
    let server = Server::start();
    let script = Rc::new(Script::aiortc());
    let (mut client, _) = server.session();
    let _listener = Party::join(&mut client);
    let mut secured = SdesParty::join(&script, &mut client, "AEAD_AES_128_GCM");
    let path = server.recording_path("secured.pcap");
    let started = client.call(
        "recording.start",
        json!({"file_path": path, "endpoint_id": secured.party.endpoint}),
    );
    let said = secured.talk(20);
    let stopped = client.call(
        "recording.stop",
        json!({"recording_id": started["recording_id"]}),
    );
    assert_eq!(stopped["streams"][0]["packets"], json!(20));
    let recorded: Vec<Rtp> = Capture::read(&path)
        .rtp()
        .map(|(_, packet)| packet)
        .filter(|packet| packet.ssrc == secured.party.ssrc)
        .collect();
    assert_eq!(recorded, said);
}

/// A party that only sends: another program, on a port that the offer names.
fn offer_program(client: &mut Client, port: u16, crypto: &Crypto) -> (String, u16) {
    let media = format!("127.0.0.1:{port}").parse().expect("an address");
    let mut offer = Offer::pcmu(media).attribute(&crypto.attribute(1));
    "RTP/SAVP".clone_into(&mut offer.transport);
    let mut party = Party::bind();
    party.offer(client, &offer, json!({}));
    (party.endpoint, party.bridge.port())
}

#[test]
fn what_ffmpeg_and_gstreamer_protect_is_heard() {
    let server = Server::start();
    let (mut client, _) = server.session();
    let listener = Party::join(&mut client);
    for (suite, program) in [
        ("AES_CM_128_HMAC_SHA1_80", "ffmpeg"),
        ("AES_CM_128_HMAC_SHA1_32", "ffmpeg"),
        ("AES_CM_128_HMAC_SHA1_80", "gst-launch-1.0"),
        ("AEAD_AES_128_GCM", "gst-launch-1.0"),
        ("AEAD_AES_256_GCM", "gst-launch-1.0"),
    ] {
        let crypto = Crypto::random(suite);
        let own = Party::bind().address().port();
        let (endpoint, port) = offer_program(&mut client, own, &crypto);
        let command = match program {
            "ffmpeg" => ffmpeg(&crypto, own, port),
            _ => gstreamer(&crypto, own, port),
        };
        let log = server.path(&format!("{program}-{suite}.log"));
        let process = Process::start(program, command, log);
        let heard = listener.receive_exactly(50);
        assert!(heard.iter().all(|packet| packet.payload_type == 0));
        let is_tone = |packet: &Rtp| packet.payload.windows(2).any(|pair| pair[0] != pair[1]);
        assert!(heard.iter().any(is_tone));
        drop(process);
        client.call("endpoint.remove", json!({"endpoint_id": endpoint}));
        listener.receive_all(QUIET);
    }
    assert_eq!(errors(&server), 0.0);
}

fn ffmpeg(crypto: &Crypto, own: u16, port: u16) -> Command {
    // Under the shorter suite's SDES name it cuts the tag of SRTCP as well, against RFC 4568
    // section 6.2.2; under its DTLS name it does not.
    let suite = crypto
        .suite
        .replace("AES_CM_128_HMAC_SHA1_32", "SRTP_AES128_CM_HMAC_SHA1_32");
    let mut command = Command::new("ffmpeg");
    command
        .args(["-nostdin", "-loglevel", "error", "-re", "-f", "lavfi"])
        .args(["-i", "sine=frequency=1000:sample_rate=8000", "-t", "20"])
        .args([
            "-c:a",
            "pcm_mulaw",
            "-ac",
            "1",
            "-packetsize",
            "172",
            "-f",
            "rtp",
        ])
        .args(["-srtp_out_suite", &suite])
        .args(["-srtp_out_params", &crypto.inline])
        .arg(format!(
            "srtp://127.0.0.1:{port}?localport={own}&pkt_size=172"
        ));
    command
}

fn gstreamer(crypto: &Crypto, own: u16, port: u16) -> Command {
    let (cipher, auth) = match crypto.suite.as_str() {
        "AEAD_AES_128_GCM" => ("aes-128-gcm", "null"),
        "AEAD_AES_256_GCM" => ("aes-256-gcm", "null"),
        _ => ("aes-128-icm", "hmac-sha1-80"),
    };
    let key = crypto.hex();
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "audiotestsrc", "is-live=true", "samplesperbuffer=160"]);
    command.args(["!", "audio/x-raw,rate=8000,channels=1", "!", "mulawenc"]);
    command.args([
        "!",
        "rtppcmupay",
        "min-ptime=20000000",
        "max-ptime=20000000",
        "!",
        "srtpenc",
    ]);
    command.arg(format!("key={key}"));
    for kind in ["rtp", "rtcp"] {
        command.arg(format!("{kind}-cipher={cipher}"));
        command.arg(format!("{kind}-auth={auth}"));
    }
    command.args(["!", "udpsink", "host=127.0.0.1"]);
    command.args([format!("port={port}"), format!("bind-port={own}")]);
    command
}
