//! What both rtpbridge processes agree on: identifiers, vocabulary, configuration, and the messages
//! and framing of the Unix socket between them. This crate opens no socket and starts no runtime.

pub mod id;
pub mod ipc;
pub mod vocab;
