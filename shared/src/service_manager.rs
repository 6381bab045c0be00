//! Telling the service manager how we are: sd_notify(3), of which sd-notify writes the messages.
//!
//! Its own `notify` waits while the manager's queue is full (ten messages, on most machines). A
//! manager that is stuck must not hold up the loops that serve calls, so what is said here is said
//! at once or not at all: whatever matters is repeated.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{MsgFlags, send};
use sd_notify::NotifyState;

/// Says that the program is ready, waiting for the manager to take it: it is said only once.
///
/// # Errors
/// There is a manager, and it cannot be reached.
pub fn tell_ready() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready])
}

/// Tells `state` to the manager, if there is one, without waiting.
///
/// # Errors
/// The manager cannot be reached, or has not read what it was told before (`WouldBlock`).
pub fn tell(state: NotifyState<'_>) -> io::Result<()> {
    match env::var_os("NOTIFY_SOCKET") {
        Some(path) => send_to(&path, state),
        None => Ok(()),
    }
}

fn send_to(path: &OsStr, state: NotifyState<'_>) -> io::Result<()> {
    let mut message = String::new();
    // A string takes everything.
    let _ = writeln!(message, "{state}");
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(socket.as_raw_fd(), message.as_bytes(), flags)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bind");
        let tell = || send_to(path.as_os_str(), NotifyState::Watchdog);
        let refused = (0..100_000).find_map(|_| tell().err());
        let refused = refused.expect("the queue has an end");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let mut buffer = [0; 64];
        let read = manager.recv(&mut buffer).expect("a message");
        assert_eq!(&buffer[..read], b"WATCHDOG=1\n");
        tell().expect("there is room again");
    }
}
