//! End-to-end tests: the real programs, spoken to over their real sockets.
#![allow(clippy::unwrap_used)]

mod connection;
mod http;
mod messages;
mod routing;
mod sdp;
