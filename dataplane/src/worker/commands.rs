//! What others may ask of a worker, and the requests of control that concern one session. Answers
//! come before the events that their request caused; counts come before both.

use std::sync::Arc;

use rtpbridge_core::session::Session;
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::session::SessionEndReason;
use rtpbridge_shared::ipc::{Reply, Request, RequestError, ToControl};
use tokio::sync::oneshot;

use super::Worker;
use super::moves::{Job, Letter};
use super::output::Output;
use super::playback::Opened;
use super::recordings::After;
use super::report::WorkerTotals;
use super::turn::guarded;
use crate::ipc::outbox::{Class, Outbox, Ticket};
use crate::recorder::writer::Notice;
use rtpbridge_core::time::Moment;

/// Commands handled in one turn.
const MAX_COMMANDS: u32 = 64;
/// Sessions ended in one turn when all have to end.
const MAX_ENDINGS: usize = 32;
/// Sessions one turn contributes to a snapshot.
const SNAPSHOT_SESSIONS: usize = 16;
/// Places one turn looks at for a snapshot.
const SNAPSHOT_PLACES: usize = 256;

/// What a worker can be told.
pub(crate) enum Command {
    /// A request of control about a session that lives here, sent in this term.
    Request {
        /// What is asked.
        request: Request,
        /// To be answered.
        ticket: Ticket,
        /// The controller's term.
        term: u64,
    },
    /// See `ToDataplane::Acknowledge`.
    Acknowledge {
        /// The session.
        session: SessionId,
        /// Up to and including this event.
        event_number: u64,
    },
    /// Send some sessions of a snapshot, so that they are in order with events and counts.
    Snapshot {
        /// Where the page before ended.
        from: usize,
        /// Who gets them.
        outbox: Arc<Outbox>,
        /// The request's number.
        number: u64,
        /// Told where the next page begins; none after the last.
        reply: oneshot::Sender<Option<usize>>,
    },
    /// From another worker.
    Letter(Letter),
    /// The totals.
    Report {
        /// Who waits.
        reply: oneshot::Sender<Box<WorkerTotals>>,
    },
    /// A writer thread has news of a recording.
    Recorder {
        /// The worker's key of it.
        recording: u64,
        /// The news.
        notice: Notice,
    },
    /// A file was opened, or could not be.
    FileOpened(Box<Opened>),
    /// End all sessions in good order.
    EndAll {
        /// What control is told.
        reason: SessionEndReason,
    },
    /// End the thread.
    Stop,
    /// Behave as if a bug showed itself in this session's turn.
    #[cfg(test)]
    Panic(SessionId),
    /// Behave as if a bug showed itself outside of any session's turn.
    #[cfg(test)]
    Die,
}

impl Worker {
    pub(super) fn run_commands(&mut self) {
        if !self.more_commands {
            return;
        }
        for _ in 0..MAX_COMMANDS {
            let Ok(command) = self.commands.try_recv() else {
                self.more_commands = false;
                return;
            };
            // A new controller's command must find the sessions of the old one released.
            self.follow_controller();
            self.handle_command(command);
        }
    }

    pub(super) fn handle_command(&mut self, command: Command) {
        match command {
            Command::Request {
                request,
                ticket,
                term,
            } => self.handle_request(request, ticket, term),
            Command::Acknowledge {
                session,
                event_number,
            } => {
                // A session that is gone has nothing left to be acknowledged.
                let _ = self.find_session(session).and_then(|key| {
                    self.with_session(key, |session, _, _| {
                        session.acknowledge(event_number);
                        Ok(())
                    })
                });
            }
            // Whoever no longer waits needs no answer.
            Command::Snapshot {
                from,
                outbox,
                number,
                reply,
            } => drop(reply.send(self.send_snapshot_page(from, &outbox, number))),
            Command::Letter(letter) => self.on_letter(letter),
            Command::Report { reply } => drop(reply.send(Box::new(self.totals()))),
            Command::Recorder { recording, notice } => self.on_recorder(recording, notice),
            Command::FileOpened(opened) => self.on_file_opened(*opened),
            Command::EndAll { reason } => self.ending_all = Some(reason),
            Command::Stop => self.stopping = true,
            #[cfg(test)]
            Command::Die => panic!("a bug"),
            #[cfg(test)]
            Command::Panic(session) => {
                if let Ok(key) = self.find_session(session)
                    && let Some(slot) = self.sessions.get_mut(key)
                {
                    let unharmed = guarded(&mut slot.session, |_| panic!("a bug"));
                    self.after_turn_of(key, unharmed);
                }
            }
        }
    }

    fn handle_request(&mut self, request: Request, ticket: Ticket, term: u64) {
        if let Request::SessionCreate(create) = &request {
            let key = self.create_session(create);
            ticket.answer(Ok(Reply::Done));
            self.release_if_stale(key, term);
            return;
        }
        let found = session_of(&request)
            .ok_or_else(|| RequestError::Internal("not about a session".to_owned()))
            .and_then(|session| self.find_session(session));
        match found {
            Err(refused) => ticket.answer(Err(refused)),
            Ok(key) => {
                let attaches = matches!(request, Request::SessionAttach { .. });
                self.handle_session_request(key, request, ticket);
                if attaches {
                    self.release_if_stale(key, term);
                }
            }
        }
    }

    /// What a controller attached that is gone meanwhile must not stay attached to nobody.
    fn release_if_stale(&mut self, key: u64, term: u64) {
        if term != self.term {
            self.release_session(key);
        }
    }

    fn handle_session_request(&mut self, key: u64, request: Request, ticket: Ticket) {
        match request {
            Request::SessionDestroy { .. } => {
                self.close_session(key, After::Destroyed(key, ticket));
            }
            Request::EndpointRemove { endpoint, .. } => self.remove_endpoint(key, endpoint, ticket),
            Request::EndpointTransfer(transfer) => {
                self.begin_move(key, Job::Transfer(transfer), ticket);
            }
            Request::BridgeCreate(bridge) => self.begin_move(key, Job::Bridge(bridge), ticket),
            Request::RecordingStart(start) => self.start_recording(key, start, ticket),
            Request::FileCreate(create) => self.create_file(key, create, ticket),
            Request::FileFetched(fetched) => self.on_fetched(key, fetched, ticket),
            Request::RecordingStop { recording, .. } => self.stop_recording(key, recording, ticket),
            Request::EndpointCreateFromOffer(offer) => {
                let prepare = |session: &Session| session.prepare_from_offer(&offer);
                let created = self.prepare(key, prepare);
                let created = created.and_then(|prepared| self.create_endpoint(key, prepared));
                self.finish_request(key, ticket, created, true);
            }
            Request::EndpointCreateOffer(offer) => {
                let prepare = |session: &Session| session.prepare_offer(&offer);
                let created = self.prepare(key, prepare);
                let created = created.and_then(|prepared| self.create_endpoint(key, prepared));
                self.finish_request(key, ticket, created, true);
            }
            request => {
                let now_ns = self.out.now_ns;
                let Some(slot) = self.sessions.get_mut(key) else {
                    return;
                };
                if matches!(request, Request::EndpointAcceptAnswer(_)) {
                    slot.stamp_from(now_ns);
                }
                let mut result = Err(RequestError::Internal("panic".to_owned()));
                let (now, out) = (self.now, &mut self.out);
                let unharmed = guarded(&mut slot.session, |session| {
                    result = apply(session, now, &request, out);
                });
                if matches!(request, Request::ToneCreate(_)) && result.is_ok() {
                    self.endpoints_total += 1;
                }
                self.finish_request(key, ticket, result, unharmed);
            }
        }
    }

    fn prepare<T>(
        &mut self,
        key: u64,
        prepare: impl FnOnce(&Session) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let slot = self
            .sessions
            .get_mut(key)
            .ok_or(RequestError::SessionGone)?;
        let mut prepared = Err(RequestError::Internal("panic".to_owned()));
        if !guarded(&mut slot.session, |session| prepared = prepare(session)) {
            self.on_panic(key);
        }
        prepared
    }

    pub(super) fn finish_request(
        &mut self,
        key: u64,
        ticket: Ticket,
        result: Result<Reply, RequestError>,
        unharmed: bool,
    ) {
        if unharmed {
            self.send_counts(key);
        }
        ticket.answer(result);
        self.after_turn_of(key, unharmed);
    }

    fn send_snapshot_page(&mut self, from: usize, outbox: &Outbox, number: u64) -> Option<usize> {
        let mut sent = 0;
        let end = self
            .sessions
            .places()
            .min(from.saturating_add(SNAPSHOT_PLACES));
        let mut index = from;
        while index < end && sent < SNAPSHOT_SESSIONS && !(sent > 0 && outbox.is_behind()) {
            let key = self.sessions.at(index).map(|(key, _)| key);
            let snapshot = key.map(|key| self.with_session(key, |s, _, _| Ok(s.snapshot())));
            // One that is about to end is left out.
            if let Some(Ok(session)) = snapshot {
                for session in session.into_parts() {
                    let part = ToControl::SnapshotPart { number, session };
                    outbox.push(&part, Class::MustArrive);
                }
                sent += 1;
            }
            index += 1;
        }
        (index < self.sessions.places()).then_some(index)
    }

    /// Goes on ending all sessions, some each turn.
    pub(super) fn end_some_sessions(&mut self) {
        let Some(reason) = self.ending_all else {
            return;
        };
        let open = self.sessions.iter().filter(|(_, slot)| !slot.closing);
        let open: Vec<u64> = open.map(|(key, _)| key).take(MAX_ENDINGS).collect();
        if open.is_empty() {
            self.ending_all = None;
        }
        for key in open {
            self.close_session(key, After::Ended(key, reason));
        }
    }
}

/// The session a request is about.
pub(crate) fn session_of(request: &Request) -> Option<SessionId> {
    Some(match request {
        Request::SessionCreate(r) => r.session,
        Request::SessionDestroy { session }
        | Request::SessionAttach { session }
        | Request::SessionRelease { session }
        | Request::SessionInfo { session }
        | Request::EndpointRemove { session, .. }
        | Request::EndpointIceRestart { session, .. }
        | Request::EndpointSrtpRekey { session, .. }
        | Request::FilePause { session, .. }
        | Request::FileResume { session, .. }
        | Request::RecordingStop { session, .. }
        | Request::VadStop { session, .. }
        | Request::StatsUnsubscribe { session }
        | Request::StatsSnapshot { session } => *session,
        Request::EndpointCreateFromOffer(r) => r.session,
        Request::EndpointCreateOffer(r) => r.session,
        Request::EndpointAcceptAnswer(r) => r.session,
        Request::EndpointReinvite(r) | Request::EndpointAcceptOffer(r) => r.session,
        Request::EndpointUpdateDirection(r) => r.session,
        Request::EndpointTransfer(r) => r.session,
        Request::DtmfInject(r) => r.session,
        Request::DtmfSetSensitive(r) => r.session,
        Request::FileCreate(r) => r.session,
        Request::FileFetched(r) => r.session,
        Request::FileSeek(r) => r.session,
        Request::ToneCreate(r) => r.session,
        Request::RecordingStart(r) => r.session,
        Request::VadStart(r) => r.session,
        Request::StatsSubscribe(r) => r.session,
        Request::BridgeCreate(r) => r.session,
        Request::Snapshot | Request::Metrics | Request::Status | Request::SetLogLevel { .. } => {
            return None;
        }
    })
}

/// Requests that need nothing but the session.
fn apply(
    session: &mut Session,
    now: Moment,
    request: &Request,
    out: &mut Output,
) -> Result<Reply, RequestError> {
    let done = |()| Reply::Done;
    match request {
        Request::SessionAttach { .. } => Ok(Reply::Attached(session.attach(now))),
        Request::SessionRelease { .. } => {
            session.release();
            Ok(Reply::Done)
        }
        Request::SessionInfo { .. } => Ok(Reply::Session(session.details())),
        Request::EndpointAcceptAnswer(r) => session.accept_answer(now, r, out).map(done),
        Request::EndpointReinvite(r) => session.reinvite(now, r, out).map(Reply::Sdp),
        Request::EndpointAcceptOffer(r) => session.accept_offer(now, r, out).map(Reply::Sdp),
        Request::EndpointUpdateDirection(r) => session.update_direction(now, r).map(done),
        Request::EndpointIceRestart { endpoint, .. } => {
            session.ice_restart(now, *endpoint).map(Reply::IceRestarted)
        }
        Request::EndpointSrtpRekey { endpoint, .. } => {
            session.srtp_rekey(now, *endpoint).map(Reply::Sdp)
        }
        Request::DtmfInject(r) => session.dtmf_inject(now, r, out).map(done),
        Request::DtmfSetSensitive(r) => session.dtmf_set_sensitive(now, r).map(done),
        Request::FileSeek(r) => session.file_seek(now, r).map(done),
        Request::FilePause { endpoint, .. } => session.file_pause(now, *endpoint, out).map(done),
        Request::FileResume { endpoint, .. } => session.file_resume(now, *endpoint, out).map(done),
        Request::ToneCreate(r) => session.create_tone(now, r, out).map(done),
        Request::StatsSubscribe(r) => session.stats_subscribe(now, r).map(done),
        Request::StatsUnsubscribe { .. } => {
            session.stats_unsubscribe(now);
            Ok(Reply::Done)
        }
        Request::StatsSnapshot { .. } => Ok(Reply::Stats(session.stats_rows(now.at))),
        Request::VadStart(r) => session.vad_start(now, r).map(done),
        Request::VadStop { endpoint, .. } => session.vad_stop(now, *endpoint).map(done),
        _ => Err(RequestError::Endpoint("not available yet".to_owned())),
    }
}
