//! Files as sound: opening, decoding, and rings of 48 kHz mono that media workers play from.
//!
//! ```text
//! request ─► pool thread: open, probe ─► decode ahead ─► Ring ─► FileFeed, one per endpoint
//! ```
//! Workers touch nothing but the ring. Decoding and disk access happen on the pool's threads, which
//! may block; a slow disk costs the playbacks on it. A decode ends when its last feed is dropped.

mod directory;
mod downmix;
mod job;
mod opus;
mod pool;
mod ring;
mod stream;

pub(crate) use self::directory::{MediaDirectory, OpenError};
pub(crate) use self::pool::{DecoderPool, PlayError, PlayRequest};
pub(crate) use self::ring::FileFeed;

#[cfg(test)]
mod tests;
