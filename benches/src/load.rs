//! Sends every leg's 50 packets a second, spread evenly over each 20 ms, and receives what comes
//! back, on one thread: due packets are sent, then all ready sockets are read, then it sleeps until
//! the next tick. Latency does not depend on when it reads, since the kernel stamps arrivals.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::histogram::Histogram;
use crate::legs::{Arrival, Leg, ReceiveBuffer, Stamp};
use crate::processes;

const FRAME_NS: u64 = 20_000_000;
const TICK: Duration = Duration::from_micros(250);
/// A mix goes on for 340 ms after the last packet.
const DRAIN: Duration = Duration::from_millis(600);
const EVENTS_PER_LOOK: usize = 1024;

/// One stretch of traffic.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Tells its packets from those of other stretches.
    pub run: u32,
    /// Traffic before anything is measured.
    pub warm_up: Duration,
    /// Traffic that is measured.
    pub measured: Duration,
}

/// What a stretch of traffic came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Packets sent in all.
    pub sent: u64,
    /// Packets that came back on the right leg in all; of sound, all that came.
    pub received: u64,
    /// Packets that came to a leg they were not for.
    pub misrouted: u64,
    /// Sends that the kernel refused.
    pub send_errors: u64,
    /// Packets received in the measured part.
    pub measured_packets: u64,
    /// CPU time of what was measured, over the measured part.
    pub measured_cpu_ns: u64,
    /// Wall time of the measured part.
    pub measured_ns: u64,
    /// CPU time of the generator over the measured part.
    pub generator_cpu_ns: u64,
    /// Latency of the packets of the measured part.
    pub latency: Histogram,
    /// How late the generator sent in the measured part.
    pub lateness: Histogram,
}

impl Outcome {
    fn count(&mut self, stamp: Stamp, index: u64, measured: bool) {
        if u64::from(stamp.leg) != index ^ 1 {
            self.misrouted += 1;
            return;
        }
        self.received += 1;
        if measured {
            self.latency.record(stamp.latency_ns);
        }
    }
}

/// The sockets of all legs in one epoll set. Leg 2n and leg 2n+1 are the parties of call n, unless
/// they speak.
pub struct Generator {
    epoll: Epoll,
    legs: Vec<Leg>,
    events: Vec<EpollEvent>,
    buffer: ReceiveBuffer,
    speaks: bool,
}

struct Mark {
    at: Instant,
    cpu_ns: u64,
    own_cpu_ns: u64,
    received: u64,
}

impl Generator {
    /// Takes the legs, which know where to send.
    pub fn new(legs: Vec<Leg>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (index, leg) in (0_u64..).zip(&legs) {
            epoll.add(leg.socket(), EpollEvent::new(EpollFlags::EPOLLIN, index))?;
        }
        Ok(Self {
            epoll,
            speaks: legs.iter().any(Leg::speaks),
            legs,
            events: vec![EpollEvent::empty(); EVENTS_PER_LOOK],
            buffer: ReceiveBuffer::default(),
        })
    }

    /// Runs one stretch; `cpu_ns` reads the CPU time of what is measured.
    pub fn run(&mut self, stretch: Stretch, cpu_ns: &dyn Fn() -> u64) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let count = self.legs.len() as u64;
        let spacing_ns = FRAME_NS / count.max(1);
        let start = Instant::now();
        let end = start + stretch.warm_up + stretch.measured;
        let mut begin: Option<Mark> = None;
        let mut next = 0_u64;
        loop {
            let now = Instant::now();
            if begin.is_none() && now >= start + stretch.warm_up {
                begin = Some(mark(&outcome, cpu_ns));
            }
            if now >= end {
                break;
            }
            let elapsed_ns = now.duration_since(start).as_nanos() as u64;
            while due_ns(next, count, spacing_ns) <= elapsed_ns {
                let late = start.elapsed().as_nanos() as u64 - due_ns(next, count, spacing_ns);
                if begin.is_some() {
                    outcome.lateness.record(late);
                }
                self.send(next % count, stretch.run, &mut outcome);
                next += 1;
            }
            self.look(stretch.run, begin.is_some(), &mut outcome)?;
            thread::sleep(TICK.saturating_sub(now.elapsed()));
        }
        let finish = mark(&outcome, cpu_ns);
        if let Some(begin) = begin {
            outcome.measured_packets = finish.received - begin.received;
            outcome.measured_cpu_ns = finish.cpu_ns.saturating_sub(begin.cpu_ns);
            outcome.generator_cpu_ns = finish.own_cpu_ns - begin.own_cpu_ns;
            outcome.measured_ns = finish.at.duration_since(begin.at).as_nanos() as u64;
        }
        let drained = Instant::now() + DRAIN;
        while Instant::now() < drained && (self.speaks || outcome.received < outcome.sent) {
            self.look(stretch.run, true, &mut outcome)?;
            thread::sleep(TICK);
        }
        Ok(outcome)
    }

    /// The legs, in order.
    pub fn legs(&self) -> &[Leg] {
        &self.legs
    }

    fn send(&mut self, index: u64, run: u32, outcome: &mut Outcome) {
        let Some(leg) = self.legs.get_mut(index as usize) else {
            return;
        };
        match leg.send(run) {
            Ok(()) => outcome.sent += 1,
            Err(_) => outcome.send_errors += 1,
        }
    }

    fn look(&mut self, run: u32, measured: bool, outcome: &mut Outcome) -> io::Result<()> {
        let ready = self.epoll.wait(&mut self.events, EpollTimeout::ZERO)?;
        for event in self.events.iter().take(ready) {
            let index = event.data();
            let Some(leg) = self.legs.get_mut(index as usize) else {
                continue;
            };
            match leg.receive(&mut self.buffer) {
                Ok(Some(Arrival::Sound)) => outcome.received += 1,
                Ok(Some(Arrival::Stamped(stamp))) if stamp.run == run => {
                    outcome.count(stamp, index, measured);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// When packet `number` of all legs together is due: legs take turns within each 20 ms.
fn due_ns(number: u64, legs: u64, spacing_ns: u64) -> u64 {
    number / legs * FRAME_NS + number % legs * spacing_ns
}

fn mark(outcome: &Outcome, cpu_ns: &dyn Fn() -> u64) -> Mark {
    Mark {
        cpu_ns: cpu_ns(),
        own_cpu_ns: processes::own_cpu_ns(),
        received: outcome.received,
        at: Instant::now(),
    }
}
