//! A child's side of supervision: it dies with the supervisor that started it. The kernel's
//! parent-death signal is set by the child itself, as early as `main` can; the supervisor that died
//! before is seen by the parent's process id.

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// What the kernel sends this process when the supervisor is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeathSignal {
    /// End at once: the control process, which holds nothing that would be lost.
    Kill,
    /// Close everything in good order: the dataplane.
    Terminate,
}

/// Why a child must not go on.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// It died before the signal was set.
    #[error("the supervisor (pid {0}) is gone")]
    Gone(i32),
    /// The kernel refused.
    #[error("cannot ask for the parent-death signal: {0}")]
    Refused(#[from] nix::Error),
}

/// Ties this process to the supervisor that names itself in `--supervised-by`. To be called before
/// anything that cannot be left undone; on an error the process must exit.
///
/// # Errors
/// When the supervisor is already gone.
pub fn tie_to_supervisor(supervisor_pid: i32, signal: DeathSignal) -> Result<(), SupervisorError> {
    prctl::set_pdeathsig(match signal {
        DeathSignal::Kill => Signal::SIGKILL,
        DeathSignal::Terminate => Signal::SIGTERM,
    })?;
    // Asked after the signal is set: whoever dies from here on is noticed.
    if getppid() == Pid::from_raw(supervisor_pid) {
        Ok(())
    } else {
        Err(SupervisorError::Gone(supervisor_pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_parent_than_the_named_one_is_refused() {
        let stranger = i32::MAX;
        let tied = tie_to_supervisor(stranger, DeathSignal::Terminate);
        assert!(matches!(tied, Err(SupervisorError::Gone(pid)) if pid == stranger));
        // The test runner goes on without the signal.
        prctl::set_pdeathsig(None).expect("cleared");
    }
}
