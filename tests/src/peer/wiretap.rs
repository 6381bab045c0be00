//! A control capture: what arrives on the loopback for some UDP ports, with the time at which the
//! kernel took it in (SO_TIMESTAMPNS), whoever it is for and whenever that one reads it.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal};

/// Other tests use the loopback as well, and this one hears all of them.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024 * 1024;
const LOOK: i64 = 20_000;
const UDP: u8 = 17;

/// One datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    /// When it arrived, since the Unix epoch.
    pub at: Duration,
    /// How it asked to be treated on the way (DSCP, RFC 2474).
    pub dscp: u8,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// A running capture.
#[derive(Debug)]
pub struct Wiretap {
    /// Wall nanoseconds after which nothing counts; 0 while it goes on.
    until_ns: Arc<AtomicU64>,
    thread: JoinHandle<Vec<Heard>>,
}

impl Wiretap {
    /// Listens for datagrams to these ports.
    pub fn start(ports: Vec<u16>) -> Self {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthIp,
        )
        .expect("tests run as root");
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).expect("time stamps");
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).expect("as root");
        let timeout = TimeVal::new(0, LOOK);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).expect("a timeout");
        let until_ns = Arc::new(AtomicU64::new(0));
        let until = Arc::clone(&until_ns);
        let thread = thread::spawn(move || {
            let mut heard = Vec::new();
            loop {
                // Looked at before the last read, which finds the queue empty.
                let until_ns = until.load(Ordering::Acquire);
                let is_last = |at: Duration| until_ns > 0 && at > Duration::from_nanos(until_ns);
                match next(&socket) {
                    Some(datagram) if !is_last(datagram.at) => {
                        heard.extend(datagram_for(&ports, datagram));
                    }
                    None if until_ns == 0 => {}
                    _ => return heard,
                }
            }
        });
        Self { until_ns, thread }
    }

    /// Ends it; gives what it heard.
    pub fn finish(self) -> Vec<Heard> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ns = now.expect("after 1970").as_nanos() as u64;
        self.until_ns.store(now_ns, Ordering::Release);
        self.thread.join().expect("does not panic")
    }
}

/// The next packet from its IP header on; none when there has been none for a while.
fn next(socket: &OwnedFd) -> Option<Heard> {
    let mut buffer = [0; 4096];
    let mut control = cmsg_space!(TimeSpec);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let (descriptor, flags) = (socket.as_raw_fd(), MsgFlags::empty());
    let received = recvmsg::<()>(descriptor, &mut slices, Some(&mut control), flags).ok()?;
    let at = received
        .cmsgs()
        .ok()?
        .find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        })
        .expect("the kernel says when");
    let bytes = received.bytes;
    Some(Heard {
        at,
        dscp: buffer[1] >> 2,
        payload: buffer[..bytes].to_vec(),
    })
}

fn datagram_for(ports: &[u16], packet: Heard) -> Option<Heard> {
    let header_bytes = usize::from(packet.payload.first()? & 0xf) * 4;
    let udp = packet.payload.get(header_bytes..)?;
    let port = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
    let is_ours = packet.payload.get(9) == Some(&UDP) && ports.contains(&port);
    is_ours.then(|| Heard {
        at: packet.at,
        dscp: packet.dscp,
        payload: udp.get(8..).unwrap_or_default().to_vec(),
    })
}
