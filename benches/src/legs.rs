//! One party's side of a call: its socket, its stream, and what it has counted.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use rtpbridge_tests::peer::party::socket_pair;

const HEADER_BYTES: usize = 12;
const PACKET_BYTES: usize = HEADER_BYTES + 160;
const FRAME_SAMPLES: u32 = 160;

/// A party's sockets and outgoing stream.
#[derive(Debug)]
pub struct Leg {
    socket: UdpSocket,
    // Takes the server's RTCP, so that no port-unreachable messages disturb the measurement.
    _rtcp: UdpSocket,
    /// Where its packets go.
    pub to: SocketAddr,
    packet: [u8; PACKET_BYTES],
    sequence: u16,
    timestamp: u32,
}

/// What a received packet says.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The leg that sent it.
    pub leg: u32,
    /// The run it belongs to.
    pub run: u32,
    /// From just before the send to the arrival in our kernel.
    pub latency_ns: u64,
}

/// Memory that receiving uses again and again.
#[derive(Debug)]
pub struct ReceiveBuffer {
    data: [u8; 2048],
    control: Vec<u8>,
}

impl Default for ReceiveBuffer {
    fn default() -> Self {
        Self {
            data: [0; 2048],
            control: cmsg_space!(TimeSpec),
        }
    }
}

impl Leg {
    /// Binds a pair of ports on the loopback address; `index` names the leg in its packets.
    pub fn bind(index: u32) -> io::Result<Self> {
        let (socket, rtcp) = socket_pair(Ipv4Addr::LOCALHOST.into());
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::RcvBuf, &(256 * 1024))?;
        let mut packet = [0xd5; PACKET_BYTES];
        packet[0] = 0x80;
        packet[1] = 0;
        packet[8..12].copy_from_slice(&(0x1000_0000 | index).to_be_bytes());
        packet[20..24].copy_from_slice(&index.to_be_bytes());
        Ok(Self {
            socket,
            _rtcp: rtcp,
            to: SocketAddr::from(([127, 0, 0, 1], 9)),
            packet,
            sequence: 1,
            timestamp: 0,
        })
    }

    /// Its own address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Its socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends the next packet of the stream.
    pub fn send(&mut self, run: u32) -> io::Result<()> {
        self.packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        self.packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        self.packet[24..28].copy_from_slice(&run.to_be_bytes());
        self.packet[12..20].copy_from_slice(&wall_ns().to_be_bytes());
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME_SAMPLES);
        self.socket.send_to(&self.packet, self.to).map(|_| ())
    }

    /// One waiting packet, if there is any; none also for what is not a packet of a leg (RTCP).
    pub fn receive(&self, buffer: &mut ReceiveBuffer) -> io::Result<Option<Arrival>> {
        let mut slices = [IoSliceMut::new(&mut buffer.data)];
        let received = recvmsg::<()>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut buffer.control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let arrived = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        let arrived_ns = arrived.map_or_else(wall_ns, saturated_ns);
        let bytes = received.bytes;
        let Some(packet) = buffer.data[..bytes].first_chunk::<PACKET_BYTES>() else {
            return Ok(None);
        };
        let word = |at: usize| {
            u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
        };
        let sent_ns = u64::from(word(12)) << 32 | u64::from(word(16));
        Ok(Some(Arrival {
            leg: word(20),
            run: word(24),
            latency_ns: arrived_ns.saturating_sub(sent_ns),
        }))
    }
}

/// The kernel's wall clock, which also stamps arrivals.
fn wall_ns() -> u64 {
    let clock = nix::time::ClockId::CLOCK_REALTIME;
    let time = nix::time::clock_gettime(clock).expect("there is a wall clock");
    saturated_ns(Duration::from(time))
}

fn saturated_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
