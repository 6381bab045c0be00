//! Datagrams on their way to the kernel: copied aside, because the caller's buffer is used again
//! before they leave.

use std::net::SocketAddr;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use rtpbridge_core::session::PacketBuffer;

use super::files::Target;
use crate::sys::udp::{SockAddr, to_sockaddr};

/// Datagrams staged at a time.
const PLACES: usize = 256;
/// The largest packet that a buffer holds.
const SIZE: usize = PacketBuffer::HEAD_ROOM + PacketBuffer::MAX_DATAGRAM + PacketBuffer::TAIL_ROOM;

pub(super) struct Sends {
    places: Vec<Staged>,
    used: usize,
}

struct Staged {
    to: SockAddr,
    bytes: [u8; SIZE],
}

impl Sends {
    pub(super) fn new() -> Self {
        let empty = || Staged {
            to: SockAddr::from_bytes(&[]),
            bytes: [0; SIZE],
        };
        Self {
            // Never grows: the kernel is given pointers into it.
            places: std::iter::repeat_with(empty).take(PLACES).collect(),
            used: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.used >= PLACES
    }

    /// The kernel has taken everything, or something is left.
    pub(super) fn on_submitted(&mut self, is_everything: bool) {
        if is_everything {
            self.used = 0;
        }
    }

    /// A request to send it, at once or not at all; none when it is too long or there is no place.
    pub(super) fn stage(
        &mut self,
        socket: Target,
        datagram: &[u8],
        to: SocketAddr,
    ) -> Option<Entry> {
        let place = self.places.get_mut(self.used)?;
        let bytes = place.bytes.get_mut(..datagram.len())?;
        bytes.copy_from_slice(datagram);
        let length = u32::try_from(datagram.len()).ok()?;
        let name_bytes;
        (place.to, name_bytes) = to_sockaddr(to);
        self.used += 1;
        let send = opcode::Send::new(socket.fd, place.bytes.as_ptr(), length)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .dest_addr((&raw const place.to).cast())
            .dest_addr_len(name_bytes);
        Some(send.build().flags(socket.flags | Flags::SKIP_SUCCESS))
    }
}
