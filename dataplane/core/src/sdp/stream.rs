//! Where a stream goes and under which RTP profile.

use std::net::{IpAddr, SocketAddr};

/// IP version of a stream's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AddressFamily {
    /// IPv4, `IP4` in SDP.
    V4,
    /// IPv6, `IP6` in SDP.
    V6,
}

impl AddressFamily {
    /// The family of `address`.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => AddressFamily::V4,
            IpAddr::V6(_) => AddressFamily::V6,
        }
    }

    /// SDP's address type.
    pub const fn as_str(self) -> &'static str {
        match self {
            AddressFamily::V4 => "IP4",
            AddressFamily::V6 => "IP6",
        }
    }
}

/// The transport protocol of an RTP stream (RFC 3551, 3711, 4585, 5124, 5764).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Profile {
    /// `RTP/AVP`
    Avp,
    /// `RTP/AVPF`
    Avpf,
    /// `RTP/SAVP`
    Savp,
    /// `RTP/SAVPF`
    Savpf,
    /// `UDP/TLS/RTP/SAVP`
    DtlsSavp,
    /// `UDP/TLS/RTP/SAVPF`
    DtlsSavpf,
}

impl Profile {
    const ALL: [Profile; 6] = [
        Profile::Avp,
        Profile::Avpf,
        Profile::Savp,
        Profile::Savpf,
        Profile::DtlsSavp,
        Profile::DtlsSavpf,
    ];

    /// The text in the m-line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Profile::Avp => "RTP/AVP",
            Profile::Avpf => "RTP/AVPF",
            Profile::Savp => "RTP/SAVP",
            Profile::Savpf => "RTP/SAVPF",
            Profile::DtlsSavp => "UDP/TLS/RTP/SAVP",
            Profile::DtlsSavpf => "UDP/TLS/RTP/SAVPF",
        }
    }

    /// The profile of an m-line's protocol, in any case; None when it is not RTP over UDP.
    pub fn from_text(proto: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.as_str().eq_ignore_ascii_case(proto))
    }

    /// `UDP/TLS/…`: the keys come from DTLS whatever the attributes say.
    pub const fn is_dtls(self) -> bool {
        matches!(self, Profile::DtlsSavp | Profile::DtlsSavpf)
    }

    /// The profile forbids sending in the clear.
    pub const fn is_secure(self) -> bool {
        !matches!(self, Profile::Avp | Profile::Avpf)
    }
}

/// Where a plain RTP peer wants its packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteAddress {
    /// For RTP.
    pub rtp: SocketAddr,
    /// For RTCP: `rtp` itself with rtcp-mux, `a=rtcp:` (RFC 3605), or the next port. None where
    /// there is no next port.
    pub rtcp: Option<SocketAddr>,
}
