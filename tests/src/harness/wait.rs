//! Waiting for conditions. Deadlines are generous: they say when something is broken, not how fast
//! it has to be.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything that should happen soon, on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls until `probe` yields a value; panics with `what` when it has not within `within`.
pub fn eventually<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// Polls for the whole of `during`; panics with `what` as soon as `probe` is true.
pub fn never(what: &str, during: Duration, mut probe: impl FnMut() -> bool) {
    let end = Instant::now() + during;
    while Instant::now() < end {
        assert!(!probe(), "happened although it must not: {what}");
        thread::sleep(POLL_INTERVAL);
    }
}
