//! End-to-end tests: the real programs, spoken to over their real sockets.
#![allow(clippy::unwrap_used)]

mod messages;
