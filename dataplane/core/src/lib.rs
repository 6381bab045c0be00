//! The media engine of rtpbridge, without IO.

pub mod sdp;
