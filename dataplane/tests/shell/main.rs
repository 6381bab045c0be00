//! The dataplane program as control sees it: a real process, its Unix socket, real UDP sockets.

mod harness;
mod link;
mod media;
mod recording;
mod stopping;
