//! Which packets go into which recordings. The files are the shell's.

use rtpbridge_shared::id::{EndpointId, RecordingId};
use rtpbridge_shared::ipc::recording::{RecordingStart, StreamDirection};
use rtpbridge_shared::ipc::session::RecordingDetails;

use super::input::RecordingKey;
use super::output::{EndedRecording, Outbox, RecordFrame, RecordKind};
use crate::time::WallTime;

/// The recordings of a session.
#[derive(Debug, Default)]
pub(crate) struct Recordings {
    rows: Vec<Recording>,
}

#[derive(Debug)]
struct Recording {
    id: RecordingId,
    key: RecordingKey,
    leg: Option<EndpointId>,
    file_path: String,
    started_at_ms: u64,
    records_outbound: bool,
    packets: u64,
    /// Its file is being closed.
    is_stopping: bool,
}

impl Recordings {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn contains(&self, id: RecordingId) -> bool {
        self.rows.iter().any(|row| row.id == id)
    }

    /// Whether any packet is wanted.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn start(&mut self, request: &RecordingStart, key: RecordingKey, now: WallTime) {
        self.rows.push(Recording {
            id: request.recording,
            key,
            leg: request.endpoint,
            file_path: request.file_path.clone(),
            started_at_ms: now.as_nanos() / 1_000_000,
            records_outbound: request.record_outbound,
            packets: 0,
            is_stopping: false,
        });
    }

    /// No more packets for this one; None when there is none or it is stopping already.
    pub(crate) fn stop(&mut self, id: RecordingId) -> Option<RecordingKey> {
        let row = self.rows.iter_mut().find(|row| row.id == id)?;
        (!std::mem::replace(&mut row.is_stopping, true)).then_some(row.key)
    }

    /// No more packets for the recordings of this one leg.
    pub(crate) fn stop_leg(&mut self, leg: EndpointId) -> Vec<EndedRecording> {
        self.stop_where(|row| row.leg == Some(leg))
    }

    /// No more packets for any.
    pub(crate) fn stop_all(&mut self) -> Vec<EndedRecording> {
        self.stop_where(|_| true)
    }

    pub(crate) fn forget(&mut self, id: RecordingId) {
        self.rows.retain(|row| row.id != id);
    }

    /// A leg joined the session.
    pub(crate) fn on_leg(&self, leg: EndpointId, out: &mut dyn Outbox) {
        for row in self.rows.iter().filter(|row| row.is_open_to(leg)) {
            out.record_leg(row.key, leg);
        }
    }

    /// A packet came or went; every recording that wants it gets it.
    pub(crate) fn tap(&mut self, frame: RecordFrame<'_>, out: &mut dyn Outbox) {
        for row in self.rows.iter_mut().filter(|row| row.wants(&frame)) {
            row.packets += 1;
            out.record(row.key, frame);
        }
    }

    pub(crate) fn details(&self) -> Vec<RecordingDetails> {
        let details = |row: &Recording| RecordingDetails {
            recording: row.id,
            endpoint: row.leg,
            file_path: row.file_path.clone(),
            started_at_ms: row.started_at_ms,
            packets: row.packets,
        };
        self.rows.iter().map(details).collect()
    }

    fn stop_where(&mut self, is_meant: impl Fn(&Recording) -> bool) -> Vec<EndedRecording> {
        let meant = |row: &&mut Recording| is_meant(row) && !row.is_stopping;
        let stop = |row: &mut Recording| {
            row.is_stopping = true;
            EndedRecording {
                recording: row.id,
                key: row.key,
            }
        };
        self.rows.iter_mut().filter(meant).map(stop).collect()
    }
}

impl Recording {
    fn is_open_to(&self, leg: EndpointId) -> bool {
        !self.is_stopping && self.leg.is_none_or(|wanted| wanted == leg)
    }

    fn wants(&self, frame: &RecordFrame<'_>) -> bool {
        let is_wanted = match (frame.kind, frame.direction) {
            (RecordKind::Rtcp, _) | (_, StreamDirection::Inbound) => true,
            (RecordKind::Rtp { .. }, StreamDirection::Outbound) => self.records_outbound,
        };
        is_wanted && self.is_open_to(frame.endpoint)
    }
}
