//! One level-triggered epoll set with 64-bit keys, and the eventfd that wakes its owner.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

/// Most sockets reported by one wait.
pub(crate) const MAX_READY: usize = 256;

/// The sockets one worker waits for.
pub(crate) struct Poller {
    epoll: Epoll,
    events: Box<[EpollEvent; MAX_READY]>,
    ready: usize,
}

impl Poller {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: Box::new([EpollEvent::empty(); MAX_READY]),
            ready: 0,
        })
    }

    /// Reports `key` whenever `source` is readable. Closing the descriptor removes it.
    pub(crate) fn add(&self, source: impl AsFd, key: u64) -> io::Result<()> {
        Ok(self
            .epoll
            .add(source, EpollEvent::new(EpollFlags::EPOLLIN, key))?)
    }

    /// Reports `source` no more.
    pub(crate) fn remove(&self, source: impl AsFd) {
        // Fails only for what was never added.
        let _ = self.epoll.delete(source);
    }

    /// Waits until something is readable or `timeout` has passed; returns how many keys are ready.
    /// A signal counts as nothing ready.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        self.ready = match self.wait_precisely(timeout) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            // Before Linux 5.11, and in some containers: wait in whole milliseconds, rounded up,
            // because waking before a deadline would only mean another wait.
            Err(Errno::ENOSYS | Errno::EPERM) => self.wait_in_millis(timeout)?,
            Err(error) => return Err(error.into()),
        };
        Ok(self.ready)
    }

    fn wait_precisely(&mut self, timeout: Duration) -> Result<usize, Errno> {
        let time = TimeSpec::from_duration(timeout);
        // SAFETY: the events are writable for MAX_READY entries of the kernel's layout (EpollEvent
        // is a transparent epoll_event), `time` outlives the call, and no signal mask is given.
        let ready = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.0.as_raw_fd(),
                self.events.as_mut_ptr(),
                MAX_READY as libc::c_int,
                std::ptr::from_ref(time.as_ref()),
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        Errno::result(ready).map(|ready| usize::try_from(ready).unwrap_or(0))
    }

    fn wait_in_millis(&mut self, timeout: Duration) -> io::Result<usize> {
        let millis = timeout.as_nanos().div_ceil(1_000_000).min(60_000);
        let millis = u16::try_from(millis).unwrap_or(u16::MAX);
        let waited = self
            .epoll
            .wait(self.events.as_mut_slice(), EpollTimeout::from(millis));
        match waited {
            Err(Errno::EINTR) => Ok(0),
            waited => Ok(waited?),
        }
    }

    /// The key at `index` of the last wait.
    pub(crate) fn ready_key(&self, index: usize) -> Option<u64> {
        self.events[..self.ready].get(index).map(EpollEvent::data)
    }
}

/// Wakes the thread that waits on a [`Poller`]; clones wake the same one.
#[derive(Clone)]
pub(crate) struct Waker(Arc<EventFd>);

impl Waker {
    /// A waker that still has to be added to a poller.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// Makes the poller's wait return. A waker that is already pending stays pending.
    pub(crate) fn wake(&self) {
        // The only possible failure is a full counter, which wakes just as well.
        let _ = self.0.write(1);
    }

    /// Sleeps for `duration`, or until somebody wakes.
    pub(crate) fn sleep(&self, duration: Duration) {
        let mut wait = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        // A signal ends the sleep early, which harms nobody.
        let _ = ppoll(&mut wait, Some(TimeSpec::from_duration(duration)), None);
    }

    /// Takes the wake-up back, so that the next wait blocks again.
    pub(crate) fn clear(&self) {
        let _ = self.0.read();
    }

    /// What to add to the poller.
    pub(crate) fn source(&self) -> &EventFd {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_ends_the_wait_once() {
        let mut poller = Poller::new().expect("epoll");
        let waker = Waker::new().expect("eventfd");
        poller.add(waker.source(), 7).expect("adds");
        assert_eq!(poller.wait(Duration::ZERO).expect("waits"), 0);
        waker.wake();
        waker.wake();
        assert_eq!(poller.wait(Duration::from_secs(5)).expect("waits"), 1);
        assert_eq!(poller.ready_key(0), Some(7));
        assert_eq!(poller.ready_key(1), None);
        waker.clear();
        assert_eq!(poller.wait(Duration::ZERO).expect("waits"), 0);
    }
}
