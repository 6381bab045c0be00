//! The media engine of rtpbridge, without IO.

pub mod sdp;
pub mod srtp;
pub mod time;
