//! What both rtpbridge processes agree on: identifiers, vocabulary, configuration, and the messages
//! and framing of the Unix socket between them. This crate keeps no socket open and starts no
//! runtime.

pub mod config;
pub mod id;
pub mod ipc;
pub mod logging;
pub mod runtime_dir;
pub mod sequence;
pub mod service_manager;
pub mod startup;
pub mod supervised;
pub mod vocab;
