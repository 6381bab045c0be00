//! Parties of a call, with an RTP and SDP of their own: what the programs send is judged by code
//! that they do not share.

pub mod audio;
pub mod capture;
pub mod dtls;
pub mod ffmpeg;
pub mod party;
pub mod relay;
pub mod rtcp;
pub mod rtp;
pub mod script;
pub mod sdes;
pub mod sdp;
pub mod webrtc;
pub mod wiretap;

pub use dtls::DtlsParty;
pub use party::Party;
pub use relay::Relay;
pub use rtp::Rtp;
pub use script::Script;
pub use sdes::SdesParty;
pub use sdp::{Description, Offer};
pub use webrtc::WebrtcPeer;
pub use wiretap::Wiretap;
