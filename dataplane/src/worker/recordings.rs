//! Recordings as the worker sees them: files are made and closed by writer threads, so every start
//! and every stop has two steps. A stop waits for all files of one request, but not for ever.
//!
//! ```text
//! Opening ──file exists──► Running ──stop, error, leg or session gone──► Stopping ──closed──► gone
//!    └─────────────────────── session gone ─────────────────► Abandoned ──closed──► gone
//! ```

use std::sync::Arc;

use rtpbridge_core::session::RecordingKey;
use rtpbridge_shared::id::RecordingId;
use rtpbridge_shared::ipc::recording::{RecordingStart, RecordingSummary};
use rtpbridge_shared::ipc::session::SessionEndReason;
use rtpbridge_shared::ipc::{Reply, RequestError, ToControl};
use rtpbridge_shared::vocab::StopReason;

use super::Worker;
use super::commands::Command;
use super::turn::guarded;
use crate::ipc::outbox::Ticket;
use crate::recorder::queue::queue;
use crate::recorder::tap::Tap;
use crate::recorder::writer::{Closed, Notice, WriterKey};

/// One recording.
pub(super) struct Recording {
    pub(super) tap: Tap,
    pub(super) writer: WriterKey,
    /// Key of its session.
    pub(super) session: u64,
    id: RecordingId,
    file_path: String,
    started_ns: u64,
    phase: Phase,
}

enum Phase {
    Opening(Box<(RecordingStart, Ticket)>),
    Running,
    Stopping {
        reason: StopReason,
        stopped_ns: u64,
        wait: u64,
    },
    /// Nobody waits for its end any more.
    Abandoned,
}

/// What happens when all files of a stop are closed.
pub(super) enum After {
    /// The request is answered with how they ended.
    Stopped(Ticket),
    /// The session with this key is gone, and the request is answered.
    Destroyed(u64, Ticket),
    /// The session with this key is gone, and control is told why.
    Ended(u64, SessionEndReason),
    /// The event said it all.
    Nothing,
}

/// A stop that waits for files. One that ends the session waits for all of that session's files,
/// those included whose stop had begun before.
pub(super) struct Wait {
    session: u64,
    outstanding: usize,
    summaries: Vec<RecordingSummary>,
    deadline_ns: u64,
    after: After,
}

impl Worker {
    pub(super) fn start_recording(&mut self, key: u64, request: RecordingStart, ticket: Ticket) {
        let check = self.with_session(key, |session, _, _| session.check_recording(&request));
        if let Err(refused) = check {
            ticket.answer(Err(refused));
            return;
        }
        let (sender, receiver) = queue(self.shared.settings.recording_channel_size);
        let recorder = Arc::clone(&self.shared.recorder);
        let progress = self.progress.clone();
        let handle = self.handle.clone();
        let tap = Tap::new(sender, self.now.wall.as_nanos());
        let started_ns = self.out.now_ns;
        self.out.recordings.insert_with(|recording| Recording {
            tap,
            writer: recorder.open(
                request.file_path.clone(),
                receiver,
                progress,
                Box::new(move |notice| {
                    handle.send_waiting(Command::Recorder { recording, notice });
                }),
            ),
            session: key,
            id: request.recording,
            file_path: request.file_path.clone(),
            started_ns,
            phase: Phase::Opening(Box::new((request, ticket))),
        });
    }

    pub(super) fn stop_recording(&mut self, key: u64, recording: RecordingId, ticket: Ticket) {
        let stopped = self.with_session(key, |session, now, _| {
            session.stop_recording(now, recording)
        });
        match stopped {
            Err(refused) => ticket.answer(Err(refused)),
            Ok(sink) => {
                let after = After::Stopped(ticket);
                self.stop_recordings(key, vec![sink.0], StopReason::Requested, after);
            }
        }
    }

    /// Closes the files of recordings of this session that get no more packets.
    pub(super) fn stop_recordings(
        &mut self,
        session: u64,
        keys: Vec<u64>,
        reason: StopReason,
        after: After,
    ) {
        let timeout = self.shared.settings.recording_flush_timeout.as_nanos();
        let timeout = u64::try_from(timeout).unwrap_or(u64::MAX);
        let stopped_ns = self.out.now_ns;
        let wait = self.waits.insert_with(|_| Wait {
            session,
            outstanding: 0,
            summaries: Vec::new(),
            deadline_ns: stopped_ns.saturating_add(timeout),
            after,
        });
        for key in keys {
            if let Some(recording) = self.out.recordings.get_mut(key) {
                recording.phase = Phase::Stopping {
                    reason,
                    stopped_ns,
                    wait,
                };
                self.shared.recorder.close(recording.writer);
            }
        }
        let outstanding = self.awaited_by(wait).len();
        if let Some(wait) = self.waits.get_mut(wait) {
            wait.outstanding = outstanding;
        }
        if outstanding == 0 {
            self.finish_wait(wait);
        }
    }

    /// The recordings whose end a stop waits for.
    fn awaited_by(&self, key: u64) -> Vec<u64> {
        let Some(wait) = self.waits.get(key) else {
            return Vec::new();
        };
        let is_awaited = |recording: &Recording| match recording.phase {
            Phase::Stopping { wait: own, .. } => {
                own == key || (wait.ends_session() && recording.session == wait.session)
            }
            Phase::Opening(_) | Phase::Running | Phase::Abandoned => false,
        };
        let recordings = self.out.recordings.iter();
        let awaited = recordings.filter(|(_, recording)| is_awaited(recording));
        awaited.map(|(key, _)| key).collect()
    }

    /// The session was ended by a bug: its files are closed without it.
    pub(super) fn abandon_recordings_of(&mut self, session: u64) {
        let owned = self
            .out
            .recordings
            .iter()
            .filter(|(_, r)| r.session == session);
        let owned: Vec<u64> = owned.map(|(key, _)| key).collect();
        for key in owned {
            if let Some(recording) = self.out.recordings.get_mut(key) {
                if !matches!(recording.phase, Phase::Stopping { .. }) {
                    self.shared.recorder.close(recording.writer);
                }
                recording.phase = Phase::Abandoned;
            }
        }
        let waits = self
            .waits
            .iter()
            .filter(|(_, wait)| wait.session == session);
        let waits: Vec<u64> = waits.map(|(key, _)| key).collect();
        for wait in waits {
            self.waits.remove(wait);
        }
    }

    /// A writer has something to say.
    pub(super) fn on_recorder(&mut self, key: u64, notice: Notice) {
        match notice {
            Notice::Opened(Ok(())) => self.on_opened(key),
            Notice::Opened(Err(refused)) => {
                let recording = self.out.recordings.remove(key);
                if let Some(Phase::Opening(opening)) = recording.map(|r| r.phase) {
                    opening.1.answer(Err(refused));
                }
            }
            Notice::Failed => self.on_write_error(key),
            Notice::Closed(closed) => self.on_closed(key, Some(&closed)),
        }
    }

    fn on_opened(&mut self, key: u64) {
        let Some(recording) = self.out.recordings.get_mut(key) else {
            return;
        };
        let session = recording.session;
        let Phase::Opening(opening) = std::mem::replace(&mut recording.phase, Phase::Running)
        else {
            recording.phase = Phase::Abandoned;
            return;
        };
        let (request, ticket) = *opening;
        let mut started = Err(RequestError::SessionGone);
        let mut unharmed = true;
        if let Some(slot) = self.sessions.get_mut(session)
            && !slot.closing
        {
            let (now, out) = (self.now, &mut self.out);
            unharmed = guarded(&mut slot.session, |session| {
                started = session.start_recording(now, &request, RecordingKey(key), out);
            });
            slot.recordings += u32::from(started.is_ok());
        }
        if started.is_err()
            && let Some(recording) = self.out.recordings.get_mut(key)
        {
            recording.phase = Phase::Abandoned;
            self.shared.recorder.close(recording.writer);
        }
        self.send_counts(session);
        ticket.answer(started.map(|()| Reply::Done));
        self.after_turn_of(session, unharmed);
    }

    fn on_write_error(&mut self, key: u64) {
        let recording = self.out.recordings.get(key);
        let running = recording.filter(|recording| matches!(recording.phase, Phase::Running));
        let Some((session, id)) = running.map(|recording| (recording.session, recording.id)) else {
            return;
        };
        let stopped = self.with_session(session, |session, now, _| session.stop_recording(now, id));
        if stopped.is_ok() {
            self.stop_recordings(session, vec![key], StopReason::WriteError, After::Nothing);
        }
    }

    /// The file is closed, or given up when there is no word of it.
    fn on_closed(&mut self, key: u64, closed: Option<&Closed>) {
        let Some(recording) = self.out.recordings.remove(key) else {
            return;
        };
        if let Phase::Stopping { wait, .. } = recording.phase {
            self.finish_recording(&recording, closed);
            self.finish_one(wait);
            let of_end = |(key, other): &(u64, &Wait)| {
                *key != wait && other.ends_session() && other.session == recording.session
            };
            let end = self.waits.iter().find(of_end).map(|(key, _)| key);
            if let Some(end) = end {
                self.finish_one(end);
            }
        }
    }

    /// Tells the session and whoever waits how a recording ended.
    fn finish_recording(&mut self, recording: &Recording, closed: Option<&Closed>) {
        let Phase::Stopping {
            reason,
            stopped_ns,
            wait,
        } = recording.phase
        else {
            return;
        };
        let duration_ms = stopped_ns.saturating_sub(recording.started_ns) / 1_000_000;
        let path = recording.file_path.clone();
        let summary = recording
            .tap
            .summary(recording.id, path, duration_ms, reason, closed);
        let mut unharmed = true;
        if let Some(slot) = self.sessions.get_mut(recording.session) {
            slot.recordings = slot.recordings.saturating_sub(1);
            let (out, told) = (&mut self.out, summary.clone());
            unharmed = guarded(&mut slot.session, |s| s.recording_stopped(told, out));
        }
        if let Some(wait) = self.waits.get_mut(wait) {
            wait.summaries.push(summary);
        }
        self.send_counts(recording.session);
        self.after_turn_of(recording.session, unharmed);
    }

    fn finish_one(&mut self, key: u64) {
        let Some(wait) = self.waits.get_mut(key) else {
            return;
        };
        wait.outstanding = wait.outstanding.saturating_sub(1);
        if wait.outstanding == 0 {
            self.finish_wait(key);
        }
    }

    fn finish_wait(&mut self, key: u64) {
        let Some(wait) = self.waits.remove(key) else {
            return;
        };
        match wait.after {
            After::Nothing => {}
            After::Stopped(ticket) => ticket.answer(Ok(Reply::Recordings(wait.summaries))),
            After::Destroyed(session, ticket) => {
                self.drop_session(session);
                ticket.answer(Ok(Reply::Recordings(wait.summaries)));
            }
            After::Ended(session, reason) => {
                let id = self.sessions.get(session).map(|slot| slot.id);
                self.drop_session(session);
                if let Some(session) = id {
                    let ended = ToControl::SessionEnded { session, reason };
                    self.shared.controller.send(&ended);
                }
            }
        }
    }

    pub(super) fn next_wait_deadline(&self) -> Option<u64> {
        if self.waits.len() == 0 {
            return None;
        }
        self.waits.iter().map(|(_, wait)| wait.deadline_ns).min()
    }

    /// Gives up on files that take too long; they are still closed when the disk lets go.
    pub(super) fn expire_waits(&mut self) {
        let now_ns = self.out.now_ns;
        if self
            .next_wait_deadline()
            .is_none_or(|deadline| deadline > now_ns)
        {
            return;
        }
        let late = self.waits.iter().filter(|(_, w)| w.deadline_ns <= now_ns);
        let late: Vec<u64> = late.map(|(key, _)| key).collect();
        for wait in late {
            for recording in self.awaited_by(wait) {
                self.on_closed(recording, None);
            }
            self.finish_wait(wait);
        }
    }
}

impl Wait {
    fn ends_session(&self) -> bool {
        matches!(self.after, After::Destroyed(..) | After::Ended(..))
    }
}
