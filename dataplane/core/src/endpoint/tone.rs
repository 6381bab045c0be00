//! Tone endpoints: heard by everybody, hearing nobody.

use rtpbridge_shared::ipc::playback::ToneCreate;
use rtpbridge_shared::vocab::EndpointState;

use super::pcm::{Ending, Pulled};
use crate::tone::ToneGenerator;

/// A tone being played.
pub(crate) struct ToneEndpoint {
    generator: ToneGenerator,
    is_finished: bool,
}

impl ToneEndpoint {
    pub(crate) fn new(request: &ToneCreate) -> Self {
        Self {
            generator: ToneGenerator::new(request.tone, request.frequency, request.duration_ms),
            is_finished: false,
        }
    }

    pub(crate) fn state(&self) -> EndpointState {
        if self.is_finished {
            EndpointState::Finished
        } else {
            EndpointState::Playing
        }
    }

    /// The next 20 ms, at whatever rate.
    pub(crate) fn pull(&mut self, rate_hz: u32, out: &mut [i16]) -> Pulled {
        if self.is_finished {
            return Pulled::Nothing;
        }
        match self.generator.fill(rate_hz, out) {
            0 => {
                self.is_finished = true;
                Pulled::Finished(Ending::Tone)
            }
            samples => Pulled::Samples(samples),
        }
    }
}
