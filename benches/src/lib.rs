//! The load generator behind `rtpbridge-bench`: calls set up over the real protocol, packets with
//! time stamps inside, the cost read from /proc, and a minimal forwarder to compare with. What it
//! reports must be what happened: it also says how busy and how late it was itself.
#![allow(clippy::unwrap_used)]

pub mod calls;
pub mod disturb;
pub mod forwarder;
pub mod histogram;
pub mod launch;
pub mod legs;
pub mod load;
pub mod parties;
pub mod plan;
pub mod processes;
pub mod report;
pub mod sound;
pub mod speech;
pub mod webrtc;
