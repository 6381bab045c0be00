//! What control remembers of running recordings: enough to refuse the deletion of a file that is
//! being written, and to tell a client what was lost when the dataplane dies.

use std::path::Path;

use rtpbridge_shared::id::{RecordingId, SessionId};
use rtpbridge_shared::ipc::Event;
use rtpbridge_shared::ipc::recording::RecordingSummary;
use rtpbridge_shared::ipc::session::RecordingDetails;
use rtpbridge_shared::vocab::StopReason;

use super::registry::{Entry, Registry};
use crate::clock::unix_ms;
use crate::event::Body;
use crate::lock::lock;

/// The running recordings of one session.
#[derive(Debug, Default)]
pub(super) struct Recordings {
    rows: Vec<RecordingDetails>,
}

impl Recordings {
    pub(super) fn replace(&mut self, rows: &[RecordingDetails]) {
        self.rows = rows.to_vec();
    }

    /// Returns whether it was known to run.
    pub(super) fn ended(&mut self, recording: RecordingId) -> bool {
        let before = self.rows.len();
        self.rows.retain(|row| row.recording != recording);
        self.rows.len() < before
    }
}

impl Registry {
    /// A recording began.
    pub fn recording_started(&self, session: SessionId, details: RecordingDetails) {
        if let Some(entry) = lock(&self.inner).sessions.get_mut(&session) {
            entry.recordings.rows.push(details);
        }
    }

    /// Sessions in which something is being recorded.
    pub fn recorded(&self) -> Vec<SessionId> {
        let inner = lock(&self.inner);
        let recorded = inner.sessions.iter();
        let recorded = recorded.filter(|(_, entry)| !entry.recordings.rows.is_empty());
        recorded.map(|(session, _)| *session).collect()
    }

    /// What `session.info` said about the session's recordings.
    pub fn recordings_seen(&self, session: SessionId, rows: &[RecordingDetails]) {
        if let Some(entry) = lock(&self.inner).sessions.get_mut(&session) {
            entry.recordings.replace(rows);
        }
    }

    /// `recording.stop` ended it; its answer says so.
    pub fn recording_stopped(&self, session: SessionId, recording: RecordingId) {
        if let Some(entry) = lock(&self.inner).sessions.get_mut(&session) {
            entry.recordings.ended(recording);
        }
    }

    /// A request ended these; whichever no event reported is reported now, so that
    /// `recording.stopped` precedes the answer.
    pub fn report_recordings(&self, session: SessionId, summaries: Vec<RecordingSummary>) {
        if let Some(entry) = lock(&self.inner).sessions.get_mut(&session) {
            for summary in summaries {
                if entry.recordings.ended(summary.recording) {
                    entry.tell(session, Body::Posthumous(Event::RecordingStopped(summary)));
                }
            }
        }
    }

    /// The session that writes the recording at this absolute path, if one is known to.
    pub fn writer_of(&self, path: &Path) -> Option<SessionId> {
        let inner = lock(&self.inner);
        inner
            .sessions
            .iter()
            .find(|(_, entry)| {
                entry
                    .recordings
                    .rows
                    .iter()
                    .any(|row| Path::new(&row.file_path) == path)
            })
            .map(|(session, _)| *session)
    }
}

impl Entry {
    /// Tells the connection of a session that is gone what was being recorded.
    pub(super) fn tell_recordings(&mut self, session: SessionId, reason: StopReason) {
        let now_ms = unix_ms();
        for row in std::mem::take(&mut self.recordings.rows) {
            let duration_ms = now_ms.saturating_sub(row.started_at_ms);
            let summary = RecordingSummary {
                recording: row.recording,
                file_path: row.file_path,
                duration_ms,
                packets: row.packets,
                dropped_packets: 0,
                reason,
                flushed: false,
                streams: Vec::new(),
            };
            self.tell(session, Body::Posthumous(Event::RecordingStopped(summary)));
        }
    }
}
