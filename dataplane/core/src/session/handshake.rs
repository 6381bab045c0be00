//! What the shell's handshakes bring, for the endpoint with the socket they run over.

use super::engine::Session;
use super::input::EndpointKey;
use super::output::Outbox;
use crate::endpoint::{Endpoint, Keys};
use crate::srtp::MasterKey;
use crate::time::Moment;

/// What became of a handshake.
pub enum HandshakeOutcome<'a> {
    /// A datagram for the peer.
    Transmit(&'a [u8]),
    /// It is done: what we send with and what the peer sends with.
    Keys {
        /// Ours.
        send: &'a MasterKey,
        /// The peer's.
        receive: &'a MasterKey,
    },
    /// It failed, or the peer said goodbye: the endpoint is `disconnected` for good.
    Over,
}

impl Session {
    /// A handshake went on. Nothing happens when the endpoint is gone or of another kind.
    pub fn handle_handshake(
        &mut self,
        now: Moment,
        endpoint: EndpointKey,
        outcome: HandshakeOutcome<'_>,
        out: &mut dyn Outbox,
    ) {
        let Some(endpoint) = self.endpoints.get_mut(endpoint) else {
            return;
        };
        let (id, before) = (endpoint.id(), endpoint.states());
        let Ok(webrtc) = endpoint.as_webrtc() else {
            return;
        };
        match outcome {
            HandshakeOutcome::Transmit(datagram) => {
                if let Some(path) = webrtc.handshake_path() {
                    out.transmit(path.socket, path.to, datagram);
                }
            }
            HandshakeOutcome::Keys { send, receive } => {
                webrtc.on_keys(Keys::new(send, receive), now);
            }
            HandshakeOutcome::Over => webrtc.on_handshake_over(now),
        }
        let after = Endpoint::states(endpoint);
        self.on_states(id, before, after, now.at, out);
    }
}
