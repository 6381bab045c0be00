//! Words that both processes and their clients use. The text forms are the client protocol's and
//! therefore fixed.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! define_word {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[derive(::serde::Serialize, ::serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The text used towards clients.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)+
                }
            }

            /// The value whose text is exactly `text`.
            pub fn from_text(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use define_word;

define_word!(
    /// Who may send, said from the party's side: a `sendonly` party sends its audio into the
    /// session and is sent nothing; a `recvonly` party hears the session and is not routed.
    Direction {
        Sendrecv = "sendrecv",
        Recvonly = "recvonly",
        Sendonly = "sendonly",
        Inactive = "inactive",
    }
);

impl Direction {
    /// Whether the party's audio is routed into the session.
    pub const fn party_sends(self) -> bool {
        matches!(self, Direction::Sendrecv | Direction::Sendonly)
    }

    /// Whether the party is sent the session's audio.
    pub const fn party_receives(self) -> bool {
        matches!(self, Direction::Sendrecv | Direction::Recvonly)
    }

    /// The direction with these two halves.
    pub const fn from_halves(party_sends: bool, party_receives: bool) -> Self {
        match (party_sends, party_receives) {
            (true, true) => Direction::Sendrecv,
            (true, false) => Direction::Sendonly,
            (false, true) => Direction::Recvonly,
            (false, false) => Direction::Inactive,
        }
    }

    /// The same stream seen from the other side (RFC 3264 section 6.1).
    #[must_use]
    pub const fn mirrored(self) -> Self {
        Self::from_halves(self.party_receives(), self.party_sends())
    }

    /// What both allow.
    #[must_use]
    pub const fn restricted_by(self, other: Self) -> Self {
        Self::from_halves(
            self.party_sends() && other.party_sends(),
            self.party_receives() && other.party_receives(),
        )
    }
}

define_word!(
    /// What kind of thing an endpoint is.
    EndpointType {
        Rtp = "rtp",
        Webrtc = "webrtc",
        File = "file",
        Tone = "tone",
        Bridge = "bridge",
    }
);

define_word!(
    /// Where an endpoint is in its life.
    EndpointState {
        New = "new",
        Buffering = "buffering",
        Connecting = "connecting",
        Connected = "connected",
        Playing = "playing",
        Paused = "paused",
        Disconnected = "disconnected",
        Finished = "finished",
    }
);

define_word!(
    /// ICE connectivity of a WebRTC endpoint, as clients see it.
    IceState {
        New = "new",
        Checking = "checking",
        Connected = "connected",
        Disconnected = "disconnected",
    }
);

define_word!(
    /// Whether a client connection holds the session.
    SessionState {
        Active = "active",
        Orphaned = "orphaned",
    }
);

define_word!(
    /// Audio formats, telephone-event aside. `L16` is what bridges carry between sessions.
    Codec {
        Pcmu = "PCMU",
        Pcma = "PCMA",
        G722 = "G722",
        Opus = "opus",
        L16 = "L16/48000",
    }
);

impl Codec {
    /// RTP clock rate in Hz. G722 says 8000 for history's sake (RFC 3551 section 4.5.2).
    pub const fn clock_rate(self) -> u32 {
        match self {
            Codec::Pcmu | Codec::Pcma | Codec::G722 => 8000,
            Codec::Opus | Codec::L16 => 48000,
        }
    }

    /// The codec that a client names in `codecs` (case-insensitive).
    pub fn from_client_name(name: &str) -> Option<Self> {
        [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus]
            .into_iter()
            .find(|codec| codec.as_str().eq_ignore_ascii_case(name))
    }
}

define_word!(
    /// Why a recording ended without being asked to.
    StopReason {
        EndpointRemoved = "endpoint_removed",
        EndpointTransferred = "endpoint_transferred",
        SessionDestroyed = "session_destroyed",
        WriteError = "write_error",
        DataplaneLost = "dataplane_lost",
        /// `recording.stop` asked for it; its answer tells, so no event carries this.
        Requested = "requested",
    }
);

define_word!(
    /// Why a file endpoint finished.
    FinishReason {
        Completed = "completed",
        Error = "error",
    }
);

define_word!(
    /// The tones of `endpoint.create_tone`.
    Tone {
        Ringback = "ringback",
        Ringing = "ringing",
        Busy = "busy",
        Beep = "beep",
        Sine = "sine",
    }
);

define_word!(
    /// What the SDP of a network endpoint is about.
    Transport {
        Rtp = "rtp",
        Webrtc = "webrtc",
    }
);

define_word!(
    /// SDES suites, strongest first (RFC 4568, 7714).
    SrtpSuite {
        AeadAes256Gcm = "AEAD_AES_256_GCM",
        AeadAes128Gcm = "AEAD_AES_128_GCM",
        AesCm128HmacSha1_80 = "AES_CM_128_HMAC_SHA1_80",
        AesCm128HmacSha1_32 = "AES_CM_128_HMAC_SHA1_32",
    }
);

define_word!(
    /// How far symmetric RTP may move the send address (media.md, Plain RTP endpoints).
    RtpLearning {
        Any = "any",
        SdpIp = "sdp_ip",
        Off = "off",
    }
);

/// A telephone-event digit (RFC 4733 section 3.2): event codes 0 to 15.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "char", try_from = "char")]
pub struct Digit(u8);

impl Digit {
    const TEXT: &'static [u8; 16] = b"0123456789*#ABCD";

    /// The digit with this RFC 4733 event code, when it is one of 0 to 15.
    pub const fn from_event(event: u8) -> Option<Self> {
        if event < 16 { Some(Self(event)) } else { None }
    }

    /// RFC 4733 event code.
    pub const fn event(self) -> u8 {
        self.0
    }

    /// Accepts `0-9 * # A-D a-d`.
    pub fn from_char(digit: char) -> Option<Self> {
        let wanted = digit.to_ascii_uppercase();
        Self::TEXT
            .iter()
            .position(|known| char::from(*known) == wanted)
            .and_then(|at| u8::try_from(at).ok())
            .map(Self)
    }
}

impl From<Digit> for char {
    fn from(digit: Digit) -> char {
        char::from(Digit::TEXT[usize::from(digit.0)])
    }
}

impl TryFrom<char> for Digit {
    type Error = &'static str;

    fn try_from(digit: char) -> Result<Self, Self::Error> {
        Self::from_char(digit).ok_or("not a DTMF digit")
    }
}

impl fmt::Display for Digit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&char::from(*self), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_forms_agree() {
        for state in EndpointState::ALL {
            let json = serde_json::to_string(state).expect("words serialise");
            assert_eq!(json, format!("\"{state}\""));
            assert_eq!(EndpointState::from_text(state.as_str()), Some(*state));
        }
        assert_eq!(Codec::L16.as_str(), "L16/48000");
    }

    #[test]
    fn mirroring_swaps_the_one_way_directions() {
        assert_eq!(Direction::Sendonly.mirrored(), Direction::Recvonly);
        assert_eq!(Direction::Sendrecv.mirrored(), Direction::Sendrecv);
        assert_eq!(
            Direction::Sendonly.restricted_by(Direction::Recvonly),
            Direction::Inactive
        );
    }

    #[test]
    fn digits_cover_the_sixteen_events() {
        for event in 0..16 {
            let digit = Digit::from_event(event).expect("0..16 are digits");
            assert_eq!(Digit::from_char(char::from(digit)), Some(digit));
        }
        assert_eq!(Digit::from_event(16), None);
        assert_eq!(Digit::from_char('a').map(Digit::event), Some(12));
        assert_eq!(Digit::from_char('x'), None);
    }
}
