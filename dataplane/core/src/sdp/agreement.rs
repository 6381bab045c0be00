//! What offer and answer together settle for a stream.

use rtpbridge_shared::vocab::{Codec, Direction};

use super::codecs::{CodecFormat, Formats, OpusParameters, TelephoneEventFormat};
use super::crypto::CryptoLine;
use super::remote::RemoteWebrtc;
use super::stream::RemoteAddress;
use super::webrtc::{DtlsRole, Extension};

/// The outcome of an offer and its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agreement {
    /// Codecs both sides know; the first is the sending codec. Empty: telephone-event alone.
    pub codecs: Vec<AgreedCodec>,
    /// telephone-event, at most one per clock rate.
    pub telephone_events: Vec<AgreedTelephoneEvent>,
    /// What the peer asks of the Opus we send it.
    pub opus: OpusParameters,
    /// Party's direction that both allow; the endpoint's own restriction is in it.
    pub direction: Direction,
    /// Where to send; None on hold and for WebRTC.
    pub address: Option<RemoteAddress>,
    /// RTP and RTCP share a port both ways.
    pub rtcp_mux: bool,
    /// Reduced-size RTCP may be sent.
    pub rtcp_rsize: bool,
    /// Length of the packets that we encode, ms: 10, 20, 30, 40 or 60.
    pub packet_time_ms: u16,
    /// Longest packet that the peer takes, ms.
    pub maxptime_ms: Option<u16>,
    /// Keying.
    pub security: AgreedSecurity,
}

/// One codec in both directions: the payload types may differ (RFC 3264 section 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgreedCodec {
    /// Which codec.
    pub codec: Codec,
    /// Payload type in what we send.
    pub send_payload_type: u8,
    /// Payload type in what we receive.
    pub receive_payload_type: u8,
}

/// telephone-event in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgreedTelephoneEvent {
    /// Clock that the rtpmap lines say, Hz.
    pub clock_rate: u32,
    /// Payload type in what we send.
    pub send_payload_type: u8,
    /// Payload type in what we receive.
    pub receive_payload_type: u8,
}

/// Keying of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AgreedSecurity {
    /// In the clear.
    Plain,
    /// SRTP with these keys: `local` protects what we send, `remote` what we receive.
    Sdes {
        /// Our line.
        local: CryptoLine,
        /// The peer's line.
        remote: CryptoLine,
    },
    /// DTLS is to give the keys.
    Dtls {
        /// Our role in the handshake.
        role: DtlsRole,
        /// The peer's fingerprints and ICE credentials.
        remote: RemoteWebrtc,
        /// Header extensions both sides know, under the ids agreed.
        extensions: Vec<Extension>,
        /// The stream's mid, to be sent in packets where `extensions` has it.
        mid: Option<String>,
    },
}

impl AgreedCodec {
    /// The same payload type both ways, as answers have it.
    pub(super) fn same(format: &CodecFormat) -> Self {
        Self {
            codec: format.codec,
            send_payload_type: format.payload_type,
            receive_payload_type: format.payload_type,
        }
    }
}

impl AgreedTelephoneEvent {
    /// The same payload type both ways, as answers have it.
    pub(super) fn same(format: &TelephoneEventFormat) -> Self {
        Self {
            clock_rate: format.clock_rate,
            send_payload_type: format.payload_type,
            receive_payload_type: format.payload_type,
        }
    }
}

impl Agreement {
    /// The codec that we send, None when only telephone-event is common.
    pub fn sending_codec(&self) -> Option<AgreedCodec> {
        self.codecs.first().copied()
    }

    /// The telephone-event format for a stream with this RTP clock: the one of the same clock, else
    /// any (events are stamped in the stream's clock whatever its rtpmap says).
    pub fn telephone_event_for(&self, clock_rate: u32) -> Option<AgreedTelephoneEvent> {
        let same = |event: &&AgreedTelephoneEvent| event.clock_rate == clock_rate;
        let events = &self.telephone_events;
        events.iter().find(same).or(events.first()).copied()
    }

    /// What we receive, as formats for a further description of the same endpoint.
    pub fn receive_formats(&self) -> Formats {
        Formats {
            codecs: self
                .codecs
                .iter()
                .map(|agreed| CodecFormat {
                    codec: agreed.codec,
                    payload_type: agreed.receive_payload_type,
                })
                .collect(),
            telephone_events: self
                .telephone_events
                .iter()
                .map(|agreed| TelephoneEventFormat {
                    payload_type: agreed.receive_payload_type,
                    clock_rate: agreed.clock_rate,
                })
                .collect(),
        }
    }
}
