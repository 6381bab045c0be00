//! Text to [`SessionDescription`].

use super::error::SdpError;
use super::model::SessionDescription;

/// Reads a description. Lines end in CRLF, LF or CR; blank lines and lines of unknown type are
/// skipped; only `v=` is required. Linear in the length of `text`.
///
/// # Errors
/// [`SdpError::NotSdp`] and [`SdpError::Line`].
pub fn parse(text: &str) -> Result<SessionDescription<'_>, SdpError> {
    let _ = text;
    todo!()
}
