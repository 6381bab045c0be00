//! End-to-end tests: the real programs, spoken to over their real sockets.
#![allow(clippy::unwrap_used)]

mod calls;
mod config;
mod connection;
mod downloads;
mod dtmf;
mod files;
mod filtered;
mod garbage;
mod http;
mod ipc;
mod learning;
mod managed;
mod messages;
mod monitoring;
mod peers;
mod recording;
mod recording_attacks;
mod recording_files;
mod recording_strain;
mod restart;
mod routing;
mod rtcp;
mod sdp;
mod shutdown;
mod soak;
mod sound;
mod srtp;
mod stats;
mod supervised;
mod survival;
mod transfer;
mod vad;
mod webrtc;
mod webrtc_many;
