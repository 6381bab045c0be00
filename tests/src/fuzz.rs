//! What the fuzz targets do with their bytes, also run by ordinary tests over the corpus. Each must
//! neither panic nor run away, and checks what must hold for whatever was accepted.

mod session;

use rtpbridge_core::dtmf::payload::EventPayload;
use rtpbridge_core::rtcp::parse::{RtcpPacket, packets as rtcp_packets};
use rtpbridge_core::rtp::header::RtpHeader;
use rtpbridge_core::sdp::{
    AnswerSecurity, AnswerSettings, Origin, RemoteDescription, RemoteSecurity, parse, plan_answer,
};
use rtpbridge_shared::ipc::frame;
use rtpbridge_shared::ipc::message::{ToControl, ToDataplane};
use rtpbridge_shared::vocab::Direction;

/// A target: its name, which is also its corpus directory's, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("sdp", sdp),
    ("ipc", ipc),
    ("rtp", rtp),
    ("rtcp", rtcp),
    ("session", session),
];

/// Descriptions: whatever is accepted is answered, and our answer is a valid description.
pub fn sdp(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(description) = parse(&text) else {
        return;
    };
    for index in 0..description.media.len().min(4) {
        let _ = RemoteDescription::from_answer(&description, index);
    }
    let Ok(remote) = RemoteDescription::from_offer(&description) else {
        return;
    };
    if !matches!(remote.security, RemoteSecurity::Plain) {
        return;
    }
    let address = match remote.family {
        rtpbridge_core::sdp::AddressFamily::V4 => ([192, 0, 2, 1], 40_000).into(),
        rtpbridge_core::sdp::AddressFamily::V6 => {
            ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 40_000).into()
        }
    };
    let settings = AnswerSettings {
        origin: Origin {
            session_id: 1,
            version: 1,
        },
        address,
        direction: Direction::Sendrecv,
        codecs: Vec::new(),
        security: AnswerSecurity::Plain,
    };
    if let Ok((answer, _)) = plan_answer(&remote, settings) {
        let text = answer.write();
        let again = parse(&text).expect("our answers parse");
        assert_eq!(again.media.len(), description.media.len(), "{text}");
    }
}

/// Frames between the processes: whatever decodes is encoded to something that decodes to the same.
pub fn ipc(data: &[u8]) {
    if let Ok(message) = frame::decode::<ToDataplane>(data) {
        let mut bytes = Vec::new();
        frame::encode(&message, &mut bytes).expect("what was decoded can be encoded");
        frame::decode::<ToDataplane>(&bytes[4..]).expect("and decoded again");
    }
    if let Ok(message) = frame::decode::<ToControl>(data) {
        let mut bytes = Vec::new();
        frame::encode(&message, &mut bytes).expect("what was decoded can be encoded");
        frame::decode::<ToControl>(&bytes[4..]).expect("and decoded again");
    }
}

/// RTP: what a header says lies within the datagram, and DTMF payloads are read from it.
pub fn rtp(data: &[u8]) {
    if let Ok(header) = RtpHeader::parse(data) {
        let payload = data.get(header.payload).expect("the payload lies within");
        let _ = EventPayload::parse(payload);
    }
}

/// RTCP: compounds are read to the end or to the first lie, in as many steps as there are packets.
pub fn rtcp(data: &[u8]) {
    let mut packets = 0;
    for packet in rtcp_packets(data) {
        packets += 1;
        match packet {
            Ok(
                RtcpPacket::SenderReport { reports, .. }
                | RtcpPacket::ReceiverReport { reports, .. },
            ) => {
                assert!(reports.iter().count() <= 31);
            }
            Ok(RtcpPacket::Goodbye { sources, .. }) => assert!(sources.iter().count() <= 31),
            Ok(RtcpPacket::Other { .. }) | Err(_) => {}
        }
    }
    assert!(packets <= data.len() / 4 + 1);
}

/// Whole sessions: commands, packets and time, in any order.
pub fn session(data: &[u8]) {
    session::run(data);
}
