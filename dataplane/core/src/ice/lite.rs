//! The responder: one per WebRTC endpoint, about 3 µs per check, no timer but the peer's silence.
//!
//! The newest valid USE-CANDIDATE decides where we send, under the credentials before a restart, too,
//! until the new ones are nominated: the peer may not know of them yet. Every address that passed a
//! check may send to us, since a peer moves its media only after our answer to the nomination has
//! reached it.

use std::net::SocketAddr;

use rtpbridge_shared::vocab::IceState;
use stun::error_code::{
    CODE_BAD_REQUEST, CODE_ROLE_CONFLICT, CODE_UNAUTHORIZED, CODE_UNKNOWN_ATTRIBUTE,
};

use super::credentials::{Generation, Generations};
use super::liveness::{Liveness, Sign};
use super::message::Request;
use crate::sdp::IceCredentials;
use crate::time::Instant;

/// A buffer of this many bytes holds any response.
pub const MAX_RESPONSE_LEN: usize = 160;

/// Addresses that may be validated at a time: a few interfaces, doubled by a restart.
const MAX_ADDRESSES: usize = 16;

/// The ICE side of one WebRTC endpoint.
pub struct IceLite {
    generations: Generations,
    /// Addresses that passed a check, the most recently checked last.
    validated: Vec<SocketAddr>,
    nominated: Option<SocketAddr>,
    liveness: Liveness,
}

/// What became of a datagram. A response, where there is one, goes back to its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StunOutcome {
    /// Not a binding request with a fingerprint; to be dropped.
    Ignored,
    /// Answered with an error.
    Refused {
        /// The error's code: 400, 401, 420 or 487.
        code: u16,
        /// Bytes of the response.
        response_len: usize,
    },
    /// A valid check.
    Valid {
        /// Bytes of the response.
        response_len: usize,
        /// Whether the source was not a validated address before.
        new_address: bool,
        /// Whether the address to send to is another one now.
        send_address_changed: bool,
    },
}

impl IceLite {
    /// Starts with the credentials that our first description carries.
    pub fn new(credentials: IceCredentials) -> Self {
        Self {
            generations: Generations::new(credentials),
            validated: Vec::new(),
            nominated: None,
            liveness: Liveness::new(),
        }
    }

    /// The credentials that our newest description carries.
    pub const fn credentials(&self) -> &IceCredentials {
        self.generations.newest()
    }

    /// Adds a generation of credentials, for a restart of ours or of the peer's. The older ones
    /// answer, and nominate, until the newest is nominated.
    pub fn restart(&mut self, credentials: IceCredentials) {
        self.generations.add(credentials);
    }

    /// The peer's description is known: checks are expected.
    pub fn on_remote_description(&mut self, now: Instant) {
        self.liveness.on(Sign::Described, now);
    }

    /// An SRTP or SRTCP packet from a validated address passed authentication.
    pub fn on_authentic_packet(&mut self, now: Instant) {
        self.liveness.on(Sign::Packet, now);
    }

    /// What clients see.
    pub const fn state(&self) -> IceState {
        self.liveness.state()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.liveness.next_timeout()
    }

    /// Notices the peer's silence; compare [`Self::state`] before and after.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.liveness.handle_timeout(now);
    }

    /// Whether `source` has passed a check. What comes from anywhere else is to be dropped.
    pub fn is_validated(&self, source: SocketAddr) -> bool {
        self.nominated == Some(source) || self.validated.contains(&source)
    }

    /// Where media goes: the newest nominated address.
    pub const fn send_address(&self) -> Option<SocketAddr> {
        self.nominated
    }

    /// Where handshakes go: as media, and before any nomination to the address checked last.
    pub fn handshake_address(&self) -> Option<SocketAddr> {
        self.nominated.or_else(|| self.validated.last().copied())
    }

    /// Treats a datagram that looks like STUN (first byte 0 to 3). The response is written to
    /// `response`, which should have [`MAX_RESPONSE_LEN`] bytes: without room nothing is answered.
    pub fn handle_stun(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        response: &mut [u8],
    ) -> StunOutcome {
        let Some(mut request) = Request::parse(datagram) else {
            return StunOutcome::Ignored;
        };
        let refuse = |code: stun::error_code::ErrorCode, len: Option<usize>| match len {
            Some(response_len) => StunOutcome::Refused {
                code: code.0,
                response_len,
            },
            None => StunOutcome::Ignored,
        };
        let (true, Some(username)) = (request.has_integrity(), request.username()) else {
            let len = request.write_error(CODE_BAD_REQUEST, Vec::new(), None, response);
            return refuse(CODE_BAD_REQUEST, len);
        };
        let found = self.generations.find(username);
        let Some((generation, credentials)) =
            found.filter(|(_, credentials)| request.is_authentic(credentials.password()))
        else {
            let len = request.write_error(CODE_UNAUTHORIZED, Vec::new(), None, response);
            return refuse(CODE_UNAUTHORIZED, len);
        };
        let password = Some(credentials.password());
        if request.claims_to_be_controlled() {
            let len = request.write_error(CODE_ROLE_CONFLICT, Vec::new(), password, response);
            return refuse(CODE_ROLE_CONFLICT, len);
        }
        let unknown = request.unknown_attributes();
        if !unknown.is_empty() {
            let len = request.write_error(CODE_UNKNOWN_ATTRIBUTE, unknown, password, response);
            return refuse(CODE_UNKNOWN_ATTRIBUTE, len);
        }
        let Some(response_len) = request.write_success(source, credentials.password(), response)
        else {
            return StunOutcome::Ignored;
        };
        let nomination = request.nominates().then_some(generation);
        self.on_valid_check(now, source, nomination, response_len)
    }

    fn on_valid_check(
        &mut self,
        now: Instant,
        source: SocketAddr,
        nomination: Option<Generation>,
        response_len: usize,
    ) -> StunOutcome {
        let new_address = self.on_validated(source);
        let send_address_changed = nomination.is_some() && self.nominated != Some(source);
        if nomination.is_some() {
            self.nominated = Some(source);
        }
        if nomination == Some(Generation::Newest) {
            self.generations.on_nominated();
        }
        let sign = nomination.map_or(Sign::Checked, |_| Sign::Nominated);
        self.liveness.on(sign, now);
        StunOutcome::Valid {
            response_len,
            new_address,
            send_address_changed,
        }
    }

    /// Puts the address last, and drops the one not checked for longest when there are too many.
    fn on_validated(&mut self, source: SocketAddr) -> bool {
        let known = self.validated.iter().position(|known| *known == source);
        if let Some(place) = known {
            self.validated.remove(place);
        } else if self.validated.len() == MAX_ADDRESSES {
            self.validated.remove(0);
        }
        self.validated.push(source);
        known.is_none()
    }
}

#[cfg(test)]
mod tests;
