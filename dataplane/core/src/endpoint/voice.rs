//! Voice activity of one endpoint. It moves with the endpoint, and listens to what the endpoint says
//! whether or not anybody else does; who hands the sound in is the session's business.

use std::time::Duration;

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::Event;
use rtpbridge_shared::ipc::vad::VadStart;

use crate::time::Instant;
use crate::vad::{Vad, VadEvent};

/// A detector and what it has found that its client was not told yet.
pub(crate) struct Voice {
    vad: Vad,
    found: Vec<VadEvent>,
}

impl Voice {
    /// Listens from `now` on.
    pub(super) fn new(request: &VadStart, now: Instant) -> Self {
        let interval = Duration::from_millis(request.silence_interval_ms.into());
        Self {
            vad: Vad::new(now, request.speech_threshold, interval),
            found: Vec::new(),
        }
    }

    /// Hears the endpoint's next samples.
    pub(super) fn hear(&mut self, now: Instant, rate_hz: u32, pcm: &[i16]) {
        let found = &mut self.found;
        self.vad
            .handle_pcm(now, rate_hz, pcm, &mut |event| found.push(event));
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.vad.next_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.vad.next_timeout().is_some_and(|due| now >= due) {
            let found = &mut self.found;
            self.vad.handle_timeout(now, &mut |event| found.push(event));
        }
    }

    /// The oldest finding that was not told.
    pub(super) fn poll(&mut self, endpoint: EndpointId) -> Option<Event> {
        if self.found.is_empty() {
            return None;
        }
        Some(match self.found.remove(0) {
            VadEvent::SpeechStarted => Event::VadSpeechStarted { endpoint },
            VadEvent::Silence { duration } => Event::VadSilence {
                endpoint,
                silence_duration_ms: duration.as_millis() as u64,
            },
        })
    }
}
