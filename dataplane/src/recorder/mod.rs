//! Recordings (media.md, Recording): `queue` takes packets off the worker, `writer` puts them into
//! files. Nothing here may make a worker wait: not a lock, not a file, not a full queue.

pub(crate) mod account;
pub(crate) mod directory;
mod file;
pub(crate) mod frame;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod tap;
pub(crate) mod writer;
