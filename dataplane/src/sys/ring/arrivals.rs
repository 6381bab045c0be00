//! Datagrams that the ring has received and nobody has taken yet, and how the kernel writes them.

use std::collections::VecDeque;

use io_uring::types::RecvMsgOut;

use crate::sys::udp::{Received, SockAddr, from_sockaddr};

/// A control message header, and SCM_TIMESTAMPNS behind it (64-bit timespec).
const CONTROL_BYTES: usize = 32;
const CONTROL_DATA: usize = 16;

/// A received datagram in one of the ring's buffers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Of its socket.
    pub(super) key: u64,
    pub(super) buffer: u16,
    /// What the kernel wrote, its header included.
    pub(super) bytes: u32,
}

/// In order of arrival.
pub(super) struct Arrivals {
    waiting: VecDeque<Arrival>,
    header: Box<Header>,
}

/// Says how much room names and control messages have in front of each datagram.
struct Header(libc::msghdr);

// SAFETY: its pointers are null.
unsafe impl Send for Header {}

impl Arrivals {
    pub(super) fn new() -> Self {
        // SAFETY: msghdr is plain data for which zeroes are valid.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_namelen = size_of::<SockAddr>() as libc::socklen_t;
        header.msg_controllen = CONTROL_BYTES as _;
        Self {
            waiting: VecDeque::new(),
            header: Box::new(Header(header)),
        }
    }

    pub(super) fn header(&self) -> &libc::msghdr {
        &self.header.0
    }

    pub(super) fn push(&mut self, arrival: Arrival) {
        self.waiting.push_back(arrival);
    }

    pub(super) fn pop(&mut self) -> Option<Arrival> {
        self.waiting.pop_front()
    }

    /// Takes all of one socket out.
    pub(super) fn remove(&mut self, key: u64) -> Vec<Arrival> {
        let mut removed = Vec::new();
        self.waiting.retain(|arrival| {
            if arrival.key == key {
                removed.push(*arrival);
            }
            arrival.key != key
        });
        removed
    }

    pub(super) fn peek(&self, ahead: usize) -> Option<&Arrival> {
        self.waiting.get(ahead)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Copies the datagram out of a buffer that the kernel filled.
pub(super) fn read(bytes: &[u8], header: &libc::msghdr, space: &mut [u8]) -> Option<Received> {
    let message = RecvMsgOut::parse(bytes, header).ok()?;
    let source = from_sockaddr(&SockAddr::from_bytes(message.name_data())).ok()?;
    let payload = message.payload_data();
    let kept = payload.len().min(space.len());
    space.get_mut(..kept)?.copy_from_slice(payload.get(..kept)?);
    let is_cut = message.is_payload_truncated();
    Some(Received {
        bytes: if is_cut { usize::MAX } else { payload.len() },
        source,
        kernel_ns: kernel_time(message.control_data()),
    })
}

fn kernel_time(control: &[u8]) -> Option<u64> {
    let word = |at: usize| control.get(at..at + 8)?.try_into().ok();
    let half = |at: usize| control.get(at..at + 4)?.try_into().ok();
    let level = i32::from_ne_bytes(half(8)?);
    let kind = i32::from_ne_bytes(half(12)?);
    if level != libc::SOL_SOCKET || kind != libc::SCM_TIMESTAMPNS {
        return None;
    }
    let seconds = u64::try_from(i64::from_ne_bytes(word(CONTROL_DATA)?)).ok()?;
    let nanos = u64::try_from(i64::from_ne_bytes(word(CONTROL_DATA + 8)?)).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}
