//! UDP sockets as media wants them: non-blocking, marked with a DSCP, receive buffer of 256 KiB,
//! kernel arrival time on request. `recv_from` and `send_to` are one system call each.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Asked of SO_RCVBUF; the kernel grants what net.core.rmem_max allows.
const RECEIVE_BUFFER_BYTES: libc::c_int = 256 * 1024;
const CONTROL_BYTES: usize = 64;

/// A bound socket. Closed when dropped.
pub(crate) struct UdpSocket {
    fd: OwnedFd,
    local: SocketAddr,
}

/// One received datagram, whose bytes are in the caller's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Received {
    /// Length on the wire; more than the buffer holds means it was cut.
    pub(crate) bytes: usize,
    /// Who sent it.
    pub(crate) source: SocketAddr,
    /// When the kernel got it (SO_TIMESTAMPNS, nanoseconds since the epoch), when asked for.
    pub(crate) kernel_ns: Option<u64>,
}

impl UdpSocket {
    /// Binds to `local` (port 0: any), marking what is sent with `dscp` (0 to 63).
    pub(crate) fn bind(local: SocketAddr, dscp: u8) -> io::Result<Self> {
        let family = match local {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: a plain system call without pointers.
        let raw = check(unsafe { libc::socket(family, kind, 0) })?;
        // SAFETY: `raw` was just opened and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        set_options(&fd, local, dscp)?;
        let (name, name_bytes) = to_sockaddr(local);
        // SAFETY: `name` is a socket address of `name_bytes` initialised bytes that outlives the call.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), name_bytes) })?;
        let local = local_address(&fd)?;
        Ok(Self { fd, local })
    }

    /// The address it is bound to.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// For the ring's table of files, which holds the socket open by itself.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The next datagram; `WouldBlock` when there is none.
    pub(crate) fn recv_from(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut name = MaybeUninit::<SockAddr>::zeroed();
        let mut name_bytes = mem::size_of::<SockAddr>() as libc::socklen_t;
        // SAFETY: buffer and name are writable for the lengths given.
        let bytes = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_TRUNC,
                name.as_mut_ptr().cast(),
                &raw mut name_bytes,
            )
        };
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: zeroed is a valid SockAddr, and the kernel wrote only plain integers over it.
        let source = from_sockaddr(unsafe { name.assume_init_ref() })?;
        Ok(Received {
            bytes,
            source,
            kernel_ns: None,
        })
    }

    /// As `recv_from`, with the kernel's arrival time.
    pub(crate) fn recv_timestamped(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut name = MaybeUninit::<SockAddr>::zeroed();
        let mut control = ControlBuffer([0; CONTROL_BYTES]);
        let mut vector = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: msghdr is plain data for which zeroes are valid.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_name = name.as_mut_ptr().cast();
        header.msg_namelen = mem::size_of::<SockAddr>() as libc::socklen_t;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES as _;
        // SAFETY: every pointer in `header` is to a live local of the length given beside it.
        let bytes = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut header, libc::MSG_TRUNC) };
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: zeroed is a valid SockAddr, and the kernel wrote only plain integers over it.
        let source = from_sockaddr(unsafe { name.assume_init_ref() })?;
        Ok(Received {
            bytes,
            source,
            kernel_ns: kernel_time(&header),
        })
    }

    /// Sends one datagram.
    pub(crate) fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let (name, name_bytes) = to_sockaddr(to);
        // SAFETY: `datagram` and `name` are readable for the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                datagram.as_ptr().cast(),
                datagram.len(),
                libc::MSG_NOSIGNAL,
                (&raw const name).cast(),
                name_bytes,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Both families in their own layout; the family field comes first in each.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union SockAddr {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl SockAddr {
    /// What the kernel wrote as a name; the rest is zeroes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        // SAFETY: zeroes are valid for both layouts.
        let mut name: Self = unsafe { mem::zeroed() };
        let length = bytes.len().min(mem::size_of::<Self>());
        // SAFETY: at most its own size of plain bytes is written over it, for which any are valid.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut name).cast(), length);
        }
        name
    }
}

/// Aligned as cmsghdr must be.
#[repr(C, align(8))]
struct ControlBuffer([u8; CONTROL_BYTES]);

fn set_options(fd: &OwnedFd, local: SocketAddr, dscp: u8) -> io::Result<()> {
    // The two lowest bits of the byte are ECN (RFC 3168), which media leaves alone.
    let traffic_class = libc::c_int::from(dscp.min(63)) << 2;
    if local.is_ipv4() {
        set_option(fd, libc::IPPROTO_IP, libc::IP_TOS, traffic_class)?;
    } else {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, traffic_class)?;
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER_BYTES)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

fn set_option(
    fd: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: `value` is readable for its own size.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

fn local_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    let mut name = MaybeUninit::<SockAddr>::zeroed();
    let mut name_bytes = mem::size_of::<SockAddr>() as libc::socklen_t;
    // SAFETY: `name` is writable for `name_bytes`.
    check(unsafe {
        libc::getsockname(
            fd.as_raw_fd(),
            name.as_mut_ptr().cast(),
            &raw mut name_bytes,
        )
    })?;
    // SAFETY: zeroed is a valid SockAddr, and the kernel wrote only plain integers over it.
    from_sockaddr(unsafe { name.assume_init_ref() })
}

fn kernel_time(header: &libc::msghdr) -> Option<u64> {
    // SAFETY: `header` was filled by recvmsg, its control buffer is alive in the caller.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so it points to a cmsghdr inside the control buffer.
        let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_TIMESTAMPNS {
            // SAFETY: the kernel puts a timespec into this kind of message; it may be unaligned.
            let time: libc::timespec = unsafe {
                libc::CMSG_DATA(message)
                    .cast::<libc::timespec>()
                    .read_unaligned()
            };
            let seconds = u64::try_from(time.tv_sec).ok()?;
            let nanos = u64::try_from(time.tv_nsec).ok()?;
            return seconds.checked_mul(1_000_000_000)?.checked_add(nanos);
        }
        // SAFETY: as for CMSG_FIRSTHDR; `message` came from this header.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

pub(super) fn to_sockaddr(address: SocketAddr) -> (SockAddr, libc::socklen_t) {
    match address {
        SocketAddr::V4(v4) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            (SockAddr { v4: name }, mem::size_of_val(&name) as _)
        }
        SocketAddr::V6(v6) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            (SockAddr { v6: name }, mem::size_of_val(&name) as _)
        }
    }
}

pub(super) fn from_sockaddr(name: &SockAddr) -> io::Result<SocketAddr> {
    // SAFETY: all fields are plain integers and every SockAddr here began zeroed, so each view of
    // the union is initialised.
    let (family, v4, v6) = unsafe { (i32::from(name.family), &name.v4, &name.v6) };
    match family {
        libc::AF_INET => Ok(SocketAddr::V4(SocketAddrV4::new(
            Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()),
            u16::from_be(v4.sin_port),
        ))),
        libc::AF_INET6 => Ok(SocketAddr::V6(SocketAddrV6::new(
            Ipv6Addr::from(v6.sin6_addr.s6_addr),
            u16::from_be(v6.sin6_port),
            v6.sin6_flowinfo,
            v6.sin6_scope_id,
        ))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn check(outcome: libc::c_int) -> io::Result<libc::c_int> {
    if outcome < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;
    use std::time::{Duration, Instant};

    use nix::sys::socket::{getsockopt, sockopt};

    fn receive(socket: &UdpSocket, buffer: &mut [u8], stamped: bool) -> Received {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let outcome = if stamped {
                socket.recv_timestamped(buffer)
            } else {
                socket.recv_from(buffer)
            };
            match outcome {
                Ok(received) => return received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "no datagram came");
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn datagrams_cross_in_both_families() {
        for ip in ["127.0.0.1", "::1"] {
            let local = SocketAddr::new(ip.parse().expect("an address"), 0);
            let a = UdpSocket::bind(local, 46).expect("binds");
            let b = UdpSocket::bind(local, 46).expect("binds");
            let mut buffer = [0; 16];
            a.send_to(b"hello", b.local()).expect("sends");
            let received = receive(&b, &mut buffer, false);
            assert_eq!(&buffer[..received.bytes], b"hello");
            assert_eq!(received.source, a.local());
            assert_eq!(received.kernel_ns, None);
        }
    }

    #[test]
    fn what_is_sent_is_marked_in_both_families() {
        let bind = |ip: &str| {
            let local = SocketAddr::new(ip.parse().expect("an address"), 0);
            UdpSocket::bind(local, 46).expect("binds").fd
        };
        let marked = getsockopt(&bind("127.0.0.1"), sockopt::Ipv4Tos).expect("an option");
        assert_eq!(marked, 46 << 2);
        let marked = getsockopt(&bind("::1"), sockopt::Ipv6TClass).expect("an option");
        assert_eq!(marked, 46 << 2);
    }

    #[test]
    fn the_kernel_says_when_a_datagram_arrived() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let a = UdpSocket::bind(local, 0).expect("binds");
        let b = UdpSocket::bind(local, 0).expect("binds");
        let mut buffer = [0; 4];
        let before = clock::wall_ns();
        a.send_to(b"too long", b.local()).expect("sends");
        let received = receive(&b, &mut buffer, true);
        let after = clock::wall_ns();
        assert_eq!(received.bytes, 8, "the length on the wire shows the cut");
        let at = received.kernel_ns.expect("a kernel time stamp");
        assert!(before <= at && at <= after, "{before} {at} {after}");
    }

    #[test]
    fn an_empty_socket_would_block_and_a_taken_port_is_an_error() {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 0).expect("binds");
        let error = socket.recv_from(&mut [0; 4]).expect_err("nothing there");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let error = UdpSocket::bind(socket.local(), 0).err().expect("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
