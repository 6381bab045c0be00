//! One party's side of a call: its socket, its stream, and what it has counted.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use rtpbridge_tests::peer::dtls::OPUS;
use rtpbridge_tests::peer::party::socket_pair;
use rtpbridge_tests::peer::{Description, DtlsParty, Offer};
use rtpbridge_tests::sound::Coding;

const HEADER_BYTES: usize = 12;
/// What of the payload the tool reads: the send time, the leg and the run.
const STAMP_BYTES: usize = 16;
/// A frame of Opus at 32 kbit/s.
const OPUS_BYTES: usize = 80;

/// A party's sockets and outgoing stream.
pub struct Leg {
    wire: Wire,
    /// Where its packets go.
    pub to: SocketAddr,
    content: Content,
    packet: Vec<u8>,
    frame_samples: u32,
    sequence: u16,
    timestamp: u32,
}

/// How a leg reaches the server.
enum Wire {
    Plain {
        socket: UdpSocket,
        // Takes the server's RTCP, so that no port-unreachable messages disturb the measurement.
        _rtcp: UdpSocket,
    },
    Webrtc(Box<DtlsParty>),
}

/// What a leg sends.
enum Content {
    /// Always the same bytes, but for a stamp that comes back to us.
    Stamp,
    /// Frames of speech, round and round.
    Speech {
        coding: Coding,
        frames: Arc<[Vec<u8>]>,
        next: usize,
    },
}

/// A received packet.
#[derive(Clone, Copy, Debug)]
pub enum Arrival {
    /// One of ours, as it was sent.
    Stamped(Stamp),
    /// Sound for a leg that speaks.
    Sound,
}

/// What a packet of ours says.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
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
    /// Plain RTP with PCMU on a pair of ports on the loopback address; `index` names the leg in its
    /// packets.
    pub fn bind(index: u32) -> io::Result<Self> {
        Self::plain(index, 0, 160, 160)
    }

    /// Plain RTP with packets of Opus size.
    pub fn bind_opus(index: u32) -> io::Result<Self> {
        Self::plain(index, OPUS, OPUS_BYTES, 960)
    }

    /// WebRTC with packets of Opus size.
    pub fn bind_webrtc(index: u32) -> io::Result<Self> {
        let party = DtlsParty::bind();
        prepare(party.socket())?;
        let wire = Wire::Webrtc(Box::new(party));
        Ok(Self::new(wire, index, OPUS, OPUS_BYTES, 960))
    }

    /// Plain RTP that says `frames` of this codec, from one on that its index names.
    pub fn bind_speaking(index: u32, coding: Coding, frames: Arc<[Vec<u8>]>) -> io::Result<Self> {
        let (payload_type, _) = coding.format();
        let mut leg = Self::plain(index, payload_type, 0, coding.frame_ticks())?;
        leg.content = Content::Speech {
            coding,
            // Far enough apart that no two say the same at a time.
            next: index as usize * 37 % frames.len().max(1),
            frames,
        };
        Ok(leg)
    }

    fn plain(index: u32, payload_type: u8, bytes: usize, samples: u32) -> io::Result<Self> {
        let (socket, rtcp) = socket_pair(Ipv4Addr::LOCALHOST.into());
        socket.set_nonblocking(true)?;
        prepare(&socket)?;
        let wire = Wire::Plain {
            socket,
            _rtcp: rtcp,
        };
        Ok(Self::new(wire, index, payload_type, bytes, samples))
    }

    fn new(wire: Wire, index: u32, payload_type: u8, bytes: usize, frame_samples: u32) -> Self {
        let mut packet = vec![0xd5; HEADER_BYTES + bytes];
        packet[0] = 0x80;
        packet[1] = payload_type;
        packet[8..12].copy_from_slice(&(0x1000_0000 | index).to_be_bytes());
        if let Some(place) = packet.get_mut(20..24) {
            place.copy_from_slice(&index.to_be_bytes());
        }
        Self {
            wire,
            to: SocketAddr::from(([127, 0, 0, 1], 9)),
            content: Content::Stamp,
            packet,
            frame_samples,
            sequence: 1,
            timestamp: 0,
        }
    }

    /// Its own address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    /// Its description.
    pub fn offer(&self) -> io::Result<String> {
        if let Content::Speech { coding, .. } = &self.content {
            let offer = Offer::with_codecs(self.address()?, &[coding.format()]);
            return Ok(match coding {
                Coding::Opus => offer.attribute("fmtp:111 minptime=10;useinbandfec=1"),
                _ => offer,
            }
            .write());
        }
        Ok(match &self.wire {
            Wire::Webrtc(party) => party.offer(),
            Wire::Plain { .. } if self.packet[1] == OPUS => {
                Offer::with_codecs(self.address()?, &[(OPUS, "opus/48000/2")]).write()
            }
            Wire::Plain { .. } => Offer::pcmu(self.address()?).write(),
        })
    }

    /// Does what the answer makes possible: knows where to send, or shakes hands.
    pub fn take_answer(&mut self, answer: &str) -> Result<(), String> {
        match &mut self.wire {
            Wire::Plain { .. } => self.to = Description::parse(answer).address(),
            Wire::Webrtc(party) => {
                party.connect(answer)?;
                self.to = party.bridge;
            }
        }
        Ok(())
    }

    /// Whether it sends sound rather than stamps.
    pub fn speaks(&self) -> bool {
        matches!(self.content, Content::Speech { .. })
    }

    /// Its socket.
    pub fn socket(&self) -> &UdpSocket {
        match &self.wire {
            Wire::Plain { socket, .. } => socket,
            Wire::Webrtc(party) => party.socket(),
        }
    }

    /// Keeps the consent of a leg that is silent for a while.
    pub fn keep_alive(&self) -> Result<(), String> {
        match &self.wire {
            Wire::Plain { .. } => Ok(()),
            Wire::Webrtc(party) => party.check(),
        }
    }

    /// Sends the next packet of the stream.
    pub fn send(&mut self, run: u32) -> io::Result<()> {
        self.packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        self.packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        match &mut self.content {
            Content::Stamp => {
                self.packet[24..28].copy_from_slice(&run.to_be_bytes());
                self.packet[12..20].copy_from_slice(&wall_ns().to_be_bytes());
            }
            Content::Speech { frames, next, .. } => {
                self.packet.truncate(HEADER_BYTES);
                let frame = frames.get(*next);
                self.packet.extend(frame.into_iter().flatten());
                *next = (*next + 1) % frames.len().max(1);
            }
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.frame_samples);
        match &mut self.wire {
            Wire::Plain { socket, .. } => socket.send_to(&self.packet, self.to).map(|_| ()),
            Wire::Webrtc(party) => {
                let sealed = party.protect(&self.packet);
                let sealed = sealed.ok_or_else(|| io::Error::other("no keys"))?;
                party.socket().send(&sealed).map(|_| ())
            }
        }
    }

    /// One waiting packet, if there is any; none also for what is not a packet for a leg (RTCP).
    pub fn receive(&mut self, buffer: &mut ReceiveBuffer) -> io::Result<Option<Arrival>> {
        let mut slices = [IoSliceMut::new(&mut buffer.data)];
        let received = recvmsg::<()>(
            self.socket().as_raw_fd(),
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
        let datagram = &buffer.data[..bytes];
        let opened = match &mut self.wire {
            Wire::Plain { .. } => None,
            Wire::Webrtc(party) => match party.unprotect(datagram) {
                None => return Ok(None),
                opened => opened,
            },
        };
        let packet = opened.as_deref().unwrap_or(datagram);
        if matches!(self.content, Content::Speech { .. }) {
            let is_ours = packet.len() > HEADER_BYTES && packet[1] & 0x7f == self.packet[1];
            return Ok(is_ours.then_some(Arrival::Sound));
        }
        if packet.len() != self.packet.len() {
            return Ok(None);
        }
        let Some(packet) = packet.first_chunk::<{ HEADER_BYTES + STAMP_BYTES }>() else {
            return Ok(None);
        };
        let word = |at: usize| {
            u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
        };
        let sent_ns = u64::from(word(12)) << 32 | u64::from(word(16));
        Ok(Some(Arrival::Stamped(Stamp {
            leg: word(20),
            run: word(24),
            latency_ns: arrived_ns.saturating_sub(sent_ns),
        })))
    }
}

fn prepare(socket: &UdpSocket) -> io::Result<()> {
    setsockopt(socket, sockopt::ReceiveTimestampns, &true)?;
    Ok(setsockopt(socket, sockopt::RcvBuf, &(256 * 1024))?)
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
