//! `a=crypto` lines: SDES keys for SRTP (RFC 4568 section 9, RFC 7714 section 14).
//! Key material is wiped when dropped, never shown by Debug and never part of an error.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rtpbridge_shared::vocab::SrtpSuite;
use zeroize::Zeroizing;

use super::parse::decimal;

/// Padding is written and not insisted on: some peers cut the `=` of AES-GCM keys.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Master key and master salt of one direction.
#[derive(Clone, PartialEq, Eq)]
pub struct SdesKey {
    suite: SrtpSuite,
    material: Zeroizing<Vec<u8>>,
}

/// One usable `a=crypto` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CryptoLine {
    /// Pairs a line of the answer with one of the offer.
    pub tag: u32,
    /// Key and salt, and the suite they are for.
    pub key: SdesKey,
    /// Packets that the key may protect, when said.
    pub lifetime: Option<u64>,
}

impl SdesKey {
    /// Longest key and salt of any suite, bytes.
    pub const MAX_LEN: usize = 44;

    /// The key that stands in base64 after `inline:`, None unless it is exactly as long as the
    /// suite makes it.
    pub fn from_base64(suite: SrtpSuite, text: &str) -> Option<Self> {
        let mut decoded = Zeroizing::new([0; 48]);
        if text.len() > 64 {
            return None;
        }
        let len = BASE64.decode_slice(text, decoded.as_mut_slice()).ok()?;
        let material = decoded.get(..len)?;
        (len == key_len(suite) + salt_len(suite)).then(|| Self {
            suite,
            material: Zeroizing::new(material.to_vec()),
        })
    }

    /// Appends the key as it stands after `inline:`.
    pub(super) fn write_base64(&self, out: &mut String) {
        BASE64.encode_string(self.material.as_slice(), out);
    }

    /// Takes as much of `random` as the suite needs for key and salt. `random` must come from the
    /// operating system's random source.
    pub fn from_random(suite: SrtpSuite, random: &[u8; Self::MAX_LEN]) -> Self {
        let (used, _) = random.split_at(key_len(suite) + salt_len(suite));
        Self {
            suite,
            material: Zeroizing::new(used.to_vec()),
        }
    }

    /// The suite that the key is for.
    pub const fn suite(&self) -> SrtpSuite {
        self.suite
    }

    /// Master key: 16 or 32 bytes.
    pub fn master_key(&self) -> &[u8] {
        self.material.split_at(key_len(self.suite)).0
    }

    /// Master salt: 14 bytes for AES-CM, 12 for AES-GCM (RFC 7714 section 12).
    pub fn master_salt(&self) -> &[u8] {
        self.material.split_at(key_len(self.suite)).1
    }
}

impl CryptoLine {
    /// The line whose text after `a=crypto:` is `value`. None when it cannot be used: unknown
    /// suite, a key of the wrong length or several keys, an MKI, or session parameters that we do
    /// not know and that are not marked as ignorable (RFC 4568 section 6.3.7).
    pub fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split_ascii_whitespace();
        let tag = fields.next().filter(|tag| tag.len() <= 9)?;
        let tag = decimal(tag)?;
        let suite = suite_from_text(fields.next()?)?;
        let (key, lifetime) = read_key_parameters(suite, fields.next()?)?;
        fields
            .all(is_harmless)
            .then_some(Self { tag, key, lifetime })
    }

    /// Appends the text after `a=crypto:`.
    pub(super) fn write(&self, out: &mut String) {
        out.push_str(&self.tag.to_string());
        out.push(' ');
        out.push_str(self.key.suite.as_str());
        out.push_str(" inline:");
        self.key.write_base64(out);
    }
}

fn suite_from_text(text: &str) -> Option<SrtpSuite> {
    let named = |suite: &SrtpSuite| suite.as_str().eq_ignore_ascii_case(text);
    SrtpSuite::ALL.iter().copied().find(named)
}

/// `inline:<key>[|<lifetime>][|<MKI>:<length>]`
fn read_key_parameters(suite: SrtpSuite, text: &str) -> Option<(SdesKey, Option<u64>)> {
    let (method, info) = text.split_once(':')?;
    if !method.eq_ignore_ascii_case("inline") {
        return None;
    }
    // Several keys are told apart by their MKI, which we do not speak; `;` is not in base64.
    let mut parts = info.split('|');
    let key = SdesKey::from_base64(suite, parts.next()?)?;
    let mut lifetime = None;
    for part in parts {
        if let Some((_mki, length)) = part.split_once(':') {
            if decimal::<u32>(length)? > 0 {
                return None;
            }
        } else if !part.is_empty() {
            lifetime = Some(read_lifetime(part)?);
        }
    }
    Some((key, lifetime))
}

/// `2^20` or a plain number: 1…2^48 packets (RFC 3711 section 9.2).
fn read_lifetime(text: &str) -> Option<u64> {
    let packets = match text.strip_prefix("2^") {
        Some(exponent) => 1_u64.checked_shl(decimal(exponent)?)?,
        None => decimal(text)?,
    };
    (1..=1 << 48).contains(&packets).then_some(packets)
}

/// WSH is a hint about the sender's replay window; a leading `-` marks what may be ignored.
fn is_harmless(session_parameter: &str) -> bool {
    session_parameter.starts_with('-') || session_parameter.starts_with("WSH=")
}

impl fmt::Debug for SdesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SdesKey")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

const fn key_len(suite: SrtpSuite) -> usize {
    match suite {
        SrtpSuite::AeadAes256Gcm => 32,
        SrtpSuite::AeadAes128Gcm
        | SrtpSuite::AesCm128HmacSha1_80
        | SrtpSuite::AesCm128HmacSha1_32 => 16,
    }
}

const fn salt_len(suite: SrtpSuite) -> usize {
    match suite {
        SrtpSuite::AeadAes256Gcm | SrtpSuite::AeadAes128Gcm => 12,
        SrtpSuite::AesCm128HmacSha1_80 | SrtpSuite::AesCm128HmacSha1_32 => 14,
    }
}
