//! What spans two sessions. Transfers: an endpoint moves to another session, here or on another
//! worker, with its sockets and its handshake (bridges are made likewise, see `bridges.rs`). Workers do
//! not wait for each other; they write letters.
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

use rtpbridge_core::session::BridgeEnd;
use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::bridge::BridgeCreate;
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
    /// The far end of a bridge.
    Join {
        end: Box<BridgeEnd>,
        endpoint: EndpointId,
        target: SessionId,
        reply: ReplyTo,
    },
    /// It is in its session, or is not.
    Joined {
        number: u64,
        result: Result<(), RequestError>,
    },
    /// The counterpart of this end of a bridge is gone.
    DropEnd {
        end: EndpointId,
        session: SessionId,
        reply: ReplyTo,
    },
    /// The end is gone, too.
    Left { number: u64 },
}

/// Where the answer to a letter goes.
#[derive(Clone, Copy)]
pub(crate) struct ReplyTo {
    pub(super) worker: u32,
    pub(super) number: u64,
}

/// What spans two sessions.
pub(super) enum Job {
    Transfer(Transfer),
    Bridge(BridgeCreate),
}

/// A transfer or bridge that was begun here.
pub(super) struct Move {
    pub(super) job: Job,
    pub(super) ticket: Ticket,
    /// Key of the session that asked: the one that an endpoint leaves.
    pub(super) session: u64,
    /// Where the target is.
    pub(super) worker: usize,
    /// Waits for the far one to be in its session.
    pub(super) near_end: Option<Box<BridgeEnd>>,
    _pass: Option<MovePass>,
}

/// A request that spans two sessions and has to wait for a snapshot.
pub(super) struct Deferred {
    job: Job,
    session: u64,
    ticket: Ticket,
    until_ns: u64,
}

impl Job {
    /// Which endpoint comes into which session.
    fn arrival(&self) -> (EndpointId, SessionId) {
        match self {
            Job::Transfer(request) => (request.endpoint, request.target_session),
            Job::Bridge(request) => (request.target_endpoint, request.target_session),
        }
    }
}

impl Worker {
    /// `endpoint.transfer` and `session.bridge`
    pub(super) fn begin_move(&mut self, session: u64, job: Job, ticket: Ticket) {
        let until_ns = self.out.now_ns.saturating_add(SNAPSHOT_FIRST_NS);
        self.start_move(Deferred {
            job,
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
            Letter::Join {
                end,
                endpoint,
                target,
                reply,
            } => {
                let result = self.on_join(*end, endpoint, target);
                let number = reply.number;
                self.post(reply.worker, Letter::Joined { number, result });
            }
            Letter::Joined { number, result } => self.on_joined(number, result),
            Letter::DropEnd {
                end,
                session,
                reply,
            } => {
                self.drop_end(end, session);
                let number = reply.number;
                self.post(reply.worker, Letter::Left { number });
            }
            Letter::Left { number } => self.on_left(number),
        }
    }

    fn start_move(&mut self, deferred: Deferred) {
        let pass = self.shared.moves.begin_move();
        if pass.is_none() && self.out.now_ns < deferred.until_ns {
            self.deferred.push_back(deferred);
            return;
        }
        let Deferred {
            job,
            session,
            ticket,
            ..
        } = deferred;
        let (endpoint, target) = job.arrival();
        let worker = match self.prepare_move(session, &job) {
            Ok(worker) => worker,
            Err(refused) => {
                self.after_turn_of(session, true);
                return ticket.answer(Err(refused));
            }
        };
        let number = self.moves.insert_with(|_| Move {
            job,
            ticket,
            session,
            worker,
            near_end: None,
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

    /// Checks what can be checked here, keeps places here, and says where the target is.
    fn prepare_move(&mut self, session: u64, job: &Job) -> Result<usize, RequestError> {
        let target = job.arrival().1;
        let place = self.shared.directory.worker(target);
        let place = place.ok_or(RequestError::TargetSessionNotFound);
        match job {
            Job::Transfer(request) => {
                let endpoint = request.endpoint;
                let far = self.with_session(session, |s, now, _| {
                    s.check_transfer(now, endpoint)?;
                    Ok(s.far_end(endpoint))
                })?;
                let place = place?;
                if let Some(far) = far
                    && !self.shared.bridges.claim(endpoint, far, target)
                {
                    let text = "the other end of the bridge is in that session";
                    return Err(RequestError::Endpoint(text.to_owned()));
                }
                Ok(place)
            }
            Job::Bridge(request) => {
                let place = place?;
                let endpoint = request.endpoint;
                self.with_session(session, |s, now, _| s.reserve(now, endpoint))?;
                self.after_turn_of(session, true);
                Ok(place)
            }
        }
    }

    /// Delivers a letter, at once when it is to ourselves. Letters to one worker keep their order.
    pub(super) fn post(&mut self, worker: u32, letter: Letter) {
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
            self.give_place_back(key, endpoint);
        }
    }

    pub(super) fn give_place_back(&mut self, key: u64, endpoint: EndpointId) {
        // A session that ended needs no place.
        let _ = self.with_session(key, |s, now, _| {
            s.unreserve(now, endpoint);
            Ok(())
        });
        self.after_turn_of(key, true);
    }

    fn on_reserved(&mut self, number: u64, result: Result<(), RequestError>) {
        let Some(moving) = self.moves.get(number) else {
            return;
        };
        let (session, worker) = (moving.session, moving.worker as u32);
        let departure = match (&moving.job, result) {
            (Job::Transfer(request), Ok(())) => request.clone(),
            (Job::Bridge(_), Ok(())) => return self.send_far_end(number),
            (_, Err(refused)) => return self.refuse_move(number, refused),
        };
        let reply = ReplyTo {
            worker: self.index,
            number,
        };
        let (endpoint, target) = (departure.endpoint, departure.target_session);
        match self.pack(session, &departure, reply) {
            Ok(parcel) => self.post(worker, Letter::Arrive(parcel)),
            Err(refused) => {
                self.post(worker, Letter::Cancel { endpoint, target });
                self.refuse_move(number, refused);
            }
        }
    }

    fn refuse_move(&mut self, number: u64, refused: RequestError) {
        let Some(moving) = self.moves.remove(number) else {
            return;
        };
        match &moving.job {
            Job::Transfer(request) => self.stay(moving.session, request),
            Job::Bridge(request) => self.give_place_back(moving.session, request.endpoint),
        }
        moving.ticket.answer(Err(refused));
    }

    /// An endpoint did not move; if it is a bridge's, others have to know.
    fn stay(&mut self, session: u64, request: &Transfer) {
        let endpoint = request.endpoint;
        let far = self.with_session(session, |s, _, _| Ok(s.far_end(endpoint)));
        if let Ok(Some(_)) = far {
            self.shared.bridges.set(endpoint, request.session);
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
        let key = moving.session;
        let (endpoint, target) = moving.job.arrival();
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
        if let Job::Transfer(request) = &moving.job {
            self.stay(moving.session, request);
        }
        self.after_turn_of(moving.session, true);
        let text = "the target session ended".to_owned();
        let failed = RequestError::TransferFailed(text);
        moving.ticket.answer(Err(failed));
    }
}

#[cfg(test)]
mod tests;
