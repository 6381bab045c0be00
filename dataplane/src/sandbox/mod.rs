//! The dataplane needs no privilege (processes.md, Privilege): before its first thread it gives up
//! capabilities, new privileges, the file system but for its directories, and every socket but Unix
//! ones and UDP. What the kernel cannot enforce is reported, not fatal.

#![allow(unsafe_code)]

mod caps;
mod landlock;
mod seccomp;

use std::path::Path;

/// One protection and what is in force of it.
pub(crate) type Line = (String, String);

/// What must stay reachable.
pub(crate) struct Needs<'a> {
    /// Files are created and written beneath it.
    pub(crate) recording_dir: &'a Path,
    /// Files are read beneath them.
    pub(crate) readable: Vec<&'a Path>,
}

/// Confines this thread and all that it will start. Call before starting any other.
pub(crate) fn confine(needs: &Needs<'_>) -> Vec<Line> {
    [
        ("capabilities", caps::drop_all()),
        ("no_new_privs", caps::forbid_new_privileges()),
        ("landlock", landlock::restrict(needs)),
        ("seccomp", seccomp::restrict()),
    ]
    .map(|(name, state)| (name.to_owned(), state))
    .to_vec()
}

/// What is reported under `--no-sandbox`.
pub(crate) fn switched_off() -> Vec<Line> {
    vec![("sandbox".to_owned(), "off (--no-sandbox)".to_owned())]
}

#[cfg(test)]
mod tests;
