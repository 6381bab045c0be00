//! Recording commands: the session decides what goes into which; the files are the shell's.

use rtpbridge_shared::id::RecordingId;
use rtpbridge_shared::ipc::recording::{RecordingStart, RecordingSummary};
use rtpbridge_shared::ipc::{Event, RequestError};
use rtpbridge_shared::vocab::StopReason;

use super::engine::Session;
use super::input::RecordingKey;
use super::output::Outbox;
use crate::time::Moment;

impl Session {
    /// First step of `recording.start`: whether it may be. Changes nothing.
    ///
    /// # Errors
    /// Unknown endpoint, too many recordings, an id in use.
    pub fn check_recording(&self, request: &RecordingStart) -> Result<(), RequestError> {
        if self.liveness.is_over() {
            return Err(RequestError::SessionGone);
        }
        if self.recordings.contains(request.recording) {
            return Err(RequestError::IdInUse);
        }
        if let Some(leg) = request.endpoint
            && self.endpoints.find(leg).is_none()
        {
            return Err(RequestError::Recording("endpoint not found".into()));
        }
        let limit = self.config.max_recordings_per_session;
        if self.recordings.len() >= limit as usize {
            return Err(RequestError::Recording(format!(
                "Maximum concurrent recordings ({limit}) reached"
            )));
        }
        Ok(())
    }

    /// Second step, when the file exists: packets go to `key` from now on.
    ///
    /// # Errors
    /// As the first step.
    pub fn start_recording(
        &mut self,
        now: Moment,
        request: &RecordingStart,
        key: RecordingKey,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        self.on_command(now.at)?;
        self.check_recording(request)?;
        self.recordings.start(request, key, now.wall);
        let legs = self.endpoints.iter().map(|(_, endpoint)| endpoint.id());
        let wanted = legs.filter(|leg| request.endpoint.is_none_or(|wanted| wanted == *leg));
        for leg in wanted {
            out.record_leg(key, leg);
        }
        Ok(())
    }

    /// First step of `recording.stop` (and of a write error): no more packets go to it. It stays
    /// listed until [`recording_stopped`](Self::recording_stopped).
    ///
    /// # Errors
    /// No such recording, or it is stopping already.
    pub fn stop_recording(
        &mut self,
        now: Moment,
        recording: RecordingId,
    ) -> Result<RecordingKey, RequestError> {
        self.on_command(now.at)?;
        let key = self.recordings.stop(recording);
        key.ok_or_else(|| RequestError::Recording("recording not found".into()))
    }

    /// Last step of every stop: the file is closed. Gives the event unless the reason is
    /// `Requested`, and forgets the recording.
    pub fn recording_stopped(&mut self, summary: RecordingSummary, out: &mut dyn Outbox) {
        self.recordings.forget(summary.recording);
        if summary.reason != StopReason::Requested {
            self.events.emit(Event::RecordingStopped(summary), out);
        }
    }
}
