//! RTCP (RFC 3550 section 6): what peers report, and our own reports.

pub mod control;
pub mod parse;
pub mod write;
