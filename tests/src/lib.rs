//! What the end-to-end tests stand on: real programs with their own directories and ports
//! (`harness`), parties that speak RTP with a codec of their own (`peer`), and an impaired network
//! (`netem`), and codecs and measures of its own (`sound`). Nothing here uses the programs' internals; only the socket between the processes is
//! spoken with the shared crate's framing. A harness that cannot go on panics: that is its verdict.
#![allow(clippy::unwrap_used)]

pub mod fuzz;
pub mod harness;
pub mod netem;
pub mod peer;
pub mod shipped;
pub mod sound;
