//! Order, acknowledgement and resumption of events.

use super::*;

#[tokio::test]
async fn events_are_acknowledged_once_written_and_never_before() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let (mut client, session) = bound(&control, &mut dataplane).await;
    for number in 1..=3 {
        dataplane.event(session, number, tone_finished(1)).await;
    }
    for number in 1..=3 {
        assert_eq!(client.next().await["data"]["seq"], number);
    }
    let mut newest = 0;
    while newest < 3 {
        let number = dataplane.acknowledged().await;
        assert!(number > newest && number <= 3);
        newest = number;
    }
}

#[tokio::test]
async fn a_broken_link_orphans_nobody_and_repeats_nothing() {
    let control = Control::start().await;
    let instance = InstanceId::random();
    let mut dataplane = control.dataplane(instance, Vec::new()).await;
    let (mut client, session) = bound(&control, &mut dataplane).await;
    dataplane.event(session, 1, tone_finished(1)).await;
    assert_eq!(client.next().await["data"]["seq"], 1);
    drop(dataplane);

    let mut dataplane = control
        .dataplane(instance, vec![snapshot(session, 5)])
        .await;
    let (number, request) = dataplane.request().await;
    assert_eq!(request, Request::SessionAttach { session });
    // Events that overtake the answer are in the answer.
    dataplane.event(session, 5, speech(1)).await;
    let held = [1, 4].map(|number| NumberedEvent {
        number,
        event: tone_finished(1),
    });
    let attached = Attached {
        held: held.to_vec(),
        dropped: 3,
        last_event_number: 5,
    };
    dataplane.answer(number, Reply::Attached(attached)).await;
    dataplane.event(session, 6, speech(2)).await;
    let resumed = client.next().await;
    assert_eq!(resumed["data"]["seq"], 4);
    let dropped = client.next().await;
    assert_eq!(dropped["event"], "events.dropped");
    // 2, 3 and 5: number 1 had reached the client before the link broke.
    assert_eq!(dropped["data"]["count"], 3);
    assert_eq!(client.next().await["event"], "vad.speech_started");
}

#[tokio::test]
async fn an_attach_is_answered_before_its_backlog_and_the_loss_comes_last() {
    let control = Control::start().await;
    let session = SessionId::random();
    let mut dataplane = control
        .dataplane(InstanceId::random(), vec![snapshot(session, 9)])
        .await;
    let mut client = control.client().await;
    client
        .ask("a", "session.attach", json!({"session_id": session}))
        .await;
    let (number, request) = dataplane.request().await;
    assert_eq!(request, Request::SessionAttach { session });
    let held = vec![NumberedEvent {
        number: 7,
        event: tone_finished(1),
    }];
    let attached = Attached {
        held,
        dropped: 8,
        last_event_number: 9,
    };
    dataplane.answer(number, Reply::Attached(attached)).await;
    assert_eq!(client.next().await, json!({"id": "a", "result": {}}));
    assert_eq!(client.next().await["data"]["seq"], 7);
    assert_eq!(client.next().await["data"]["count"], 8);
}

#[tokio::test]
async fn stopped_recordings_precede_the_answer_that_stopped_them() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let (mut client, _) = bound(&control, &mut dataplane).await;
    let started = [
        recording(&control, &mut dataplane, &mut client, "a.pcap").await,
        recording(&control, &mut dataplane, &mut client, "b.pcap").await,
    ];
    client.ask("d", "session.destroy", json!({})).await;
    let (number, _) = dataplane.request().await;
    let summaries = started.map(|start| summary(&start, StopReason::SessionDestroyed));
    dataplane
        .answer(number, Reply::Recordings(summaries.to_vec()))
        .await;
    let mut seen = 0;
    for _ in 0..2 {
        let stopped = client.next().await;
        assert_eq!(stopped["event"], "recording.stopped");
        assert_eq!(stopped["data"]["reason"], "session_destroyed");
        let seq = stopped["data"]["seq"].as_u64().expect("a number");
        assert!(seq > seen, "{seq} after {seen}");
        seen = seq;
    }
    assert_eq!(client.next().await, json!({"id": "d", "result": {}}));
    client.ask("i", "session.info", json!({})).await;
    assert_eq!(client.next().await["error"]["code"], "NO_SESSION");
}

#[tokio::test]
async fn another_dataplane_ends_the_sessions_of_the_last_one() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let (mut client, session) = bound(&control, &mut dataplane).await;
    client.ask("p", "stats.snapshot", json!({})).await;
    dataplane.request().await;
    drop(dataplane);
    let unanswered = client.next().await;
    assert_eq!(unanswered["error"]["code"], "DATAPLANE_UNAVAILABLE");
    let _next = control.dataplane(InstanceId::random(), Vec::new()).await;
    let lost = client.next().await;
    assert_eq!(lost["event"], "session.lost");
    assert_eq!(lost["data"]["session_id"], session.to_string());
    assert_eq!(lost["data"]["reason"], "dataplane_lost");
    assert_eq!(control.app.registry.population(), 0);
}

#[tokio::test]
async fn a_creation_whose_client_is_gone_is_undone() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let mut client = control.client().await;
    client.ask("c", "session.create", json!({})).await;
    let (number, request) = dataplane.request().await;
    let Request::SessionCreate(create) = request else {
        panic!("expected a creation, got {request:?}");
    };
    drop(client);
    timeout(SOON, control.app.connections.wait_until_empty())
        .await
        .expect("the connection ends");
    dataplane.answer(number, Reply::Done).await;
    let session = create.session;
    let (number, request) = dataplane.request().await;
    assert_eq!(request, Request::SessionDestroy { session });
    assert_eq!(control.app.registry.list(), []);
    dataplane
        .answer(number, Reply::Recordings(Vec::new()))
        .await;
    let mut population = control.app.registry.watch_population();
    let empty = population.wait_for(|sessions| *sessions == 0);
    timeout(SOON, empty)
        .await
        .expect("forgotten")
        .expect("watched");
}

#[tokio::test]
async fn a_dataplane_that_cannot_give_its_snapshot_is_asked_again() {
    let control = Control::start().await;
    let instance = InstanceId::random();
    let session = SessionId::random();
    let (mut dataplane, number) = control.asked_for_snapshot(instance).await;
    dataplane.write(ToControl::SnapshotBegin { number }).await;
    dataplane.refuse(number, RequestError::Unresponsive).await;
    let sessions = vec![snapshot(session, 0)];
    let _dataplane = control.dataplane(instance, sessions).await;
    assert_eq!(control.app.registry.population(), 1);
    let mut client = control.client().await;
    client.ask("l", "session.list", json!({})).await;
    let listed = client.next().await;
    let first = &listed["result"]["sessions"][0]["session_id"];
    assert_eq!(*first, session.to_string());
}
