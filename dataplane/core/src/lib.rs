//! The media engine of rtpbridge, without IO.

pub mod codec;
pub mod dtmf;
mod endpoint;
pub mod entropy;
pub mod ice;
pub mod jitter;
pub mod mixer;
pub mod playback;
pub mod rtcp;
pub mod rtp;
pub mod sdp;
pub mod session;
pub mod srtp;
pub mod time;
pub mod tone;
pub mod transcode;
pub mod vad;
