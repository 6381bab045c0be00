//! The Unix socket towards control and observers (processes.md, "The wire between them"). Runs on
//! one thread; it never waits for a worker, nor a worker for it.

pub(crate) mod dispatch;
pub(crate) mod listen;
pub(crate) mod outbox;
mod placement;
pub(crate) mod server;
