//! What the dataplane refuses or leaves unanswered, as a client hears of it.

use std::time::Instant;

use rtpbridge_shared::ipc::process::MetricsReport;

use super::*;

#[tokio::test]
async fn what_cannot_be_now_is_refused_by_name_and_may_be_later() {
    let control = Control::start().await;
    let session = SessionId::random();
    let sessions = vec![snapshot(session, 0)];
    let mut dataplane = control.dataplane(InstanceId::random(), sessions).await;
    let mut client = control.client().await;
    client.ask("c", "session.create", json!({})).await;
    let (number, _) = dataplane.request().await;
    dataplane.refuse(number, RequestError::Overloaded).await;
    assert_eq!(client.next().await["error"]["code"], "OVERLOADED");
    assert_eq!(
        control.app.registry.population(),
        1,
        "nothing is left of it"
    );
    let known = json!({"session_id": session});
    client.ask("a", "session.attach", known.clone()).await;
    let (number, request) = dataplane.request().await;
    assert_eq!(request, Request::SessionAttach { session });
    dataplane.refuse(number, RequestError::SessionBusy).await;
    assert_eq!(client.next().await["error"]["code"], "SESSION_BUSY");
    client.ask("b", "session.attach", known).await;
    let (number, request) = dataplane.request().await;
    assert_eq!(request, Request::SessionAttach { session });
    let attached = Attached {
        held: Vec::new(),
        dropped: 0,
        last_event_number: 0,
    };
    dataplane.answer(number, Reply::Attached(attached)).await;
    assert_eq!(client.next().await, json!({"id": "b", "result": {}}));
}

#[tokio::test]
async fn a_session_that_does_not_answer_in_five_seconds_is_called_unresponsive() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let (mut client, _) = bound(&control, &mut dataplane).await;
    let asked = Instant::now();
    client.ask("s", "stats.snapshot", json!({})).await;
    let (late, _) = dataplane.request().await;
    let answer = loop {
        tokio::select! {
            answer = client.next() => break answer,
            // Only the session is silent, not the link.
            () = sleep(Duration::from_secs(1)) => dataplane.write(ToControl::Heartbeat).await,
        }
    };
    assert_eq!(answer["id"], "s");
    assert_eq!(answer["error"]["code"], "SESSION_UNRESPONSIVE");
    assert!(
        asked.elapsed() >= Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    // What comes too late answers nothing else.
    dataplane.answer(late, Reply::Stats(Vec::new())).await;
    client.ask("n", "stats.unsubscribe", json!({})).await;
    let (number, _) = dataplane.request().await;
    dataplane.answer(number, Reply::Done).await;
    assert_eq!(client.next().await, json!({"id": "n", "result": {}}));
}

#[tokio::test]
async fn an_overloaded_dataplane_makes_control_not_ready() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    for (overloaded, status) in [(true, "503"), (false, "200")] {
        let mut stream = TcpStream::connect(control.address)
            .await
            .expect("connected");
        let asked = b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(asked).await.expect("written");
        let (number, request) = dataplane.request().await;
        assert_eq!(request, Request::Metrics);
        let report = MetricsReport {
            overloaded,
            ..MetricsReport::default()
        };
        dataplane
            .answer(number, Reply::Metrics(Box::new(report)))
            .await;
        let mut answer = String::new();
        let read = timeout(SOON, stream.read_to_string(&mut answer)).await;
        read.expect("in time").expect("an answer");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert_eq!(answer.contains("overloaded"), overloaded, "{answer}");
    }
}
