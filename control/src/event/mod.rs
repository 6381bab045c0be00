//! What a client is told without asking: the queue of one connection, and the JSON of each event.

pub mod queue;
pub mod wire;

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc;

/// An event on its way to a client.
#[derive(Clone, PartialEq, Debug)]
pub struct ClientEvent {
    /// The session it belongs to.
    pub session: SessionId,
    /// Its number in the session; the client's `seq` when the event is critical.
    pub number: u64,
    /// What is told.
    pub body: Body,
}

/// What an event tells.
#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    /// From the dataplane, which waits for the acknowledgement.
    Media(ipc::Event),
    /// Made by control because the dataplane cannot tell it any more; nobody waits for it.
    Posthumous(ipc::Event),
    /// The session is gone. Unbinds the connection.
    Lost(LossReason),
    /// The session ended and its own events said why. Unbinds the connection, tells nothing.
    Unbound,
}

/// Why a session was lost; the text forms are the protocol's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LossReason {
    /// The dataplane process died.
    DataplaneLost,
    /// A bug ended this one session.
    InternalError,
    /// The operator ended it over the admin socket.
    Kicked,
}

impl LossReason {
    /// The protocol's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            LossReason::DataplaneLost => "dataplane_lost",
            LossReason::InternalError => "internal_error",
            LossReason::Kicked => "kicked",
        }
    }
}

impl ClientEvent {
    /// Whether the event may use the places kept for critical ones.
    pub const fn is_critical(&self) -> bool {
        match &self.body {
            Body::Media(event) | Body::Posthumous(event) => event.is_critical(),
            Body::Lost(_) | Body::Unbound => true,
        }
    }

    /// Whether the client's connection is bound to nothing once it has this.
    pub const fn unbinds(&self) -> bool {
        matches!(&self.body, Body::Lost(_) | Body::Unbound)
    }

    /// The number to acknowledge to the dataplane once the event was written.
    pub const fn acknowledgement(&self) -> Option<(SessionId, u64)> {
        match &self.body {
            Body::Media(_) => Some((self.session, self.number)),
            Body::Posthumous(_) | Body::Lost(_) | Body::Unbound => None,
        }
    }
}
