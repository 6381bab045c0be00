//! Transfers: an endpoint moves to another session, here or on another worker, with its sockets and
//! its handshake. Workers do not wait for each other; they write letters.
//!
//! ```text
//! source's worker                     target's worker
//!   Reserve  ───────────────────────►  a place is kept, or refused
//!   pack     ◄─────────────── Reserved
//!   Arrive   ───────────────────────►  unpack; the session may have ended meanwhile
//!   finish   ◄──── Arrived or Returned
//! ```
//! Datagrams that come meanwhile stay in the sockets, from which one worker at most receives; what
//! it had received and not handled goes along.

use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::endpoint::Transfer;
use rtpbridge_shared::ipc::{Reply, RequestError};
use rtpbridge_shared::vocab::StopReason;
use tracing::error;

use super::Worker;
use super::commands::Command;
use super::gate::MovePass;
use super::parcel::Parcel;
use super::recordings::After;
use crate::ipc::outbox::Ticket;

/// How long a move lets a snapshot go first.
const SNAPSHOT_FIRST_NS: u64 = 1_000_000_000;
/// Pause before what could not be done is tried again.
pub(super) const RETRY_NS: u64 = 1_000_000;

/// What workers write to each other about a transfer.
pub(crate) enum Letter {
    /// Keep a place for this endpoint.
    Reserve {
        endpoint: EndpointId,
        target: SessionId,
        reply: ReplyTo,
    },
    /// There is a place for the endpoint of this move, or not.
    Reserved {
        number: u64,
        result: Result<(), RequestError>,
    },
    /// The place is not needed.
    Cancel {
        endpoint: EndpointId,
        target: SessionId,
    },
    /// The endpoint.
    Arrive(Box<Parcel>),
    /// It is in its new session.
    Arrived { number: u64 },
    /// The session that kept a place for it has ended.
    Returned(Box<Parcel>),
}

/// Where the answer to a letter goes.
#[derive(Clone, Copy)]
pub(crate) struct ReplyTo {
    worker: u32,
    number: u64,
}

/// A transfer that was begun here.
pub(super) struct Move {
    ticket: Ticket,
    /// Key of the session that the endpoint leaves.
    session: u64,
    request: Transfer,
    worker: usize,
    _pass: Option<MovePass>,
}

/// A request that spans two sessions and has to wait for a snapshot.
pub(super) struct Deferred {
    pub(super) request: Transfer,
    pub(super) session: u64,
    pub(super) ticket: Ticket,
    pub(super) until_ns: u64,
}

impl Worker {
    /// `endpoint.transfer`
    pub(super) fn transfer(&mut self, session: u64, request: Transfer, ticket: Ticket) {
        let until_ns = self.out.now_ns.saturating_add(SNAPSHOT_FIRST_NS);
        self.start_move(Deferred {
            request,
            session,
            ticket,
            until_ns,
        });
    }

    /// Tries again what waits for a snapshot, and letters that found a full queue.
    pub(super) fn retry_moves(&mut self) {
        for _ in 0..self.deferred.len() {
            if let Some(deferred) = self.deferred.pop_front() {
                self.start_move(deferred);
            }
        }
        let mut full = Vec::new();
        for _ in 0..self.letters.len() {
            let Some((worker, letter)) = self.letters.pop_front() else {
                break;
            };
            if full.contains(&worker) {
                self.letters.push_back((worker, letter));
            } else if let Some(letter) = self.try_post(worker, letter) {
                full.push(worker);
                self.letters.push_back((worker, letter));
            }
        }
    }

    pub(super) fn on_letter(&mut self, letter: Letter) {
        match letter {
            Letter::Reserve {
                endpoint,
                target,
                reply,
            } => {
                let result = self.keep_place(endpoint, target);
                let number = reply.number;
                self.post(reply.worker, Letter::Reserved { number, result });
            }
            Letter::Reserved { number, result } => self.on_reserved(number, result),
            Letter::Cancel { endpoint, target } => self.cancel_place(endpoint, target),
            Letter::Arrive(parcel) => self.on_arrival(parcel),
            Letter::Arrived { number } => self.finish_move(number),
            Letter::Returned(parcel) => self.on_returned(parcel),
        }
    }

    fn start_move(&mut self, deferred: Deferred) {
        let pass = self.shared.moves.begin_move();
        if pass.is_none() && self.out.now_ns < deferred.until_ns {
            self.deferred.push_back(deferred);
            return;
        }
        let Deferred {
            request,
            session,
            ticket,
            ..
        } = deferred;
        let (endpoint, target) = (request.endpoint, request.target_session);
        let check = self.with_session(session, |s, now, _| s.check_transfer(now, endpoint));
        let place = self.shared.directory.worker(target);
        let place = place.ok_or(RequestError::TargetSessionNotFound);
        let worker = match check.and(place) {
            Ok(worker) => worker,
            Err(refused) => return ticket.answer(Err(refused)),
        };
        let number = self.moves.insert_with(|_| Move {
            ticket,
            session,
            request,
            worker,
            _pass: pass,
        });
        let reply = ReplyTo {
            worker: self.index,
            number,
        };
        let letter = Letter::Reserve {
            endpoint,
            target,
            reply,
        };
        self.post(worker as u32, letter);
    }

    /// Delivers a letter, at once when it is to ourselves. Letters to one worker keep their order.
    fn post(&mut self, worker: u32, letter: Letter) {
        if worker == self.index {
            return self.on_letter(letter);
        }
        let is_behind = self.letters.iter().any(|(to, _)| *to == worker);
        let unsent = if is_behind {
            Some(letter)
        } else {
            self.try_post(worker, letter)
        };
        self.letters.extend(unsent.map(|letter| (worker, letter)));
    }

    /// A full queue gives the letter back.
    fn try_post(&self, worker: u32, letter: Letter) -> Option<Letter> {
        let peers = self.shared.peers.get();
        let Some(peer) = peers.and_then(|peers| peers.get(worker as usize)) else {
            error!(worker, "no such worker");
            return None;
        };
        match peer.try_send(Command::Letter(letter)).map_err(|back| *back) {
            Err(Command::Letter(letter)) => Some(letter),
            _ => None,
        }
    }

    fn keep_place(&mut self, endpoint: EndpointId, target: SessionId) -> Result<(), RequestError> {
        let key = self.find_session(target);
        let key = key.map_err(|_| RequestError::TargetSessionNotFound)?;
        let kept = self.with_session(key, |s, now, _| s.reserve(now, endpoint));
        self.after_turn_of(key, true);
        kept.map_err(|refused| match refused {
            RequestError::TooManyEndpoints { limit } => RequestError::TargetFull { limit },
            RequestError::SessionGone => RequestError::TargetSessionNotFound,
            other => RequestError::TransferFailed(other.to_string()),
        })
    }

    fn cancel_place(&mut self, endpoint: EndpointId, target: SessionId) {
        if let Ok(key) = self.find_session(target) {
            let cancel = self.with_session(key, |s, now, _| {
                s.unreserve(now, endpoint);
                Ok(())
            });
            self.after_turn_of(key, true);
            // A session that ended needs no place.
            drop(cancel);
        }
    }

    fn on_reserved(&mut self, number: u64, result: Result<(), RequestError>) {
        let Some(moving) = self.moves.get(number) else {
            return;
        };
        let (session, worker) = (moving.session, moving.worker as u32);
        let (endpoint, target) = (moving.request.endpoint, moving.request.target_session);
        let source = moving.request.session;
        let reply = ReplyTo {
            worker: self.index,
            number,
        };
        let refused = match result {
            Err(refused) => refused,
            Ok(()) => match self.pack(session, endpoint, source, target, reply) {
                Ok(parcel) => return self.post(worker, Letter::Arrive(parcel)),
                Err(refused) => {
                    self.post(worker, Letter::Cancel { endpoint, target });
                    refused
                }
            },
        };
        if let Some(moving) = self.moves.remove(number) {
            moving.ticket.answer(Err(refused));
        }
    }

    fn on_arrival(&mut self, parcel: Box<Parcel>) {
        let (source, reply) = (parcel.source, parcel.reply);
        let target = self.find_session(parcel.target);
        let refused = match target {
            Ok(key) => {
                let refused = self.unpack(key, parcel, Some(source)).err();
                self.send_counts(key);
                self.after_turn_of(key, true);
                refused
            }
            Err(_) => Some(parcel),
        };
        let letter = match refused {
            None => Letter::Arrived {
                number: reply.number,
            },
            Some(parcel) => Letter::Returned(parcel),
        };
        self.post(reply.worker, letter);
    }

    /// The endpoint has arrived: its old session lets go of it.
    fn finish_move(&mut self, number: u64) {
        let Some(moving) = self.moves.remove(number) else {
            return;
        };
        let (key, endpoint) = (moving.session, moving.request.endpoint);
        let target = moving.request.target_session;
        let ended = self.with_session(key, |session, now, out| {
            Ok(session.transferred_out(now, endpoint, target, out))
        });
        self.send_counts(key);
        moving.ticket.answer(Ok(Reply::Done));
        self.after_turn_of(key, true);
        let ended = ended.unwrap_or_default();
        let ended: Vec<u64> = ended.iter().map(|ended| ended.key.0).collect();
        if !ended.is_empty() {
            let reason = StopReason::EndpointTransferred;
            self.stop_recordings(key, ended, reason, After::Nothing);
        }
    }

    /// The other session ended while the endpoint was on its way: it goes on here, if it can.
    fn on_returned(&mut self, parcel: Box<Parcel>) {
        let Some(moving) = self.moves.remove(parcel.reply.number) else {
            return;
        };
        if let Err(parcel) = self.unpack(moving.session, parcel, None) {
            self.discard(*parcel);
        }
        self.after_turn_of(moving.session, true);
        let text = "the target session ended".to_owned();
        let failed = RequestError::TransferFailed(text);
        moving.ticket.answer(Err(failed));
    }
}

#[cfg(test)]
mod tests;
