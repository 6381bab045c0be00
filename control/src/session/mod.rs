//! Control's mirror of the sessions: who holds which, since when nobody does, and what the lists
//! show. The dataplane has the original; everything here can be rebuilt from its snapshot.

pub mod admission;
pub mod orphan;
pub mod progress;
pub mod registry;

mod recordings;
mod resume;
