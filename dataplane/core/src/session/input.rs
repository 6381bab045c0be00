//! What the shell hands to a session: sockets under the shell's own names, and datagrams in a buffer
//! that belongs to the worker.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use rtpbridge_shared::vocab::Transport;

use crate::rtp::header::HeaderBytes;

/// Names an endpoint within its session, for the shell's event loop. The index is reused only with
/// another generation, so a stale key finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointKey(pub u32);

/// Names a socket; chosen by the shell, opaque to the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketKey(pub u64);

/// Names the sink of a recording; chosen by the shell, opaque to the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordingKey(pub u64);

/// A bound UDP socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalSocket {
    /// The shell's name for it.
    pub key: SocketKey,
    /// As bound.
    pub local: SocketAddr,
    /// As shown in SDP: `media_advertise_ip` where that is set.
    pub advertised: SocketAddr,
}

/// The sockets of a network endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndpointSockets {
    /// RTP (even port); for WebRTC everything. Its key names the endpoint's handshake.
    pub media: LocalSocket,
    /// Plain RTP: RTCP on the next odd port. WebRTC: everything on the address of the other family,
    /// where two are configured.
    pub second: Option<LocalSocket>,
}

/// Which sockets an endpoint needs: an even/odd pair for plain RTP, one for each address for WebRTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketNeed {
    /// Which of the configured addresses to bind.
    pub address: IpAddr,
    /// The address of the other family (WebRTC alone).
    pub second: Option<IpAddr>,
    /// Plain RTP or WebRTC.
    pub transport: Transport,
}

/// Which of an endpoint's sockets a datagram came in on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Channel {
    /// [`EndpointSockets::media`]
    Media,
    /// [`EndpointSockets::second`]
    Second,
}

impl EndpointSockets {
    /// The one or two that there are, [`media`](Self::media) first.
    pub fn iter(&self) -> impl Iterator<Item = LocalSocket> {
        [Some(self.media), self.second].into_iter().flatten()
    }
}

/// A worker's buffer for one datagram, with head room for longer headers and tail room for an
/// authentication tag, and a second area of the same size in which a copy is made when a datagram
/// goes to several destinations that each change it.
///
/// Usage: read into [`space`](Self::space), tell the length by [`set_len`](Self::set_len).
pub struct PacketBuffer {
    bytes: Box<[u8; Self::SIZE]>,
    scratch: Box<[u8; Self::SIZE]>,
    datagram: Range<usize>,
}

impl PacketBuffer {
    /// Longest datagram taken. Longer ones cannot be RTP on a path that carries calls.
    pub const MAX_DATAGRAM: usize = 2048;
    /// Room before a datagram.
    pub const HEAD_ROOM: usize = 64;
    /// Room behind it.
    pub const TAIL_ROOM: usize = 64;
    const SIZE: usize = Self::HEAD_ROOM + Self::MAX_DATAGRAM + Self::TAIL_ROOM;

    /// An empty buffer. Allocates; make one per worker.
    pub fn new() -> Self {
        Self {
            bytes: Box::new([0; Self::SIZE]),
            scratch: Box::new([0; Self::SIZE]),
            datagram: Self::HEAD_ROOM..Self::HEAD_ROOM,
        }
    }

    /// Where the next datagram is to be read into: [`MAX_DATAGRAM`](Self::MAX_DATAGRAM) bytes. One
    /// that is longer must be dropped, not cut.
    pub fn space(&mut self) -> &mut [u8] {
        self.datagram = Self::HEAD_ROOM..Self::HEAD_ROOM;
        &mut self.bytes[Self::HEAD_ROOM..Self::HEAD_ROOM + Self::MAX_DATAGRAM]
    }

    /// How much of [`space`](Self::space) was filled; more than there is counts as nothing.
    pub fn set_len(&mut self, len: usize) {
        let len = if len <= Self::MAX_DATAGRAM { len } else { 0 };
        self.datagram = Self::HEAD_ROOM..Self::HEAD_ROOM + len;
    }

    /// The datagram.
    pub fn datagram(&self) -> &[u8] {
        &self.bytes[self.datagram.clone()]
    }

    /// The datagram, to be decrypted in place.
    pub(crate) fn datagram_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.datagram.clone()]
    }

    /// Cuts what decrypting took off the end.
    pub(crate) fn truncate(&mut self, len: usize) {
        let end = self.datagram.start + len;
        self.datagram.end = self.datagram.end.min(end);
    }

    /// Puts a header of ours right before the payload, which lies at `payload` of the datagram behind
    /// a header of the peer's (head room takes what ours is longer), and gives the packet. The payload stays as it is, so this can
    /// be done for one destination after another.
    pub(crate) fn compose(&mut self, header: &HeaderBytes, payload: Range<usize>) -> &[u8] {
        let header_len = header.len();
        let end = (self.datagram.start + payload.end).min(Self::SIZE);
        let start = (self.datagram.start + payload.start).clamp(header_len, end);
        let packet = &mut self.bytes[start - header_len..end];
        packet[..header_len].copy_from_slice(header);
        packet
    }

    /// As [`compose`](Self::compose), but in the second area, to be changed further: the packet's
    /// length, and the area with room behind the packet.
    pub(crate) fn compose_copy(
        &mut self,
        header: &HeaderBytes,
        payload: Range<usize>,
    ) -> (usize, &mut [u8]) {
        let header_len = header.len();
        let end = (self.datagram.start + payload.end).min(Self::SIZE);
        let start = (self.datagram.start + payload.start).min(end);
        let len = (header_len + end - start).min(Self::SIZE);
        self.scratch[..header_len].copy_from_slice(header);
        self.scratch[header_len..len].copy_from_slice(&self.bytes[start..start + len - header_len]);
        (len, &mut self.scratch[..])
    }
}

impl Default for PacketBuffer {
    fn default() -> Self {
        Self::new()
    }
}
