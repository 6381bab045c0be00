//! UDP through io_uring (Linux 6.1 and later): every socket has one standing receive request, and what
//! is sent leaves in batches, so that a packet costs no system call of its own.
//!
//! ```text
//! PreparedRing::new (before the sandbox, which forbids making rings)
//!   └► start (on the worker's thread) ► wait ► next … ► send … ► flush ► wait
//! ```
//! A ring may only receive, send, poll and cancel on sockets that the program opened: that is settled
//! when it is made and cannot be undone (IORING_REGISTER_RESTRICTIONS), so that it is no way around
//! the sandbox. Datagrams are never lost to a lack of buffers: they wait in their socket.

mod arrivals;
mod buffers;
mod files;
mod sends;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, cqueue, opcode, types};
use nix::sys::eventfd::EventFd;
use rtpbridge_core::session::PacketBuffer;

use self::arrivals::{Arrival, Arrivals};
use self::buffers::BufferRing;
use self::files::Files;
use self::sends::Sends;
use super::udp::{Received, UdpSocket};

/// Requests that can be handed over at once.
const SUBMISSIONS: u32 = 512;
/// Completions that can wait; the kernel keeps further ones aside.
const COMPLETIONS: u32 = 4096;
/// The kernel does a part of what is due per call; this often it is asked to go on.
const MAX_ENTERS: u32 = 64;
/// Group of the provided buffers.
const GROUP: u16 = 0;
/// IORING_ENTER_GETEVENTS
const GET_EVENTS: u32 = 1;
/// IORING_REGISTER_FILES_UPDATE
const FILES_UPDATE: u8 = 6;

/// Generations begin again behind this one, so that no request is named as the three below.
const GENERATIONS: u32 = 0x7fff_ffff;
/// What completions belong to, where it is no socket.
const WAKER: u64 = u64::MAX;
const SENT: u64 = u64::MAX - 1;
const CANCELLED: u64 = u64::MAX - 2;

/// A ring that is not in use yet.
pub(crate) struct PreparedRing {
    ring: IoUring,
    buffers: BufferRing,
    files: Files,
    places: u32,
}

/// One worker's ring. Its thread alone may use it.
pub(crate) struct Ring {
    // Before the buffers, which the kernel knows as long as the ring lives.
    ring: IoUring,
    buffers: BufferRing,
    sends: Sends,
    arrivals: Arrivals,
    standing: Vec<Standing>,
    free: Vec<u32>,
    /// Places whose request has ended and is to be made again.
    ended: Vec<u32>,
    files: Files,
    places: u32,
    waker: RawFd,
    is_waker_ended: bool,
    is_woken: bool,
    send_errors: u64,
}

/// Where a ring keeps a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    index: u32,
    fd: RawFd,
}

/// A socket's standing receive request.
struct Standing {
    generation: u32,
    /// The owner's name for the socket; none while the place is free.
    key: Option<u64>,
    fd: RawFd,
    request: Request,
}

/// `ended ─► standing ─► ended`, and from both to `halted`, which lasts until the socket is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Request {
    /// To be made, or made again.
    Ended,
    /// The kernel has it.
    Standing,
    /// Not to be made again.
    Halted,
}

impl PreparedRing {
    /// A ring for at most `sockets` sockets.
    ///
    /// # Errors
    /// The kernel is too old, or somebody forbids it (container runtimes do).
    pub(crate) fn new(sockets: u32) -> io::Result<Self> {
        Self::with_files(sockets, Files::of_this_kernel())
    }

    fn with_files(sockets: u32, files: Files) -> io::Result<Self> {
        let ring: IoUring = IoUring::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let buffers = BufferRing::new();
        let submitter = ring.submitter();
        files.register(&submitter, sockets)?;
        buffers.register(&submitter, GROUP)?;
        let flags = Flags::FIXED_FILE | Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS;
        submitter.register_restrictions(&mut [
            Restriction::sqe_op(opcode::RecvMsgMulti::CODE),
            Restriction::sqe_op(opcode::Send::CODE),
            Restriction::sqe_op(opcode::PollAdd::CODE),
            Restriction::sqe_op(opcode::AsyncCancel::CODE),
            Restriction::sqe_flags_allowed(flags.bits()),
            Restriction::register_op(FILES_UPDATE),
        ])?;
        Ok(Self {
            ring,
            buffers,
            files,
            places: sockets,
        })
    }

    /// Takes it into use on this thread; `waker` ends a wait. It must outlive the ring.
    pub(crate) fn start(self, waker: &EventFd) -> io::Result<Ring> {
        self.ring.submitter().register_enable_rings()?;
        let mut ring = self.into_ring(waker);
        ring.stand_again();
        ring.flush();
        Ok(ring)
    }

    fn into_ring(self, waker: &EventFd) -> Ring {
        Ring {
            ring: self.ring,
            buffers: self.buffers,
            sends: Sends::new(),
            arrivals: Arrivals::new(),
            standing: Vec::new(),
            free: Vec::new(),
            ended: Vec::new(),
            files: self.files,
            places: self.places,
            waker: waker.as_raw_fd(),
            is_waker_ended: true,
            is_woken: false,
            send_errors: 0,
        }
    }
}

impl Ring {
    /// Receives from `socket`, reporting what comes under `key`.
    ///
    /// # Errors
    /// There are more sockets than the ring was made for.
    pub(crate) fn add(&mut self, socket: &UdpSocket, key: u64) -> io::Result<Place> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => self.new_place()?,
        };
        if let Err(error) = self.set_file(place, socket.raw_fd()) {
            self.free.push(place);
            return Err(error);
        }
        if let Some(standing) = self.standing.get_mut(place as usize) {
            standing.key = Some(key);
            standing.fd = socket.raw_fd();
            standing.request = Request::Ended;
        }
        self.ended.push(place);
        let fd = socket.raw_fd();
        Ok(Place { index: place, fd })
    }

    /// Sends what is due through the socket and receives from it no more.
    fn halt(&mut self, place: Place) {
        let Some(standing) = self.standing.get_mut(place.index as usize) else {
            return;
        };
        standing.request = Request::Halted;
        let request = name(place.index, standing.generation);
        let cancel = opcode::AsyncCancel::new(request).build();
        self.push(&cancel.user_data(CANCELLED));
        self.flush();
        // The request lets go of its socket when its completion has run.
        let _ = self.enter();
        self.run_pending();
        self.collect();
    }

    /// Forgets the socket, which closes with its last descriptor, and gives what it had received that
    /// nobody has taken yet, in order.
    pub(crate) fn take(&mut self, place: Place) -> Vec<(Received, Box<[u8]>)> {
        self.halt(place);
        let Some(standing) = self.standing.get_mut(place.index as usize) else {
            return Vec::new();
        };
        standing.generation = (standing.generation + 1) & GENERATIONS;
        let key = standing.key.take();
        standing.fd = -1;
        // It fails only for a place that never was.
        let _ = self.set_file(place.index, -1);
        self.free.push(place.index);
        let left = key.map_or(Vec::new(), |key| self.arrivals.remove(key));
        let mut space = [0; PacketBuffer::MAX_DATAGRAM];
        let read = left.into_iter().filter_map(|arrival| {
            let received = self.read(arrival, &mut space)?;
            let kept = received.bytes.min(space.len());
            Some((received, space[..kept].into()))
        });
        read.collect()
    }

    /// Waits until something came or `timeout` has passed; says how many datagrams there are.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        self.buffers.publish();
        self.stand_again();
        let waited = if timeout.is_zero() || !self.arrivals.is_empty() {
            self.flush();
            self.enter()
        } else {
            let time = types::Timespec::from(timeout);
            let arguments = types::SubmitArgs::new().timespec(&time);
            let submitted = self.ring.submitter().submit_with_args(1, &arguments);
            self.sends.on_submitted(self.ring.submission().is_empty());
            submitted.map(drop)
        };
        match waited.as_ref().map_err(io::Error::raw_os_error) {
            Ok(()) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(_) => waited?,
        }
        self.run_pending();
        self.collect();
        Ok(self.arrivals.len())
    }

    /// Whether the waker ended the wait; says so once.
    pub(crate) fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.is_woken)
    }

    /// Copies the next datagram into `space` and says for which key it is. Longer ones than that are
    /// reported with their length but cut.
    pub(crate) fn next(&mut self, space: &mut [u8]) -> Option<(u64, Received)> {
        loop {
            let arrival = self.arrivals.pop()?;
            let key = arrival.key;
            if let Some(received) = self.read(arrival, space) {
                return Some((key, received));
            }
        }
    }

    /// The key of the datagram that is `ahead` places behind the next one.
    pub(crate) fn peek(&self, ahead: usize) -> Option<u64> {
        self.arrivals.peek(ahead).map(|arrival| arrival.key)
    }

    /// Sends a datagram with the next [`flush`](Self::flush), after all that was sent before.
    pub(crate) fn send(&mut self, place: Place, datagram: &[u8], to: std::net::SocketAddr) {
        if self.sends.is_full() {
            self.flush();
        }
        let target = self.files.target(place.index, place.fd);
        let entry = self.sends.stage(target, datagram, to);
        let is_staged = entry.is_some_and(|entry| self.push(&entry.user_data(SENT)));
        self.send_errors += u64::from(!is_staged);
    }

    /// Hands all that was staged to the kernel, which sends it before this returns.
    pub(crate) fn flush(&mut self) {
        for _ in 0..MAX_ENTERS {
            if self.ring.submission().is_empty() {
                break;
            }
            // Interrupted or short of memory: the rest is tried again.
            let _ = self.ring.submit();
        }
        self.sends.on_submitted(self.ring.submission().is_empty());
    }

    /// Datagrams that the system did not take since this was last asked.
    pub(crate) fn take_send_errors(&mut self) -> u64 {
        std::mem::take(&mut self.send_errors)
    }

    /// Copies a datagram out and gives its buffer back.
    fn read(&mut self, arrival: Arrival, space: &mut [u8]) -> Option<Received> {
        let header = self.arrivals.header();
        let read = |bytes: &[u8]| arrivals::read(bytes, header, space);
        let received = self.buffers.with(arrival.buffer, arrival.bytes, read);
        self.buffers.put_back(arrival.buffer);
        received
    }

    fn new_place(&mut self) -> io::Result<u32> {
        let place = u32::try_from(self.standing.len()).unwrap_or(u32::MAX);
        if place >= self.places {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        self.standing.push(Standing {
            generation: 0,
            key: None,
            fd: -1,
            request: Request::Ended,
        });
        Ok(place)
    }

    fn set_file(&self, place: u32, fd: RawFd) -> io::Result<()> {
        self.files.set(&self.ring.submitter(), place, fd)
    }

    /// Makes the requests that have ended again. What the kernel does not take stays to be made.
    fn stand_again(&mut self) {
        if self.is_waker_ended {
            let poll = opcode::PollAdd::new(types::Fd(self.waker), libc::POLLIN as u32);
            self.is_waker_ended = !self.push(&poll.multi(true).build().user_data(WAKER));
        }
        while let Some(place) = self.ended.pop() {
            let Some(standing) = self.standing.get(place as usize) else {
                continue;
            };
            if standing.key.is_none() || standing.request != Request::Ended {
                continue;
            }
            let request = name(place, standing.generation);
            let header: *const libc::msghdr = self.arrivals.header();
            let target = self.files.target(place, standing.fd);
            let receive = opcode::RecvMsgMulti::new(target.fd, header, GROUP).build();
            if !self.push(&receive.flags(target.flags).user_data(request)) {
                self.ended.push(place);
                break;
            }
            if let Some(standing) = self.standing.get_mut(place as usize) {
                standing.request = Request::Standing;
            }
        }
    }

    /// False when the kernel takes nothing at present, for want of memory.
    fn push(&mut self, entry: &Entry) -> bool {
        for _ in 0..MAX_ENTERS {
            // SAFETY: what entries point to lives as long as the ring: the message header and the
            // staged datagrams are on the heap, owned by it, and a staged datagram is not touched
            // before the kernel has taken its entry.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return true;
            }
            let _ = self.ring.submit();
        }
        false
    }

    /// Lets the kernel do a part of what is due.
    fn enter(&self) -> io::Result<()> {
        // SAFETY: no argument, nothing submitted.
        let entered = unsafe {
            let submitter = self.ring.submitter();
            submitter.enter::<libc::sigset_t>(0, 0, GET_EVENTS, None)
        };
        entered.map(drop)
    }

    fn run_pending(&mut self) {
        for _ in 0..MAX_ENTERS {
            if !self.ring.submission().taskrun() || self.enter().is_err() {
                break;
            }
        }
    }

    fn collect(&mut self) {
        // Buffers bound how many datagrams can be here.
        for completion in self.ring.completion() {
            let (result, flags) = (completion.result(), completion.flags());
            let goes_on = cqueue::more(flags);
            match completion.user_data() {
                SENT => self.send_errors += u64::from(result < 0),
                CANCELLED => {}
                WAKER => {
                    self.is_woken = true;
                    self.is_waker_ended |= !goes_on;
                }
                request => {
                    let (place, generation) = (request as u32, (request >> 32) as u32);
                    let standing = self.standing.get_mut(place as usize);
                    let standing = standing.filter(|s| s.generation == generation);
                    if let Some(buffer) = cqueue::buffer_select(flags) {
                        let key = standing.as_ref().and_then(|standing| standing.key);
                        match (key, u32::try_from(result)) {
                            (Some(key), Ok(bytes)) => {
                                self.arrivals.push(Arrival { key, buffer, bytes });
                            }
                            _ => self.buffers.put_back(buffer),
                        }
                    }
                    if let Some(standing) = standing
                        && !goes_on
                        && standing.request == Request::Standing
                    {
                        standing.request = Request::Ended;
                        self.ended.push(place);
                    }
                }
            }
        }
    }
}

/// A request's name: the place, and which of its sockets.
fn name(place: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(place)
}

#[cfg(test)]
mod tests;
