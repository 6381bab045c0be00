//! The name and JSON form of every event, as control-protocol.md lists them.

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::Event;
use rtpbridge_shared::ipc::recording::{RecordedStream, RecordingSummary};
use serde_json::{Map, Value, json};

use super::{Body, ClientEvent};

/// The text frame of `event`, or none when the client is told nothing.
pub fn write(event: &ClientEvent) -> Option<String> {
    let (name, mut data) = match &event.body {
        Body::Media(media) | Body::Posthumous(media) => media_event(event.session, media),
        Body::Lost(reason) => (
            "session.lost",
            json!({"session_id": event.session, "reason": reason.as_str()}),
        ),
        Body::Unbound => return None,
    };
    if event.is_critical()
        && let Value::Object(members) = &mut data
    {
        members.insert("seq".to_owned(), Value::from(event.number));
    }
    Some(frame(name, &data))
}

/// `events.dropped`
pub fn write_dropped(count: u64) -> String {
    frame("events.dropped", &json!({ "count": count }))
}

/// `session.orphaned`
pub fn write_orphaned(timeout_remaining_ms: u64) -> String {
    frame(
        "session.orphaned",
        &json!({ "timeout_remaining_ms": timeout_remaining_ms }),
    )
}

/// The members of a recording's summary that an answer and an event share.
pub fn summary_members(summary: &RecordingSummary) -> Map<String, Value> {
    let streams: Vec<Value> = summary.streams.iter().map(stream_row).collect();
    let mut members = Map::new();
    members.insert("file_path".to_owned(), json!(summary.file_path));
    members.insert("duration_ms".to_owned(), json!(summary.duration_ms));
    members.insert("packets".to_owned(), json!(summary.packets));
    members.insert("dropped_packets".to_owned(), json!(summary.dropped_packets));
    members.insert("streams".to_owned(), Value::Array(streams));
    members
}

fn frame(name: &str, data: &Value) -> String {
    json!({"event": name, "data": data}).to_string()
}

fn stream_row(stream: &RecordedStream) -> Value {
    let payload_types: Map<String, Value> = stream
        .payload_types
        .iter()
        .map(|(payload_type, codec)| (payload_type.to_string(), json!(codec)))
        .collect();
    json!({
        "endpoint_id": stream.endpoint,
        "ssrc": stream.ssrc,
        "direction": stream.direction,
        "payload_types": payload_types,
        "packets": stream.packets,
        "dropped": stream.dropped,
        "gaps": stream.gaps,
        "first_ms": stream.first_ms,
        "last_ms": stream.last_ms,
    })
}

fn recording_stopped(summary: &RecordingSummary) -> Value {
    let mut members = summary_members(summary);
    members.insert("recording_id".to_owned(), json!(summary.recording));
    members.insert("reason".to_owned(), json!(summary.reason));
    Value::Object(members)
}

fn media_event(session: SessionId, event: &Event) -> (&'static str, Value) {
    match event {
        Event::Dtmf {
            endpoint,
            digit,
            duration_ms,
            sensitive,
        } => (
            "dtmf",
            json!({"endpoint_id": endpoint, "digit": digit, "duration_ms": duration_ms, "sensitive": sensitive}),
        ),
        Event::StateChanged {
            endpoint,
            old_state,
            new_state,
        } => (
            "endpoint.state_changed",
            json!({"endpoint_id": endpoint, "old_state": old_state, "new_state": new_state}),
        ),
        Event::IceStateChanged {
            endpoint,
            ice_state,
        } => (
            "endpoint.ice_state_changed",
            json!({"endpoint_id": endpoint, "ice_state": ice_state}),
        ),
        Event::FileFinished {
            endpoint,
            reason,
            error,
        } => (
            "endpoint.file.finished",
            json!({"endpoint_id": endpoint, "reason": reason, "error": error}),
        ),
        Event::ToneFinished { endpoint } => {
            ("endpoint.tone.finished", json!({"endpoint_id": endpoint}))
        }
        Event::MediaTimeout {
            endpoint,
            duration_ms,
        } => (
            "endpoint.media_timeout",
            json!({"endpoint_id": endpoint, "duration_ms": duration_ms}),
        ),
        Event::RtcpBye {
            endpoint,
            ssrc_list,
            reason,
        } => (
            "endpoint.rtcp_bye",
            json!({"endpoint_id": endpoint, "ssrc_list": ssrc_list, "reason": reason}),
        ),
        Event::TransferredOut {
            endpoint,
            target_session,
        } => (
            "endpoint.transferred_out",
            json!({"endpoint_id": endpoint, "target_session_id": target_session}),
        ),
        Event::TransferredIn {
            endpoint,
            source_session,
            endpoint_type,
            direction,
            state,
        } => (
            "endpoint.transferred_in",
            json!({"endpoint_id": endpoint, "source_session_id": source_session,
                "endpoint_type": endpoint_type, "direction": direction, "state": state}),
        ),
        Event::RecordingStopped(summary) => ("recording.stopped", recording_stopped(summary)),
        Event::IdleTimeout { idle_timeout_secs } => (
            "session.idle_timeout",
            json!({"session_id": session, "idle_timeout_secs": idle_timeout_secs}),
        ),
        Event::EmptyTimeout { empty_timeout_secs } => (
            "session.empty_timeout",
            json!({"session_id": session, "empty_timeout_secs": empty_timeout_secs}),
        ),
        Event::Stats(rows) => ("stats", json!({ "endpoints": rows })),
        Event::VadSpeechStarted { endpoint } => {
            ("vad.speech_started", json!({"endpoint_id": endpoint}))
        }
        Event::VadSilence {
            endpoint,
            silence_duration_ms,
        } => (
            "vad.silence",
            json!({"endpoint_id": endpoint, "silence_duration_ms": silence_duration_ms}),
        ),
        Event::VadError { endpoint, error } => (
            "vad.error",
            json!({"endpoint_id": endpoint, "error": error}),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::LossReason;
    use rtpbridge_shared::id::{EndpointId, RecordingId};
    use rtpbridge_shared::ipc::recording::StreamDirection;
    use rtpbridge_shared::vocab::{Digit, EndpointState, StopReason};

    fn written(body: Body) -> Value {
        let event = ClientEvent {
            session: SessionId::from_bytes([1; 16]),
            number: 42,
            body,
        };
        serde_json::from_str(&write(&event).expect("told")).expect("is JSON")
    }

    #[test]
    fn normal_events_have_no_seq_and_critical_ones_do() {
        let endpoint = EndpointId::from_bytes([2; 16]);
        let dtmf = written(Body::Media(Event::Dtmf {
            endpoint,
            digit: Digit::from_char('5').expect("digit"),
            duration_ms: 160,
            sensitive: false,
        }));
        assert_eq!(dtmf["event"], "dtmf");
        assert_eq!(dtmf["data"]["digit"], "5");
        assert_eq!(dtmf["data"]["endpoint_id"], endpoint.to_string());
        assert!(dtmf["data"].get("seq").is_none());
        let state = written(Body::Media(Event::StateChanged {
            endpoint,
            old_state: EndpointState::New,
            new_state: EndpointState::Connected,
        }));
        assert_eq!(state["data"]["seq"], 42);
        assert_eq!(state["data"]["new_state"], "connected");
    }

    #[test]
    fn a_stopped_recording_carries_its_streams() {
        let summary = RecordingSummary {
            recording: RecordingId::from_bytes([3; 16]),
            file_path: "/rec/a.pcap".into(),
            duration_ms: 1000,
            packets: 50,
            dropped_packets: 0,
            reason: StopReason::EndpointRemoved,
            flushed: true,
            streams: vec![RecordedStream {
                endpoint: EndpointId::from_bytes([2; 16]),
                ssrc: 7,
                direction: StreamDirection::Inbound,
                payload_types: vec![(0, "PCMU".into())],
                packets: 50,
                dropped: 0,
                gaps: 1,
                first_ms: 3,
                last_ms: 990,
            }],
        };
        let told = written(Body::Media(Event::RecordingStopped(summary)));
        assert_eq!(told["event"], "recording.stopped");
        assert_eq!(told["data"]["reason"], "endpoint_removed");
        assert_eq!(told["data"]["streams"][0]["payload_types"]["0"], "PCMU");
        assert_eq!(told["data"]["streams"][0]["direction"], "inbound");
    }

    #[test]
    fn a_lost_session_says_why() {
        let told = written(Body::Lost(LossReason::DataplaneLost));
        assert_eq!(told["event"], "session.lost");
        assert_eq!(told["data"]["reason"], "dataplane_lost");
        assert_eq!(told["data"]["seq"], 42);
    }
}
