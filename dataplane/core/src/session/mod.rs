//! One call: its endpoints, who hears whom, its events and its recordings.
//!
//! [`Session`] is driven by a shell that owns clocks and sockets: `handle_packet`, `handle_timeout`
//! and one method per command go in, an [`Outbox`] takes what comes out. A session belongs to one
//! thread and shares nothing.

mod bridge;
mod commands;
mod config;
mod endpoints;
mod engine;
mod events;
mod forward;
mod handshake;
mod input;
mod liveness;
mod output;
mod plan;
mod playback;
mod recording;
mod sound;
mod stats;
mod taps;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod transfer;
mod upcoming;
mod voice;

pub use crate::endpoint::{BridgeEnd, OpenedFile, PlayOrder, bridge};
pub use commands::{Created, PreparedEndpoint, Removed};
pub use config::EngineConfig;
pub use engine::{Closed, Session};
pub use handshake::HandshakeOutcome;
pub use input::{
    Channel, EndpointKey, EndpointSockets, LocalSocket, PacketBuffer, RecordingKey, SocketKey,
    SocketNeed,
};
pub use output::{Counters, EndedRecording, Outbox, RecordFrame, RecordKind};
pub use plan::{EndpointView, Feed, Handling, Route, RoutePlan};
pub(crate) use taps::Recordings;
pub use transfer::DetachedEndpoint;
