//! One sample of every reply, event and error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::ipc::endpoint::IceRestarted;
use crate::ipc::error::RequestError;
use crate::ipc::event::{Event, NumberedEvent};
use crate::ipc::message::Reply;
use crate::ipc::process::{Histogram, MetricsReport, ProcessReport, StatusReport, WorkerReport};
use crate::ipc::recording::{RecordedStream, RecordingSummary, StreamDirection};
use crate::ipc::session::{Attached, EndpointDetails, RecordingDetails, SessionDetails};
use crate::ipc::stats::{InboundStats, OutboundStats, StatsRow};
use crate::vocab::{
    Codec, Direction, EndpointState, EndpointType, FinishReason, IceState, StopReason,
};

use super::requests::*;
pub(super) fn summary() -> RecordingSummary {
    RecordingSummary {
        recording: RECORDING,
        file_path: "/r/a.pcap".into(),
        duration_ms: 1000,
        packets: 50,
        dropped_packets: 1,
        reason: StopReason::WriteError,
        flushed: true,
        streams: vec![RecordedStream {
            endpoint: ENDPOINT,
            ssrc: 0xdead_beef,
            direction: StreamDirection::Outbound,
            payload_types: vec![(0, "PCMU".into())],
            packets: 50,
            dropped: 1,
            gaps: 2,
            first_ms: 3,
            last_ms: 998,
        }],
    }
}

pub(super) fn stats_row() -> StatsRow {
    StatsRow {
        endpoint_id: ENDPOINT,
        inbound: InboundStats {
            packets: 10,
            bytes: 1600,
            packets_lost: -1,
            jitter_ms: 0.5,
            last_received_ms_ago: 20,
        },
        outbound: OutboundStats {
            packets: 9,
            bytes: 1440,
        },
        rtt_ms: Some(12.5),
        codec: "PCMU".into(),
        state: EndpointState::Connected,
    }
}

pub(super) fn details() -> SessionDetails {
    SessionDetails {
        session: SESSION,
        created_at_ms: 1_000_000,
        endpoints: vec![EndpointDetails {
            endpoint: ENDPOINT,
            endpoint_type: EndpointType::File,
            direction: Direction::Sendonly,
            state: EndpointState::Buffering,
            codec: Some(Codec::L16),
            local_rtp_addr: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 30_000)),
            remote_rtp_addr: Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 4000)),
            shared_playback_id: Some("p".into()),
            pending_fetch: Some(fetch_order()),
            cache_file: None,
        }],
        recordings: vec![RecordingDetails {
            recording: RECORDING,
            endpoint: None,
            file_path: "/r/a.pcap".into(),
            started_at_ms: 1_000_500,
            packets: 7,
        }],
        vad_active: vec![ENDPOINT],
    }
}

pub(super) fn events() -> Vec<(&'static str, Event)> {
    let endpoint = ENDPOINT;
    vec![
        (
            "Dtmf",
            Event::Dtmf {
                endpoint,
                digit: digit(),
                duration_ms: 160,
                sensitive: false,
            },
        ),
        (
            "StateChanged",
            Event::StateChanged {
                endpoint,
                old_state: EndpointState::Playing,
                new_state: EndpointState::Paused,
            },
        ),
        (
            "IceStateChanged",
            Event::IceStateChanged {
                endpoint,
                ice_state: IceState::Checking,
            },
        ),
        (
            "FileFinished",
            Event::FileFinished {
                endpoint,
                reason: FinishReason::Error,
                error: Some("404".into()),
            },
        ),
        ("ToneFinished", Event::ToneFinished { endpoint }),
        (
            "MediaTimeout",
            Event::MediaTimeout {
                endpoint,
                duration_ms: 5000,
            },
        ),
        (
            "RtcpBye",
            Event::RtcpBye {
                endpoint,
                ssrc_list: vec![1, 2],
                reason: None,
            },
        ),
        (
            "TransferredOut",
            Event::TransferredOut {
                endpoint,
                target_session: OTHER_SESSION,
            },
        ),
        (
            "TransferredIn",
            Event::TransferredIn {
                endpoint,
                source_session: OTHER_SESSION,
                endpoint_type: EndpointType::Webrtc,
                direction: Direction::Sendrecv,
                state: EndpointState::Connected,
            },
        ),
        ("RecordingStopped", Event::RecordingStopped(summary())),
        (
            "IdleTimeout",
            Event::IdleTimeout {
                idle_timeout_secs: 60,
            },
        ),
        (
            "EmptyTimeout",
            Event::EmptyTimeout {
                empty_timeout_secs: 60,
            },
        ),
        ("Stats", Event::Stats(vec![stats_row()])),
        ("VadSpeechStarted", Event::VadSpeechStarted { endpoint }),
        (
            "VadSilence",
            Event::VadSilence {
                endpoint,
                silence_duration_ms: 1000,
            },
        ),
        (
            "VadError",
            Event::VadError {
                endpoint,
                error: "e".into(),
            },
        ),
    ]
}

pub(super) fn worker_report() -> WorkerReport {
    WorkerReport {
        worker: 1,
        load: 0.25,
        sessions: 3,
        packets_per_second: 150.0,
        lateness_p99_ms: Some(0.5),
    }
}

pub(super) fn metrics() -> MetricsReport {
    MetricsReport {
        sessions_total: 1,
        endpoints_total: 2,
        sessions_active: 3,
        endpoints_active: 4,
        recordings_active: 5,
        packets_routed: 6,
        packets_received: 7,
        packets_recorded: 8,
        packets_recording_dropped: 9,
        srtp_errors: 10,
        transcode_errors: 11,
        dtmf_events: 12,
        events_dropped: 13,
        packets_rejected: vec![("source".into(), 14)],
        extra_counters: vec![("a".into(), "b".into(), 15)],
        forward_latency: Histogram {
            buckets: vec![(0.001, 16)],
            count: 17,
            sum: 0.5,
        },
        mixer_lateness: Histogram::default(),
        workers: vec![worker_report()],
        process: ProcessReport {
            cpu_seconds: 1.5,
            open_fds: 18,
            max_fds: 19,
            virtual_bytes: 20,
            resident_bytes: 21,
            start_time_seconds: 22.5,
            threads: 23,
        },
        overloaded: true,
    }
}

pub(super) fn replies() -> Vec<(&'static str, Reply)> {
    let event = Event::ToneFinished { endpoint: ENDPOINT };
    vec![
        ("Done", Reply::Done),
        ("Sdp", Reply::Sdp("v=0".into())),
        (
            "Attached",
            Reply::Attached(Attached {
                held: vec![NumberedEvent { number: 3, event }],
                dropped: 4,
                last_event_number: 9,
            }),
        ),
        ("Session", Reply::Session(details())),
        ("Recordings", Reply::Recordings(vec![summary()])),
        (
            "IceRestarted",
            Reply::IceRestarted(IceRestarted {
                sdp_offer: "v=0".into(),
                offer_generation: 2,
            }),
        ),
        ("Stats", Reply::Stats(vec![stats_row()])),
        ("Metrics", Reply::Metrics(Box::new(metrics()))),
        (
            "Status",
            Reply::Status(Box::new(StatusReport {
                version: "0.1.0".into(),
                pid: 42,
                instance: INSTANCE,
                uptime_secs: 5,
                sessions: 1,
                endpoints: 2,
                recordings: 3,
                draining: false,
                controller_connected: true,
                sandbox: vec![("seccomp".into(), "on".into())],
                workers: vec![worker_report()],
            })),
        ),
    ]
}

pub(super) fn errors() -> Vec<(&'static str, RequestError)> {
    let text = || String::from("t");
    vec![
        ("NotPermitted", RequestError::NotPermitted { role: text() }),
        ("SessionNotFound", RequestError::SessionNotFound),
        ("TargetSessionNotFound", RequestError::TargetSessionNotFound),
        ("SessionBusy", RequestError::SessionBusy),
        ("SessionGone", RequestError::SessionGone),
        ("IdInUse", RequestError::IdInUse),
        ("Overloaded", RequestError::Overloaded),
        ("ShuttingDown", RequestError::ShuttingDown),
        ("EndpointNotFound", RequestError::EndpointNotFound),
        (
            "TooManyEndpoints",
            RequestError::TooManyEndpoints { limit: 20 },
        ),
        ("TargetFull", RequestError::TargetFull { limit: 20 }),
        (
            "WrongEndpointType",
            RequestError::WrongEndpointType {
                actual: EndpointType::Bridge,
            },
        ),
        (
            "InvalidParams",
            RequestError::InvalidParams {
                field: text(),
                problem: text(),
            },
        ),
        ("Endpoint", RequestError::Endpoint(text())),
        ("TransferFailed", RequestError::TransferFailed(text())),
        ("Recording", RequestError::Recording(text())),
        ("Vad", RequestError::Vad(text())),
        ("Stats", RequestError::Stats(text())),
        ("Unresponsive", RequestError::Unresponsive),
        ("Internal", RequestError::Internal(text())),
    ]
}
