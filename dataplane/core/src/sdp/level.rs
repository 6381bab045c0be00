//! The attributes of one level (session or m-line) that mean something to us, collected in one walk:
//! a description with thousands of streams must not cost its session attributes for each of them.

use std::net::IpAddr;

use rtpbridge_shared::vocab::Direction;

use super::crypto::CryptoLine;
use super::model::Attribute;
use super::parse::decimal;
use super::webrtc::{Extension, Fingerprint, Setup};

/// More than this of fingerprints or crypto lines are not looked at.
const MAX_LINES: usize = 8;
/// Longest mid that we repeat, bytes.
const MAX_MID: usize = 64;

/// What one level says. Where a line may stand once, the first counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Level<'a> {
    pub(super) direction: Option<Direction>,
    pub(super) ptime_ms: Option<u16>,
    pub(super) maxptime_ms: Option<u16>,
    pub(super) rtcp: Option<RtcpLine>,
    pub(super) rtcp_mux: bool,
    pub(super) rtcp_rsize: bool,
    pub(super) crypto: Vec<CryptoLine>,
    /// There was an a=fingerprint, usable or not.
    pub(super) has_fingerprint: bool,
    pub(super) fingerprints: Vec<Fingerprint>,
    pub(super) setup: Option<Setup>,
    pub(super) ice_ufrag: Option<&'a str>,
    pub(super) ice_pwd: Option<&'a str>,
    pub(super) ice_lite: bool,
    pub(super) mid: Option<&'a str>,
    pub(super) extensions: Vec<Extension>,
    pub(super) bundle_only: bool,
    /// The mids of each a=group:BUNDLE, still as one text.
    pub(super) bundles: Vec<&'a str>,
}

/// `a=rtcp:<port> [IN IP4 <address>]` (RFC 3605).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RtcpLine {
    pub(super) port: u16,
    pub(super) address: Option<IpAddr>,
}

impl<'a> Level<'a> {
    pub(super) fn read(attributes: &[Attribute<'a>]) -> Self {
        let mut level = Self::default();
        for attribute in attributes {
            level.read_attribute(attribute.name, attribute.value);
        }
        level
    }

    fn read_attribute(&mut self, name: &str, value: &'a str) {
        match name {
            "sendrecv" | "sendonly" | "recvonly" | "inactive" => {
                set_once(&mut self.direction, Direction::from_text(name));
            }
            "ptime" => set_once(&mut self.ptime_ms, read_ms(value)),
            "maxptime" => set_once(&mut self.maxptime_ms, read_ms(value)),
            "rtcp" => set_once(&mut self.rtcp, read_rtcp(value)),
            "rtcp-mux" | "rtcp-mux-only" => self.rtcp_mux = true,
            "rtcp-rsize" => self.rtcp_rsize = true,
            "crypto" if self.crypto.len() < MAX_LINES => {
                self.crypto.extend(CryptoLine::parse(value));
            }
            "fingerprint" => {
                self.has_fingerprint = true;
                if self.fingerprints.len() < MAX_LINES {
                    self.fingerprints.extend(Fingerprint::parse(value));
                }
            }
            "setup" => set_once(&mut self.setup, Setup::from_text(value)),
            "ice-ufrag" => set_once(&mut self.ice_ufrag, Some(value)),
            "ice-pwd" => set_once(&mut self.ice_pwd, Some(value)),
            "ice-lite" => self.ice_lite = true,
            "mid" => set_once(&mut self.mid, read_mid(value)),
            "extmap" => self.add_extension(value),
            "bundle-only" => self.bundle_only = true,
            "group" => self.bundles.extend(value.strip_prefix("BUNDLE ")),
            _ => {}
        }
    }

    fn add_extension(&mut self, value: &str) {
        let Some(new) = Extension::parse(value) else {
            return;
        };
        let clashes = |known: &Extension| known.id == new.id || known.kind == new.kind;
        if !self.extensions.iter().any(clashes) {
            self.extensions.push(new);
        }
    }

    /// Whether one of this level's BUNDLE groups names `mid`.
    pub(super) fn bundles(&self, mid: &str) -> bool {
        self.bundles
            .iter()
            .any(|group| group.split_ascii_whitespace().any(|member| member == mid))
    }
}

/// The mid of an m-line without reading the rest of it.
pub(super) fn mid_of<'a>(attributes: &[Attribute<'a>]) -> Option<&'a str> {
    let line = attributes.iter().find(|line| line.name == "mid")?;
    read_mid(line.value)
}

fn set_once<T>(slot: &mut Option<T>, value: Option<T>) {
    if slot.is_none() {
        *slot = value;
    }
}

/// Whole milliseconds; a fraction is cut. 0 and nonsense are as absent.
fn read_ms(value: &str) -> Option<u16> {
    let (whole, _fraction) = value.split_once('.').unwrap_or((value, ""));
    decimal(whole).filter(|ms| *ms > 0)
}

fn read_rtcp(value: &str) -> Option<RtcpLine> {
    let mut fields = value.split_ascii_whitespace();
    let port = decimal(fields.next()?).filter(|port| *port > 0)?;
    let address = fields.nth(2).and_then(|text| text.parse().ok());
    Some(RtcpLine { port, address })
}

/// A token (RFC 8866 section 9) that is safe to repeat in our answer.
fn read_mid(value: &str) -> Option<&str> {
    let valid = !value.is_empty()
        && value.len() <= MAX_MID
        && value.bytes().all(|byte| byte.is_ascii_graphic());
    valid.then_some(value)
}
