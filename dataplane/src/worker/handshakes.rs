//! The worker's side of DTLS handshakes: datagrams in, datagrams and outcomes out, and the goodbye of
//! removed endpoints. The handshakes themselves run on their own thread and wake the worker.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rtpbridge_core::sdp::{DtlsRole, Fingerprint};
use rtpbridge_core::session::HandshakeOutcome;

use super::Worker;
use super::turn::guarded;
use crate::handshake::{Association, HandshakeOutput, HandshakeService, Wake};
use crate::sys::epoll::Waker;
use crate::sys::udp::UdpSocket;

/// Associations looked after in one turn.
const MAX_PER_TURN: usize = 64;
/// Outputs taken from one association in one turn.
const MAX_OUTPUTS: usize = 64;
/// How long a removed endpoint's socket waits for its goodbye to be sent.
const GOODBYE: Duration = Duration::from_secs(1);
/// Goodbyes waited for at a time; further ones are left unsaid.
const MAX_GOODBYES: usize = 256;

/// Handshakes of one worker's endpoints, by the key of the endpoint's socket.
pub(super) struct Handshakes {
    service: Option<Arc<HandshakeService>>,
    pub(super) associations: HashMap<u64, Association>,
    leaving: HashMap<u64, Leaving>,
    /// Longest waiting first.
    ready: Arc<Mutex<VecDeque<u64>>>,
    waker: Waker,
}

struct Leaving {
    association: Association,
    /// What it spoke over, and to whom.
    sockets: Vec<(UdpSocket, SocketAddr)>,
    until_ns: u64,
}

impl Handshakes {
    pub(super) fn new(service: Option<Arc<HandshakeService>>, waker: Waker) -> Self {
        Self {
            service,
            associations: HashMap::new(),
            leaving: HashMap::new(),
            ready: Arc::default(),
            waker,
        }
    }

    pub(super) fn push(&mut self, socket: u64, datagram: &[u8]) {
        if let Some(association) = self.open(socket) {
            association.push(datagram);
        }
    }

    pub(super) fn start(&mut self, socket: u64, role: DtlsRole, peer: Vec<Fingerprint>) {
        if let Some(association) = self.open(socket) {
            association.start(role, peer);
        }
    }

    /// The endpoint is gone: says goodbye over its sockets to those whom they spoke to.
    pub(super) fn leave(&mut self, key: u64, sockets: Vec<(UdpSocket, SocketAddr)>, now_ns: u64) {
        let Some(mut association) = self.associations.remove(&key) else {
            return;
        };
        if sockets.is_empty() || self.leaving.len() >= MAX_GOODBYES {
            return;
        }
        association.close();
        let until_ns = now_ns.saturating_add(GOODBYE.as_nanos() as u64);
        let leaving = Leaving {
            association,
            sockets,
            until_ns,
        };
        self.leaving.insert(key, leaving);
    }

    /// When the oldest goodbye is given up.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.leaving.values().map(|leaving| leaving.until_ns).min()
    }

    /// The endpoint moves away, its handshake with it.
    pub(super) fn take(&mut self, socket: u64) -> Option<Association> {
        self.associations.remove(&socket)
    }

    /// The endpoint moved here.
    pub(super) fn adopt(&mut self, socket: u64, association: Association) {
        association.set_wake(self.wake_for(socket));
        self.associations.insert(socket, association);
        // What it said to the worker before may be unread.
        self.requeue(socket);
    }

    fn wake_for(&self, socket: u64) -> Wake {
        let (ready, waker) = (Arc::clone(&self.ready), self.waker.clone());
        Arc::new(move || {
            let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.push_back(socket);
            waker.wake();
        })
    }

    fn open(&mut self, socket: u64) -> Option<&mut Association> {
        if !self.associations.contains_key(&socket) {
            let association = self.service.as_ref()?.open(self.wake_for(socket));
            self.associations.insert(socket, association);
        }
        self.associations.get_mut(&socket)
    }

    fn take_ready(&mut self) -> Vec<u64> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let count = ready.len().min(MAX_PER_TURN);
        let taken = ready.drain(..count).collect();
        if !ready.is_empty() {
            // Their own wake-ups are spent.
            self.waker.wake();
        }
        taken
    }

    fn poll(&mut self, socket: u64) -> Option<HandshakeOutput> {
        self.associations.get_mut(&socket)?.poll()
    }

    /// Sends what is left to be sent for an endpoint that is gone.
    fn poll_leaving(&mut self, key: u64) {
        let Some(leaving) = self.leaving.get_mut(&key) else {
            return;
        };
        let mut is_over = false;
        for _ in 0..MAX_OUTPUTS {
            match leaving.association.poll() {
                Some(HandshakeOutput::Transmit(datagram)) => {
                    for (socket, to) in &leaving.sockets {
                        // Lost like any datagram.
                        let _ = socket.send_to(&datagram, *to);
                    }
                }
                Some(HandshakeOutput::Keys(_)) => {}
                Some(HandshakeOutput::Failed(_) | HandshakeOutput::Closed) => is_over = true,
                None => break,
            }
        }
        if is_over {
            self.leaving.remove(&key);
        }
    }

    fn give_up(&mut self, now_ns: u64) {
        self.leaving.retain(|_, leaving| now_ns < leaving.until_ns);
    }

    fn requeue(&self, socket: u64) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.push_back(socket);
        self.waker.wake();
    }
}

impl Worker {
    /// Looks after the handshakes that have something to say.
    pub(super) fn run_handshakes(&mut self) {
        self.out.handshakes.give_up(self.out.now_ns);
        for socket in self.out.handshakes.take_ready() {
            self.out.handshakes.poll_leaving(socket);
            for turn in 0..=MAX_OUTPUTS {
                if turn == MAX_OUTPUTS {
                    self.out.handshakes.requeue(socket);
                    break;
                }
                let Some(output) = self.out.handshakes.poll(socket) else {
                    break;
                };
                self.on_handshake(socket, output);
            }
        }
    }

    fn on_handshake(&mut self, socket: u64, output: HandshakeOutput) {
        let Some(entry) = self.out.sockets.get(socket) else {
            return;
        };
        let (key, endpoint) = (entry.session, entry.endpoint);
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        let outcome = match &output {
            HandshakeOutput::Transmit(datagram) => HandshakeOutcome::Transmit(datagram),
            HandshakeOutput::Keys(keys) => HandshakeOutcome::Keys {
                send: &keys.send,
                receive: &keys.receive,
            },
            HandshakeOutput::Failed(failure) => {
                tracing::info!(session = %slot.session.id(), %failure, "DTLS handshake failed");
                HandshakeOutcome::Over
            }
            HandshakeOutput::Closed => HandshakeOutcome::Over,
        };
        let (now, out) = (self.now, &mut self.out);
        let unharmed = guarded(&mut slot.session, |session| {
            session.handle_handshake(now, endpoint, outcome, out);
        });
        self.after_turn_of(key, unharmed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::epoll::Poller;

    #[test]
    fn whoever_waits_longest_is_next_and_nobody_is_forgotten() {
        let mut poller = Poller::new().expect("epoll");
        let waker = Waker::new().expect("eventfd");
        poller.add(waker.source(), 1).expect("adds");
        let mut handshakes = Handshakes::new(None, waker.clone());
        (0..150).for_each(|socket| handshakes.requeue(socket));
        let mut taken = Vec::new();
        for _ in 0..3 {
            let ready = poller.wait(Duration::ZERO).expect("waits");
            assert_eq!(ready, 1, "woken after {taken:?}");
            waker.clear();
            let turn = handshakes.take_ready();
            assert!(turn.len() <= MAX_PER_TURN);
            taken.extend(turn);
        }
        assert!(taken.into_iter().eq(0..150));
        assert_eq!(poller.wait(Duration::ZERO).expect("waits"), 0);
    }
}
