//! The two ends between a worker and a handshake: [`Association`] stays with the endpoint, wherever
//! that moves, and [`Link`] with the task. Every queue is bounded. Datagrams that find theirs full
//! are lost, as they may be on any network; outcomes never are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rtpbridge_core::sdp::{DtlsRole, Fingerprint};
use tokio::sync::{mpsc, watch};

use super::HandshakeOutput;

/// Called when an association has something to poll: once, until it has been polled empty.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// DTLS may arrive before the address is nominated, and a browser's ClientHello is two datagrams.
const INBOUND_PLACES: usize = 64;
const OUTBOUND_PLACES: usize = 64;
/// Keys, then an end.
const OUTCOME_PLACES: usize = 2;

/// A worker's end.
pub(crate) struct Association {
    /// Starts the handshake; gone once that was done.
    starter: Option<Starter>,
    inbound: mpsc::Sender<Vec<u8>>,
    outbound: mpsc::Receiver<Vec<u8>>,
    outcomes: mpsc::Receiver<HandshakeOutput>,
    close: watch::Sender<bool>,
    bell: Arc<Bell>,
}

/// The task's end.
pub(super) struct Link {
    pub(super) inbound: mpsc::Receiver<Vec<u8>>,
    pub(super) outbox: Outbox,
    pub(super) close: CloseRequest,
}

/// Where the task puts what the worker is to poll.
#[derive(Clone)]
pub(super) struct Outbox {
    outbound: mpsc::Sender<Vec<u8>>,
    outcomes: mpsc::Sender<HandshakeOutput>,
    bell: Arc<Bell>,
}

/// Turns true when the worker wants an end, or is gone.
pub(super) struct CloseRequest(watch::Receiver<bool>);

/// Runs a task for a link, with the role and the peer's fingerprints.
type Starter = Box<dyn FnOnce(DtlsRole, Vec<Fingerprint>) + Send>;

struct Bell {
    rung: AtomicBool,
    wake: Mutex<Wake>,
}

/// An association that is not started, and what the task that `start` sets going needs.
pub(super) fn waiting(
    wake: Wake,
    start: impl FnOnce(Link, DtlsRole, Vec<Fingerprint>) + Send + 'static,
) -> Association {
    let (mut association, link) = pair(wake);
    association.starter = Some(Box::new(move |role, peer| start(link, role, peer)));
    association
}

pub(super) fn pair(wake: Wake) -> (Association, Link) {
    let (inbound, inbound_end) = mpsc::channel(INBOUND_PLACES);
    let (outbound_end, outbound) = mpsc::channel(OUTBOUND_PLACES);
    let (outcomes_end, outcomes) = mpsc::channel(OUTCOME_PLACES);
    let (close, close_end) = watch::channel(false);
    let bell = Arc::new(Bell {
        rung: AtomicBool::new(false),
        wake: Mutex::new(wake),
    });
    let link = Link {
        inbound: inbound_end,
        outbox: Outbox {
            outbound: outbound_end,
            outcomes: outcomes_end,
            bell: Arc::clone(&bell),
        },
        close: CloseRequest(close_end),
    };
    let association = Association {
        starter: None,
        inbound,
        outbound,
        outcomes,
        close,
        bell,
    };
    (association, link)
}

impl Association {
    /// Starts the handshake with the peer whose description announced `peer`: its certificate must
    /// match one of these fingerprints (RFC 8122 section 5). As
    /// [`DtlsRole::Active`] we send a ClientHello at once, so there should be an address to send
    /// to; as [`DtlsRole::Passive`] we wait for one as long as need be. Only the first call counts:
    /// the role is settled for the association's life (RFC 8842 section 5.5).
    pub(crate) fn start(&mut self, role: DtlsRole, peer: Vec<Fingerprint>) {
        if let Some(starter) = self.starter.take() {
            starter(role, peer);
        }
    }

    /// Hands over a DTLS datagram from an ICE-validated address. `false`: it was dropped because
    /// too many wait, or because the association has ended.
    pub(crate) fn push(&self, datagram: &[u8]) -> bool {
        // Not worth a copy when there is no place for it.
        self.inbound.capacity() > 0 && self.inbound.try_send(datagram.to_vec()).is_ok()
    }

    /// The next thing that is to be done; `None` for now. To be called until then after each wake.
    pub(crate) fn poll(&mut self) -> Option<HandshakeOutput> {
        self.next().or_else(|| {
            // Whatever comes after this rings again, and whatever came before is found below.
            self.bell.rung.store(false, Ordering::SeqCst);
            self.next()
        })
    }

    /// Asks for the goodbye to the peer; `Closed` follows within a second, unless the association
    /// was never started or has failed.
    pub(crate) fn close(&mut self) {
        self.starter = None;
        self.close.send_replace(true);
    }

    /// Another worker polls from now on.
    pub(crate) fn set_wake(&self, wake: Wake) {
        *self
            .bell
            .wake
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = wake;
        self.bell.rung.store(false, Ordering::SeqCst);
    }

    fn next(&mut self) -> Option<HandshakeOutput> {
        if let Ok(datagram) = self.outbound.try_recv() {
            return Some(HandshakeOutput::Transmit(datagram));
        }
        self.outcomes.try_recv().ok()
    }
}

impl Outbox {
    pub(super) fn transmit(&self, datagram: &[u8]) {
        if self.outbound.try_send(datagram.to_vec()).is_ok() {
            self.bell.ring();
        }
    }

    /// At most [`OUTCOME_PLACES`] of them in an association's life, so there is always room.
    pub(super) fn report(&self, outcome: HandshakeOutput) {
        if self.outcomes.try_send(outcome).is_ok() {
            self.bell.ring();
        }
    }
}

impl CloseRequest {
    pub(super) async fn requested(&mut self) {
        // An error means that the association was dropped.
        let _ = self.0.wait_for(|close| *close).await;
    }
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            let wake = Arc::clone(&self.wake.lock().unwrap_or_else(PoisonError::into_inner));
            wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use rtpbridge_core::sdp::FingerprintHash;

    use super::*;

    fn counted() -> (Wake, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let wake: Wake = Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        (wake, count)
    }

    #[test]
    fn one_wake_until_polled_empty() {
        let (wake, count) = counted();
        let (mut association, link) = pair(wake);
        link.outbox.transmit(b"one");
        link.outbox.transmit(b"two");
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(matches!(
            association.poll(),
            Some(HandshakeOutput::Transmit(_))
        ));
        assert!(matches!(
            association.poll(),
            Some(HandshakeOutput::Transmit(_))
        ));
        assert!(association.poll().is_none());
        link.outbox.transmit(b"three");
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn another_worker_is_woken_for_what_still_waits() {
        let (first, _) = counted();
        let (second, count) = counted();
        let (mut association, link) = pair(first);
        link.outbox.transmit(b"for the first, who never looked");
        association.set_wake(second);
        link.outbox.report(HandshakeOutput::Closed);
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(matches!(
            association.poll(),
            Some(HandshakeOutput::Transmit(_))
        ));
        assert!(matches!(association.poll(), Some(HandshakeOutput::Closed)));
    }

    #[test]
    fn what_arrives_before_the_start_is_there_for_it() {
        let (wake, _) = counted();
        let (hand_over, started) = std::sync::mpsc::channel();
        let mut association = waiting(wake, move |link, role, _| {
            hand_over.send((link, role)).expect("received below");
        });
        assert!(association.push(b"early"));
        let peer = vec![Fingerprint {
            hash: FingerprintHash::Sha256,
            digest: vec![0; 32],
        }];
        association.start(DtlsRole::Passive, peer.clone());
        association.start(DtlsRole::Active, peer);
        let (mut link, role) = started.try_recv().expect("started");
        assert_eq!(role, DtlsRole::Passive);
        assert!(started.try_recv().is_err(), "only once");
        assert_eq!(link.inbound.try_recv().expect("kept"), b"early");
    }

    #[test]
    fn queues_are_bounded_and_outcomes_are_not_lost_behind_datagrams() {
        let (wake, _) = counted();
        let (mut association, link) = pair(wake);
        let taken = (0..1000).filter(|_| association.push(b"x")).count();
        assert_eq!(taken, INBOUND_PLACES);
        for _ in 0..1000 {
            link.outbox.transmit(b"y");
        }
        link.outbox.report(HandshakeOutput::Closed);
        let mut polled = 0;
        while let Some(HandshakeOutput::Transmit(_)) = association.poll() {
            polled += 1;
        }
        assert_eq!(
            polled, OUTBOUND_PLACES,
            "and then the outcome ended the loop"
        );
        drop(link);
        assert!(!association.push(b"z"));
    }
}
