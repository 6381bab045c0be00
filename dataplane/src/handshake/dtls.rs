//! One association from its first datagram to its end.
//!
//! ```text
//! waiting (passive) ──ClientHello──► handshake ──► keys ──► reading ──goodbye of either side──► closed
//!                                       └──15 s, mismatch, no profile, panic──► failed
//! ```
//! Guards in here: a time limit and quick repetition of flights, for the crate has neither; the
//! handshake in a task of its own, for its parsers panic on some input; a loop that reads data
//! nobody wants, for unread data blocks the crate's reader and with it the goodbye; `close` awaited,
//! for dropping sends nothing; the SRTP profile and the certificate checked afterwards, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rtpbridge_core::sdp::{DtlsRole, Fingerprint};
use rtpbridge_core::srtp::{MasterKey, SrtpSuite, suite};
use tokio::task::JoinSet;
use tokio::time::timeout;
use webrtc_dtls::cipher_suite::CipherSuiteId;
use webrtc_dtls::config::{ClientAuthType, Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use webrtc_util::KeyingMaterialExporter;
use zeroize::Zeroizing;

use super::association::{CloseRequest, Link, Outbox};
use super::certificate::{Certificate, fingerprint_of};
use super::guard::Guard;
use super::{HandshakeFailure, HandshakeOutput, SrtpKeys};

/// A handshake that takes longer has failed.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);
const FLIGHT_INTERVAL: Duration = Duration::from_millis(250);
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// RFC 5764 section 4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";
/// As large as the crate's own buffer, so that nothing it yields is too large for it.
const READ_BUFFER_LEN: usize = 8192;

/// What the crate's callback has seen of the peer's certificate.
#[derive(Default)]
struct PeerCheck(AtomicU8);

// Zero is what it starts with: none seen.
const MATCHED: u8 = 1;
const MISMATCHED: u8 = 2;

/// Runs the association until it ends.
pub(super) async fn run(
    link: Link,
    role: DtlsRole,
    peer: Vec<Fingerprint>,
    certificate: Arc<Certificate>,
) {
    let Link {
        inbound,
        outbox,
        mut close,
    } = link;
    let guard = Arc::new(Guard::new(role, inbound, outbox.clone()));
    let handshake = async {
        if role == DtlsRole::Passive {
            guard.wait_for_hello().await;
        }
        timeout(HANDSHAKE_LIMIT, associate(&guard, role, peer, &certificate))
            .await
            .unwrap_or(Err(HandshakeFailure::TimedOut))
    };
    let result = tokio::select! {
        biased;
        () = close.requested() => {
            outbox.report(HandshakeOutput::Closed);
            return;
        }
        result = handshake => result,
    };
    match result {
        Ok((connection, keys)) => {
            outbox.report(HandshakeOutput::Keys(keys));
            stay(connection, &outbox, close).await;
        }
        Err(failure) => outbox.report(HandshakeOutput::Failed(failure)),
    }
}

/// The handshake. Cancelling it ends everything that it started.
async fn associate(
    guard: &Arc<Guard>,
    role: DtlsRole,
    peer: Vec<Fingerprint>,
    certificate: &Certificate,
) -> Result<(DTLSConn, SrtpKeys), HandshakeFailure> {
    let check = Arc::new(PeerCheck::default());
    let config = config(role, peer, Arc::clone(&check), certificate);
    let transport = Arc::clone(guard);
    let is_client = role == DtlsRole::Active;
    // A set, because it takes its tasks with it when it is dropped.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { DTLSConn::new(transport, config, is_client, None).await });
    let connection = match tasks.join_next().await {
        Some(Ok(Ok(connection))) => connection,
        Some(Ok(Err(_))) if check.0.load(Ordering::SeqCst) == MISMATCHED => {
            return Err(HandshakeFailure::FingerprintMismatch);
        }
        Some(Ok(Err(
            webrtc_dtls::Error::ErrServerNoMatchingSrtpProfile
            | webrtc_dtls::Error::ErrClientNoMatchingSrtpProfile
            | webrtc_dtls::Error::ErrRequestedButNoSrtpExtension,
        ))) => return Err(HandshakeFailure::NoSrtpProfile),
        Some(Ok(Err(error))) => return Err(HandshakeFailure::Protocol(error.to_string())),
        Some(Err(_)) | None => return Err(HandshakeFailure::Crashed),
    };
    guard.on_established();
    let keys = match check.0.load(Ordering::SeqCst) {
        MATCHED => export_keys(&connection, role).await,
        _ => Err(HandshakeFailure::FingerprintMismatch),
    };
    match keys {
        Ok(keys) => Ok((connection, keys)),
        Err(failure) => {
            let _ = timeout(GOODBYE_LIMIT, connection.close()).await;
            Err(failure)
        }
    }
}

/// Waits for the goodbye of either side.
async fn stay(connection: DTLSConn, outbox: &Outbox, mut close: CloseRequest) {
    let mut buffer = vec![0; READ_BUFFER_LEN];
    tokio::select! {
        () = close.requested() => {
            let _ = timeout(GOODBYE_LIMIT, connection.close()).await;
        }
        () = async { while connection.read(&mut buffer, None).await.is_ok() {} } => {}
    }
    outbox.report(HandshakeOutput::Closed);
}

fn config(
    role: DtlsRole,
    peer: Vec<Fingerprint>,
    check: Arc<PeerCheck>,
    certificate: &Certificate,
) -> Config {
    // As server the crate takes the client's first suite that is listed here, whether or not our
    // certificate can sign for it.
    let mut cipher_suites = vec![
        CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
        CipherSuiteId::Tls_Ecdhe_Ecdsa_With_ChaCha20_Poly1305_Sha256,
    ];
    if role == DtlsRole::Active {
        cipher_suites.extend([
            CipherSuiteId::Tls_Ecdhe_Rsa_With_Aes_128_Gcm_Sha256,
            CipherSuiteId::Tls_Ecdhe_Rsa_With_ChaCha20_Poly1305_Sha256,
        ]);
    }
    Config {
        certificates: vec![certificate.chain()],
        cipher_suites,
        srtp_protection_profiles: vec![
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        ],
        client_auth: ClientAuthType::RequireAnyClientCert,
        extended_master_secret: ExtendedMasterSecretType::Require,
        flight_interval: FLIGHT_INTERVAL,
        // There is no chain to verify: the fingerprint, checked below, stands for all of it.
        insecure_skip_verify: true,
        verify_peer_certificate: Some(Arc::new(move |certificates, _| {
            check.on_certificate(&peer, certificates)
        })),
        // Not sent to anybody who would care, but an empty one would be looked up by address.
        server_name: "rtpbridge".to_owned(),
        ..Config::default()
    }
}

impl PeerCheck {
    fn on_certificate(
        &self,
        announced: &[Fingerprint],
        certificates: &[Vec<u8>],
    ) -> Result<(), webrtc_dtls::Error> {
        let matches = certificates.first().is_some_and(|der| {
            announced
                .iter()
                .any(|announced| fingerprint_of(announced.hash, der) == *announced)
        });
        let seen_before = self.0.load(Ordering::SeqCst);
        if seen_before != MISMATCHED && matches {
            self.0.store(MATCHED, Ordering::SeqCst);
            Ok(())
        } else {
            self.0.store(MISMATCHED, Ordering::SeqCst);
            Err(webrtc_dtls::Error::ErrInvalidCertificate)
        }
    }
}

/// Client key, server key, client salt, server salt (RFC 5764 section 4.2).
async fn export_keys(connection: &DTLSConn, role: DtlsRole) -> Result<SrtpKeys, HandshakeFailure> {
    let suite = match connection.selected_srtpprotection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => SrtpSuite::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => SrtpSuite::AesCm128HmacSha1_80,
        _ => return Err(HandshakeFailure::NoSrtpProfile),
    };
    let (key_len, salt_len) = (suite::key_len(suite), suite::salt_len(suite));
    let state = connection.connection_state().await;
    let material = state
        .export_keying_material(EXPORTER_LABEL, &[], 2 * (key_len + salt_len))
        .await
        .map(Zeroizing::new)
        .map_err(|error| HandshakeFailure::Protocol(error.to_string()))?;
    let (keys, salts) = material.split_at(2 * key_len);
    let (client_key, server_key) = keys.split_at(key_len);
    let (client_salt, server_salt) = salts.split_at(salt_len);
    let of = |key, salt| {
        MasterKey::from_parts(suite, key, salt)
            .map_err(|error| HandshakeFailure::Protocol(error.to_string()))
    };
    let (client, server) = (of(client_key, client_salt)?, of(server_key, server_salt)?);
    let (send, receive) = match role {
        DtlsRole::Active => (client, server),
        DtlsRole::Passive => (server, client),
    };
    Ok(SrtpKeys { send, receive })
}
