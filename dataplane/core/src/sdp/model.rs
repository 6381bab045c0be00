//! A session description as its lines say it (RFC 8866 section 5), borrowed from the text. No
//! meaning is given to any attribute here.

use std::fmt;

/// A parsed description. Lines that nothing here needs (b=, t=, k= and so on) are not kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionDescription<'a> {
    /// `o=`, when there was one that could be read.
    pub origin: Option<OriginLine<'a>>,
    /// `s=`, empty when absent.
    pub name: &'a str,
    /// The session's `c=`, the default of every stream without its own.
    pub connection: Option<Connection<'a>>,
    /// The session's `a=` lines in order.
    pub attributes: Vec<Attribute<'a>>,
    /// The streams in order.
    pub media: Vec<Media<'a>>,
}

/// `o=<username> <sess-id> <sess-version> IN IP4 <address>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OriginLine<'a> {
    /// User name, `-` for none.
    pub username: &'a str,
    /// Session id, as text: peers exceed 64 bits.
    pub session_id: &'a str,
    /// Version, as text.
    pub version: &'a str,
    /// Address or host name.
    pub address: &'a str,
}

/// `c=IN <address type> <address>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection<'a> {
    /// `IP4` or `IP6`, in the peer's spelling.
    pub address_type: &'a str,
    /// The address without any `/ttl` or `/count`.
    pub address: &'a str,
}

/// `a=<name>` or `a=<name>:<value>`. Debug leaves out values that are secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// What stands before the first colon.
    pub name: &'a str,
    /// What stands after it, trimmed; empty for a flag.
    pub value: &'a str,
}

/// `m=<kind> <port>[/<count>] <proto> <format> …` and the lines that belong to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Media<'a> {
    /// `audio`, `video`, `application` and so on.
    pub kind: &'a str,
    /// Transport port.
    pub port: u16,
    /// Transport protocol, such as `RTP/AVP`.
    pub proto: &'a str,
    /// Formats as text: payload types for RTP.
    pub formats: Vec<&'a str>,
    /// The stream's own first `c=`.
    pub connection: Option<Connection<'a>>,
    /// The stream's `a=` lines in order.
    pub attributes: Vec<Attribute<'a>>,
}

impl fmt::Debug for Attribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = ["crypto", "ice-pwd", "key-mgmt"]
            .iter()
            .any(|name| self.name.eq_ignore_ascii_case(name));
        let value = if secret { "…" } else { self.value };
        write!(f, "{}:{value:?}", self.name)
    }
}
