//! The floor: what forwarding costs at the least. One thread, one epoll set, for each packet exactly
//! one recvfrom and one sendto, the dataplane's socket options, nothing else: no parsing, no check of
//! the source, no statistics. Like the dataplane it looks only every batch window.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};

use crate::processes;

const EXPEDITED_FORWARDING: i32 = 46 << 2;
const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;
const EVENTS_PER_LOOK: usize = 1024;
/// How often an idle forwarder looks whether it shall stop.
const IDLE_MS: u16 = 100;

/// A running forwarder.
#[derive(Debug)]
pub struct Forwarder {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    packets: AtomicU64,
    system_calls: AtomicU64,
    cpu_ns: AtomicU64,
}

/// What the forwarder has done so far.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Packets forwarded.
    pub packets: u64,
    /// System calls made for that: waits, sleeps, receives and sends.
    pub system_calls: u64,
}

impl Forwarder {
    /// Binds one socket per party and forwards between the sockets 2n and 2n+1; `parties` are where
    /// the packets go, `core` pins the thread.
    pub fn start(
        parties: &[SocketAddr],
        window: Duration,
        core: Option<usize>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut sockets = Vec::with_capacity(parties.len());
        let mut addresses = Vec::with_capacity(parties.len());
        for (index, _) in (0_u64..).zip(parties) {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.set_nonblocking(true)?;
            setsockopt(&socket, sockopt::Ipv4Tos, &EXPEDITED_FORWARDING)?;
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, index))?;
            addresses.push(socket.local_addr()?);
            sockets.push(socket);
        }
        let shared = Arc::new(Shared::default());
        let thread = {
            let (shared, parties) = (Arc::clone(&shared), parties.to_vec());
            thread::spawn(move || {
                if let Some(core) = core {
                    processes::pin_self(core).expect("the core exists");
                }
                forward(&epoll, &sockets, &parties, window, &shared);
            })
        };
        Ok(Self {
            addresses,
            shared,
            thread: Some(thread),
        })
    }

    /// Where each party sends.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// CPU time of its thread, as of its last look.
    pub fn cpu_ns(&self) -> u64 {
        self.shared.cpu_ns.load(Ordering::Relaxed)
    }

    /// Its counters.
    pub fn work(&self) -> Work {
        Work {
            packets: self.shared.packets.load(Ordering::Relaxed),
            system_calls: self.shared.system_calls.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn forward(
    epoll: &Epoll,
    sockets: &[UdpSocket],
    parties: &[SocketAddr],
    window: Duration,
    shared: &Shared,
) {
    let mut events = vec![EpollEvent::empty(); EVENTS_PER_LOOK];
    let mut buffer = [0; 2048];
    let mut looks = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        let ready = epoll
            .wait(&mut events, EpollTimeout::from(IDLE_MS))
            .unwrap_or(0);
        let mut calls = 1;
        let mut packets = 0;
        for event in events.iter().take(ready) {
            let from = event.data() as usize;
            let to = from ^ 1;
            let (Some(source), Some(target), Some(party)) =
                (sockets.get(from), sockets.get(to), parties.get(to))
            else {
                continue;
            };
            calls += 1;
            if let Ok((length, _)) = source.recv_from(&mut buffer) {
                calls += 1;
                if target.send_to(&buffer[..length], party).is_ok() {
                    packets += 1;
                }
            }
        }
        looks += 1;
        // Reading the clock is itself a system call; 1 look in 64 keeps it out of the result.
        if looks.is_multiple_of(64) || ready == 0 {
            shared
                .cpu_ns
                .store(processes::own_cpu_ns(), Ordering::Relaxed);
            calls += 1;
        }
        calls += u64::from(!window.is_zero());
        shared.packets.fetch_add(packets, Ordering::Relaxed);
        shared.system_calls.fetch_add(calls, Ordering::Relaxed);
        if !window.is_zero() {
            thread::sleep(window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legs::Leg;
    use crate::load::{Generator, Stretch};
    use rtpbridge_tests::harness::wait::{SOON, eventually};

    #[test]
    fn every_packet_comes_back_to_the_other_party() {
        let mut legs: Vec<Leg> = (0..40)
            .map(|index| Leg::bind(index).expect("ports"))
            .collect();
        let parties: Vec<SocketAddr> = legs
            .iter()
            .map(|leg| leg.address().expect("bound"))
            .collect();
        let forwarder = Forwarder::start(&parties, Duration::from_millis(5), None).expect("starts");
        for (leg, address) in legs.iter_mut().zip(forwarder.addresses()) {
            leg.to = *address;
        }
        let mut generator = Generator::new(legs).expect("epoll");
        let stretch = Stretch {
            run: 1,
            warm_up: Duration::from_millis(50),
            measured: Duration::from_millis(400),
        };
        let outcome = generator.run(stretch, &|| 0).expect("runs");
        assert!(outcome.sent >= 40 * 20, "{} sent", outcome.sent);
        assert_eq!(outcome.received, outcome.sent);
        assert_eq!(outcome.misrouted, 0);
        // The counter follows the packets by less than a turn.
        eventually("all are counted", SOON, || {
            (forwarder.work().packets == outcome.sent).then_some(())
        });
    }
}
