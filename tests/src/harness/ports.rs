//! Ports of one test: blocks below the ephemeral range, each held by a file lock for as long as the
//! test lives, so that tests in other processes never meet.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};

const FIRST_PORT: u16 = 10_000;
const BLOCK_PORTS: u16 = 200;
const BLOCKS: u16 = 110;
/// Ports of a block kept for listeners; the rest is for media.
const LISTENER_PORTS: u16 = 10;

/// One or more adjacent blocks; free again when dropped.
#[derive(Debug)]
pub struct PortBlock {
    first: u16,
    last: u16,
    next_listener: std::cell::Cell<u16>,
    _locks: Vec<Flock<File>>,
}

impl PortBlock {
    /// Reserves enough adjacent blocks for `media_ports` ports of media.
    pub fn reserve(media_ports: u16) -> Self {
        let wanted = (media_ports + LISTENER_PORTS).div_ceil(BLOCK_PORTS);
        let start: u16 = rand::random_range(0..BLOCKS);
        for offset in 0..BLOCKS {
            let block = (start + offset) % BLOCKS;
            if block + wanted > BLOCKS {
                continue;
            }
            let first = FIRST_PORT + block * BLOCK_PORTS;
            let last = first + wanted * BLOCK_PORTS - 1;
            if let Some(locks) = lock_blocks(block, wanted)
                && (first..=last).all(is_free)
            {
                return Self {
                    first,
                    last,
                    next_listener: std::cell::Cell::new(first),
                    _locks: locks,
                };
            }
        }
        panic!("no {wanted} adjacent port blocks are free");
    }

    /// A port for a TCP listener, another one with each call.
    pub fn listener(&self) -> u16 {
        let port = self.next_listener.get();
        assert!(
            port < self.first + LISTENER_PORTS,
            "too many listeners in one test"
        );
        self.next_listener.set(port + 1);
        port
    }

    /// First and last port for media, the first one even.
    pub fn media(&self) -> (u16, u16) {
        (self.first + LISTENER_PORTS, self.last)
    }
}

fn lock_blocks(first: u16, count: u16) -> Option<Vec<Flock<File>>> {
    let directory = PathBuf::from("/tmp/rtpbridge-test-ports");
    fs::create_dir_all(&directory).expect("port lock directory");
    (first..first + count)
        .map(|block| {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(directory.join(block.to_string()))
                .expect("port lock file");
            Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
        })
        .collect()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
}
