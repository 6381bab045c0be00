//! SRTP and SRTCP (RFC 3711, 7714) with keys from SDES (RFC 4568) or DTLS (RFC 5764): our own
//! transform, in place, for the four suites that the product knows.
//!
//! Must never believe a packet before its tag is checked, keep state for an SSRC that has not sent
//! an authentic packet, use a packet index twice to send, or let a key reach a log.
//!
//! `suite` says how long things are, `key` holds master keys (their text is `sdp::crypto`'s), `kdf`
//! derives session keys, `cipher` treats one packet, `replay` and `sources` remember what was seen,
//! `rekey` keeps two keys for a while, and `transform` puts all of it together.

mod cipher;
mod kdf;
mod key;
mod packet;
pub mod rekey;
mod replay;
mod sources;
pub mod suite;
mod transform;

pub(crate) use replay::WINDOW_LEN;

pub use key::{KeyLengthError, MasterKey, master_len};
pub use suite::SrtpSuite;
pub use transform::{Protector, SrtpError, Unprotector};
