//! DTLS for WebRTC endpoints (RFC 5763, 5764, 6347): the handshake that yields SRTP keys, and the
//! peer's goodbye. Runs on one thread of its own, beside the workers; the records are those of the
//! `dtls` crate behind the guards that `guard` and `dtls` describe.
//!
//! A worker opens an [`Association`] per WebRTC endpoint, starts it when the peer's description is
//! known, pushes in the DTLS datagrams that came from ICE-validated addresses, and polls what is to
//! be sent and what happened. No socket is
//! touched here, and no media packet comes this way.
//!
//! Ends: [`Association::close`] says goodbye to the peer and then yields `Closed`; dropping an
//! association ends its tasks as well; dropping the service ends the thread and all associations.

mod association;
mod certificate;
mod dtls;
mod guard;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::{fmt, io};

use rtpbridge_core::sdp::Fingerprint;
use rtpbridge_core::srtp::MasterKey;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

pub(crate) use association::{Association, Wake};
use certificate::{Certificate, CertificateError};

/// A stack of this many bytes holds any recursion that `guard` lets the crate's parser get into.
const STACK_SIZE: usize = 4 << 20;

/// The thread on which handshakes run, and the certificate that they show.
pub(crate) struct HandshakeService {
    runtime: Handle,
    certificate: Arc<Certificate>,
    /// Dropped to end the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why the service could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No thread or no runtime.
    #[error("cannot start the handshake thread: {0}")]
    Thread(#[from] io::Error),
}

/// What an association yields.
#[derive(Debug)]
pub(crate) enum HandshakeOutput {
    /// To be sent to the peer's address, the one that media goes to.
    Transmit(Vec<u8>),
    /// The handshake is done.
    Keys(SrtpKeys),
    /// The handshake failed; nothing follows.
    Failed(HandshakeFailure),
    /// Either side said goodbye after the handshake, or [`Association::close`] ended it before;
    /// nothing follows.
    Closed,
}

/// The keys of both directions; each knows its suite.
pub(crate) struct SrtpKeys {
    /// What we send with.
    pub(crate) send: MasterKey,
    /// What the peer sends with.
    pub(crate) receive: MasterKey,
}

/// Why a handshake failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum HandshakeFailure {
    /// Not done within [`HANDSHAKE_LIMIT`](dtls::HANDSHAKE_LIMIT).
    #[error("the handshake took too long")]
    TimedOut,
    /// The peer's certificate is not the one that its description announced.
    #[error("the peer's certificate does not match its fingerprint")]
    FingerprintMismatch,
    /// The peer does not speak SRTP, or no profile that we know.
    #[error("no SRTP profile in common")]
    NoSrtpProfile,
    /// The peer sent something that the library did not survive; it cost this handshake only.
    #[error("the handshake crashed")]
    Crashed,
    /// Anything else that the library reports.
    #[error("{0}")]
    Protocol(String),
}

impl HandshakeService {
    /// Makes the process's certificate and starts the thread.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub(crate) fn start() -> Result<Self, HandshakeError> {
        // The crate asks rustls for its process-wide provider and panics where there are two to
        // choose from. Somebody else having installed one already is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificate = Arc::new(Certificate::generate()?);
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name("handshakes".to_owned())
            .stack_size(STACK_SIZE)
            .spawn(move || {
                // Ends when the service drops its half.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            runtime: handle,
            certificate,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The SHA-256 fingerprint of our certificate, the same for the process's life.
    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        self.certificate.fingerprint()
    }

    /// An association for one WebRTC endpoint, to be [started](Association::start) once the peer's
    /// description is known; until then it keeps the peer's first datagrams. `wake` is called from
    /// the service's thread when there is something to poll.
    pub(crate) fn open(&self, wake: Wake) -> Association {
        let runtime = self.runtime.clone();
        let certificate = Arc::clone(&self.certificate);
        association::waiting(wake, move |link, role, peer| {
            runtime.spawn(dtls::run(link, role, peer, certificate));
        })
    }
}

impl Drop for HandshakeService {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for SrtpKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpKeys")
            .field("suite", &self.send.suite())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
