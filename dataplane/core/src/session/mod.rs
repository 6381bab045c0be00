//! One call: its endpoints, who hears whom, its events and its recordings.
//!
//! [`Session`] is driven by a shell that owns clocks and sockets: `handle_packet`, `handle_timeout`
//! and one method per command go in, an [`Outbox`] takes what comes out. A session belongs to one
//! thread and shares nothing.

mod config;
mod engine;
mod input;
mod output;

pub use config::EngineConfig;
pub use engine::{Closed, Created, DetachedEndpoint, PreparedEndpoint, Removed, Session};
pub use input::{
    Channel, EndpointKey, EndpointSockets, LocalSocket, PacketBuffer, RecordingKey, SocketKey,
    SocketNeed,
};
pub use output::{Counters, EndedRecording, Outbox, RecordFrame, RecordKind};
