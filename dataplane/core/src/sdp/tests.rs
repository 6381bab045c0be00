//! Samples in the dialects of real peers, and what several test files need.

mod answers;
mod hostile;
mod offers;
mod peers;

use std::net::SocketAddr;

use rtpbridge_shared::vocab::{Codec, Direction, SrtpSuite};

use super::*;

const ASTERISK: &str = include_str!("samples/asterisk-offer.sdp");
const LINPHONE: &str = include_str!("samples/linphone-offer.sdp");
const FREESWITCH: &str = include_str!("samples/freeswitch-offer.sdp");
const SIP_TRUNK: &str = include_str!("samples/sip-trunk-offer.sdp");
const CHROMIUM: &str = include_str!("samples/chromium-offer.sdp");
const CHROMIUM_ANSWER: &str = include_str!("samples/chromium-answer.sdp");
const AIORTC: &str = include_str!("samples/aiortc-offer.sdp");
const GSTREAMER: &str = include_str!("samples/gstreamer-offer.sdp");
const FIREFOX: &str = include_str!("samples/firefox-offer.sdp");
const FFMPEG: &str = include_str!("samples/ffmpeg-offer.sdp");
const CISCO_ANSWER: &str = include_str!("samples/cisco-answer.sdp");

const SAMPLES: [&str; 11] = [
    ASTERISK,
    LINPHONE,
    FREESWITCH,
    SIP_TRUNK,
    CHROMIUM,
    CHROMIUM_ANSWER,
    AIORTC,
    GSTREAMER,
    FIREFOX,
    FFMPEG,
    CISCO_ANSWER,
];

const ORIGIN: Origin = Origin {
    session_id: 1234567890123456789,
    version: 1,
};

fn read_offer(text: &str) -> Result<RemoteDescription, SdpError> {
    RemoteDescription::from_offer(&parse(text)?)
}

fn plain_offer(formats: &str, lines: &str) -> String {
    format!("v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP {formats}\r\n{lines}")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("test addresses are well-formed")
}

fn key(suite: SrtpSuite, fill: u8) -> SdesKey {
    SdesKey::from_random(suite, &[fill; SdesKey::MAX_LEN])
}

fn line(tag: u32, suite: SrtpSuite, fill: u8) -> CryptoLine {
    CryptoLine {
        tag,
        key: key(suite, fill),
        lifetime: None,
    }
}

fn webrtc_settings() -> WebrtcSettings {
    WebrtcSettings {
        ice: IceCredentials::new("ourU", "ourPasswordOf24Characters").expect("within bounds"),
        fingerprint: Fingerprint {
            hash: FingerprintHash::Sha256,
            digest: (0..32).collect(),
        },
        candidates: vec![addr("198.51.100.9:50000"), addr("[2001:db8::9]:50000")],
        extensions: vec![ExtensionKind::Mid, ExtensionKind::AudioLevel],
        source: MediaSource {
            ssrc: 0xdead_beef,
            cname: "c0ffee".to_owned(),
        },
    }
}

fn answer_settings(security: AnswerSecurity) -> AnswerSettings {
    AnswerSettings {
        origin: ORIGIN,
        address: addr("198.51.100.9:30000"),
        direction: Direction::Sendrecv,
        codecs: Vec::new(),
        security,
    }
}

fn webrtc_answer() -> AnswerSettings {
    answer_settings(AnswerSecurity::Webrtc {
        settings: webrtc_settings(),
        role: None,
    })
}

fn answer_plain(offer: &str) -> (LocalDescription, Agreement) {
    let remote = read_offer(offer).expect("a usable offer");
    plan_answer(&remote, answer_settings(AnswerSecurity::Plain)).expect("an answerable offer")
}

fn offer_settings(security: OfferSecurity) -> OfferSettings {
    OfferSettings {
        origin: ORIGIN,
        address: addr("198.51.100.9:30000"),
        direction: Direction::Sendrecv,
        codecs: Vec::new(),
        security,
    }
}

fn codecs_of(formats: &Formats) -> Vec<(Codec, u8)> {
    let pair = |format: &CodecFormat| (format.codec, format.payload_type);
    formats.codecs.iter().map(pair).collect()
}

fn events_of(formats: &Formats) -> Vec<(u32, u8)> {
    let pair = |event: &TelephoneEventFormat| (event.clock_rate, event.payload_type);
    formats.telephone_events.iter().map(pair).collect()
}
