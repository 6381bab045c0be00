//! The listening socket: inherited from systemd, or made at the configured path. Made before the
//! sandbox, which would not allow it.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::uds_local_socket::Listener;
use listenfd::ListenFd;
use thiserror::Error;

const MODE: u32 = 0o660;

/// Why we cannot listen.
#[derive(Debug, Error)]
pub(crate) enum ListenError {
    /// Another dataplane answers there.
    #[error("another process listens on {0}")]
    InUse(PathBuf),
    /// Something that is no socket lies there.
    #[error("{0} exists and is no socket")]
    NotASocket(PathBuf),
    /// What was inherited is no Unix socket.
    #[error("the socket passed by LISTEN_FDS cannot be used: {0}")]
    Inherited(io::Error),
    /// Anything else.
    #[error("cannot listen on {0}: {1}")]
    Bind(PathBuf, io::Error),
}

/// The socket passed by LISTEN_FDS, or a new one at `path`.
pub(crate) fn listen(path: &Path) -> Result<OwnedFd, ListenError> {
    let mut inherited = ListenFd::from_env();
    match inherited.take_unix_listener(0) {
        Ok(Some(listener)) => Ok(listener.into()),
        Ok(None) => bind(path),
        Err(error) => Err(ListenError::Inherited(error)),
    }
}

/// Makes the socket file, replacing that of a dead process.
fn bind(path: &Path) -> Result<OwnedFd, ListenError> {
    let failed = |error| ListenError::Bind(path.to_owned(), error);
    remove_stale(path)?;
    let name = path.to_fs_name::<GenericFilePath>().map_err(failed)?;
    let options = ListenerOptions::new().name(name).reclaim_name(false);
    let listener = options.create_sync_as::<Listener>().map_err(failed)?;
    // The umask may have taken bits away; between the two calls there are fewer, never more.
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
    Ok(listener.into())
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |error| ListenError::Bind(path.to_owned(), error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("dataplane.sock");
        let first = bind(&path).expect("binds");
        let mode = path.metadata().expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(matches!(bind(&path), Err(ListenError::InUse(_))));
        drop(first);
        let _second = bind(&path).expect("replaces");
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notes.txt");
        fs::write(&path, "keep").expect("writes");
        assert!(matches!(bind(&path), Err(ListenError::NotASocket(_))));
        assert!(path.exists());
    }
}
