//! The operating system at its narrowest: clocks, epoll, io_uring, UDP sockets. The only module beside
//! `sandbox` that may contain `unsafe`. It knows nothing of sessions or protocols.

#![allow(unsafe_code)]

pub(crate) mod clock;
pub(crate) mod epoll;
pub(crate) mod fetch;
pub(crate) mod process;
pub(crate) mod ring;
pub(crate) mod udp;
