//! Sessions and processes that end while something else goes on.

use rtpbridge_control::admin::AdminBackend;
use rtpbridge_control::operator::Operator;
use rtpbridge_control::shutdown::Command;
use rtpbridge_shared::ipc::session::SessionEndReason;
use tokio::net::TcpSocket;

use super::*;

#[tokio::test]
async fn a_client_of_a_session_that_ends_by_itself_hears_its_last_events() {
    let control = Control::start().await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let (mut client, session) = bound(&control, &mut dataplane).await;
    let start = recording(&control, &mut dataplane, &mut client, "a.pcap").await;
    let idle = Event::IdleTimeout {
        idle_timeout_secs: 1,
    };
    dataplane.event(session, 1, idle).await;
    assert_eq!(client.next().await["event"], "session.idle_timeout");

    // Its files are being flushed.
    client.ask("s", "stats.snapshot", json!({})).await;
    let (number, _) = dataplane.request().await;
    dataplane.refuse(number, RequestError::SessionGone).await;
    assert_eq!(client.next().await["error"]["code"], "SESSION_GONE");
    let stopped = Event::RecordingStopped(summary(&start, StopReason::SessionDestroyed));
    dataplane.event(session, 2, stopped).await;
    let reason = SessionEndReason::IdleTimeout;
    let ended = ToControl::SessionEnded { session, reason };
    dataplane.write(ended).await;
    let stopped = client.next().await;
    assert_eq!(stopped["event"], "recording.stopped");
    assert_eq!(stopped["data"]["seq"], 2);
    control
        .eventually("forgotten", |app| app.registry.population() == 0)
        .await;
    client.ask("i", "session.info", json!({})).await;
    assert_eq!(client.next().await["error"]["code"], "NO_SESSION");
}

#[tokio::test]
async fn the_client_of_a_kicked_session_is_told_even_when_the_link_breaks_meanwhile() {
    let control = Control::start().await;
    let instance = InstanceId::random();
    let mut dataplane = control.dataplane(instance, Vec::new()).await;
    let (mut client, session) = bound(&control, &mut dataplane).await;
    let start = recording(&control, &mut dataplane, &mut client, "a.pcap").await;
    let operator = Operator::new(Arc::clone(&control.app));
    let kick = tokio::spawn(async move { operator.kick(session).await });
    let (_, request) = dataplane.request().await;
    assert_eq!(request, Request::SessionDestroy { session });
    drop(dataplane);

    let sessions = vec![snapshot(session, 0)];
    let mut dataplane = control.dataplane(instance, sessions).await;
    let (number, request) = dataplane.request().await;
    assert_eq!(request, Request::SessionDestroy { session });
    let stopped = Event::RecordingStopped(summary(&start, StopReason::SessionDestroyed));
    dataplane.event(session, 1, stopped).await;
    dataplane
        .answer(number, Reply::Recordings(Vec::new()))
        .await;
    assert_eq!(client.next().await["event"], "recording.stopped");
    let lost = client.next().await;
    assert_eq!(lost["event"], "session.lost");
    assert_eq!(lost["data"]["reason"], "kicked");
    assert_eq!(kick.await.expect("no panic"), Ok(()));
}

#[tokio::test]
async fn a_kicked_session_that_ended_unheard_leaves_nobody_waiting() {
    let control = Control::start().await;
    let instance = InstanceId::random();
    let mut dataplane = control.dataplane(instance, Vec::new()).await;
    let (mut client, session) = bound(&control, &mut dataplane).await;
    recording(&control, &mut dataplane, &mut client, "a.pcap").await;
    let operator = Operator::new(Arc::clone(&control.app));
    tokio::spawn(async move { operator.kick(session).await });
    dataplane.request().await;
    drop(dataplane);
    let _dataplane = control.dataplane(instance, Vec::new()).await;
    let stopped = client.next().await;
    assert_eq!(stopped["event"], "recording.stopped");
    assert_eq!(stopped["data"]["reason"], "session_destroyed");
    assert_eq!(client.next().await["data"]["reason"], "kicked");
    assert_eq!(control.app.registry.population(), 0);
}

#[tokio::test]
async fn a_process_that_leaves_takes_no_connection_from_its_successor() {
    let control = Control::start().await;
    let _dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let accepted = TcpStream::connect(control.address).await;
    let accepted = accepted.expect("connected");
    // Connections are accepted in their order.
    let mut client = control.client().await;
    let app = Arc::clone(&control.app);
    let end = tokio::spawn(async move { shutdown::run(&app).await });
    control.app.lifecycle.command(Command::Displaced);
    assert_eq!(client.closed().await, 1012);

    let next = TcpStream::connect(control.address).await;
    let next = next.expect("connected");
    // Time for the old process to take what is not meant for it.
    sleep(Duration::from_millis(100)).await;
    let inherited = timeout(SOON, control.successor.accept()).await;
    let (_, peer) = inherited.expect("left to the successor").expect("accepted");
    assert_eq!(next.local_addr().ok(), Some(peer));
    // One that was accepted before has its request answered, and learns that this is the end.
    let refused = Client::upgraded(accepted).await.err().expect("refused");
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.to_lowercase().contains("connection: close"));
    assert_eq!(end.await.expect("no panic").expect("ended"), 0);
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_what_it_asked_for_is_dropped() {
    let control = Control::start_with(&[("WS_PING_INTERVAL_SECS", "1")]).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let stream = socket.connect(control.address).await.expect("connected");
    let client = Client::upgraded(stream).await.expect("upgraded");
    let (mut sending, _unread) = client.socket.split();
    // The id comes back with each answer.
    let request = json!({"id": "x".repeat(1024), "method": "server.info"}).to_string();
    let flood = async { while sending.send(Message::text(request.clone())).await.is_ok() {} };
    let dropped = control.app.connections.wait_until_empty();
    tokio::select! {
        () = flood => dropped_in_time(&control).await,
        gone = timeout(SOON, dropped) => gone.expect("dropped"),
    }
}

async fn dropped_in_time(control: &Control) {
    let empty = control.app.connections.wait_until_empty();
    timeout(SOON, empty).await.expect("dropped");
}

#[tokio::test]
async fn a_client_with_many_slow_requests_is_not_blamed_for_them() {
    let control = Control::start_with(&[("WS_PING_INTERVAL_SECS", "1")]).await;
    let mut dataplane = control.dataplane(InstanceId::random(), Vec::new()).await;
    let (mut client, _) = bound(&control, &mut dataplane).await;
    for _ in 0..40 {
        client.ask("s", "stats.snapshot", json!({})).await;
    }
    for round in 0..40 {
        let (number, _) = dataplane.request().await;
        if round == 0 {
            // More than three pings would have been due.
            sleep(Duration::from_millis(4500)).await;
        }
        dataplane.answer(number, Reply::Stats(Vec::new())).await;
        assert_eq!(client.next().await["id"], "s", "round {round}");
    }
}
