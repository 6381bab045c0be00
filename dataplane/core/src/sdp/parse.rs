//! Text to [`SessionDescription`] (RFC 8866 section 9), as far as real peers keep to it: any line
//! ending, blank lines, indented lines, missing o=, s=, c= or t=, unknown line types. What is read
//! here goes back into our answers (media kinds, protocols, formats), so those are held to
//! printable characters: no peer writes lines of its own into our text.

use super::error::SdpError;
use super::model::{Attribute, Connection, Media, OriginLine, SessionDescription};

/// Reads a description. Lines end in CRLF, LF or (throughout) CR; blank lines and lines of unknown
/// type are skipped; only `v=` is required. Linear in the length of `text`.
///
/// # Errors
/// [`SdpError::NotSdp`] and [`SdpError::Line`].
pub fn parse(text: &str) -> Result<SessionDescription<'_>, SdpError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let separator = if text.contains('\n') { '\n' } else { '\r' };
    let mut lines = text
        .split(separator)
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_matches(is_padding)))
        .filter(|(_, line)| !line.is_empty());
    match lines.next() {
        Some((_, first)) if first.starts_with("v=") => {}
        _ => return Err(SdpError::NotSdp),
    }
    let mut sdp = SessionDescription::default();
    for (number, line) in lines {
        read_line(&mut sdp, line).ok_or(SdpError::Line { number })?;
    }
    Ok(sdp)
}

fn is_padding(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\0'
}

/// None when the line is malformed.
fn read_line<'a>(sdp: &mut SessionDescription<'a>, line: &'a str) -> Option<()> {
    let (letter, value) = line.split_once('=')?;
    let stream = sdp.media.last_mut();
    match (letter, stream) {
        ("m", _) => sdp.media.push(read_media(value)?),
        ("c", Some(stream)) => {
            stream.connection.get_or_insert(read_connection(value)?);
        }
        ("c", None) => {
            sdp.connection.get_or_insert(read_connection(value)?);
        }
        ("a", Some(stream)) => stream.attributes.push(read_attribute(value)),
        ("a", None) => sdp.attributes.push(read_attribute(value)),
        ("o", None) => sdp.origin = read_origin(value),
        ("s", None) => sdp.name = value.trim(),
        (other, _) => return (other.len() == 1).then_some(()),
    }
    Some(())
}

fn read_media(value: &str) -> Option<Media<'_>> {
    let mut fields = value.split_ascii_whitespace();
    let kind = printable(fields.next()?)?;
    let port = fields.next()?;
    let (port, _count) = port.split_once('/').unwrap_or((port, ""));
    let port = decimal(port)?;
    let proto = printable(fields.next()?)?;
    let formats = fields.map(printable).collect::<Option<Vec<_>>>()?;
    Some(Media {
        kind,
        port,
        proto,
        formats,
        connection: None,
        attributes: Vec::new(),
    })
}

fn read_connection(value: &str) -> Option<Connection<'_>> {
    let mut fields = value.split_ascii_whitespace();
    let _network = fields.next()?;
    let address_type = fields.next()?;
    let address = fields.next()?;
    let (address, _ttl) = address.split_once('/').unwrap_or((address, ""));
    Some(Connection {
        address_type,
        address,
    })
}

fn read_attribute(value: &str) -> Attribute<'_> {
    let (name, value) = value.split_once(':').unwrap_or((value, ""));
    Attribute {
        name: name.trim(),
        value: value.trim(),
    }
}

fn read_origin(value: &str) -> Option<OriginLine<'_>> {
    let mut fields = value.split_ascii_whitespace();
    let username = fields.next()?;
    let session_id = fields.next()?;
    let version = fields.next()?;
    let _network = fields.next()?;
    let _address_type = fields.next()?;
    let address = fields.next()?;
    Some(OriginLine {
        username,
        session_id,
        version,
        address,
    })
}

fn printable(field: &str) -> Option<&str> {
    field
        .bytes()
        .all(|byte| byte.is_ascii_graphic())
        .then_some(field)
}

/// A number made of digits alone, which `str::parse` does not insist on.
pub(super) fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}
