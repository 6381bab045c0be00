//! The `a=crypto` attribute (RFC 4568; suites of RFC 7714): parsing a peer's lines, choosing one,
//! writing ours. A line that asks for anything we do not do is unusable rather than approximated:
//! what it negotiates is secrecy.

use std::fmt::Write;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rtpbridge_shared::vocab::SrtpSuite;
use zeroize::Zeroizing;

use super::key::{KeyError, MasterKey, master_len};

/// No usable line is longer; the rest of a longer one is not looked at.
const MAX_LINE_LEN: usize = 1024;
/// Base64 text of the longest key and salt, with padding.
const MAX_KEY_TEXT_LEN: usize = 64;
/// Peers leave the padding out now and then.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// One usable `a=crypto` line.
#[derive(Clone, Debug)]
pub struct CryptoLine {
    /// Ties an answer to the line of the offer that it takes.
    pub tag: u32,
    /// Key with which the line's author sends.
    pub key: MasterKey,
}

/// Why a line cannot be used. Never carries a part of the line: it holds a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SdesError {
    /// Not `tag suite inline:…`.
    #[error("malformed crypto attribute")]
    Syntax,
    /// A suite that we do not have.
    #[error("unknown crypto suite")]
    UnknownSuite,
    /// The key is not base64 or has not the suite's length.
    #[error("bad key: {0}")]
    Key(KeyError),
    /// A master key identifier, or several keys, which need one.
    #[error("master key identifiers are not supported")]
    KeyIdentifier,
    /// A session parameter that would change how packets are protected.
    #[error("unsupported session parameter")]
    SessionParameter,
}

impl CryptoLine {
    /// A line of our own with a fresh random key.
    ///
    /// # Errors
    /// [`KeyError::RandomSource`].
    pub fn generate(tag: u32, suite: SrtpSuite) -> Result<Self, KeyError> {
        Ok(Self {
            tag,
            key: MasterKey::generate(suite)?,
        })
    }

    /// Parses what follows `a=crypto:`.
    ///
    /// # Errors
    /// Says why the line cannot be used.
    pub fn parse(value: &str) -> Result<Self, SdesError> {
        if value.len() > MAX_LINE_LEN {
            return Err(SdesError::Syntax);
        }
        let mut words = value.split_ascii_whitespace();
        let tag = words.next().and_then(parse_tag).ok_or(SdesError::Syntax)?;
        let suite = words.next().ok_or(SdesError::Syntax)?;
        let key_params = words.next().ok_or(SdesError::Syntax)?;
        let suite = SrtpSuite::ALL
            .iter()
            .copied()
            .find(|known| known.as_str().eq_ignore_ascii_case(suite))
            .ok_or(SdesError::UnknownSuite)?;
        if !words.all(is_harmless_parameter) {
            return Err(SdesError::SessionParameter);
        }
        Ok(Self {
            tag,
            key: parse_key_params(suite, key_params)?,
        })
    }

    /// The text that follows `a=crypto:`. It holds the key: for the peer's SDP and nothing else.
    pub fn write(&self) -> Zeroizing<String> {
        let suite = self.key.suite();
        // Room for all of it, so that no copy of the key is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(128));
        // Writing to a String cannot fail.
        let _ = write!(text, "{} {suite} inline:", self.tag);
        BASE64.encode_string(self.key.key_and_salt(), &mut text);
        text
    }
}

/// The first usable line whose suite is in `accepted`, in the order of the lines: that of the
/// offerer's preference (RFC 4568 section 5.1.2). `values` is what follows `a=crypto:`.
pub fn choose<'a>(
    values: impl IntoIterator<Item = &'a str>,
    accepted: &[SrtpSuite],
) -> Option<CryptoLine> {
    values
        .into_iter()
        .filter_map(|value| CryptoLine::parse(value).ok())
        .find(|line| accepted.contains(&line.key.suite()))
}

fn parse_tag(text: &str) -> Option<u32> {
    let digits = text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// `inline:<key>[|lifetime][|MKI:length]`, once.
fn parse_key_params(suite: SrtpSuite, text: &str) -> Result<MasterKey, SdesError> {
    let text = text.strip_suffix(';').unwrap_or(text);
    if text.contains(';') {
        return Err(SdesError::KeyIdentifier);
    }
    let (method, info) = text.split_once(':').ok_or(SdesError::Syntax)?;
    if !method.eq_ignore_ascii_case("inline") {
        return Err(SdesError::Syntax);
    }
    let mut parts = info.split('|');
    let key = parse_key(suite, parts.next().unwrap_or_default())?;
    for part in parts {
        match part.split_once(':') {
            Some((_, "0")) => {}
            Some(_) => return Err(SdesError::KeyIdentifier),
            None if is_lifetime(part) => {}
            None => return Err(SdesError::Syntax),
        }
    }
    Ok(key)
}

fn parse_key(suite: SrtpSuite, text: &str) -> Result<MasterKey, SdesError> {
    let length_error = |got| {
        SdesError::Key(KeyError::Length {
            suite,
            needed: master_len(suite),
            got,
        })
    };
    if text.len() > MAX_KEY_TEXT_LEN {
        return Err(length_error(text.len() / 4 * 3));
    }
    let mut bytes = Zeroizing::new([0; MAX_KEY_TEXT_LEN]);
    let len = BASE64
        .decode_slice(text, &mut *bytes)
        .map_err(|_| length_error(0))?;
    MasterKey::new(suite, &bytes[..len]).map_err(SdesError::Key)
}

/// `2^n` or a number of packets. Ours is a call: no lifetime that makes sense is reached in it.
fn is_lifetime(text: &str) -> bool {
    let number = text.strip_prefix("2^").unwrap_or(text);
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The window size is a hint (RFC 4568 section 6.3.6), and a dash says that the parameter may be
/// ignored (section 6.3.7). Everything else changes the packets.
fn is_harmless_parameter(text: &str) -> bool {
    let window_size = text
        .strip_prefix("WSH=")
        .is_some_and(|size| size.bytes().all(|byte| byte.is_ascii_digit()));
    window_size || text.starts_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY_30: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

    fn parse(value: &str) -> Result<(u32, SrtpSuite), SdesError> {
        CryptoLine::parse(value).map(|line| (line.tag, line.key.suite()))
    }

    #[test]
    fn the_example_of_rfc_4568_is_understood() {
        let value =
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}|2^20|1:4 FEC_ORDER=FEC_SRTP");
        assert_eq!(parse(&value), Err(SdesError::SessionParameter));
        let value = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}|2^20|1:4");
        assert_eq!(parse(&value), Err(SdesError::KeyIdentifier));
        let value = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}|2^20");
        assert_eq!(parse(&value), Ok((1, SrtpSuite::AesCm128HmacSha1_80)));
        let line = CryptoLine::parse(&value).expect("usable");
        assert_eq!(
            line.key.key_and_salt(),
            b"YS___semctl () {\t220;}\n}\nunles"
        );
    }

    #[test]
    fn every_suite_crosses_the_text_and_back() {
        for (suite, text_len) in SrtpSuite::ALL.iter().copied().zip([60, 40, 40, 40]) {
            let line = CryptoLine::generate(7, suite).expect("random source");
            let text = line.write();
            let key = text.rsplit(':').next().expect("key text");
            assert_eq!(key.len(), text_len, "{suite}");
            let back = CryptoLine::parse(&text).expect("our own line");
            assert_eq!(back.tag, 7);
            assert_eq!(back.key.key_and_salt(), line.key.key_and_salt());
            let unpadded = CryptoLine::parse(text.trim_end_matches('=')).expect("no padding");
            assert_eq!(unpadded.key.key_and_salt(), line.key.key_and_salt());
            assert!(!format!("{line:?}").contains(key));
        }
    }

    #[test]
    fn what_would_change_the_packets_makes_a_line_unusable() {
        for parameter in [
            "KDR=1",
            "UNENCRYPTED_SRTP",
            "UNENCRYPTED_SRTCP",
            "UNAUTHENTICATED_SRTP",
            "FEC_KEY=inline:x",
            "WSH=x",
            "SOMETHING",
        ] {
            let value = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30} {parameter}");
            assert_eq!(
                parse(&value),
                Err(SdesError::SessionParameter),
                "{parameter}"
            );
        }
        for parameter in ["WSH=128", "-later=1"] {
            let value = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}|2^31 {parameter}");
            assert!(parse(&value).is_ok(), "{parameter}");
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        for (value, error) in [
            (String::new(), SdesError::Syntax),
            ("1".into(), SdesError::Syntax),
            ("1 AES_CM_128_HMAC_SHA1_80".into(), SdesError::Syntax),
            (
                format!("x AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}"),
                SdesError::Syntax,
            ),
            (
                format!("+1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}"),
                SdesError::Syntax,
            ),
            (
                format!("1234567890 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}"),
                SdesError::Syntax,
            ),
            (
                format!("1 AES_CM_128_HMAC_SHA1_80 {KEY_30}"),
                SdesError::Syntax,
            ),
            (
                format!("1 AES_CM_128_HMAC_SHA1_80 uri:{KEY_30}"),
                SdesError::Syntax,
            ),
            (
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}|soon"),
                SdesError::Syntax,
            ),
            (
                format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30};inline:{KEY_30}"),
                SdesError::KeyIdentifier,
            ),
            (
                format!("1 F8_128_HMAC_SHA1_80 inline:{KEY_30}"),
                SdesError::UnknownSuite,
            ),
            (
                format!("1 AES_256_CM_HMAC_SHA1_80 inline:{KEY_30}"),
                SdesError::UnknownSuite,
            ),
        ] {
            assert_eq!(parse(&value), Err(error), "{value}");
        }
        for key in [
            "",
            "AAAA",
            "!!!!",
            &KEY_30[1..],
            &"A".repeat(64),
            &"A".repeat(900),
        ] {
            let value = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{key}");
            assert!(matches!(parse(&value), Err(SdesError::Key(_))), "{key}");
        }
    }

    #[test]
    fn the_first_line_of_the_offer_that_we_accept_is_taken() {
        let gcm = CryptoLine::generate(3, SrtpSuite::AeadAes256Gcm).expect("random source");
        let gcm = gcm.write();
        let lines = [
            "1 F8_128_HMAC_SHA1_80 inline:AAAA".to_owned(),
            format!("2 AES_CM_128_HMAC_SHA1_32 inline:{KEY_30}"),
            gcm.to_string(),
            format!("4 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}"),
        ];
        let chosen = |accepted: &[SrtpSuite]| {
            choose(lines.iter().map(String::as_str), accepted).map(|line| line.tag)
        };
        assert_eq!(chosen(SrtpSuite::ALL), Some(2));
        assert_eq!(
            chosen(&[SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AeadAes256Gcm]),
            Some(3)
        );
        assert_eq!(chosen(&[SrtpSuite::AeadAes128Gcm]), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(value in "\\PC{0,200}") {
            let _ = CryptoLine::parse(&value);
        }

        #[test]
        fn nothing_after_a_good_beginning_makes_it_panic(tail in "[ -~]{0,120}") {
            let _ = CryptoLine::parse(&format!("1 AEAD_AES_256_GCM inline:{tail}"));
        }
    }
}
