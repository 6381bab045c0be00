//! Bridges between sessions, on whatever workers. They are made as endpoints are transferred: a place
//! is kept on both sides, then the far end joins its session, then the near one. With one end the
//! other goes; who asked for that is answered when both are gone. An end that loses its counterpart
//! in any other way (a bug) notices at its next tick.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rtpbridge_core::session::{BridgeEnd, bridge};
use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::{Reply, RequestError};
use rtpbridge_shared::vocab::StopReason;

use super::Worker;
use super::moves::{Job, Letter, ReplyTo};
use super::recordings::After;

/// In which session each end of every bridge is, or is about to be.
#[derive(Default)]
pub(crate) struct Bridges {
    places: Mutex<HashMap<EndpointId, SessionId>>,
}

/// A stop that waits until the other ends of bridges are gone.
pub(super) struct Farewell {
    outstanding: usize,
    session: u64,
    recordings: Vec<u64>,
    reason: StopReason,
    after: After,
}

impl Bridges {
    /// An end is there.
    pub(super) fn set(&self, end: EndpointId, session: SessionId) {
        self.lock().insert(end, session);
    }

    /// An end is to go to this session; false when its counterpart is there: parties would hear
    /// themselves.
    pub(super) fn claim(&self, end: EndpointId, far: EndpointId, session: SessionId) -> bool {
        let mut places = self.lock();
        if places.get(&far) == Some(&session) {
            return false;
        }
        places.insert(end, session);
        true
    }

    /// An end is no more; gives where it was.
    pub(super) fn remove(&self, end: EndpointId) -> Option<SessionId> {
        self.lock().remove(&end)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EndpointId, SessionId>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    /// There is room on both sides: the far end goes first.
    pub(super) fn send_far_end(&mut self, number: u64) {
        let index = self.index;
        let Some(moving) = self.moves.get_mut(number) else {
            return;
        };
        let Job::Bridge(request) = &moving.job else {
            return;
        };
        let (near, far) = bridge(request.endpoint, request.target_endpoint, request.direction);
        let letter = Letter::Join {
            end: Box::new(far),
            endpoint: request.target_endpoint,
            target: request.target_session,
            reply: ReplyTo {
                worker: index,
                number,
            },
        };
        moving.near_end = Some(Box::new(near));
        let worker = moving.worker as u32;
        self.post(worker, letter);
    }

    /// The far end of a bridge from elsewhere joins a session here.
    pub(super) fn on_join(
        &mut self,
        end: BridgeEnd,
        endpoint: EndpointId,
        target: SessionId,
    ) -> Result<(), RequestError> {
        let gone = |_| RequestError::Endpoint("the target session ended".to_owned());
        let key = self.find_session(target).map_err(gone)?;
        let joined = self.join_bridge(key, end, endpoint, target);
        joined.map_err(gone)
    }

    /// The far end has joined, or not: so does the near one, and the request is answered.
    pub(super) fn on_joined(&mut self, number: u64, result: Result<(), RequestError>) {
        let Some(moving) = self.moves.remove(number) else {
            return;
        };
        let (Job::Bridge(request), Some(near)) = (moving.job, moving.near_end) else {
            return;
        };
        let (key, endpoint) = (moving.session, request.endpoint);
        let joined = match result {
            // An end that is not taken in is dropped, and the far one notices.
            Ok(()) => self.join_bridge(key, *near, endpoint, request.session),
            Err(refused) => {
                self.give_place_back(key, endpoint);
                Err(refused)
            }
        };
        moving.ticket.answer(joined.map(|()| Reply::Done));
        self.after_turn_of(key, true);
    }

    fn join_bridge(
        &mut self,
        key: u64,
        end: BridgeEnd,
        endpoint: EndpointId,
        session: SessionId,
    ) -> Result<(), RequestError> {
        self.with_session(key, |s, now, out| s.join_bridge(now, endpoint, end, out))?;
        self.shared.bridges.set(endpoint, session);
        self.endpoints_total += 1;
        self.send_counts(key);
        self.after_turn_of(key, true);
        Ok(())
    }

    /// Sees to it that the counterparts of ends that are gone go too; the recordings are closed, and
    /// `after` follows, when that is done.
    pub(super) fn take_leave(
        &mut self,
        (session, recordings): (u64, Vec<u64>),
        reason: StopReason,
        after: After,
        far_ends: Vec<EndpointId>,
    ) {
        let number = self.farewells.insert_with(|_| Farewell {
            outstanding: far_ends.len() + 1,
            session,
            recordings,
            reason,
            after,
        });
        let reply = ReplyTo {
            worker: self.index,
            number,
        };
        for end in far_ends {
            let place = self.shared.bridges.remove(end);
            let worker = place.and_then(|session| self.shared.directory.worker(session));
            match place.zip(worker) {
                Some((session, worker)) => {
                    let letter = Letter::DropEnd {
                        end,
                        session,
                        reply,
                    };
                    self.post(worker as u32, letter);
                }
                None => self.on_left(number),
            }
        }
        self.on_left(number);
    }

    /// The counterpart of an end here is gone.
    pub(super) fn drop_end(&mut self, end: EndpointId, session: SessionId) {
        let Ok(key) = self.find_session(session) else {
            return;
        };
        let removed = self.with_session(key, |s, now, out| s.remove_endpoint(now, end, out));
        let Ok(removed) = removed else {
            return;
        };
        self.send_counts(key);
        self.after_turn_of(key, true);
        if let Some(far) = removed.far_end {
            self.shared.bridges.remove(far);
        }
        let recordings: Vec<u64> = removed.recordings.iter().map(|r| r.key.0).collect();
        if !recordings.is_empty() {
            let reason = StopReason::EndpointRemoved;
            self.stop_recordings(key, recordings, reason, After::Nothing);
        }
    }

    /// One more of those that a farewell waits for.
    pub(super) fn on_left(&mut self, number: u64) {
        let Some(farewell) = self.farewells.get_mut(number) else {
            return;
        };
        farewell.outstanding -= 1;
        if farewell.outstanding > 0 {
            return;
        }
        if let Some(farewell) = self.farewells.remove(number)
            && self.sessions.get(farewell.session).is_some()
        {
            let Farewell {
                session,
                recordings,
                reason,
                after,
                ..
            } = farewell;
            self.stop_recordings(session, recordings, reason, after);
        }
    }
}
