//! The words of WebRTC in SDP: fingerprints (RFC 8122), DTLS roles (RFC 4145, 5763), ICE credentials
//! (RFC 8839), header extensions (RFC 8285) and media sources (RFC 5576).

use std::fmt;
use std::net::SocketAddr;

use zeroize::Zeroizing;

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
