//! A hook for tests of what a crash costs. In debug builds, when `TEST_CRASH` in the environment names
//! a moment, the process ends itself there with SIGKILL, as if from outside. Release builds have none
//! of it.
//!
//! `TEST_CRASH=before-write`: a critical event was read from the dataplane and is not yet written.
//! `TEST_CRASH=before-acknowledge`: it was written, and the dataplane has not heard so.

/// When the process may end itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    /// A critical event is in the process and nowhere else but in the dataplane.
    BeforeWrite,
    /// The client has it.
    BeforeAcknowledge,
}

/// Ends the process if this is the moment that the environment names.
#[cfg(debug_assertions)]
pub(super) fn point(moment: Moment) {
    use std::sync::LazyLock;

    use nix::sys::signal::{Signal, raise};

    static WANTED: LazyLock<Option<Moment>> = LazyLock::new(|| {
        let name = std::env::var("TEST_CRASH").ok()?;
        match name.as_str() {
            "before-write" => Some(Moment::BeforeWrite),
            "before-acknowledge" => Some(Moment::BeforeAcknowledge),
            _ => None,
        }
    });
    if *WANTED == Some(moment) {
        let _ = raise(Signal::SIGKILL);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(super) const fn point(_: Moment) {}
