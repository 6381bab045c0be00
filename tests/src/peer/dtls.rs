//! A WebRTC party inside the test's own process: connectivity checks of a controlling agent
//! (RFC 8445), a DTLS client (RFC 5763, 5764) and SRTP, so that there can be hundreds of them. It knows
//! one candidate, sends Opus-shaped packets that nobody decodes, and never answers a check.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest;
use serde_json::json;
use stun::agent::TransactionId;
use stun::attributes::{
    ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute,
};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, Message, Setter};
use stun::textattrs::TextAttribute;
use tokio::runtime::{Builder, Runtime};
use webrtc_dtls::config::{ClientAuthType, Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::crypto::Certificate;
use webrtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use webrtc_srtp::config::Config as SrtpConfig;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::party::receive_from;
use super::relay::Kind;
use super::rtp::Rtp;
use super::sdp::{Description, Offer};
use crate::harness::Client;

/// Payload type of its audio.
pub const OPUS: u8 = 111;
/// The time stamps of a 20 ms frame at 48 kHz.
const FRAME_SAMPLES: u32 = 960;
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
const CHECKS: u32 = 50;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);
const UFRAG: &str = "caller";
const PASSWORD: &str = "aPasswordOfTheCaller2345";

/// One party.
pub struct DtlsParty {
    socket: UdpSocket,
    certificate: Certificate,
    shield: Option<Shield>,
    /// USERNAME and password of its checks.
    credentials: (String, String),
    /// The endpoint's candidate.
    pub bridge: SocketAddr,
    /// The endpoint in the session.
    pub endpoint: String,
    /// SSRC of what this party sends.
    pub ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

/// The keys of both directions.
struct Shield {
    outbound: Context,
    inbound: Context,
}

impl DtlsParty {
    /// A party on 127.0.0.1 that is in no session yet.
    pub fn bind() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        Self {
            socket,
            certificate: Certificate::generate_self_signed(["party".to_owned()])
                .expect("a certificate"),
            shield: None,
            credentials: (String::new(), String::new()),
            bridge: SocketAddr::from(([127, 0, 0, 1], 9)),
            endpoint: String::new(),
            ssrc: rand::random(),
            // The lower half: the first packets cannot roll over.
            sequence: rand::random::<u16>() >> 1,
            timestamp: rand::random(),
        }
    }

    /// A new party that offers itself into the client's session and is connected.
    pub fn join(client: &mut Client) -> Self {
        let mut party = Self::bind();
        let answer = party.offer_into(client);
        party.connect(&answer).expect("connects");
        client.expect_event_where("endpoint.state_changed", |data| {
            data["endpoint_id"] == json!(party.endpoint) && data["new_state"] == json!("connected")
        });
        party
    }

    /// Offers itself into the client's session; gives the answer, for [`Self::connect`].
    pub fn offer_into(&mut self, client: &mut Client) -> String {
        let params = json!({"sdp": self.offer()});
        let created = client.call("endpoint.create_from_offer", params);
        self.endpoint = created["endpoint_id"].as_str().expect("an id").to_owned();
        created["sdp_answer"]
            .as_str()
            .expect("an answer")
            .to_owned()
    }

    /// Its description, in which it is the DTLS client.
    pub fn offer(&self) -> String {
        let certificate = self.certificate.certificate.first().expect("one");
        let mut offer = Offer::with_codecs(
            self.socket.local_addr().expect("bound"),
            &[(OPUS, "opus/48000/2")],
        );
        offer.transport = "UDP/TLS/RTP/SAVPF".to_owned();
        for line in [
            "mid:0".to_owned(),
            "rtcp-mux".to_owned(),
            "setup:active".to_owned(),
            format!("ice-ufrag:{UFRAG}"),
            format!("ice-pwd:{PASSWORD}"),
            format!("fingerprint:sha-256 {}", fingerprint(certificate)),
        ] {
            offer = offer.attribute(&line);
        }
        offer.write()
    }

    /// Nominates the answer's candidate and shakes hands.
    pub fn connect(&mut self, answer: &str) -> Result<(), String> {
        self.take_answer(answer)?;
        self.nominate()?;
        let announced = attribute(&Description::parse(answer), "fingerprint")?;
        let announced = announced.trim_start_matches("sha-256 ").to_owned();
        let (send, receive) = self.shake_hands(announced)?;
        self.shield = Some(Shield {
            outbound: send,
            inbound: receive,
        });
        Ok(())
    }

    /// Remembers what the checks need; from here on the socket hears nobody else.
    pub fn take_answer(&mut self, answer: &str) -> Result<(), String> {
        let description = Description::parse(answer);
        let candidate = attribute(&description, "candidate")?;
        let words: Vec<&str> = candidate.split(' ').collect();
        let [_, _, _, _, ip, port, ..] = words[..] else {
            return Err(format!("not a candidate: {candidate}"));
        };
        let address = format!("{ip}:{port}");
        self.bridge = address.parse().map_err(|_| address)?;
        let username = format!("{}:{UFRAG}", attribute(&description, "ice-ufrag")?);
        self.credentials = (username, attribute(&description, "ice-pwd")?);
        self.socket.connect(self.bridge).map_err(text)
    }

    /// Checks until one is answered with success.
    pub fn nominate(&self) -> Result<(), String> {
        for _ in 0..CHECKS {
            self.check()?;
            let deadline = Instant::now() + CHECK_INTERVAL;
            while let Some((datagram, _)) = receive_from(&self.socket, deadline) {
                if datagram.starts_with(&[1, 1]) {
                    return Ok(());
                }
            }
        }
        Err("no check succeeds".to_owned())
    }

    /// Sends one check, which keeps the consent (RFC 7675); the answer waits with what is received.
    pub fn check(&self) -> Result<(), String> {
        let (username, password) = &self.credentials;
        let request = binding_request(username, password)?;
        self.socket.send(&request).map(|_| ()).map_err(text)
    }

    /// The next packet of its stream, in the clear.
    pub fn next_packet(&mut self, payload: &[u8]) -> Rtp {
        let packet = Rtp {
            payload_type: OPUS,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            payload: payload.to_vec(),
            ..Rtp::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME_SAMPLES);
        packet
    }

    /// Sends the next packet of its stream.
    pub fn send(&mut self, payload: &[u8]) -> Rtp {
        let packet = self.next_packet(payload);
        let sealed = self.protect(&packet.write()).expect("can be protected");
        self.socket.send(&sealed).expect("loopback takes it");
        packet
    }

    /// The next packet that is authentic; everything else is left aside.
    pub fn receive(&mut self, within: Duration) -> Option<Rtp> {
        let deadline = Instant::now() + within;
        loop {
            let (datagram, _) = receive_from(&self.socket, deadline)?;
            if let Some(plain) = self.unprotect(&datagram) {
                return Rtp::parse(&plain);
            }
        }
    }

    /// One RTP packet as SRTP.
    pub fn protect(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let shield = self.shield.as_mut()?;
        Some(shield.outbound.encrypt_rtp(packet).ok()?.to_vec())
    }

    /// One SRTP packet as RTP; none when it is something else or not authentic.
    pub fn unprotect(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        if Kind::of(datagram) != Kind::Rtp {
            return None;
        }
        let shield = self.shield.as_mut()?;
        Some(shield.inbound.decrypt_rtp(datagram).ok()?.to_vec())
    }

    /// Its socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Keys to send and to receive with. Everything that the handshake started ends with it.
    fn shake_hands(&self, announced: String) -> Result<(Context, Context), String> {
        let runtime = runtime();
        let socket = self.socket.try_clone().map_err(text)?;
        socket.set_nonblocking(true).map_err(text)?;
        let config = self.config(announced);
        let keys = runtime.block_on(async {
            let socket = Arc::new(tokio::net::UdpSocket::from_std(socket).map_err(text)?);
            let handshake = DTLSConn::new(socket, config, true, None);
            let connection = tokio::time::timeout(HANDSHAKE_LIMIT, handshake);
            let connection = connection.await.map_err(text)?.map_err(text)?;
            export(&connection).await
        });
        drop(runtime);
        // The two descriptors share this.
        self.socket.set_nonblocking(false).map_err(text)?;
        keys
    }

    fn config(&self, announced: String) -> Config {
        Config {
            certificates: vec![self.certificate.clone()],
            // The order of browsers.
            srtp_protection_profiles: vec![
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            ],
            client_auth: ClientAuthType::RequireAnyClientCert,
            extended_master_secret: ExtendedMasterSecretType::Require,
            insecure_skip_verify: true,
            verify_peer_certificate: Some(Arc::new(move |shown: &[Vec<u8>], _| {
                let is_right = shown
                    .first()
                    .is_some_and(|der| fingerprint(der) == announced);
                match is_right {
                    true => Ok(()),
                    false => Err(webrtc_dtls::Error::ErrInvalidCertificate),
                }
            })),
            server_name: "bridge".to_owned(),
            ..Config::default()
        }
    }
}

/// A check with USE-CANDIDATE (RFC 8445 section 7.1).
pub fn binding_request(username: &str, password: &str) -> Result<Vec<u8>, String> {
    let attribute = |typ, value: &[u8]| RawAttribute {
        typ,
        length: u16::try_from(value.len()).unwrap_or(0),
        value: value.to_vec(),
    };
    let setters: [Box<dyn Setter>; 8] = [
        Box::new(TransactionId::new()),
        Box::new(BINDING_REQUEST),
        Box::new(TextAttribute::new(ATTR_USERNAME, username.to_owned())),
        Box::new(attribute(ATTR_PRIORITY, &[0x6e, 0, 0x1e, 0xff])),
        Box::new(attribute(ATTR_ICE_CONTROLLING, &[7; 8])),
        Box::new(attribute(ATTR_USE_CANDIDATE, &[])),
        Box::new(MessageIntegrity::new_short_term_integrity(
            password.to_owned(),
        )),
        Box::new(FINGERPRINT),
    ];
    let mut message = Message::default();
    message.build(&setters).map_err(text)?;
    Ok(message.raw)
}

/// The first datagram of a DTLS client, as a stranger may send it anywhere.
pub fn client_hello() -> Vec<u8> {
    let nobody = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let stranger = DtlsParty::bind();
    let address = nobody.local_addr().expect("bound");
    stranger.socket.connect(address).expect("loopback");
    let socket = stranger.socket.try_clone().expect("a descriptor");
    socket.set_nonblocking(true).expect("non-blocking");
    runtime().block_on(async {
        let socket = tokio::net::UdpSocket::from_std(socket).expect("registered");
        let config = stranger.config(String::new());
        let handshake = DTLSConn::new(Arc::new(socket), config, true, None);
        let unanswered = tokio::time::timeout(CHECK_INTERVAL, handshake).await;
        assert!(unanswered.is_err(), "nobody shakes hands");
    });
    let (hello, _) = receive_from(&nobody, Instant::now() + CHECK_INTERVAL).expect("a hello");
    hello
}

fn runtime() -> Runtime {
    // The crate asks rustls for its process-wide provider; somebody else's is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Builder::new_current_thread();
    builder
        .enable_io()
        .enable_time()
        .build()
        .expect("a runtime")
}

async fn export(connection: &DTLSConn) -> Result<(Context, Context), String> {
    let profile = match connection.selected_srtpprotection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => {
            ProtectionProfile::Aes128CmHmacSha1_80
        }
        _ => return Err("no SRTP profile".to_owned()),
    };
    let mut config = SrtpConfig {
        profile,
        ..SrtpConfig::default()
    };
    let state = connection.connection_state().await;
    let extracted = config.extract_session_keys_from_dtls(state, true).await;
    extracted.map_err(text)?;
    let keys = config.keys;
    let context = |key: &[u8], salt: &[u8]| Context::new(key, salt, profile, None, None);
    let send = context(&keys.local_master_key, &keys.local_master_salt).map_err(text)?;
    let receive = context(&keys.remote_master_key, &keys.remote_master_salt).map_err(text)?;
    Ok((send, receive))
}

/// As a description writes it (RFC 8122 section 5).
fn fingerprint(der: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, der);
    let pairs: Vec<String> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    pairs.join(":")
}

fn attribute(description: &Description, name: &str) -> Result<String, String> {
    let prefix = format!("{name}:");
    let lines = description.attributes.iter();
    let mut lines = lines.chain(&description.audio().attributes);
    let found = lines.find_map(|line| line.strip_prefix(&prefix));
    found
        .map(str::to_owned)
        .ok_or_else(|| format!("no {name} in the answer"))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
