//! Every command of a session, with arguments that make sense and with others.

use std::net::{Ipv6Addr, SocketAddr};

use rtpbridge_core::session::{EndpointSockets, LocalSocket, PreparedEndpoint, RecordingKey};
use rtpbridge_core::srtp::{MasterKey, Protector, SrtpSuite};
use rtpbridge_shared::id::RecordingId;
use rtpbridge_shared::ipc::dtmf::{DtmfInject, DtmfSetSensitive};
use rtpbridge_shared::ipc::endpoint::{
    AcceptAnswer, CreateFromOffer, CreateOffer, RemoteOffer, SrtpOffer, UpdateDirection,
};
use rtpbridge_shared::ipc::recording::{RecordingStart, RecordingSummary};
use rtpbridge_shared::ipc::stats::StatsSubscribe;
use rtpbridge_shared::ipc::vad::VadStart;
use rtpbridge_shared::vocab::{Codec, Digit, Direction, StopReason, Transport};

use super::party::Party;
use super::{Bytes, World};

/// What the parties' SDES lines carry: the key of 0 to 29.
const INLINE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd";
const FORMATS: [&str; 6] = ["0 101", "8 96", "9", "111 110", "0 8 9 111 101 110", "77"];

impl World {
    pub(super) fn command(&mut self, operation: u8, bytes: &mut Bytes<'_>) {
        match operation % 16 {
            0 | 1 => self.join(operation, bytes),
            2 => self.invite(operation, bytes),
            3 => self.describe(operation, bytes),
            4 => self.remove(bytes),
            5 => self.transfer(bytes),
            6 => self.record(operation, bytes),
            7 => self.watch(operation, bytes),
            _ if operation >> 7 == 0 => self.tune(operation, bytes),
            _ => self.play(operation, bytes),
        }
    }

    /// An offer, one of ours or whatever the script says.
    fn join(&mut self, operation: u8, bytes: &mut Bytes<'_>) {
        let session = usize::from(operation >> 4 & 1);
        let (endpoint, sockets) = self.next_birth();
        let address = SocketAddr::from(([10, 0, 0, self.count as u8], 4000 + self.count));
        let sdp = description(operation, address, bytes);
        let request = CreateFromOffer {
            session: self.sessions[session].id(),
            endpoint,
            sdp,
            direction: Direction::ALL[bytes.below(Direction::ALL.len())],
            transport: None,
        };
        if let Ok(prepared) = self.sessions[session].prepare_from_offer(&request) {
            self.create(Party::new(session, endpoint, address), prepared, sockets);
        }
    }

    fn invite(&mut self, operation: u8, bytes: &mut Bytes<'_>) {
        let session = usize::from(operation >> 4 & 1);
        let (endpoint, sockets) = self.next_birth();
        let address = SocketAddr::from(([10, 0, 0, self.count as u8], 4000 + self.count));
        let request = CreateOffer {
            session: self.sessions[session].id(),
            endpoint,
            transport: Transport::ALL[usize::from(operation >> 5 & 1)],
            direction: Direction::ALL[bytes.below(Direction::ALL.len())],
            srtp: [SrtpOffer::Off, SrtpOffer::Optional, SrtpOffer::Required][bytes.below(3)],
            codecs: Codec::ALL[..bytes.below(Codec::ALL.len() + 1)].to_vec(),
        };
        if let Ok(prepared) = self.sessions[session].prepare_offer(&request) {
            self.create(Party::new(session, endpoint, address), prepared, sockets);
        }
    }

    fn create(
        &mut self,
        mut party: Party,
        prepared: PreparedEndpoint,
        mut sockets: EndpointSockets,
    ) {
        let (now, session) = (self.now(), party.session);
        if prepared.need().transport == Transport::Webrtc {
            let second = prepared.need().second.is_some();
            sockets.second = sockets.second.filter(|_| second).map(on_ipv6);
        }
        self.wire.turn_of(session);
        self.wire.open(sockets);
        match self.sessions[session].create_endpoint(now, prepared, sockets, &mut self.wire) {
            Ok(created) => {
                party.key = Some(created.key);
                party.sockets = Some(sockets);
                party.sdp = created.sdp;
                party.protector = sdes_of(&party.sdp);
                self.parties.push(party);
            }
            Err(_) => self.wire.close(sockets),
        }
    }

    /// A further description: an answer, an offer, or the wish for one of ours.
    fn describe(&mut self, operation: u8, bytes: &mut Bytes<'_>) {
        let now = self.now();
        let index = bytes.below(self.parties.len());
        let Some(party) = self.parties.get_mut(index) else {
            return;
        };
        let session = &mut self.sessions[party.session];
        self.wire.turn_of(party.session);
        let sdp = description(operation, party.address, bytes);
        let (id, endpoint) = (session.id(), party.id);
        let offer = RemoteOffer {
            session: id,
            endpoint,
            sdp: sdp.clone(),
        };
        let ours = match bytes.byte() % 5 {
            0 => session.reinvite(now, &offer, &mut self.wire),
            1 => session.accept_offer(now, &offer, &mut self.wire),
            2 => {
                let restarted = session.ice_restart(now, endpoint);
                restarted.map(|restarted| restarted.sdp_offer)
            }
            3 => session.srtp_rekey(now, endpoint),
            _ => {
                let answer = AcceptAnswer {
                    session: id,
                    endpoint,
                    sdp,
                    offer_generation: None,
                    transport: None,
                };
                let accepted = session.accept_answer(now, &answer, &mut self.wire);
                if accepted.is_ok() && party.protector.is_none() {
                    party.protector = sdes_of(&answer.sdp);
                }
                accepted.map(|()| party.sdp.clone())
            }
        };
        if let Ok(ours) = ours {
            party.sdp = ours;
        }
    }

    fn remove(&mut self, bytes: &mut Bytes<'_>) {
        let now = self.now();
        let index = bytes.below(self.parties.len());
        let Some(party) = self.parties.get(index) else {
            return;
        };
        let session = &mut self.sessions[party.session];
        self.wire.turn_of(party.session);
        let Ok(removed) = session.remove_endpoint(now, party.id, &mut self.wire) else {
            return;
        };
        let media = |sockets: Option<EndpointSockets>| sockets.map(|s| s.media.key);
        assert_eq!(media(removed.sockets), media(party.sockets));
        if let Some(sockets) = removed.sockets {
            self.wire.close(sockets);
        }
        for ended in removed.recordings {
            self.wire.recordings.remove(&ended.key);
        }
        self.parties.remove(index);
    }

    /// Into the other session, or back when that is full.
    fn transfer(&mut self, bytes: &mut Bytes<'_>) {
        let now = self.now();
        let index = bytes.below(self.parties.len());
        let Some(party) = self.parties.get_mut(index) else {
            return;
        };
        let (from, to) = (party.session, 1 - party.session);
        let how = bytes.byte();
        if how & 1 == 0 && self.sessions[to].reserve(now, party.id).is_err() {
            return;
        }
        if how & 2 != 0 {
            // Without a place, unless the other session has room all the same.
            self.sessions[to].unreserve(now, party.id);
        }
        let Ok(moving) = self.sessions[from].detach(now, party.id) else {
            self.sessions[to].unreserve(now, party.id);
            return;
        };
        let (from_id, to_id) = (self.sessions[from].id(), self.sessions[to].id());
        self.wire.turn_of(to);
        match self.sessions[to].insert(now, moving, Some(from_id), &mut self.wire) {
            Ok(key) => {
                party.key = party.key.map(|_| key);
                party.session = to;
                self.wire.turn_of(from);
                let out = &mut self.wire;
                let ended = self.sessions[from].transferred_out(now, party.id, to_id, out);
                for ended in ended {
                    self.wire.recordings.remove(&ended.key);
                }
            }
            Err((moving, _)) => {
                self.wire.turn_of(from);
                let back = self.sessions[from].insert(now, moving, None, &mut self.wire);
                match back {
                    Ok(key) => party.key = party.key.map(|_| key),
                    // Only a session that is over takes nothing back.
                    Err(_) => {
                        if let Some(sockets) = party.sockets {
                            self.wire.close(sockets);
                        }
                        self.parties.remove(index);
                    }
                }
            }
        }
    }

    fn record(&mut self, operation: u8, bytes: &mut Bytes<'_>) {
        let (now, session) = (self.now(), usize::from(operation >> 4 & 1));
        let name = u64::from(bytes.byte() % 8);
        let recording = RecordingId::from_bytes([name as u8; 16]);
        let key = RecordingKey(2 * name + session as u64);
        self.wire.turn_of(session);
        match operation >> 5 & 3 {
            0 | 1 => {
                let leg = self.parties.get(bytes.below(self.parties.len() + 1));
                let request = RecordingStart {
                    session: self.sessions[session].id(),
                    recording,
                    endpoint: leg.map(|party| party.id),
                    file_path: "/r/a.pcap".into(),
                    record_outbound: operation >> 7 == 0,
                };
                if self.recordings.contains(&(session, recording)) {
                    return;
                }
                self.wire.recordings.insert(key);
                let started =
                    self.sessions[session].start_recording(now, &request, key, &mut self.wire);
                match started {
                    Ok(()) => self.recordings.push((session, recording)),
                    Err(_) => drop(self.wire.recordings.remove(&key)),
                }
            }
            2 => {
                if self.sessions[session]
                    .stop_recording(now, recording)
                    .is_ok()
                {
                    self.wire.recordings.remove(&key);
                }
            }
            _ if self.wire.recordings.contains(&key) => {}
            _ => {
                let summary = RecordingSummary {
                    recording,
                    file_path: String::new(),
                    duration_ms: 0,
                    packets: 0,
                    dropped_packets: 0,
                    reason: StopReason::WriteError,
                    flushed: true,
                    streams: Vec::new(),
                };
                self.sessions[session].recording_stopped(summary, &mut self.wire);
                self.recordings
                    .retain(|known| *known != (session, recording));
            }
        }
    }

    /// The client's side: who is attached, what it has seen, what it wants to be told.
    fn watch(&mut self, operation: u8, bytes: &mut Bytes<'_>) {
        let (now, index) = (self.now(), usize::from(operation >> 4 & 1));
        self.wire.turn_of(index);
        let session = &mut self.sessions[index];
        match operation >> 5 {
            0 | 1 => {
                let attached = session.attach(now);
                let numbers = attached.held.iter().map(|held| held.number);
                assert!(numbers.is_sorted());
            }
            2 => session.release(),
            3 | 4 => session.acknowledge(bytes.byte().into()),
            5 => session.stats_unsubscribe(now),
            _ => {
                let request = StatsSubscribe {
                    session: session.id(),
                    interval_ms: u32::from(bytes.word()),
                };
                // Most intervals are out of bounds.
                let _ = session.stats_subscribe(now, &request);
            }
        }
    }

    fn tune(&mut self, operation: u8, bytes: &mut Bytes<'_>) {
        let now = self.now();
        let index = bytes.below(self.parties.len());
        let Some(party) = self.parties.get(index) else {
            return;
        };
        let (endpoint, session) = (party.id, &mut self.sessions[party.session]);
        let id = session.id();
        self.wire.turn_of(party.session);
        let what = bytes.byte();
        // Files take none of this, and queues are bounded.
        let _ = match operation >> 5 & 3 {
            0 => session.update_direction(
                now,
                &UpdateDirection {
                    session: id,
                    endpoint,
                    direction: Direction::ALL.get(usize::from(what) % 8).copied(),
                },
            ),
            1 => session.dtmf_set_sensitive(
                now,
                &DtmfSetSensitive {
                    session: id,
                    endpoint,
                    enabled: what.is_multiple_of(2),
                },
            ),
            2 if what >= 128 => session.vad_stop(now, endpoint),
            2 => {
                let request = VadStart {
                    session: id,
                    endpoint,
                    silence_interval_ms: 50 + 2 * u32::from(what),
                    speech_threshold: f64::from(bytes.byte()) / 250.0,
                };
                session.vad_start(now, &request)
            }
            _ => match Digit::from_event(what % 16) {
                Some(digit) => {
                    let request = DtmfInject {
                        session: id,
                        endpoint,
                        digit,
                        duration_ms: u32::from(bytes.byte()) * 8,
                        volume: what,
                    };
                    session.dtmf_inject(now, &request, &mut self.wire)
                }
                None => Ok(()),
            },
        };
    }
}

/// Where the bits of `operation` say so, the script's own text.
/// The same, bound to the address of the other family.
fn on_ipv6(socket: LocalSocket) -> LocalSocket {
    let local = (Ipv6Addr::LOCALHOST, socket.local.port()).into();
    LocalSocket {
        local,
        advertised: local,
        ..socket
    }
}

fn description(operation: u8, address: SocketAddr, bytes: &mut Bytes<'_>) -> String {
    let kind = operation >> 5;
    if kind == 0 {
        return String::from_utf8_lossy(bytes.chunk(true)).into_owned();
    }
    let (ip, port) = (address.ip(), address.port());
    let direction = ["sendrecv", "sendonly", "recvonly", "inactive"][bytes.below(4)];
    let formats = FORMATS[bytes.below(FORMATS.len())];
    let rest = "a=rtpmap:96 telephone-event/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
                a=rtpmap:111 opus/48000/2\r\na=rtpmap:110 telephone-event/48000\r\n";
    let head = format!("v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n");
    let plain = |profile: &str| {
        format!("{head}m=audio {port} {profile} {formats}\r\na={direction}\r\n{rest}")
    };
    match kind {
        1 | 2 => plain("RTP/AVP"),
        3 => plain("RTP/AVP") + "a=rtcp-mux\r\na=rtcp:9999 IN IP4 10.0.0.99\r\n",
        4 | 5 => {
            let profile = ["RTP/AVP", "RTP/SAVP"][usize::from(kind & 1)];
            plain(profile) + &format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{INLINE}\r\n")
        }
        _ => {
            let digest = ["AB"; 32].join(":");
            let setup = ["actpass", "active", "passive"][bytes.below(3)];
            plain("UDP/TLS/RTP/SAVPF")
                + &format!(
                    "a=ice-ufrag:peer\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
                     a=fingerprint:sha-256 {digest}\r\na=setup:{setup}\r\na=mid:0\r\n\
                     a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=rtcp-mux\r\n"
                )
        }
    }
}

/// What a party whose line was taken up sends with.
fn sdes_of(sdp: &str) -> Option<Protector> {
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    let key: Vec<u8> = (0..30).collect();
    let is_protected = sdp.contains("a=crypto");
    is_protected.then(|| Protector::new(&MasterKey::new(suite, &key).expect("of that length")))
}
