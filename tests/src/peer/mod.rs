//! Parties of a call, with an RTP and SDP of their own: what the programs send is judged by code
//! that they do not share.

pub mod capture;
pub mod ffmpeg;
pub mod party;
pub mod rtcp;
pub mod rtp;
pub mod sdp;

pub use party::Party;
pub use rtp::Rtp;
pub use sdp::{Description, Offer};
