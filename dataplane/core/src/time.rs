//! The engine's idea of time: a number that the shell hands in. Nothing in this crate may ask a
//! clock for it.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A moment on the shell's monotonic clock, in nanoseconds since an origin of the shell's choice.
///
/// Arithmetic saturates: a moment before the origin is the origin, one beyond the range (584 years)
/// is the range's end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);

    /// The moment `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time that has passed since `earlier`; zero when `earlier` is later.
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A moment on the shell's wall clock, in nanoseconds since the Unix epoch. It may step; nothing is
/// scheduled by it. It goes into RTCP sender reports and recordings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(u64);

/// One moment on both clocks. For a datagram: when it arrived (`wall` from the kernel where it says
/// so); for everything else: now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// Monotonic.
    pub at: Instant,
    /// Wall clock.
    pub wall: WallTime,
}

impl WallTime {
    /// Seconds between the NTP epoch (1900) and the Unix epoch (RFC 868).
    const NTP_OFFSET_SECS: u64 = 2_208_988_800;

    /// The moment `nanos` nanoseconds after the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// 64-bit NTP timestamp: seconds since 1900 in the upper half, which wraps in 2036 as RFC 3550
    /// section 4 expects, and the fraction in the lower.
    pub const fn ntp(self) -> u64 {
        let secs = self.0 / 1_000_000_000 + Self::NTP_OFFSET_SECS;
        let fraction = ((self.0 % 1_000_000_000) << 32) / 1_000_000_000;
        (secs << 32) | fraction
    }
}

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} after 1970", Duration::from_nanos(self.0))
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(duration)))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self {
            at: self.at + duration,
            wall: self.wall + duration,
        }
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos_of(duration)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(Instant::ZERO - second, Instant::ZERO);
        assert_eq!(
            Instant::from_nanos(u64::MAX) + second,
            Instant::from_nanos(u64::MAX)
        );
        assert_eq!(Instant::ZERO - (Instant::ZERO + second), Duration::ZERO);
        assert_eq!((Instant::ZERO + second) - Instant::ZERO, second);
    }

    #[test]
    fn ntp_timestamps_count_from_1900_with_a_binary_fraction() {
        let half_past = WallTime::from_nanos(1_500_000_000);
        assert_eq!(half_past.ntp() >> 32, 2_208_988_801);
        assert_eq!(half_past.ntp() & 0xffff_ffff, 0x8000_0000);
    }
}
