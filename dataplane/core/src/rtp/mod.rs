//! RTP (RFC 3550): reading headers, counting what arrives, placing what leaves.

pub mod demux;
pub mod frame_track;
pub mod header;
pub mod reception;
pub mod rewrite;
pub mod seq;
