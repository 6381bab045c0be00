//! Somebody on the path: a UDP relay between a peer and the bridge that can drop, repeat and alter
//! what passes. To the bridge, the relay's address is the peer's.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const POLL_TIME: Duration = Duration::from_millis(20);

/// Which way a datagram goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the peer to the bridge.
    ToBridge,
    /// From the bridge to the peer.
    ToPeer,
}

/// What a datagram is by its first bytes (RFC 7983).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A connectivity check or its answer.
    Stun,
    /// A record of the handshake.
    Dtls,
    /// Media.
    Rtp,
    /// Reports.
    Rtcp,
    /// Nothing known.
    Other,
}

impl Kind {
    /// Reads the first two bytes.
    pub fn of(datagram: &[u8]) -> Self {
        match (datagram.first(), datagram.get(1)) {
            (Some(0..=3), _) => Kind::Stun,
            (Some(20..=63), _) => Kind::Dtls,
            (Some(128..=191), Some(192..=223)) => Kind::Rtcp,
            (Some(128..=191), _) => Kind::Rtp,
            _ => Kind::Other,
        }
    }
}

/// Decides what goes on instead of a datagram: nothing, itself, or several.
pub type Meddler = Box<dyn FnMut(Way, Kind, &[u8]) -> Vec<Vec<u8>> + Send>;

/// A running relay; it ends when dropped.
pub struct Relay {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    near: UdpSocket,
    far: UdpSocket,
    bridge: Mutex<Option<SocketAddr>>,
    peer: Mutex<Option<SocketAddr>>,
    meddler: Mutex<Option<Meddler>>,
    passed: AtomicUsize,
    ended: AtomicBool,
}

impl Relay {
    /// A relay that knows no bridge yet.
    pub fn start() -> Self {
        let bind = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            socket.set_read_timeout(Some(POLL_TIME)).expect("timeout");
            socket
        };
        let shared = Arc::new(Shared {
            near: bind(),
            far: bind(),
            bridge: Mutex::default(),
            peer: Mutex::default(),
            meddler: Mutex::default(),
            passed: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let threads = [Way::ToBridge, Way::ToPeer].map(|way| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.run(way))
        });
        Self {
            shared,
            threads: threads.into(),
        }
    }

    /// Puts itself between: the description's candidates name the relay, the relay remembers them.
    pub fn intercept(&self, sdp: &str) -> String {
        let near = self.shared.near.local_addr().expect("bound");
        let mut intercepted = String::new();
        for line in sdp.split_inclusive("\r\n") {
            let mut words: Vec<&str> = line.split(' ').collect();
            if !line.starts_with("a=candidate:") || words.len() < 8 {
                intercepted.push_str(line);
                continue;
            }
            let bridge = format!("{}:{}", words[4], words[5]);
            *lock(&self.shared.bridge) = Some(bridge.parse().expect("an address and port"));
            let (ip, port) = (near.ip().to_string(), near.port().to_string());
            (words[4], words[5]) = (&ip, &port);
            intercepted.push_str(&words.join(" "));
        }
        intercepted
    }

    /// Has everything pass through `meddler` from now on.
    pub fn meddle(&self, meddler: impl FnMut(Way, Kind, &[u8]) -> Vec<Vec<u8>> + Send + 'static) {
        *lock(&self.shared.meddler) = Some(Box::new(meddler));
    }

    /// Lets everything pass as it is again.
    pub fn behave(&self) {
        *lock(&self.shared.meddler) = None;
    }

    /// Sends any datagram to the bridge from the peer's address.
    pub fn inject(&self, datagram: &[u8]) {
        let bridge = self.bridge();
        self.shared
            .far
            .send_to(datagram, bridge)
            .expect("loopback takes it");
    }

    /// The endpoint's real address.
    pub fn bridge(&self) -> SocketAddr {
        lock(&self.shared.bridge).expect("a description has passed")
    }

    /// Datagrams relayed so far.
    pub fn passed(&self) -> usize {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, way: Way) {
        let mut buffer = [0; 4096];
        let (from, through) = match way {
            Way::ToBridge => (&self.near, &self.far),
            Way::ToPeer => (&self.far, &self.near),
        };
        while !self.ended.load(Ordering::Relaxed) {
            let Ok((length, source)) = from.recv_from(&mut buffer) else {
                continue;
            };
            let target = match way {
                Way::ToBridge => {
                    *lock(&self.peer) = Some(source);
                    *lock(&self.bridge)
                }
                Way::ToPeer => *lock(&self.peer),
            };
            let datagram = &buffer[..length];
            let onward = match lock(&self.meddler).as_mut() {
                Some(meddler) => meddler(way, Kind::of(datagram), datagram),
                None => vec![datagram.to_vec()],
            };
            for datagram in onward {
                if let Some(target) = target {
                    let _ = through.send_to(&datagram, target);
                    self.passed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
