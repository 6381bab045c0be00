//! One sample of every request, and the constants all samples use.

use crate::id::{EndpointId, InstanceId, RecordingId, SessionId};
use crate::ipc::bridge::BridgeCreate;
use crate::ipc::dtmf::{DtmfInject, DtmfSetSensitive};
use crate::ipc::endpoint::{
    AcceptAnswer, CreateFromOffer, CreateOffer, RemoteOffer, SrtpOffer, Transfer, UpdateDirection,
};
use crate::ipc::message::Request;
use crate::ipc::playback::{FetchOrder, FileCreate, FileFetched, FileSeek, FileSource, ToneCreate};
use crate::ipc::recording::RecordingStart;
use crate::ipc::session::SessionCreate;
use crate::ipc::stats::StatsSubscribe;
use crate::ipc::vad::VadStart;
use crate::vocab::{Codec, Digit, Direction, Tone, Transport};

pub(super) const SESSION: SessionId = SessionId::from_bytes([0x11; 16]);
pub(super) const OTHER_SESSION: SessionId = SessionId::from_bytes([0x22; 16]);
pub(super) const ENDPOINT: EndpointId = EndpointId::from_bytes([0x33; 16]);
pub(super) const OTHER_ENDPOINT: EndpointId = EndpointId::from_bytes([0x44; 16]);
pub(super) const RECORDING: RecordingId = RecordingId::from_bytes([0x55; 16]);
pub(super) const INSTANCE: InstanceId = InstanceId::from_bytes([0x66; 16]);

pub(super) fn digit() -> Digit {
    Digit::from_event(11).expect("11 is #")
}

pub(super) fn fetch_order() -> FetchOrder {
    FetchOrder {
        url: "http://h/a.wav".into(),
        headers: vec![("x".into(), "y".into())],
        cache_ttl_secs: 300,
        timeout_ms: 10_000,
    }
}

pub(super) fn requests() -> Vec<(&'static str, Request)> {
    let (session, endpoint) = (SESSION, ENDPOINT);
    let sdp = String::from("v=0");
    let recording_start = RecordingStart {
        session,
        recording: RECORDING,
        endpoint: Some(endpoint),
        file_path: "/r/a.pcap".into(),
        record_outbound: true,
    };
    vec![
        (
            "SessionCreate",
            Request::SessionCreate(SessionCreate {
                session,
                created_at_ms: 1_000_000,
            }),
        ),
        ("SessionDestroy", Request::SessionDestroy { session }),
        ("SessionAttach", Request::SessionAttach { session }),
        ("SessionRelease", Request::SessionRelease { session }),
        ("SessionInfo", Request::SessionInfo { session }),
        ("Snapshot", Request::Snapshot),
        (
            "EndpointCreateFromOffer",
            Request::EndpointCreateFromOffer(CreateFromOffer {
                session,
                endpoint,
                sdp: sdp.clone(),
                direction: Direction::Recvonly,
                transport: Some(Transport::Webrtc),
            }),
        ),
        (
            "EndpointCreateOffer",
            Request::EndpointCreateOffer(CreateOffer {
                session,
                endpoint,
                transport: Transport::Rtp,
                direction: Direction::Sendrecv,
                srtp: SrtpOffer::Optional,
                codecs: vec![Codec::Opus, Codec::Pcma],
            }),
        ),
        (
            "EndpointAcceptAnswer",
            Request::EndpointAcceptAnswer(AcceptAnswer {
                session,
                endpoint,
                sdp: sdp.clone(),
                offer_generation: Some(2),
                transport: None,
            }),
        ),
        (
            "EndpointReinvite",
            Request::EndpointReinvite(RemoteOffer {
                session,
                endpoint,
                sdp: sdp.clone(),
            }),
        ),
        (
            "EndpointAcceptOffer",
            Request::EndpointAcceptOffer(RemoteOffer {
                session,
                endpoint,
                sdp,
            }),
        ),
        (
            "EndpointUpdateDirection",
            Request::EndpointUpdateDirection(UpdateDirection {
                session,
                endpoint,
                direction: Some(Direction::Inactive),
            }),
        ),
        (
            "EndpointRemove",
            Request::EndpointRemove { session, endpoint },
        ),
        (
            "EndpointIceRestart",
            Request::EndpointIceRestart { session, endpoint },
        ),
        (
            "EndpointSrtpRekey",
            Request::EndpointSrtpRekey { session, endpoint },
        ),
        (
            "EndpointTransfer",
            Request::EndpointTransfer(Transfer {
                session,
                endpoint,
                target_session: OTHER_SESSION,
            }),
        ),
        (
            "DtmfInject",
            Request::DtmfInject(DtmfInject {
                session,
                endpoint,
                digit: digit(),
                duration_ms: 160,
                volume: 10,
            }),
        ),
        (
            "DtmfSetSensitive",
            Request::DtmfSetSensitive(DtmfSetSensitive {
                session,
                endpoint,
                enabled: true,
            }),
        ),
        (
            "FileCreateLocal",
            Request::FileCreate(FileCreate {
                session,
                endpoint,
                source: FileSource::Local("/m/a.wav".into()),
                start_ms: 300,
                loop_count: None,
                shared: true,
                gain_db: -3.5,
            }),
        ),
        (
            "FileCreateUrl",
            Request::FileCreate(FileCreate {
                session,
                endpoint,
                source: FileSource::Url(fetch_order()),
                start_ms: 0,
                loop_count: Some(0),
                shared: false,
                gain_db: 0.0,
            }),
        ),
        (
            "FileFetched",
            Request::FileFetched(FileFetched {
                session,
                endpoint,
                outcome: Ok("abc".into()),
            }),
        ),
        (
            "FileFetchFailed",
            Request::FileFetched(FileFetched {
                session,
                endpoint,
                outcome: Err("404".into()),
            }),
        ),
        (
            "FileSeek",
            Request::FileSeek(FileSeek {
                session,
                endpoint,
                position_ms: 1500,
            }),
        ),
        ("FilePause", Request::FilePause { session, endpoint }),
        ("FileResume", Request::FileResume { session, endpoint }),
        (
            "ToneCreate",
            Request::ToneCreate(ToneCreate {
                session,
                endpoint,
                tone: Tone::Sine,
                frequency: 440.0,
                duration_ms: Some(1000),
            }),
        ),
        ("RecordingStart", Request::RecordingStart(recording_start)),
        (
            "RecordingStop",
            Request::RecordingStop {
                session,
                recording: RECORDING,
            },
        ),
        (
            "VadStart",
            Request::VadStart(VadStart {
                session,
                endpoint,
                silence_interval_ms: 1000,
                speech_threshold: 0.5,
            }),
        ),
        ("VadStop", Request::VadStop { session, endpoint }),
        (
            "StatsSubscribe",
            Request::StatsSubscribe(StatsSubscribe {
                session,
                interval_ms: 5000,
            }),
        ),
        ("StatsUnsubscribe", Request::StatsUnsubscribe { session }),
        ("StatsSnapshot", Request::StatsSnapshot { session }),
        (
            "BridgeCreate",
            Request::BridgeCreate(BridgeCreate {
                session,
                endpoint,
                target_session: OTHER_SESSION,
                target_endpoint: OTHER_ENDPOINT,
                direction: Direction::Sendonly,
            }),
        ),
        ("Metrics", Request::Metrics),
        ("Status", Request::Status),
        (
            "SetLogLevel",
            Request::SetLogLevel {
                level: "debug".into(),
            },
        ),
    ]
}
