//! Telephone-events (RFC 4733): their payload, digits from what arrives, digits to send.

pub mod payload;
pub mod receiver;
pub mod sender;
