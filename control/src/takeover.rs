//! Taking over from a living control process without a gap: the new one asks on the admin socket
//! (`POST /take-over`, an HTTP upgrade), the old one passes its listening sockets (SCM_RIGHTS) and
//! goes on serving; when the new one says that it serves, the old one leaves.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::listeners::Listeners;

/// Path and protocol name of the upgrade.
pub const PATH: &str = "/take-over";
/// Value of the `Upgrade` header.
pub const PROTOCOL: &str = "rtpbridge-take-over";

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_HEAD_BYTES: usize = 4096;
/// As many listeners as one message carries; the kernel's own bound is 253.
const MAX_SOCKETS: usize = 64;
const SERVING: u8 = 1;

/// The other end of a take-over: the old process, as the new one sees it.
#[derive(Debug)]
pub struct Heir {
    stream: UnixStream,
}

impl Heir {
    /// Tells the old process that it may leave.
    pub fn announce(mut self) {
        // An old process that is gone already needs no message.
        let _ = self.stream.write_all(&[SERVING]);
    }
}

/// The new process: asks for the listeners of the process behind `stream`.
///
/// # Errors
/// When it does not answer as expected within 5 s.
pub fn ask(mut stream: UnixStream) -> io::Result<Listeners> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nHost: rtpbridge\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let head = read_head(&mut stream)?;
    if !head.starts_with("HTTP/1.1 101") {
        let line = head.lines().next().unwrap_or_default();
        return Err(io::Error::other(format!("it answered {line}")));
    }
    let (count, mut sockets) = receive(&stream)?;
    let admin = sockets.pop().ok_or(io::ErrorKind::InvalidData)?;
    if sockets.is_empty() || sockets.len() != usize::from(count) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Listeners {
        control: sockets.into_iter().map(TcpListener::from).collect(),
        admin: UnixListener::from(admin),
        heir: Some(Heir { stream }),
    })
}

/// The old process: passes the sockets, then waits for the new one to serve. Blocks.
///
/// # Errors
/// When the new process ends before it serves.
pub fn give(
    mut stream: UnixStream,
    control: &[BorrowedFd<'_>],
    admin: BorrowedFd<'_>,
    patience: Duration,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let count = u8::try_from(control.len()).map_err(io::Error::other)?;
    let mut sockets = control.to_vec();
    sockets.push(admin);
    if sockets.len() > MAX_SOCKETS {
        return Err(io::Error::other("too many listeners to pass"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("too many listeners to pass"));
    }
    let payload = [count];
    let payload = [IoSlice::new(&payload)];
    sendmsg(
        stream.as_fd(),
        &payload,
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    if answer == [SERVING] {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Byte by byte, so that the message with the sockets stays in the kernel.
fn read_head(stream: &mut UnixStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
        if head.len() > MAX_HEAD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn receive(stream: &UnixStream) -> io::Result<(u8, Vec<OwnedFd>)> {
    let mut payload = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(&mut payload)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes != payload.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            sockets.extend(passed);
        }
    }
    let [count] = payload;
    Ok((count, sockets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn listeners_cross_the_socket_and_still_listen() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = tcp.local_addr().expect("address");
        let admin = UnixListener::bind(dir.path().join("admin.sock")).expect("socket");
        let (mut old, new) = UnixStream::pair().expect("pair");
        let giver = thread::spawn(move || {
            read_head(&mut old).expect("request");
            old.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                .expect("answer");
            give(old, &[tcp.as_fd()], admin.as_fd(), PATIENCE)
        });
        let mut listeners = ask(new).expect("taken over");
        listeners.heir.take().expect("an heir").announce();
        giver.join().expect("no panic").expect("told");
        assert_eq!(listeners.bound(), [address]);
        let client = std::net::TcpStream::connect(address).expect("connected");
        let (accepted, _) = listeners.control[0].accept().expect("accepted");
        assert_eq!(accepted.peer_addr().ok(), client.local_addr().ok());
    }

    #[test]
    fn a_refusal_is_an_error() {
        let (mut old, new) = UnixStream::pair().expect("pair");
        let asker = thread::spawn(move || ask(new));
        read_head(&mut old).expect("request");
        old.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n")
            .expect("answer");
        let error = asker.join().expect("no panic").expect_err("refused");
        assert!(error.to_string().contains("404"));
    }
}
