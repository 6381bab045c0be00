//! How a request names its socket: by a place in the ring's own table of files, which spares the
//! kernel counting references per packet, or by descriptor.
//!
//! Before Linux 6.13 a file that is taken out of the table stays open until every request has ended
//! that was made before, whatever it is for, and standing requests do not end by themselves: closed
//! sockets would keep their ports for as long as any older call lasts. There it is descriptors.

use std::io;
use std::os::fd::RawFd;

use io_uring::Submitter;
use io_uring::squeue::Flags;
use io_uring::types::Fd;

/// The first Linux whose table lets go of a file at once.
const PROMPT_SINCE: (u32, u32) = (6, 13);

/// Whether the ring has a table of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Files {
    Table,
    Descriptors,
}

/// A socket, as a request has it. The flags go onto the finished request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) fd: Fd,
    pub(super) flags: Flags,
}

impl Files {
    /// What suits the running kernel.
    pub(super) fn of_this_kernel() -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        Self::of_release(&release.unwrap_or_default())
    }

    /// What suits a kernel that calls itself this.
    fn of_release(release: &str) -> Self {
        let mut numbers = release.split(|sign: char| !sign.is_ascii_digit());
        let mut number = || numbers.next()?.parse::<u32>().ok();
        match number().zip(number()) {
            Some(version) if version >= PROMPT_SINCE => Self::Table,
            _ => Self::Descriptors,
        }
    }

    /// Makes the table, for `sockets` sockets.
    pub(super) fn register(self, submitter: &Submitter<'_>, sockets: u32) -> io::Result<()> {
        match self {
            Self::Table => submitter.register_files_sparse(sockets),
            Self::Descriptors => Ok(()),
        }
    }

    /// Puts a socket into its place in the table; −1 empties it.
    pub(super) fn set(self, submitter: &Submitter<'_>, place: u32, fd: RawFd) -> io::Result<()> {
        match self {
            Self::Table => submitter.register_files_update(place, &[fd]).map(drop),
            Self::Descriptors => Ok(()),
        }
    }

    /// How to name the socket `fd`, which has this place.
    pub(super) fn target(self, place: u32, fd: RawFd) -> Target {
        let (number, flags) = match self {
            Self::Table => (i32::try_from(place).unwrap_or(-1), Flags::FIXED_FILE),
            Self::Descriptors => (fd, Flags::empty()),
        };
        Target {
            fd: Fd(number),
            flags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_whose_table_lets_go_at_once_get_one() {
        let of = Files::of_release;
        for release in ["6.13.0", "6.18.44-fc-v595\n", "7.0", "10.1-rc1"] {
            assert_eq!(of(release), Files::Table, "{release}");
        }
        for release in [
            "6.12.9-amd64",
            "6.8.0-45-generic",
            "6.1",
            "5.15.13",
            "",
            "x",
        ] {
            assert_eq!(of(release), Files::Descriptors, "{release}");
        }
    }
}
