//! ICE as a lite agent (RFC 8445 section 2.5, RFC 7675 for consent): it answers the peer's checks
//! and never sends one. It says which addresses the peer has proved to be at, and where to send.
//!
//! Must never send anything unasked, answer anything but a binding request, believe an attribute
//! that stands behind MESSAGE-INTEGRITY, or keep state for whom did not know the password.
//!
//! `message` parses and writes STUN, `credentials` holds the generations of ufrag and password,
//! `lite` is the responder, `liveness` what clients see of it.

mod credentials;
mod lite;
mod liveness;
mod message;

pub use credentials::{CREDENTIAL_ENTROPY, random_credentials};
pub use lite::{IceLite, MAX_RESPONSE_LEN, StunOutcome};
pub use liveness::SILENCE_LIMIT;
