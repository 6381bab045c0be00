//! The types that configuration values are parsed into. Each can hold only what operations.md
//! allows, so nobody downstream checks again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::vocab::define_word;

/// One address, or one per family with the configured order kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MediaIp {
    first: IpAddr,
    second: Option<IpAddr>,
}

impl MediaIp {
    /// One address of one family.
    pub const fn single(ip: IpAddr) -> Self {
        Self {
            first: ip,
            second: None,
        }
    }

    /// `None` when the list is empty or names a family twice.
    pub fn from_list(ips: &[IpAddr]) -> Option<Self> {
        match *ips {
            [first] => Some(Self::single(first)),
            [first, second] if first.is_ipv4() != second.is_ipv4() => Some(Self {
                first,
                second: Some(second),
            }),
            _ => None,
        }
    }

    /// The address named first: the default where a family is not dictated by the peer.
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// All addresses in configured order: one or two.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        std::iter::once(self.first).chain(self.second)
    }

    /// The IPv4 address, when there is one.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        self.iter().find_map(|ip| match ip {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        })
    }

    /// The IPv6 address, when there is one.
    pub fn v6(&self) -> Option<Ipv6Addr> {
        self.iter().find_map(|ip| match ip {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        })
    }

    /// The address of the same family as `peer`, when there is one.
    pub fn same_family(&self, peer: IpAddr) -> Option<IpAddr> {
        self.iter().find(|ip| ip.is_ipv4() == peer.is_ipv4())
    }
}

/// UDP ports `start..=end`, `start <= end`, `start >= 1024`. A range of RTP pairs also starts even
/// and holds at least one pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    start: u16,
    end: u16,
}

impl PortRange {
    /// The lowest port a range may start at.
    pub const LOWEST: u16 = 1024;

    /// A range of single ports; `None` when `start` is below 1024 or above `end`.
    pub const fn new(start: u16, end: u16) -> Option<Self> {
        if start >= Self::LOWEST && start <= end {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// A range of even/odd pairs: `start` even, `end` at most 65534, at least one pair.
    pub const fn of_pairs(start: u16, end: u16) -> Option<Self> {
        match Self::new(start, end) {
            Some(range) if start.is_multiple_of(2) && end <= 65534 && start < end => Some(range),
            _ => None,
        }
    }

    /// First port.
    pub const fn start(&self) -> u16 {
        self.start
    }

    /// Last port, included.
    pub const fn end(&self) -> u16 {
        self.end
    }

    /// Number of single ports.
    pub const fn port_count(&self) -> u32 {
        self.end as u32 - self.start as u32 + 1
    }

    /// Number of even/odd pairs that fit, an odd port out left aside.
    pub const fn pair_count(&self) -> u32 {
        self.port_count() / 2
    }

    /// Whether `port` is inside.
    pub const fn contains(&self, port: u16) -> bool {
        self.start <= port && port <= self.end
    }
}

/// A count that may be unlimited (0 in the configuration).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// At most this many; never 0.
    AtMost(u32),
}

impl Limit {
    /// 0 is [`Limit::Unlimited`].
    pub const fn from_setting(setting: u32) -> Self {
        match setting {
            0 => Limit::Unlimited,
            most => Limit::AtMost(most),
        }
    }

    /// The number as configured: 0 for no limit.
    pub const fn setting(self) -> u32 {
        match self {
            Limit::Unlimited => 0,
            Limit::AtMost(most) => most,
        }
    }

    /// Whether one more fits beside `current` ones.
    pub const fn allows_one_more(self, current: usize) -> bool {
        match self {
            Limit::Unlimited => true,
            Limit::AtMost(most) => current < most as usize,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Unlimited => f.write_str("no limit"),
            Limit::AtMost(most) => write!(f, "{most}"),
        }
    }
}

define_word!(
    /// How much is logged.
    LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
);

define_word!(
    /// The form of log lines on standard error.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_ip_takes_at_most_one_address_per_family() {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        assert_eq!(MediaIp::from_list(&[]), None);
        assert_eq!(MediaIp::from_list(&[v4, v4]), None);
        assert_eq!(MediaIp::from_list(&[v4, v6, v4]), None);
        let both = MediaIp::from_list(&[v6, v4]).expect("one of each family");
        assert_eq!(both.first(), v6);
        assert_eq!(both.v4(), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(both.same_family(v4), Some(v4));
        assert_eq!(MediaIp::single(v4).same_family(v6), None);
    }

    #[test]
    fn pair_ranges_start_even_and_hold_a_pair() {
        let cases = [
            (30000, 39999, Some(5000)),
            (30000, 30001, Some(1)),
            (30000, 30002, Some(1)),
            (30001, 30004, None),
            (30000, 30000, None),
            (1022, 2000, None),
            (65532, 65534, Some(1)),
            (65532, 65535, None),
            (40000, 30000, None),
        ];
        for (start, end, pairs) in cases {
            let range = PortRange::of_pairs(start, end);
            assert_eq!(range.map(|r| r.pair_count()), pairs, "{start}-{end}");
        }
    }

    #[test]
    fn a_limit_of_zero_is_no_limit() {
        assert!(Limit::from_setting(0).allows_one_more(usize::MAX));
        assert!(Limit::from_setting(2).allows_one_more(1));
        assert!(!Limit::from_setting(2).allows_one_more(2));
    }
}
