//! What control remembers of running recordings, against answers and snapshots that come late.

use rtpbridge_shared::ipc::session::RecordingDetails;

use super::*;

fn details(start: &RecordingStart) -> RecordingDetails {
    RecordingDetails {
        recording: start.recording,
        endpoint: None,
        file_path: start.file_path.clone(),
        started_at_ms: 1,
        packets: 0,
    }
}

#[tokio::test]
async fn an_answer_about_the_past_takes_no_newer_recording_out_of_the_mirror() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let (mut client, session) = bound(&control, &mut dataplane).await;
    let old = recording(&control, &mut dataplane, &mut client, "old.pcap").await;
    std::fs::write(&old.file_path, b"").expect("written");
    let mut asker = TcpStream::connect(control.address)
        .await
        .expect("connected");
    let request = "DELETE /recordings/old.pcap HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    asker.write_all(request.as_bytes()).await.expect("written");
    let (number, request) = dataplane.request().await;
    assert_eq!(request, Request::SessionInfo { session });

    // The answer was made before the next recording began, and both arrive at once.
    let new = control.app.config.recording_dir.join("new.pcap");
    let params = json!({"file_path": new.to_string_lossy()});
    client.ask("n", "recording.start", params).await;
    let (started, _) = dataplane.request().await;
    let mut info = snapshot(session, 0).details;
    info.recordings = vec![details(&old)];
    let mut bytes = Vec::new();
    for (number, reply) in [(number, Reply::Session(info)), (started, Reply::Done)] {
        let result = Ok(reply);
        encode(&ToControl::Answer { number, result }, &mut bytes).expect("encodes");
    }
    dataplane.writer.write_all(&bytes).await.expect("written");
    assert_eq!(client.next().await["id"], "n");
    let mut answer = String::new();
    let read = asker.read_to_string(&mut answer);
    timeout(SOON, read).await.expect("in time").expect("read");
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
    assert_eq!(control.app.registry.writer_of(&new), Some(session));
}

#[tokio::test]
async fn a_recording_that_ends_while_a_snapshot_is_read_does_not_come_back_with_it() {
    let control = Control::start().await;
    let instance = InstanceId::random();
    let mut dataplane = control.dataplane(instance, Vec::new()).await;
    let (mut client, session) = bound(&control, &mut dataplane).await;
    let kept = recording(&control, &mut dataplane, &mut client, "kept.pcap").await;
    let ended = recording(&control, &mut dataplane, &mut client, "ended.pcap").await;
    drop(dataplane);

    let (mut dataplane, number) = control.asked_for_snapshot(instance).await;
    dataplane.write(ToControl::SnapshotBegin { number }).await;
    let mut part = snapshot(session, 3);
    part.details.recordings = vec![details(&kept), details(&ended)];
    let session_part = ToControl::SnapshotPart {
        number,
        session: part,
    };
    dataplane.write(session_part).await;
    let stopped = Event::RecordingStopped(summary(&ended, StopReason::WriteError));
    dataplane.event(session, 4, stopped).await;
    control.end_snapshot(&mut dataplane, number).await;
    let writer_of = |start: &RecordingStart| {
        let path = std::path::Path::new(&start.file_path);
        control.app.registry.writer_of(path)
    };
    assert_eq!(writer_of(&kept), Some(session));
    assert_eq!(writer_of(&ended), None);
}
