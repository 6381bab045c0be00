//! The wire between control and dataplane: a Unix stream socket carrying length-prefixed bincode
//! frames. `message` has the two top-level enums; the payloads live in one file per resource.
//!
//! Rules for every type here: plain serde (no skipped, flattened or untagged fields), no `usize`,
//! and its encoded bytes pinned by a test, so that a change of the format is a decision that goes
//! with a new [`PROTOCOL_VERSION`].

pub mod bridge;
pub mod dtmf;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod frame;
#[cfg(test)]
mod golden;
pub mod hello;
pub mod message;
pub mod permit;
pub mod playback;
pub mod process;
pub mod recording;
pub mod session;
pub mod stats;
pub mod vad;

pub use error::RequestError;
pub use event::{Event, NumberedEvent};
pub use hello::{Hello, PROTOCOL_VERSION, Role};
pub use message::{Reply, Request, ToControl, ToDataplane};
