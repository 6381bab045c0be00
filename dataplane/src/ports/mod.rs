//! Sockets for new endpoints: an even/odd pair for plain RTP, one for WebRTC. The search is bounded
//! (media.md, Plain RTP endpoints): 16 pairs in a row that somebody else holds make it jump to a
//! random place, at most 8 times. Shared by all workers; locked for moments, never while binding.

mod pool;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::sys::udp::UdpSocket;
use pool::PairPool;

const TRIES_IN_A_ROW: u32 = 16;
const JUMPS: u32 = 8;

/// Why there is no socket.
#[derive(Debug, Error)]
pub(crate) enum PortError {
    /// The address family has no `media_ip`.
    #[error("no media address of this family is configured")]
    NoAddress,
    /// Every port of the range is used by us.
    #[error("all ports of the range are in use")]
    Exhausted,
    /// Others hold the ports that the search came by.
    #[error("no free port found: other programs hold those that were tried")]
    HeldByOthers,
    /// Neither free nor taken.
    #[error("cannot bind {0}: {1}")]
    Bind(SocketAddr, io::Error),
}

/// First (even) and last port.
pub(crate) type Range = (u16, u16);

/// All ports of the process.
pub(crate) struct Ports {
    addresses: Vec<IpAddr>,
    dscp: u8,
    pairs: Mutex<HashMap<IpAddr, PairPool>>,
    webrtc_range: Option<Range>,
    random: fn() -> u32,
}

/// An RTP socket and the RTCP socket on the next port.
pub(crate) struct SocketPair {
    /// Even port.
    pub(crate) rtp: UdpSocket,
    /// The port after.
    pub(crate) rtcp: UdpSocket,
}

impl Ports {
    /// Ports of `range` on each of `addresses` (at most one per family).
    pub(crate) fn new(
        addresses: Vec<IpAddr>,
        range: Range,
        webrtc_range: Option<Range>,
        dscp: u8,
        random: fn() -> u32,
    ) -> Self {
        let pool = |address: &IpAddr| (*address, PairPool::new(range.0, range.1, random()));
        Self {
            pairs: Mutex::new(addresses.iter().map(pool).collect()),
            addresses,
            dscp,
            webrtc_range,
            random,
        }
    }

    /// A bound pair on our address of the family of `ipv4`.
    pub(crate) fn bind_pair(&self, ipv4: bool, now_ns: u64) -> Result<SocketPair, PortError> {
        let address = self.address(ipv4)?;
        let mut refused = Vec::new();
        let outcome = self.search_pair(address, now_ns, &mut refused);
        let mut pools = self.lock();
        if let Some(pool) = pools.get_mut(&address) {
            refused.into_iter().for_each(|port| pool.untake(port));
        }
        outcome
    }

    /// Gives back the pair whose even port this is, once its sockets are closed.
    pub(crate) fn release_pair(&self, rtp: SocketAddr, now_ns: u64) {
        if let Some(pool) = self.lock().get_mut(&rtp.ip()) {
            pool.release(rtp.port(), now_ns);
        }
    }

    /// One bound socket for WebRTC on our address of the family of `ipv4`.
    pub(crate) fn bind_single(&self, ipv4: bool) -> Result<UdpSocket, PortError> {
        let address = self.address(ipv4)?;
        let Some((first, last)) = self.webrtc_range else {
            let any = SocketAddr::new(address, 0);
            return UdpSocket::bind(any, self.dscp).map_err(|error| PortError::Bind(any, error));
        };
        let span = u32::from(last.saturating_sub(first)) + 1;
        for _ in 0..=JUMPS {
            let start = (self.random)() % span;
            for step in 0..TRIES_IN_A_ROW {
                let offset = u16::try_from((start + step) % span).unwrap_or(0);
                let local = SocketAddr::new(address, first.saturating_add(offset));
                match UdpSocket::bind(local, self.dscp) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                    Err(error) => return Err(PortError::Bind(local, error)),
                    Ok(socket) => return Ok(socket),
                }
            }
        }
        Err(PortError::HeldByOthers)
    }

    /// `refused` collects what somebody else holds; it stays taken during the search.
    fn search_pair(
        &self,
        address: IpAddr,
        now_ns: u64,
        refused: &mut Vec<u16>,
    ) -> Result<SocketPair, PortError> {
        for jump in 0..=JUMPS {
            if jump > 0
                && let Some(pool) = self.lock().get_mut(&address)
            {
                pool.jump((self.random)());
            }
            for _ in 0..TRIES_IN_A_ROW {
                let taken = self.lock().get_mut(&address).and_then(|p| p.take(now_ns));
                let Some(port) = taken else {
                    return Err(if refused.is_empty() {
                        PortError::Exhausted
                    } else {
                        PortError::HeldByOthers
                    });
                };
                match self.try_pair(address, port) {
                    Ok(pair) => return Ok(pair),
                    Err((local, error)) => {
                        refused.push(port);
                        if error.kind() != io::ErrorKind::AddrInUse {
                            return Err(PortError::Bind(local, error));
                        }
                    }
                }
            }
        }
        Err(PortError::HeldByOthers)
    }

    fn try_pair(&self, ip: IpAddr, even: u16) -> Result<SocketPair, (SocketAddr, io::Error)> {
        let bind = |port| {
            let local = SocketAddr::new(ip, port);
            UdpSocket::bind(local, self.dscp).map_err(|error| (local, error))
        };
        Ok(SocketPair {
            rtp: bind(even)?,
            rtcp: bind(even.saturating_add(1))?,
        })
    }

    fn address(&self, ipv4: bool) -> Result<IpAddr, PortError> {
        let found = self.addresses.iter().find(|ip| ip.is_ipv4() == ipv4);
        found.copied().ok_or(PortError::NoAddress)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, PairPool>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
