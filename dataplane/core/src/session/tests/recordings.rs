use rtpbridge_shared::id::RecordingId;
use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::recording::{RecordingStart, RecordingSummary, StreamDirection};
use rtpbridge_shared::vocab::StopReason;

use super::*;

fn request(world: &World, n: u8, leg: Option<EndpointId>, outbound: bool) -> RecordingStart {
    RecordingStart {
        session: world.session.id(),
        recording: RecordingId::from_bytes([n; 16]),
        endpoint: leg,
        file_path: format!("/recordings/{n}.pcap"),
        record_outbound: outbound,
    }
}

fn start(world: &mut World, n: u8, leg: Option<EndpointId>, outbound: bool) {
    let request = request(world, n, leg, outbound);
    let (now, key) = (world.now, RecordingKey(n.into()));
    world
        .session
        .start_recording(now, &request, key, &mut world.out)
        .expect("allowed");
}

fn rtp_in(world: &World, n: u8, direction: StreamDirection) -> usize {
    let frames = world.out.recorded.iter();
    frames
        .filter(|frame| frame.recording == RecordingKey(n.into()) && frame.direction == direction)
        .filter(|frame| matches!(frame.kind, RecordKind::Rtp { .. }))
        .count()
}

#[test]
fn each_recording_gets_the_legs_and_directions_that_it_wants() {
    let mut world = World::new();
    let (mut one, mut two) = world.pair();
    start(&mut world, 1, None, false);
    start(&mut world, 2, None, true);
    start(&mut world, 3, Some(one.id), true);
    let said = one.next_packet();
    world.receive(&one, &said);
    world.talk(&mut two);
    let (inbound, outbound) = (StreamDirection::Inbound, StreamDirection::Outbound);
    assert_eq!(
        (rtp_in(&world, 1, inbound), rtp_in(&world, 1, outbound)),
        (2, 0)
    );
    assert_eq!(
        (rtp_in(&world, 2, inbound), rtp_in(&world, 2, outbound)),
        (2, 2)
    );
    assert_eq!(
        (rtp_in(&world, 3, inbound), rtp_in(&world, 3, outbound)),
        (1, 1)
    );
    let first = &world.out.recorded[0];
    assert_eq!(
        (first.endpoint, &first.bytes),
        (one.id, &said),
        "header intact"
    );
    let name = RecordKind::Rtp {
        payload_name: "PCMU",
    };
    assert_eq!(first.kind, name);
    world.pass(10_000);
    let reports = world
        .out
        .recorded
        .iter()
        .filter(|f| f.kind == RecordKind::Rtcp);
    assert!(reports.filter(|f| f.recording == RecordingKey(1)).count() > 2);
    assert_eq!(
        world.session.details().recordings[2].file_path,
        "/recordings/3.pcap"
    );
}

#[test]
fn legs_are_named_when_they_join_whether_or_not_they_speak() {
    let mut world = World::new();
    let one = world.join(PCMU, Direction::Sendrecv);
    start(&mut world, 1, None, false);
    start(&mut world, 2, Some(one.id), false);
    let two = world.join(PCMU, Direction::Sendrecv);
    let named = [
        (RecordingKey(1), one.id),
        (RecordingKey(2), one.id),
        (RecordingKey(1), two.id),
    ];
    assert_eq!(world.out.legs, named);
}

#[test]
fn what_may_not_be_recorded_is_refused() {
    let mut world = World::with(EngineConfig {
        max_recordings_per_session: 1,
        ..EngineConfig::default()
    });
    let nobody = Some(EndpointId::from_bytes([9; 16]));
    let unknown = request(&world, 1, nobody, false);
    let refused = world.session.check_recording(&unknown);
    assert!(matches!(refused, Err(RequestError::Recording(_))));
    start(&mut world, 1, None, false);
    let second = world
        .session
        .check_recording(&request(&world, 2, None, false));
    assert!(
        matches!(second, Err(RequestError::Recording(text)) if text.contains("Maximum concurrent recordings"))
    );
    let same = world
        .session
        .check_recording(&request(&world, 1, None, false));
    assert_eq!(same, Err(RequestError::IdInUse));
}

#[test]
fn a_stopped_recording_gets_no_more_and_is_forgotten_when_its_file_is_closed() {
    let mut world = World::new();
    let (mut one, _) = world.pair();
    start(&mut world, 1, None, false);
    let id = RecordingId::from_bytes([1; 16]);
    let now = world.now;
    assert_eq!(world.session.stop_recording(now, id), Ok(RecordingKey(1)));
    assert!(world.session.stop_recording(now, id).is_err());
    world.talk(&mut one);
    assert_eq!(world.out.recorded.len(), 0);
    assert_eq!(world.session.counts().recordings, 1);
    let summary = RecordingSummary {
        recording: id,
        file_path: String::new(),
        duration_ms: 0,
        packets: 0,
        dropped_packets: 0,
        reason: StopReason::Requested,
        flushed: true,
        streams: Vec::new(),
    };
    world.session.recording_stopped(summary, &mut world.out);
    assert_eq!(world.session.counts().recordings, 0);
    assert_eq!(world.events().count(), 0, "who asked is told by the answer");
}

#[test]
fn a_leg_that_goes_ends_its_own_recordings_only() {
    let mut world = World::new();
    let (one, _) = world.pair();
    start(&mut world, 1, None, false);
    start(&mut world, 2, Some(one.id), false);
    let now = world.now;
    let removed = world.session.remove_endpoint(now, one.id, &mut world.out);
    let ended = removed.expect("it exists").recordings;
    assert_eq!(
        ended.iter().map(|e| e.key).collect::<Vec<_>>(),
        [RecordingKey(2)]
    );
    assert_eq!(
        world.session.counts().recordings,
        2,
        "until its file is closed"
    );
    let closed = world.session.close(now, &mut world.out);
    assert_eq!(closed.sockets.len(), 1);
    assert_eq!(closed.recordings.len(), 1);
}

#[test]
fn sensitive_digits_are_in_no_recording() {
    use rtpbridge_shared::ipc::dtmf::DtmfSetSensitive;
    let mut world = World::new();
    let (mut one, _) = world.pair();
    start(&mut world, 1, None, true);
    for (enabled, frames) in [(true, 0), (false, 2)] {
        let set = DtmfSetSensitive {
            session: world.session.id(),
            endpoint: one.id,
            enabled,
        };
        let now = world.now;
        world
            .session
            .dtmf_set_sensitive(now, &set)
            .expect("it exists");
        let packet = one.packet(101, true, &[1, 0x8a, 0, 160]);
        world.receive(&one, &packet);
        one.step();
        one.step();
        assert_eq!(world.out.recorded.len(), frames);
    }
}
