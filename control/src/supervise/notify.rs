//! How a child says that it is ready: the datagram protocol of sd_notify(3), on a socket of ours in
//! the runtime directory. The children speak it to systemd anyway.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net as blocking;
use std::path::{Path, PathBuf};

use nix::sys::socket::{MsgFlags, recv};
use tokio::net::UnixDatagram;

const LONGEST_MESSAGE: usize = 4096;

/// One child's socket; the file goes when this is dropped.
#[derive(Debug)]
pub(super) struct ReadySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadySocketError {
    /// Somebody listens there.
    #[error("another supervisor uses {}", .0.display())]
    InUse(PathBuf),
    /// The operating system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl ReadySocket {
    /// Binds `path`, replacing the file of a supervisor that is gone.
    pub(super) fn bind(path: PathBuf) -> Result<Self, ReadySocketError> {
        match try_bind(&path) {
            Ok(socket) => Ok(Self { socket, path }),
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
                Err(ReadySocketError::InUse(path))
            }
            Err(source) => Err(ReadySocketError::Io { path, source }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next message that says ready; others are read and forgotten. Cancel-safe.
    pub(super) async fn ready(&self) {
        let mut message = [0; LONGEST_MESSAGE];
        loop {
            match self.socket.recv(&mut message).await {
                Ok(length) if says_ready(message.get(..length)) => return,
                Ok(_) => {}
                // A datagram socket of ours that fails is never ready again.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Whether one of the messages that are there already says ready.
    pub(super) fn was_ready(&self) -> bool {
        let mut message = [0; LONGEST_MESSAGE];
        let mut ready = false;
        // Asks the kernel itself: the runtime may not have seen the datagram yet.
        let raw = self.socket.as_raw_fd();
        while let Ok(length) = recv(raw, &mut message, MsgFlags::MSG_DONTWAIT) {
            ready |= says_ready(message.get(..length));
        }
        ready
    }
}

impl Drop for ReadySocket {
    fn drop(&mut self) {
        // Left behind, it would be replaced by the next one.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn try_bind(path: &Path) -> io::Result<UnixDatagram> {
    match UnixDatagram::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let probe = blocking::UnixDatagram::unbound()?;
            if probe.connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixDatagram::bind(path)
        }
        outcome => outcome,
    }
}

fn says_ready(message: Option<&[u8]>) -> bool {
    let mut lines = message.unwrap_or_default().split(|byte| *byte == b'\n');
    lines.any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn send(path: &Path, message: &[u8]) {
        let socket = blocking::UnixDatagram::unbound().expect("socket");
        socket.send_to(message, path).expect("sent");
    }

    #[tokio::test]
    async fn only_a_ready_message_counts() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let socket = ReadySocket::bind(dir.path().join("a.up")).expect("bound");
        send(socket.path(), b"STATUS=READY=1 soon");
        send(socket.path(), b"WATCHDOG=1");
        assert!(!socket.was_ready());
        send(socket.path(), b"STATUS=up\nREADY=1");
        let patience = Duration::from_secs(5);
        tokio::time::timeout(patience, socket.ready())
            .await
            .expect("ready");
    }

    #[tokio::test]
    async fn a_dead_supervisors_file_is_replaced_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("a.up");
        drop(blocking::UnixDatagram::bind(&path).expect("left behind"));
        let socket = ReadySocket::bind(path.clone()).expect("replaced");
        let second = ReadySocket::bind(path.clone());
        assert!(matches!(second, Err(ReadySocketError::InUse(_))));
        drop(socket);
        assert!(!path.exists());
    }
}
