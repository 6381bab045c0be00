//! The listening sockets: passed by the service manager (LISTEN_FDS, names `control` and `admin`),
//! taken over from a living control process, or made here.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rtpbridge_shared::config::Config;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::takeover::{self, Heir};

const BACKLOG: i32 = 1024;
const ADMIN_MODE: u32 = 0o660;

/// Everything this process accepts connections on.
#[derive(Debug)]
pub struct Listeners {
    /// The control addresses; never empty.
    pub control: Vec<TcpListener>,
    /// The admin socket.
    pub admin: UnixListener,
    /// The living process they came from, which waits to hear that we serve.
    pub heir: Option<Heir>,
}

/// Why there are no listeners.
#[derive(Debug, Error)]
pub enum ListenError {
    /// An address is in use or not ours.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The admin socket's path cannot be used.
    #[error("cannot listen on {path}: {source}", path = path.display())]
    Admin {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A passed socket is of the wrong kind.
    #[error("socket {name} of LISTEN_FDS cannot be used: {source}")]
    Passed {
        /// Its name.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// A living process has the admin socket and does not give it away.
    #[error("another control process lives behind {path}: {source}", path = path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
        /// Why it did not hand over.
        source: io::Error,
    },
}

impl Listeners {
    /// Finds or makes the sockets.
    ///
    /// # Errors
    /// When one cannot be had.
    pub fn obtain(config: &Config) -> Result<Self, ListenError> {
        let passed = Passed::from_environment()?;
        if passed.admin.is_none()
            && let Ok(living) = UnixStream::connect(&config.admin_socket)
        {
            return takeover::ask(living).map_err(|source| ListenError::Occupied {
                path: config.admin_socket.clone(),
                source,
            });
        }
        let control = if passed.control.is_empty() {
            bind_all(&config.listen)?
        } else {
            passed.control
        };
        let admin = match passed.admin {
            Some(admin) => admin,
            None => bind_admin(&config.admin_socket).map_err(|source| ListenError::Admin {
                path: config.admin_socket.clone(),
                source,
            })?,
        };
        Ok(Self {
            control,
            admin,
            heir: None,
        })
    }

    /// The addresses that clients connect to.
    pub fn bound(&self) -> Vec<SocketAddr> {
        let addresses = self.control.iter().map(TcpListener::local_addr);
        addresses.filter_map(Result::ok).collect()
    }
}

#[derive(Default)]
struct Passed {
    control: Vec<TcpListener>,
    admin: Option<UnixListener>,
}

impl Passed {
    fn from_environment() -> Result<Self, ListenError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut sockets = ListenFd::from_env();
        let mut passed = Self::default();
        for at in 0..sockets.len() {
            let name = names.get(at).copied().unwrap_or_default();
            let failed = |source| ListenError::Passed {
                name: name.to_owned(),
                source,
            };
            if name == "admin" {
                passed.admin = sockets.take_unix_listener(at).map_err(failed)?;
            } else {
                let control = sockets.take_tcp_listener(at).map_err(failed)?;
                passed.control.extend(control);
            }
        }
        Ok(passed)
    }
}

fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    let bound = addresses.iter().map(|address| {
        bind(*address).map_err(|source| ListenError::Address {
            address: *address,
            source,
        })
    });
    bound.collect()
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A predecessor's connections in TIME_WAIT do not keep the address.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // 0.0.0.0 and [::] may both be configured.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Nobody answers behind `path`, so a socket file there is stale.
fn bind_admin(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is something that is not a socket",
            ));
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(ADMIN_MODE))?;
    Ok(listener)
}
