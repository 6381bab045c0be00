//! The words of WebRTC in SDP: fingerprints (RFC 8122), DTLS roles (RFC 4145, 5763), ICE credentials
//! (RFC 8839), header extensions (RFC 8285) and media sources (RFC 5576).

use std::fmt;
use std::net::SocketAddr;

use zeroize::Zeroizing;

use super::parse::decimal;

/// Hash of a certificate fingerprint. Weaker ones than these are not believed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FingerprintHash {
    /// `sha-256`
    Sha256,
    /// `sha-384`
    Sha384,
    /// `sha-512`
    Sha512,
}

/// `a=fingerprint:<hash> <hex>:<hex>…`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    /// Which hash of the DER certificate.
    pub hash: FingerprintHash,
    /// The digest, exactly as long as the hash makes it.
    pub digest: Vec<u8>,
}

/// `a=setup`, as a description says it of its own side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Setup {
    /// Will send the ClientHello.
    Active,
    /// Waits for the ClientHello.
    Passive,
    /// Leaves it to the answerer.
    ActPass,
}

/// Our role in the DTLS handshake once it is settled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DtlsRole {
    /// We send the ClientHello.
    Active,
    /// The peer does.
    Passive,
}

/// `a=ice-ufrag` and `a=ice-pwd`. The password is wiped when dropped and never shown by Debug.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    ufrag: String,
    password: Zeroizing<String>,
}

/// A header extension that we know how to read or write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ExtensionKind {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid` (RFC 9143).
    Mid,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464).
    AudioLevel,
}

/// One `a=extmap` line that we know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Extension {
    /// One-byte header id, 1…14.
    pub id: u8,
    /// What it carries.
    pub kind: ExtensionKind,
}

/// Our half of a WebRTC stream, as offers and answers need it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebrtcSettings {
    /// Our ICE credentials.
    pub ice: IceCredentials,
    /// Of our certificate.
    pub fingerprint: Fingerprint,
    /// Host candidates, preferred first, as advertised.
    pub candidates: Vec<SocketAddr>,
    /// Header extensions that we speak.
    pub extensions: Vec<ExtensionKind>,
    /// The stream that we send.
    pub source: MediaSource,
}

/// `a=ssrc` of the stream that we send (RFC 5576, RFC 8830).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaSource {
    /// SSRC of our stream.
    pub ssrc: u32,
    /// RTCP CNAME; also names the stream and its track. Made of token characters (RFC 8866).
    pub cname: String,
}

impl FingerprintHash {
    const ALL: [FingerprintHash; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// SDP's name of the hash.
    pub const fn as_str(self) -> &'static str {
        match self {
            FingerprintHash::Sha256 => "sha-256",
            FingerprintHash::Sha384 => "sha-384",
            FingerprintHash::Sha512 => "sha-512",
        }
    }

    /// Length of its digest, bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            FingerprintHash::Sha256 => 32,
            FingerprintHash::Sha384 => 48,
            FingerprintHash::Sha512 => 64,
        }
    }
}

impl Fingerprint {
    /// The text after `a=fingerprint:`; None for another hash or a digest of the wrong length.
    pub fn parse(value: &str) -> Option<Self> {
        let (name, text) = value.split_once(|c: char| c.is_ascii_whitespace())?;
        let hash = FingerprintHash::ALL
            .into_iter()
            .find(|hash| hash.as_str().eq_ignore_ascii_case(name))?;
        let text = text.trim();
        if text.len() != hash.digest_len() * 3 - 1 {
            return None;
        }
        let digest = text.split(':').map(hex_byte).collect::<Option<Vec<_>>>()?;
        (digest.len() == hash.digest_len()).then_some(Self { hash, digest })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hash.as_str())?;
        let mut separator = ' ';
        for byte in &self.digest {
            write!(f, "{separator}{byte:02X}")?;
            separator = ':';
        }
        Ok(())
    }
}

fn hex_byte(text: &str) -> Option<u8> {
    let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits {
        u8::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

impl Setup {
    /// The value of `a=setup`; None for `holdconn` and anything unknown.
    pub fn from_text(text: &str) -> Option<Self> {
        [Setup::Active, Setup::Passive, Setup::ActPass]
            .into_iter()
            .find(|setup| setup.as_str().eq_ignore_ascii_case(text))
    }

    /// SDP's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Setup::Active => "active",
            Setup::Passive => "passive",
            Setup::ActPass => "actpass",
        }
    }
}

impl DtlsRole {
    /// How an answer says that this is our role.
    pub const fn as_setup(self) -> Setup {
        match self {
            DtlsRole::Active => Setup::Active,
            DtlsRole::Passive => Setup::Passive,
        }
    }
}

impl ExtensionKind {
    const ALL: [ExtensionKind; 2] = [ExtensionKind::Mid, ExtensionKind::AudioLevel];

    /// The extension's URI.
    pub const fn uri(self) -> &'static str {
        match self {
            ExtensionKind::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            ExtensionKind::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        }
    }

    /// The id under which we offer it: those that browsers use.
    pub const fn offered_id(self) -> u8 {
        match self {
            ExtensionKind::AudioLevel => 1,
            ExtensionKind::Mid => 4,
        }
    }
}

impl Extension {
    /// The text after `a=extmap:`; None for other URIs and for ids that a one-byte header cannot
    /// carry (RFC 8285 section 4.2).
    pub fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split_ascii_whitespace();
        let id = fields.next()?;
        let (id, _direction) = id.split_once('/').unwrap_or((id, ""));
        let id = decimal(id).filter(|id| (1..=14).contains(id))?;
        let uri = fields.next()?;
        let kind = ExtensionKind::ALL
            .into_iter()
            .find(|kind| kind.uri() == uri)?;
        Some(Self { id, kind })
    }
}

impl IceCredentials {
    /// Credentials within the bounds and alphabet of RFC 8839 section 5.4: ufrag 4…256 and password
    /// 22…256 letters, digits, `+` or `/`.
    pub fn new(ufrag: &str, password: &str) -> Option<Self> {
        let valid = |text: &str, min: usize| {
            (min..=256).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
        };
        (valid(ufrag, 4) && valid(password, 22)).then(|| Self {
            ufrag: ufrag.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        })
    }

    /// `a=ice-ufrag`.
    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// `a=ice-pwd`.
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials")
            .field("ufrag", &self.ufrag)
            .finish_non_exhaustive()
    }
}
