//! Voice activity detection: `vad.start`, `vad.stop`, and telling what was found.

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::vad::VadStart;
use rtpbridge_shared::ipc::{Event, RequestError};

use super::engine::Session;
use super::input::EndpointKey;
use super::output::Outbox;
use crate::codec::CodecError;
use crate::endpoint::Endpoint;
use crate::time::Moment;

/// Bounds of the client's interval.
const INTERVAL_MS: std::ops::RangeInclusive<u32> = 100..=3_600_000;

impl Session {
    /// `vad.start`; replaces the settings when it already runs.
    ///
    /// # Errors
    /// No such endpoint, or settings out of bounds.
    pub fn vad_start(&mut self, now: Moment, request: &VadStart) -> Result<(), RequestError> {
        let endpoint = self.command_on(request.endpoint, now.at)?;
        if !INTERVAL_MS.contains(&request.silence_interval_ms)
            || !(0.0..=1.0).contains(&request.speech_threshold)
        {
            return Err(RequestError::Vad("settings are out of bounds".into()));
        }
        endpoint.listen(Some(request), now.at);
        self.on_endpoints_changed(now.at);
        Ok(())
    }

    /// `vad.stop`; nothing happens when it does not run.
    ///
    /// # Errors
    /// No such endpoint.
    pub fn vad_stop(&mut self, now: Moment, endpoint: EndpointId) -> Result<(), RequestError> {
        self.command_on(endpoint, now.at)?.listen(None, now.at);
        self.on_endpoints_changed(now.at);
        Ok(())
    }

    /// Tells what was found in an endpoint's sound since this was last called.
    pub(super) fn tell_voice(&mut self, key: EndpointKey, out: &mut dyn Outbox) {
        let endpoint = self.endpoints.get_mut(key);
        let Some(endpoint) = endpoint.filter(|endpoint| endpoint.is_listened_to()) else {
            return;
        };
        while let Some(found) = endpoint.poll_voice() {
            self.events.emit(found, out);
        }
    }

    /// The endpoint's sound cannot be had: its client is told once.
    pub(super) fn on_voice_lost(
        &mut self,
        key: EndpointKey,
        error: &CodecError,
        now: Moment,
        out: &mut dyn Outbox,
    ) {
        let Some(endpoint) = self.endpoints.get_mut(key) else {
            return;
        };
        endpoint.listen(None, now.at);
        let lost = Event::VadError {
            endpoint: endpoint.id(),
            error: error.to_string(),
        };
        self.events.emit(lost, out);
        self.on_endpoints_changed(now.at);
    }

    /// Endpoints with voice activity detection on, in order of their creation.
    pub(super) fn listened_to(&self) -> Vec<EndpointId> {
        let listened = self.endpoints.iter().map(|(_, endpoint)| endpoint);
        let listened = listened.filter(|endpoint| endpoint.is_listened_to());
        listened.map(Endpoint::id).collect()
    }
}
