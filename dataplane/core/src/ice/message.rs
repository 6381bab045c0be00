//! STUN as far as a lite agent needs it (RFC 8489 sections 5, 6, 14; RFC 8445 section 16.1). The
//! layout is checked here, without allocating, before the `stun` crate sees a datagram: what floods
//! the port costs a walk over its attributes and a CRC.

use std::net::SocketAddr;

use stun::attributes::{
    ATTR_FINGERPRINT, ATTR_MESSAGE_INTEGRITY, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
    AttrType,
};
use stun::error_code::ErrorCode;
use stun::fingerprint::{FINGERPRINT, fingerprint_value};
use stun::integrity::MessageIntegrity;
use stun::message::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Getter, Message, MessageType, Setter,
};
use stun::uattrs::UnknownAttributes;
use stun::xoraddr::XorMappedAddress;
use webrtc_ice::control::AttrControlled;
use webrtc_ice::use_candidate::UseCandidateAttr;
use zeroize::Zeroize;

const HEADER_LEN: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const INTEGRITY_LEN: usize = 20;
/// Longer than any check; what is longer is not one.
const MAX_REQUEST_LEN: usize = 1280;
const MAX_ATTRIBUTES: usize = 32;
/// Attributes from here on may be ignored by whom does not know them.
const OPTIONAL_FROM: u16 = 0x8000;

/// A binding request with a correct fingerprint. Nothing of it is authentic yet.
pub(super) struct Request {
    message: Message,
    /// How many attributes stand before MESSAGE-INTEGRITY; all, where there is none.
    covered: usize,
    has_integrity: bool,
}

impl Request {
    /// `None` for everything that is not a well-formed binding request with a fingerprint; such
    /// datagrams get no answer.
    pub(super) fn parse(datagram: &[u8]) -> Option<Self> {
        check_layout(datagram)?;
        let mut message = Message::default();
        message.unmarshal_binary(datagram).ok()?;
        if message.typ != BINDING_REQUEST {
            return None;
        }
        let attributes = &message.attributes.0;
        let integrity = attributes
            .iter()
            .position(|attribute| attribute.typ == ATTR_MESSAGE_INTEGRITY);
        Some(Self {
            covered: integrity.unwrap_or(attributes.len()),
            has_integrity: integrity.is_some(),
            message,
        })
    }

    pub(super) const fn has_integrity(&self) -> bool {
        self.has_integrity
    }

    /// `USERNAME`, when there is one that MESSAGE-INTEGRITY covers.
    pub(super) fn username(&self) -> Option<&[u8]> {
        self.covered_attributes()
            .find(|(kind, _)| *kind == ATTR_USERNAME)
            .map(|(_, value)| value)
    }

    /// Whether the sender knew the password. What MESSAGE-INTEGRITY does not cover is gone then.
    pub(super) fn is_authentic(&mut self, password: &str) -> bool {
        let mut key = MessageIntegrity::new_short_term_integrity(password.to_owned());
        let verdict = key.check(&mut self.message);
        key.0.zeroize();
        self.message.attributes.0.truncate(self.covered);
        self.has_integrity && verdict.is_ok()
    }

    /// Attributes that must be understood and are not.
    pub(super) fn unknown_attributes(&self) -> Vec<AttrType> {
        self.covered_attributes()
            .map(|(kind, _)| kind)
            .filter(|kind| kind.value() < OPTIONAL_FROM)
            .filter(|kind| ![ATTR_USERNAME, ATTR_PRIORITY, ATTR_USE_CANDIDATE].contains(kind))
            .collect()
    }

    /// Whether an authentic request says that its sender is controlled, as we are.
    pub(super) fn claims_to_be_controlled(&self) -> bool {
        AttrControlled::default().get_from(&self.message).is_ok()
    }

    /// Whether an authentic request nominates its address.
    pub(super) fn nominates(&self) -> bool {
        UseCandidateAttr::is_set(&self.message)
    }

    fn covered_attributes(&self) -> impl Iterator<Item = (AttrType, &[u8])> {
        let attributes = self.message.attributes.0.iter().take(self.covered);
        attributes.map(|attribute| (attribute.typ, attribute.value.as_slice()))
    }

    /// Writes the success response into `out` and returns its length.
    pub(super) fn write_success(
        &self,
        source: SocketAddr,
        password: &str,
        out: &mut [u8],
    ) -> Option<usize> {
        let mapped = XorMappedAddress {
            ip: source.ip().to_canonical(),
            port: source.port(),
        };
        let mut response = self.response(BINDING_SUCCESS);
        mapped.add_to(&mut response).ok()?;
        finish(response, Some(password), out)
    }

    /// Writes an error response into `out` and returns its length. Only what answers an authentic
    /// request carries integrity, so `password` is `None` for 400 and 401.
    pub(super) fn write_error(
        &self,
        code: ErrorCode,
        unknown: Vec<AttrType>,
        password: Option<&str>,
        out: &mut [u8],
    ) -> Option<usize> {
        let mut response = self.response(BINDING_ERROR);
        code.add_to(&mut response).ok()?;
        if !unknown.is_empty() {
            UnknownAttributes(unknown).add_to(&mut response).ok()?;
        }
        finish(response, password, out)
    }

    fn response(&self, kind: MessageType) -> Message {
        let mut response = Message::new();
        response.typ = kind;
        response.transaction_id = self.message.transaction_id;
        response.write_header();
        response
    }
}

fn finish(mut response: Message, password: Option<&str>, out: &mut [u8]) -> Option<usize> {
    if let Some(password) = password {
        let mut key = MessageIntegrity::new_short_term_integrity(password.to_owned());
        let written = key.add_to(&mut response);
        key.0.zeroize();
        written.ok()?;
    }
    FINGERPRINT.add_to(&mut response).ok()?;
    let len = response.raw.len();
    out.get_mut(..len)?.copy_from_slice(&response.raw);
    Some(len)
}

/// A STUN message that fills the datagram exactly, whose attributes do not overrun it, and whose
/// last attribute is a correct FINGERPRINT. MESSAGE-INTEGRITY has its right length.
fn check_layout(datagram: &[u8]) -> Option<()> {
    let header = datagram.first_chunk::<HEADER_LEN>()?;
    let body = datagram.get(HEADER_LEN..)?;
    let claimed = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] & 0xc0 != 0
        || header[4..8] != MAGIC_COOKIE
        || claimed != body.len()
        || claimed % 4 != 0
        || datagram.len() > MAX_REQUEST_LEN
    {
        return None;
    }
    let mut rest = body;
    for _ in 0..MAX_ATTRIBUTES {
        let head = rest.first_chunk::<4>()?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let next = rest.get(4 + len.next_multiple_of(4)..)?;
        if kind == ATTR_MESSAGE_INTEGRITY.value() && len != INTEGRITY_LEN {
            return None;
        }
        if kind == ATTR_FINGERPRINT.value() {
            return (len == 4 && next.is_empty() && is_fingerprint_right(datagram)).then_some(());
        }
        rest = next;
    }
    None
}

/// The crate's own check takes the datagram's end for the attribute's: the layout makes it so.
fn is_fingerprint_right(datagram: &[u8]) -> bool {
    let Some((covered, attribute)) = datagram.split_last_chunk::<8>() else {
        return false;
    };
    attribute[4..] == fingerprint_value(covered).to_be_bytes()
}

#[cfg(test)]
mod tests;
