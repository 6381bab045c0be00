//! Endpoints of a session.

mod latching;
