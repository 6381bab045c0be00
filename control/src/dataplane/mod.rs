//! The link to the dataplane: one connection at a time, made again whenever it breaks.

pub mod link;
pub mod pending;

mod resync;
