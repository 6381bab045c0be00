//! How datagrams come in: through the worker's io_uring, or, where the kernel or a container runtime
//! forbids one, through epoll with a system call for each.
//!
//! With epoll, sockets are level-triggered and normally read once per turn: what is left is reported
//! again. Only a socket that was readable in the turn before too is read until empty (bounded), so
//! that a burst is caught up with while the usual packet costs one recvfrom.

use std::io;
use std::time::Duration;

use rtpbridge_core::session::{Channel, EndpointKey};
use rtpbridge_core::time::WallTime;
use tracing::warn;

use super::output::{Output, SocketEntry};
use super::turn::guarded;
use super::{WAKER_KEY, Worker};
use crate::sys::clock;
use crate::sys::epoll::MAX_READY;
use crate::sys::fetch::fetch;
use crate::sys::ring::PreparedRing;
use crate::sys::udp::Received;

/// Datagrams read from one socket in one turn.
const MAX_PER_SOCKET: u32 = 16;
/// Packets after which the clock is read again.
const PACKETS_PER_CLOCK: u64 = 32;
/// One packet in so many is asked for its arrival in the kernel.
const SAMPLE_EVERY: u64 = 64;

/// How many datagrams ahead each step of what leads to an endpoint is fetched.
const FETCH_SOCKET: usize = 8;
const FETCH_SESSION: usize = 6;
const FETCH_LISTS: usize = 4;
const FETCH_ENDPOINTS: usize = 2;

/// Datagrams that were received and not handled.
pub(super) type Mail = Vec<(Received, Box<[u8]>)>;

/// A packet of which it is known when the kernel got it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    kernel_ns: u64,
    is_forwarded: bool,
}

impl Worker {
    /// Takes the ring into use; without one, epoll does its work.
    pub(super) fn start_ring(&mut self, prepared: Option<PreparedRing>) {
        let Some(prepared) = prepared else {
            return;
        };
        match prepared.start(self.handle.waker.source()) {
            Ok(ring) => self.out.ring = Some(ring),
            Err(error) => warn!(%error, "io_uring does not start, using epoll"),
        }
    }

    /// Begins to receive from a socket.
    pub(super) fn watch_socket(&mut self, key: u64) -> io::Result<()> {
        let Some(entry) = self.out.sockets.get_mut(key) else {
            return Ok(());
        };
        match &mut self.out.ring {
            Some(ring) => entry.place = Some(ring.add(&entry.socket, key)?),
            None => self.poller.add(&entry.socket, key)?,
        }
        Ok(())
    }

    /// Takes a socket out: nothing more is received from it, what was sent before leaves. With it
    /// comes what it had received that nobody has seen yet.
    pub(super) fn take_socket(&mut self, key: u64) -> Option<(SocketEntry, Mail)> {
        let mut entry = self.out.sockets.remove(key)?;
        let mut mail = Mail::new();
        match (&mut self.out.ring, entry.place.take()) {
            (Some(ring), Some(place)) => mail = ring.take(place),
            _ => self.poller.remove(&entry.socket),
        }
        Some((entry, mail))
    }

    /// Hands over what a socket had received before it came here.
    pub(super) fn deliver(&mut self, socket: u64, mail: &Mail) {
        for (datagram, bytes) in mail {
            if let Some(space) = self.buffer.space().get_mut(..bytes.len()) {
                space.copy_from_slice(bytes);
                self.handle(socket, datagram);
            }
        }
    }

    /// Waits for datagrams, for a command, or for `wait`; says how much is ready.
    pub(super) fn wait_for_sockets(&mut self, wait: Duration) -> io::Result<usize> {
        let Some(ring) = &mut self.out.ring else {
            return self.poller.wait(wait);
        };
        let ready = ring.wait(wait)?;
        if ring.take_wake() {
            self.on_woken();
        }
        Ok(ready)
    }

    /// Hands what is ready to its sessions.
    pub(super) fn receive_ready(&mut self, ready: usize) {
        if self.out.ring.is_some() {
            for _ in 0..ready.min(MAX_READY) {
                self.fetch_ahead();
                if !self.receive_from_ring() {
                    break;
                }
            }
            self.out.flush();
            self.observe_latency();
            return;
        }
        for index in 0..ready {
            match self.poller.ready_key(index) {
                Some(WAKER_KEY) => self.on_woken(),
                Some(socket) => self.on_readable(socket),
                None => break,
            }
        }
    }

    fn on_woken(&mut self) {
        self.handle.waker.clear();
        self.more_commands = true;
    }

    fn on_readable(&mut self, socket: u64) {
        let Some(entry) = self.out.sockets.get_mut(socket) else {
            return;
        };
        let busy = entry.last_turn == self.turn_number.wrapping_sub(1);
        entry.last_turn = self.turn_number;
        let limit = if busy { MAX_PER_SOCKET } else { 1 };
        for _ in 0..limit {
            if !self.receive(socket) {
                break;
            }
        }
    }

    /// Has the memory fetched that the datagrams after the next one will need, step by step: what is
    /// read here was fetched some datagrams ago.
    fn fetch_ahead(&self) {
        let Some(ring) = &self.out.ring else {
            return;
        };
        let entry = |ahead| self.out.sockets.get(ring.peek(ahead)?);
        let session = |entry: &SocketEntry| Some(&self.sessions.get(entry.session)?.session);
        if let Some(socket) = ring.peek(FETCH_SOCKET) {
            let (place, length) = self.out.sockets.place_of(socket);
            fetch(place, length);
        }
        if let Some(entry) = entry(FETCH_SESSION) {
            let (place, length) = self.sessions.place_of(entry.session);
            fetch(place, length);
        }
        if let Some(session) = entry(FETCH_LISTS).and_then(session) {
            session.visit_lists(fetch);
        }
        if let Some(entry) = entry(FETCH_ENDPOINTS)
            && let Some(session) = session(entry)
        {
            session.visit_endpoints(entry.endpoint, fetch);
        }
    }

    /// Handles one datagram; false when there is none.
    fn receive_from_ring(&mut self) -> bool {
        let Some(ring) = &mut self.out.ring else {
            return false;
        };
        let Some((socket, datagram)) = ring.next(self.buffer.space()) else {
            return false;
        };
        self.handle(socket, &datagram);
        true
    }

    /// A datagram of this socket is in the buffer.
    fn handle(&mut self, socket: u64, datagram: &Received) {
        if let Some(entry) = self.out.sockets.get(socket) {
            let (key, endpoint, channel) = (entry.session, entry.endpoint, entry.channel);
            self.handle_datagram(key, (endpoint, channel), datagram);
        }
    }

    /// Reads and handles one datagram; false when there is none.
    pub(super) fn receive(&mut self, socket: u64) -> bool {
        let Some(entry) = self.out.sockets.get(socket) else {
            return false;
        };
        let (key, endpoint, channel) = (entry.session, entry.endpoint, entry.channel);
        let Some(slot) = self.sessions.get(key) else {
            return false;
        };
        let is_stamped = self.is_sampled() || slot.needs_arrival_times(self.out.now_ns);
        let space = self.buffer.space();
        let outcome = if is_stamped {
            entry.socket.recv_timestamped(space)
        } else {
            entry.socket.recv_from(space)
        };
        let Ok(datagram) = outcome else {
            return false;
        };
        self.handle_datagram(key, (endpoint, channel), &datagram);
        self.observe_latency();
        true
    }

    fn is_sampled(&self) -> bool {
        self.received.is_multiple_of(SAMPLE_EVERY)
    }

    /// A datagram is in the buffer.
    fn handle_datagram(
        &mut self,
        key: u64,
        (endpoint, channel): (EndpointKey, Channel),
        datagram: &Received,
    ) {
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        self.buffer.set_len(datagram.bytes);
        let mut arrival = self.now;
        if let Some(kernel_ns) = datagram.kernel_ns {
            arrival.wall = WallTime::from_nanos(kernel_ns);
        }
        let routed_before = self.out.counters.packets_routed;
        let (buffer, out) = (&mut self.buffer, &mut self.out);
        let unharmed = guarded(&mut slot.session, |session| {
            session.handle_packet(arrival, endpoint, channel, datagram.source, buffer, out);
        });
        if let Some(kernel_ns) = datagram.kernel_ns.filter(|_| self.is_sampled()) {
            let is_forwarded = self.out.counters.packets_routed > routed_before;
            self.sampled = Some(Sample {
                kernel_ns,
                is_forwarded,
            });
        }
        self.received += 1;
        if self.received.is_multiple_of(PACKETS_PER_CLOCK) {
            self.read_clocks();
        }
        self.after_turn_of(key, unharmed);
    }

    /// What was received when it was sampled has been sent.
    fn observe_latency(&mut self) {
        let Some(sample) = self.sampled.take() else {
            return;
        };
        let begun = self.now.wall.as_nanos();
        self.budget
            .on_lateness(begun.saturating_sub(sample.kernel_ns));
        if sample.is_forwarded {
            let latency = clock::wall_ns().saturating_sub(sample.kernel_ns);
            self.forward_latency.observe(latency);
        }
    }
}

impl Output {
    /// Lets everything leave that sessions have sent.
    pub(super) fn flush(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.flush();
            self.send_errors += ring.take_send_errors();
        }
    }
}
