use std::time::{Duration, Instant};

use async_trait::async_trait;
use rtpbridge_core::sdp::{DtlsRole, FingerprintHash};
use rtpbridge_core::srtp::{Protector, SrtpSuite, Unprotector};
use rtpbridge_core::time;
use tokio::sync::{Mutex, mpsc};
use webrtc_dtls::cipher_suite::CipherSuiteId;
use webrtc_dtls::config::{ClientAuthType, Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use webrtc_util::Conn;

use super::certificate::fingerprint_of;
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);
const GCM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm;
const CM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80;
const CM_32: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32;

fn no_wake() -> Wake {
    Arc::new(|| {})
}

/// One association and what it has yielded.
struct Party {
    association: Association,
    keys: Option<SrtpKeys>,
    failure: Option<HandshakeFailure>,
    closed: bool,
    sent: Vec<Vec<u8>>,
}

impl Party {
    fn new(service: &HandshakeService, role: DtlsRole, peer: &Fingerprint) -> Self {
        let mut association = service.open(no_wake());
        association.start(role, vec![peer.clone()]);
        Self {
            association,
            keys: None,
            failure: None,
            closed: false,
            sent: Vec::new(),
        }
    }

    /// Polls until empty and returns what is to be sent.
    fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        while let Some(output) = self.association.poll() {
            match output {
                HandshakeOutput::Transmit(datagram) => datagrams.push(datagram),
                HandshakeOutput::Keys(keys) => self.keys = Some(keys),
                HandshakeOutput::Failed(failure) => self.failure = Some(failure),
                HandshakeOutput::Closed => self.closed = true,
            }
        }
        self.sent.extend(datagrams.iter().cloned());
        datagrams
    }
}

/// Two services, so that each side has a certificate of its own, and an association between them.
struct Pair {
    services: [HandshakeService; 2],
    active: Party,
    passive: Party,
}

impl Pair {
    fn open() -> Self {
        let services = [start(), start()];
        let [active, passive] = &services;
        Self {
            active: Party::new(active, DtlsRole::Active, passive.fingerprint()),
            passive: Party::new(passive, DtlsRole::Passive, active.fingerprint()),
            services,
        }
    }

    fn connected() -> Self {
        let mut pair = Self::open();
        pair.carry_until(|pair| pair.active.keys.is_some() && pair.passive.keys.is_some());
        pair
    }

    fn carry_until(&mut self, done: impl FnMut(&Self) -> bool) {
        self.carry_selected(|_, _| true, done);
    }

    /// Carries the datagrams for which `passes(from_active, datagram)` until `done`.
    fn carry_selected(
        &mut self,
        mut passes: impl FnMut(bool, &[u8]) -> bool,
        mut done: impl FnMut(&Self) -> bool,
    ) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            for datagram in self.active.poll() {
                if passes(true, &datagram) {
                    self.passive.association.push(&datagram);
                }
            }
            for datagram in self.passive.poll() {
                if passes(false, &datagram) {
                    self.active.association.push(&datagram);
                }
            }
            if done(self) {
                return;
            }
            assert!(Instant::now() < deadline, "not within {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn start() -> HandshakeService {
    HandshakeService::start().expect("the service starts")
}

fn assert_keys_fit(one: &SrtpKeys, other: &SrtpKeys) {
    for (sender, receiver) in [(one, other), (other, one)] {
        let clear = [0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, b'h', b'i'];
        let mut buf = [0; 64];
        buf[..clear.len()].copy_from_slice(&clear);
        let len = Protector::new(&sender.send)
            .protect_rtp(&mut buf, clear.len())
            .expect("protectable");
        let len = Unprotector::new(&receiver.receive)
            .unprotect_rtp(time::Instant::ZERO, &mut buf[..len])
            .expect("the same key on both sides");
        assert_eq!(buf[..len], clear);
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn both_roles_agree_on_keys() {
    let pair = Pair::connected();
    let (active, passive) = (&pair.active.keys, &pair.passive.keys);
    let (active, passive) = (
        active.as_ref().expect("keys"),
        passive.as_ref().expect("keys"),
    );
    assert_keys_fit(active, passive);
    assert_eq!(active.send.suite(), SrtpSuite::AeadAes128Gcm);
}

#[test]
fn every_flight_may_be_lost_once() {
    let mut pair = Pair::open();
    let mut seen: Vec<(bool, u8, usize)> = Vec::new();
    pair.carry_selected(
        |from_active, datagram| {
            // A repetition differs in its sequence numbers, not in kind and length.
            let likeness = (from_active, datagram[13], datagram.len());
            let again = seen.contains(&likeness);
            seen.push(likeness);
            again
        },
        |pair| pair.active.keys.is_some() && pair.passive.keys.is_some(),
    );
}

#[test]
fn the_passive_side_repeats_its_last_flight_when_it_was_lost() {
    let mut pair = Pair::open();
    let mut lost = 0;
    // The last flight is the only one of the passive side that begins with ChangeCipherSpec.
    pair.carry_selected(
        |from_active, datagram| {
            let last_flight = !from_active && datagram[0] == 20;
            lost += usize::from(last_flight);
            !last_flight || lost > 3
        },
        |pair| pair.active.keys.is_some() && pair.passive.keys.is_some(),
    );
    assert!(lost > 3);
    assert!(!pair.passive.closed);
}

#[test]
fn forged_records_do_not_end_a_finished_association() {
    let mut pair = Pair::connected();
    let fatal = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 9, 9, 0, 2, 2, 40];
    let close_notify = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 9, 8, 0, 2, 1, 0];
    let protected = [21, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 9, 8, 0, 4, 1, 0, 3, 4];
    for forged in [&fatal[..], &close_notify, &protected, &[22, 1], &[0; 200]] {
        assert!(pair.active.association.push(forged));
        assert!(pair.passive.association.push(forged));
    }
    // The goodbye is behind the forgeries in both queues, so it arrives only if they did no harm.
    let patience = Instant::now() + Duration::from_millis(300);
    pair.carry_until(|pair| {
        assert!(!pair.active.closed && !pair.passive.closed);
        Instant::now() > patience
    });
    pair.active.association.close();
    pair.carry_until(|pair| pair.active.closed && pair.passive.closed);
}

#[test]
fn a_goodbye_reaches_the_other_side_from_either_role() {
    for active_closes in [true, false] {
        let mut pair = Pair::connected();
        if active_closes {
            pair.active.association.close();
        } else {
            pair.passive.association.close();
        }
        pair.carry_until(|pair| pair.active.closed && pair.passive.closed);
        assert_eq!(pair.active.failure, None);
        assert_eq!(pair.passive.failure, None);
    }
}

#[test]
fn a_certificate_other_than_the_announced_one_gives_no_keys_in_either_role() {
    for wrong_role in [DtlsRole::Active, DtlsRole::Passive] {
        let services = [start(), start()];
        let [active, passive] = &services;
        let wrong = fingerprint_of(FingerprintHash::Sha256, b"somebody else");
        let (of_passive, of_active) = match wrong_role {
            DtlsRole::Active => (&wrong, active.fingerprint()),
            DtlsRole::Passive => (passive.fingerprint(), &wrong),
        };
        let mut pair = Pair {
            active: Party::new(active, DtlsRole::Active, of_passive),
            passive: Party::new(passive, DtlsRole::Passive, of_active),
            services,
        };
        pair.carry_until(|pair| match wrong_role {
            DtlsRole::Active => pair.active.failure.is_some(),
            DtlsRole::Passive => pair.passive.failure.is_some(),
        });
        let checking = match wrong_role {
            DtlsRole::Active => &pair.active,
            DtlsRole::Passive => &pair.passive,
        };
        assert_eq!(
            checking.failure,
            Some(HandshakeFailure::FingerprintMismatch)
        );
        assert!(checking.keys.is_none());
    }
}

#[test]
fn mutated_hellos_cost_their_own_handshake_and_nothing_else() {
    let service = start();
    let mut client = Party::new(&service, DtlsRole::Active, service.fingerprint());
    eventually("a ClientHello", || !client.poll().is_empty());
    let hello = client.sent[0].clone();

    let mut mutants: Vec<Vec<u8>> = (25..hello.len())
        .flat_map(|place| {
            [0u8, 1, 0x7f, 0xff].map(|value| {
                let mut mutant = hello.clone();
                mutant[place] = value;
                mutant
            })
        })
        .collect();
    mutants.push(crashing_hello(&hello));
    mutants.push(crashing_hello(&hello));

    let mut parties: Vec<Party> = mutants
        .iter()
        .map(|mutant| {
            let party = Party::new(&service, DtlsRole::Passive, service.fingerprint());
            assert!(party.association.push(mutant));
            party
        })
        .collect();
    eventually("the crashing ones end", || {
        for party in parties.iter_mut().rev().take(2) {
            party.poll();
        }
        parties
            .iter()
            .rev()
            .take(2)
            .all(|party| party.failure.is_some())
    });
    for party in &parties {
        assert!(party.keys.is_none());
        assert_ne!(
            party.failure,
            Some(HandshakeFailure::TimedOut),
            "it ended at once"
        );
    }
    Pair::connected();
    drop((client, parties));
    eventually("every task ends", || {
        service.runtime.metrics().num_alive_tasks() == 0
    });
}

/// A ClientHello whose extensions end in the middle of a header: the crate's parser indexes past
/// the end.
fn crashing_hello(hello: &[u8]) -> Vec<u8> {
    // The server name stands last: four bytes of header and fourteen of "rtpbridge" and lengths.
    let mut cut = hello[..hello.len() - 16].to_vec();
    let body_len = (cut.len() - 25) as u32;
    let extensions = extensions_offset(hello);
    let extensions_len = (cut.len() - extensions - 2) as u16;
    cut[extensions..extensions + 2].copy_from_slice(&extensions_len.to_be_bytes());
    cut[11..13].copy_from_slice(&((body_len + 12) as u16).to_be_bytes());
    cut[14..17].copy_from_slice(&body_len.to_be_bytes()[1..]);
    cut[22..25].copy_from_slice(&body_len.to_be_bytes()[1..]);
    cut
}

/// Where the length of a ClientHello's extensions stands, in a datagram of one record.
fn extensions_offset(hello: &[u8]) -> usize {
    let session = 25 + 2 + 32;
    let cookie = session + 1 + usize::from(hello[session]);
    let suites = cookie + 1 + usize::from(hello[cookie]);
    let methods = suites + 2 + usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
    methods + 1 + usize::from(hello[methods])
}

/// The crate puts fragments together by recursion, one level each.
#[test]
fn a_message_in_ever_more_fragments_is_given_up_before_the_stack_is() {
    let service = start();
    let mut party = Party::new(&service, DtlsRole::Passive, service.fingerprint());
    let fragments = 200_000u32;
    let mut number = 0u32;
    let deadline = Instant::now() + DEADLINE;
    while number < fragments {
        assert!(Instant::now() < deadline, "each is looked at briefly");
        let mut datagram = Vec::new();
        for _ in 0..50 {
            datagram.extend_from_slice(&[22, 0xfe, 0xfd, 0, 0, 0, 0]);
            datagram.extend_from_slice(&number.to_be_bytes());
            datagram.extend_from_slice(&[0, 13, 1]);
            datagram.extend_from_slice(&fragments.to_be_bytes()[1..]);
            datagram.extend_from_slice(&[0, 0]);
            datagram.extend_from_slice(&number.to_be_bytes()[1..]);
            datagram.extend_from_slice(&[0, 0, 1, 7]);
            number += 1;
        }
        while !party.association.push(&datagram) {
            party.poll();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(party.keys.is_none());
    Pair::connected();
}

#[test]
fn ended_associations_leave_no_task_behind() {
    let mut pair = Pair::connected();
    let tasks = |pair: &Pair| {
        let [active, passive] = &pair.services;
        active.runtime.metrics().num_alive_tasks() + passive.runtime.metrics().num_alive_tasks()
    };
    assert!(tasks(&pair) > 0);
    pair.active.association.close();
    pair.carry_until(|pair| pair.active.closed && pair.passive.closed);
    eventually("closed ones", || tasks(&pair) == 0);

    let [service, _] = &pair.services;
    for role in [DtlsRole::Active, DtlsRole::Passive] {
        for _ in 0..20 {
            let mut association = service.open(no_wake());
            association.start(role, vec![service.fingerprint().clone()]);
            association.push(b"\x16 not a handshake");
            drop(association);
        }
    }
    eventually("dropped ones", || tasks(&pair) == 0);
}

#[test]
fn nothing_but_a_hello_wakes_the_passive_role() {
    let service = start();
    let mut party = Party::new(&service, DtlsRole::Passive, service.fingerprint());
    for noise in [
        &b"noise"[..],
        &[20, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
    ] {
        assert!(party.association.push(noise));
    }
    eventually("the noise is taken in", || party.association.push(b"more"));
    let patience = Instant::now() + Duration::from_millis(100);
    while Instant::now() < patience {
        assert!(party.poll().is_empty());
        assert_eq!(party.failure, None);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(service.runtime.metrics().num_alive_tasks(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_after_fifteen_seconds_of_quick_repetition() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = Arc::new(Certificate::generate().expect("certificate"));
    let peer = certificate.fingerprint().clone();
    let (mut association, link) = association::pair(no_wake());
    let begun = tokio::time::Instant::now();
    dtls::run(link, DtlsRole::Active, vec![peer], certificate).await;
    assert_eq!(begun.elapsed().as_secs(), 15);
    let mut hellos = 0;
    loop {
        match association.poll().expect("a failure in the end") {
            HandshakeOutput::Transmit(_) => hellos += 1,
            HandshakeOutput::Failed(HandshakeFailure::TimedOut) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!((55..=64).contains(&hellos), "{hellos} at 250 ms each");
}

/// A peer that is the bare crate, configured as a test wants it.
struct BarePeer {
    connection: Result<DTLSConn, webrtc_dtls::Error>,
    party: Party,
    wire: Wire,
}

/// The test's end of [`Pipe`].
struct Wire {
    to_peer: mpsc::UnboundedSender<Vec<u8>>,
    from_peer: mpsc::UnboundedReceiver<Vec<u8>>,
}

struct Pipe {
    receiver: Mutex<mpsc::UnboundedReceiver<Vec<u8>>>,
    sender: mpsc::UnboundedSender<Vec<u8>>,
}

fn pipe() -> (Arc<Pipe>, Wire) {
    let (to_peer, receiver) = mpsc::unbounded_channel();
    let (sender, from_peer) = mpsc::unbounded_channel();
    let pipe = Pipe {
        receiver: Mutex::new(receiver),
        sender,
    };
    (Arc::new(pipe), Wire { to_peer, from_peer })
}

#[async_trait]
impl Conn for Pipe {
    async fn connect(&self, _: std::net::SocketAddr) -> Result<(), webrtc_util::Error> {
        Ok(())
    }

    async fn recv(&self, buf: &mut [u8]) -> Result<usize, webrtc_util::Error> {
        match self.receiver.lock().await.recv().await {
            Some(datagram) => {
                buf[..datagram.len()].copy_from_slice(&datagram);
                Ok(datagram.len())
            }
            None => std::future::pending().await,
        }
    }

    async fn recv_from(
        &self,
        _: &mut [u8],
    ) -> Result<(usize, std::net::SocketAddr), webrtc_util::Error> {
        std::future::pending().await
    }

    async fn send(&self, buf: &[u8]) -> Result<usize, webrtc_util::Error> {
        let _ = self.sender.send(buf.to_vec());
        Ok(buf.len())
    }

    async fn send_to(
        &self,
        _: &[u8],
        _: std::net::SocketAddr,
    ) -> Result<usize, webrtc_util::Error> {
        std::future::pending().await
    }

    fn local_addr(&self) -> Result<std::net::SocketAddr, webrtc_util::Error> {
        Ok(([127, 0, 0, 1], 1).into())
    }

    fn remote_addr(&self) -> Option<std::net::SocketAddr> {
        None
    }

    async fn close(&self) -> Result<(), webrtc_util::Error> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

fn bare_config(certificate: &Certificate) -> Config {
    Config {
        certificates: vec![certificate.chain()],
        srtp_protection_profiles: vec![GCM, CM],
        client_auth: ClientAuthType::RequireAnyClientCert,
        insecure_skip_verify: true,
        flight_interval: Duration::from_millis(250),
        server_name: "peer".to_owned(),
        ..Config::default()
    }
}

impl BarePeer {
    /// Lets the bare crate, in the role opposite to ours, meet an association of the service.
    async fn meet(
        service: &HandshakeService,
        our_role: DtlsRole,
        announced: &Fingerprint,
        config: Config,
    ) -> Self {
        let mut party = Party::new(service, our_role, announced);
        let (pipe, mut wire) = pipe();
        let is_client = our_role == DtlsRole::Passive;
        let peer = tokio::spawn(async move { DTLSConn::new(pipe, config, is_client, None).await });
        let deadline = Instant::now() + DEADLINE;
        while !(peer.is_finished() && (party.keys.is_some() || party.failure.is_some())) {
            wire.carry(&mut party);
            // A peer that was refused may wait for ever.
            if party.failure.is_some() {
                peer.abort();
            }
            assert!(Instant::now() < deadline, "not within {DEADLINE:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let connection = match peer.await {
            Ok(connection) => connection,
            Err(_) => Err(webrtc_dtls::Error::ErrConnClosed),
        };
        Self {
            connection,
            party,
            wire,
        }
    }
}

impl Wire {
    fn carry(&mut self, party: &mut Party) {
        for datagram in party.poll() {
            let _ = self.to_peer.send(datagram);
        }
        while let Ok(datagram) = self.from_peer.try_recv() {
            party.association.push(&datagram);
        }
    }
}

#[tokio::test]
async fn the_peers_order_of_profiles_decides_and_one_that_we_lack_is_skipped() {
    let service = start();
    let certificate = Certificate::generate().expect("certificate");
    for (offered, expected) in [
        (vec![CM, GCM], SrtpSuite::AesCm128HmacSha1_80),
        (vec![GCM, CM], SrtpSuite::AeadAes128Gcm),
        (vec![CM_32, CM], SrtpSuite::AesCm128HmacSha1_80),
    ] {
        let config = Config {
            srtp_protection_profiles: offered,
            ..bare_config(&certificate)
        };
        let announced = certificate.fingerprint();
        let met = BarePeer::meet(&service, DtlsRole::Passive, announced, config).await;
        let keys = met.party.keys.expect("keys");
        assert_eq!(keys.send.suite(), expected);
        assert_eq!(keys.receive.suite(), expected);
    }
}

#[tokio::test]
async fn a_peer_without_srtp_is_refused_in_either_role() {
    let service = start();
    let certificate = Certificate::generate().expect("certificate");
    for role in [DtlsRole::Active, DtlsRole::Passive] {
        for profiles in [vec![], vec![CM_32]] {
            let config = Config {
                srtp_protection_profiles: profiles.clone(),
                ..bare_config(&certificate)
            };
            let met = BarePeer::meet(&service, role, certificate.fingerprint(), config).await;
            assert!(met.party.keys.is_none());
            let failure = met.party.failure.expect("refused");
            // As server, the bare crate refuses us by itself, with an alert.
            if role == DtlsRole::Passive {
                assert_eq!(failure, HandshakeFailure::NoSrtpProfile, "{profiles:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_without_certificate_or_extended_master_secret_is_refused() {
    let service = start();
    let certificate = Certificate::generate().expect("certificate");
    for config in [
        Config {
            certificates: vec![],
            ..bare_config(&certificate)
        },
        Config {
            extended_master_secret: ExtendedMasterSecretType::Disable,
            ..bare_config(&certificate)
        },
        Config {
            cipher_suites: vec![CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_256_Cbc_Sha],
            ..bare_config(&certificate)
        },
    ] {
        let announced = certificate.fingerprint();
        let met = BarePeer::meet(&service, DtlsRole::Passive, announced, config).await;
        assert!(met.party.keys.is_none());
        assert!(met.party.failure.is_some());
        assert!(met.connection.is_err());
    }
}

#[tokio::test]
async fn longer_fingerprint_hashes_are_checked_too() {
    let service = start();
    let certificate = Certificate::generate().expect("certificate");
    let der = certificate.chain().certificate[0].clone();
    for hash in [FingerprintHash::Sha384, FingerprintHash::Sha512] {
        for role in [DtlsRole::Active, DtlsRole::Passive] {
            let right = fingerprint_of(hash, &der);
            let met = BarePeer::meet(&service, role, &right, bare_config(&certificate)).await;
            assert!(met.party.keys.is_some(), "{hash:?} {role:?}");
            let mut wrong = right;
            wrong.digest[40] ^= 1;
            let met = BarePeer::meet(&service, role, &wrong, bare_config(&certificate)).await;
            assert_eq!(
                met.party.failure,
                Some(HandshakeFailure::FingerprintMismatch)
            );
        }
    }
}

#[test]
fn one_right_fingerprint_among_several_is_enough() {
    let services = [start(), start()];
    let [active, passive] = &services;
    let mut party = Party::new(active, DtlsRole::Active, passive.fingerprint());
    party.association = active.open(no_wake());
    let other = fingerprint_of(FingerprintHash::Sha512, b"a certificate for other calls");
    party
        .association
        .start(DtlsRole::Active, vec![other, passive.fingerprint().clone()]);
    let mut pair = Pair {
        passive: Party::new(passive, DtlsRole::Passive, active.fingerprint()),
        active: party,
        services,
    };
    pair.carry_until(|pair| pair.active.keys.is_some() && pair.passive.keys.is_some());
    let mut nobody = Party::new(
        &pair.services[0],
        DtlsRole::Passive,
        pair.services[0].fingerprint(),
    );
    nobody.association = pair.services[0].open(no_wake());
    nobody.association.start(DtlsRole::Passive, vec![]);
    pair.passive = nobody;
    pair.active = Party::new(
        &pair.services[1],
        DtlsRole::Active,
        pair.services[0].fingerprint(),
    );
    pair.carry_until(|pair| pair.passive.failure.is_some());
    assert_eq!(
        pair.passive.failure,
        Some(HandshakeFailure::FingerprintMismatch)
    );
}

#[tokio::test]
async fn data_that_nobody_reads_does_not_hold_back_the_goodbye() {
    let service = start();
    let certificate = Certificate::generate().expect("certificate");
    for role in [DtlsRole::Active, DtlsRole::Passive] {
        let config = bare_config(&certificate);
        let mut met = BarePeer::meet(&service, role, certificate.fingerprint(), config).await;
        let connection = met.connection.expect("connected");
        for number in 0..40u8 {
            connection.write(&[number; 900], None).await.expect("sent");
        }
        connection.close().await.expect("goodbye sent");
        let deadline = Instant::now() + DEADLINE;
        while !met.party.closed {
            met.wire.carry(&mut met.party);
            assert!(Instant::now() < deadline, "the goodbye arrives");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_finished_association_takes_no_handshake_from_its_peer() {
    let service = start();
    let certificate = Certificate::generate().expect("certificate");
    let config = bare_config(&certificate);
    let announced = certificate.fingerprint();
    let mut met = BarePeer::meet(&service, DtlsRole::Passive, announced, config).await;
    let first_hello = met.party.sent.len();
    // A second client on the same port, from the start.
    let (pipe, mut wire) = pipe();
    let config = bare_config(&certificate);
    let second = tokio::spawn(async move { DTLSConn::new(pipe, config, true, None).await });
    let patience = Instant::now() + Duration::from_millis(600);
    while Instant::now() < patience {
        while let Ok(datagram) = wire.from_peer.try_recv() {
            met.party.association.push(&datagram);
        }
        met.wire.carry(&mut met.party);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(!second.is_finished());
    second.abort();
    assert!(!met.party.closed);
    assert!(
        met.party.sent.len() <= first_hello + 8,
        "only our last flight was repeated"
    );
    let connection = met.connection.expect("the first one is unhurt");
    connection.close().await.expect("goodbye sent");
    let deadline = Instant::now() + DEADLINE;
    while !met.party.closed {
        met.wire.carry(&mut met.party);
        assert!(Instant::now() < deadline, "the goodbye arrives");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
