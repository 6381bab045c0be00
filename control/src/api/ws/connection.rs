//! The state of one connection, and the loop that moves it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::{Request, RequestError};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};
use tracing::debug;

use super::call::{self, Ask, Binding, Context, Step};
use super::crash::{self, Moment};
use super::envelope::{self, ApiError, Code, Family};
use super::session;
use crate::app::App;
use crate::dataplane::pending::{LinkError, Outcome};
use crate::event::queue::{Close, Delivery, Mailbox};
use crate::event::{Body, ClientEvent, wire};

/// Requests read ahead of the one that is being worked off; beyond it the client has to wait.
const MAX_READ_AHEAD: usize = 32;
/// Pings without a pong after which the connection is dropped.
const MAX_UNANSWERED_PINGS: u32 = 2;
/// Frames written before the socket is flushed.
const MAX_UNFLUSHED: usize = 64;
const CLOSE_TAKEN: u16 = 4001;
/// For the requests that a peer sent before it left; then its session is free for others.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// Why the loop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// The peer is gone, or said goodbye.
    Peer,
    /// Neither of the last two pings was answered.
    Silent,
    /// The server wants it.
    Server(Close),
    /// The peer broke the protocol; the close code to say so.
    Protocol(CloseCode),
}

/// One connection.
pub(super) struct Connection {
    app: Arc<App>,
    socket: WebSocketStream<TcpStream>,
    mailbox: Arc<Mailbox>,
    session: Option<SessionId>,
    serial: u64,
    pending: Option<Box<Pending>>,
    inbox: VecDeque<Incoming>,
    inbox_bytes: usize,
    outbox: VecDeque<Outgoing>,
    unflushed: usize,
    written: Vec<(SessionId, u64)>,
    next_ping: Instant,
    unanswered_pings: u32,
    /// The socket took something since the last ping was due.
    progressed: bool,
}

/// The request that is being worked off.
struct Pending {
    /// None for an attach that the upgrade asked for.
    id: Option<String>,
    method: &'static str,
    since: Instant,
    deadline: Instant,
    family: Family,
    binding: Binding,
    result: ResultOf,
}

type ResultOf = Box<dyn FnOnce(rtpbridge_shared::ipc::Reply) -> Option<serde_json::Value> + Send>;

enum Incoming {
    Text(Utf8Bytes),
    Binary,
}

struct Outgoing {
    message: Message,
    acknowledgement: Option<(SessionId, u64)>,
}

enum Wake {
    Delivery(Delivery),
    Received(Message),
    Flushed,
    Timer,
    Ended(Ending),
}

impl Connection {
    pub(super) fn new(
        app: Arc<App>,
        socket: WebSocketStream<TcpStream>,
        mailbox: Arc<Mailbox>,
    ) -> Self {
        let next_ping = Instant::now() + app.config.ws_ping_interval;
        Self {
            app,
            socket,
            mailbox,
            session: None,
            serial: 0,
            pending: None,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            outbox: VecDeque::new(),
            unflushed: 0,
            written: Vec::new(),
            next_ping,
            unanswered_pings: 0,
            progressed: false,
        }
    }

    /// Claims a session without being asked by a message.
    pub(super) fn attach(&mut self, session: SessionId) {
        self.serial += 1;
        let context = Context {
            app: &self.app,
            mailbox: &self.mailbox,
            serial: self.serial,
        };
        match session::attach_to(context, session, false) {
            Ok(Step::Ask(ask)) => self.ask(None, "session.attach", *ask),
            Ok(Step::Answer(_)) => {}
            Err(error) => debug!(%session, %error, "attach by address failed"),
        }
    }

    /// Runs until the connection has to end.
    pub(super) async fn run(&mut self) -> Ending {
        let mut timer = pin!(sleep_until(self.next_timer()));
        loop {
            self.work_off();
            let due = self.next_timer();
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            let wake = std::future::poll_fn(|cx| self.poll_wake(cx, timer.as_mut())).await;
            match wake {
                Wake::Delivery(Delivery::Close(close)) => return Ending::Server(close),
                Wake::Delivery(delivery) => self.on_delivery(delivery),
                Wake::Received(message) => self.on_message(message),
                Wake::Flushed => self.on_flushed(),
                Wake::Timer => {
                    if let Some(ending) = self.on_timer(Instant::now()) {
                        return ending;
                    }
                }
                Wake::Ended(ending) => {
                    if ending == Ending::Peer {
                        self.finish_requests().await;
                    }
                    return ending;
                }
            }
        }
    }

    /// What the peer asked for before it left is done as if it had waited; nobody reads the answers.
    /// When it was a write that failed, its last requests may be unread still.
    async fn finish_requests(&mut self) {
        let end = Instant::now() + LAST_REQUESTS;
        let mut readable = true;
        loop {
            self.outbox.clear();
            self.work_off();
            if self.inbox.is_empty() && !readable {
                // One that is under way needs us no more.
                return;
            }
            if self.pending.is_none() && !self.inbox.is_empty() {
                continue;
            }
            let next = std::future::poll_fn(|cx| self.poll_last(cx, readable));
            match timeout_at(end, next).await {
                Ok(Wake::Received(message)) => self.on_message(message),
                Ok(Wake::Delivery(Delivery::Close(_))) | Err(_) => return,
                Ok(Wake::Delivery(delivery)) => self.on_delivery(delivery),
                Ok(_) => readable = false,
            }
        }
    }

    fn poll_last(&mut self, cx: &mut TaskContext<'_>, readable: bool) -> Poll<Wake> {
        if readable
            && self.has_room()
            && let Poll::Ready(received) = Pin::new(&mut self.socket).poll_next(cx)
        {
            return Poll::Ready(match received {
                Some(Ok(message)) => Wake::Received(message),
                _ => Wake::Ended(Ending::Peer),
            });
        }
        self.mailbox.poll_next(cx).map(Wake::Delivery)
    }

    /// The session, if there is one, is orphaned from now on.
    pub(super) fn give_up(&mut self, ending: Ending) {
        debug!(?ending, "connection ends");
        self.mailbox.retire();
        // Both may have bound the session already, with the answer still in the mailbox.
        let binding = match self.pending.take().map(|pending| pending.binding) {
            Some(Binding::Attach(session) | Binding::Create(session)) => Some(session),
            _ => None,
        };
        if let Some(session) = binding {
            release(&self.app, session, &self.mailbox);
        }
        // Only a session that this connection still held is orphaned by its end.
        self.session = self
            .session
            .filter(|session| release(&self.app, *session, &self.mailbox));
    }

    /// Says goodbye as far as the peer lets us.
    pub(super) async fn close(&mut self, ending: Ending) -> Result<(), Error> {
        let listens = matches!(ending, Ending::Silent | Ending::Server(Close::Restart));
        if listens && self.session.is_some() {
            let remaining = self.app.config.disconnect_timeout.as_millis();
            let remaining = u64::try_from(remaining).unwrap_or(u64::MAX);
            self.socket
                .send(Message::text(wire::write_orphaned(remaining)))
                .await?;
        }
        let (code, reason) = match ending {
            Ending::Peer => (None, ""),
            Ending::Silent => (Some(CloseCode::Away), "pings were not answered"),
            Ending::Server(Close::Taken) => (
                Some(CloseCode::from(CLOSE_TAKEN)),
                "another connection took the session",
            ),
            Ending::Server(Close::Restart) => (Some(CloseCode::Restart), "service restart"),
            Ending::Protocol(code) => (Some(code), ""),
        };
        let frame = code.map(|code| CloseFrame {
            code,
            reason: reason.into(),
        });
        self.socket.close(frame).await?;
        // Until the peer has answered the close; what it still says is of no interest.
        while self.socket.next().await.transpose()?.is_some() {}
        Ok(())
    }

    fn next_timer(&self) -> Instant {
        match &self.pending {
            Some(pending) => pending.deadline.min(self.next_ping),
            None => self.next_ping,
        }
    }

    fn poll_wake(&mut self, cx: &mut TaskContext<'_>, timer: Pin<&mut Sleep>) -> Poll<Wake> {
        if let Poll::Ready(wake) = self.poll_write(cx) {
            return Poll::Ready(wake);
        }
        if self.outbox.is_empty()
            && let Poll::Ready(delivery) = self.mailbox.poll_next(cx)
        {
            return Poll::Ready(Wake::Delivery(delivery));
        }
        if self.unflushed > 0
            && let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx)
        {
            return Poll::Ready(match flushed {
                Ok(()) => Wake::Flushed,
                Err(error) => Wake::Ended(ending_of(&error)),
            });
        }
        if self.has_room()
            && let Poll::Ready(received) = Pin::new(&mut self.socket).poll_next(cx)
        {
            return Poll::Ready(match received {
                Some(Ok(message)) => Wake::Received(message),
                Some(Err(error)) => Wake::Ended(ending_of(&error)),
                None => Wake::Ended(Ending::Peer),
            });
        }
        if !self.outbox.is_empty()
            && let Poll::Ready(close) = self.mailbox.poll_close(cx)
        {
            return Poll::Ready(Wake::Delivery(Delivery::Close(close)));
        }
        timer.poll(cx).map(|()| Wake::Timer)
    }

    /// Puts the waiting frame into the socket's buffer, as long as that is not behind.
    fn poll_write(&mut self, cx: &mut TaskContext<'_>) -> Poll<Wake> {
        if self.outbox.is_empty() || self.unflushed >= MAX_UNFLUSHED {
            return Poll::Pending;
        }
        match Pin::new(&mut self.socket).poll_ready(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Wake::Ended(ending_of(&error))),
            Poll::Ready(Ok(())) => {}
        }
        if let Some(outgoing) = self.outbox.pop_front() {
            if let Err(error) = Pin::new(&mut self.socket).start_send(outgoing.message) {
                return Poll::Ready(Wake::Ended(ending_of(&error)));
            }
            self.unflushed += 1;
            self.progressed = true;
            self.note_written(outgoing.acknowledgement);
        }
        Poll::Pending
    }

    fn note_written(&mut self, acknowledgement: Option<(SessionId, u64)>) {
        let Some((session, number)) = acknowledgement else {
            return;
        };
        match self.written.iter_mut().find(|(known, _)| *known == session) {
            Some((_, newest)) => *newest = number.max(*newest),
            None => self.written.push((session, number)),
        }
    }

    fn on_flushed(&mut self) {
        self.unflushed = 0;
        self.progressed = true;
        if !self.written.is_empty() {
            crash::point(Moment::BeforeAcknowledge);
        }
        for (session, number) in self.written.drain(..) {
            self.app.link.acknowledge(session, number);
        }
    }

    fn has_room(&self) -> bool {
        self.inbox.len() < MAX_READ_AHEAD && self.inbox_bytes < self.app.config.ws_max_message_bytes
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Text(text) => {
                self.inbox_bytes += text.len();
                self.inbox.push_back(Incoming::Text(text));
            }
            Message::Binary(_) => self.inbox.push_back(Incoming::Binary),
            Message::Pong(_) => self.unanswered_pings = 0,
            // The library has queued the pong, or the answer to the close, which ends the stream.
            Message::Ping(_) | Message::Close(_) => self.unflushed += 1,
            Message::Frame(_) => {}
        }
    }

    /// Starts the next request when nothing stands in its way.
    fn work_off(&mut self) {
        if self.pending.is_some() || !self.outbox.is_empty() {
            return;
        }
        let Some(incoming) = self.inbox.pop_front() else {
            if self.inbox.capacity() > MAX_READ_AHEAD {
                self.inbox = VecDeque::new();
            }
            return;
        };
        match incoming {
            Incoming::Text(text) => {
                self.inbox_bytes = self.inbox_bytes.saturating_sub(text.len());
                self.on_request(&text);
            }
            Incoming::Binary => {
                let refused = envelope::binary_refused();
                self.answer(&refused.id, &Err(refused.error));
            }
        }
    }

    fn on_request(&mut self, text: &str) {
        let envelope = match envelope::parse(text) {
            Ok(envelope) => envelope,
            Err(rejected) => return self.answer(&rejected.id, &Err(rejected.error)),
        };
        self.serial += 1;
        let context = Context {
            app: &self.app,
            mailbox: &self.mailbox,
            serial: self.serial,
        };
        let since = Instant::now();
        let (method, step) = call::prepare(context, self.session, &envelope);
        let outcome = match (method, step) {
            (Some(method), Ok(Step::Ask(ask))) => {
                return self.ask(Some(envelope.id.into_owned()), method.name, *ask);
            }
            (_, Ok(Step::Ask(_))) => return,
            (_, Ok(Step::Answer(result))) => Ok(result),
            (_, Err(error)) => Err(error),
        };
        if let Some(method) = method {
            let seconds = since.elapsed().as_secs_f64();
            self.app.metrics.command_answered(method.name, seconds);
        }
        self.answer(&envelope.id, &outcome);
    }

    fn ask(&mut self, id: Option<String>, method: &'static str, ask: Ask) {
        let since = Instant::now();
        self.pending = Some(Box::new(Pending {
            id,
            method,
            since,
            deadline: since + ask.patience,
            family: ask.family,
            binding: ask.binding,
            result: ask.result,
        }));
        let mailbox = Arc::clone(&self.mailbox);
        let serial = self.serial;
        let first = ask.first;
        self.app.link.submit(
            ask.request,
            Box::new(move |outcome| {
                let outcome = match first {
                    Some(first) => first(outcome),
                    None => Some(outcome),
                };
                if let Some(outcome) = outcome {
                    mailbox.push_answer(serial, outcome);
                }
            }),
        );
    }

    fn on_delivery(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Answer { serial, outcome } if serial == self.serial => {
                self.on_outcome(outcome);
            }
            // The client was told already that this took too long.
            Delivery::Answer { .. } | Delivery::Close(_) => {}
            Delivery::Event(event) => self.on_event(&event),
            Delivery::Dropped(count) => self.write(wire::write_dropped(count), None),
        }
    }

    fn on_event(&mut self, event: &ClientEvent) {
        if matches!(event.body, Body::Lost(_) | Body::Unbound)
            && self.session == Some(event.session)
        {
            self.session = None;
        }
        if event.is_critical() {
            crash::point(Moment::BeforeWrite);
        }
        if let Some(text) = wire::write(event) {
            self.write(text, event.acknowledgement());
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let Pending {
            id,
            method,
            since,
            family,
            binding,
            result,
            ..
        } = *pending;
        let answer = match outcome {
            Ok(reply) => result(reply).ok_or_else(|| {
                ApiError::new(Code::InternalError, "unexpected answer of the dataplane")
            }),
            Err(error) => {
                self.forget_when_gone(&error);
                Err(ApiError::from_link(&error, family))
            }
        };
        match (&answer, binding) {
            (Ok(_), Binding::Create(session) | Binding::Attach(session)) => {
                self.session = Some(session);
            }
            (Ok(_), Binding::Destroy) => self.session = None,
            _ => {}
        }
        let seconds = since.elapsed().as_secs_f64();
        self.app.metrics.command_answered(method, seconds);
        if let Some(id) = id {
            self.answer(&id, &answer);
        }
    }

    /// A session that the dataplane does not know any more holds the connection no longer. One that
    /// is merely gone for requests has its last events still to come, and an end that says so.
    fn forget_when_gone(&mut self, error: &LinkError) {
        let gone = matches!(error, LinkError::Refused(RequestError::SessionNotFound));
        if gone && let Some(session) = self.session.take() {
            self.app.cache.session_ended(session);
            self.app.registry.forget(session);
        }
    }

    fn on_timer(&mut self, now: Instant) -> Option<Ending> {
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.deadline <= now)
        {
            self.on_unresponsive();
        }
        if now < self.next_ping {
            return None;
        }
        self.next_ping = now + self.app.config.ws_ping_interval;
        let progressed = std::mem::take(&mut self.progressed);
        let all_taken = self.outbox.is_empty() && self.unflushed == 0;
        if !self.has_room() && (progressed || all_taken) {
            // Pongs may wait behind requests that we have not read yet, and the client is served. One
            // that takes nothing of what it is owed has no such excuse.
            return None;
        }
        if self.unanswered_pings >= MAX_UNANSWERED_PINGS {
            return Some(Ending::Silent);
        }
        self.unanswered_pings += 1;
        self.outbox.push_back(Outgoing {
            message: Message::Ping(Bytes::new()),
            acknowledgement: None,
        });
        None
    }

    fn on_unresponsive(&mut self) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        // A late outcome finds another serial.
        self.serial += 1;
        match pending.binding {
            Binding::Create(session) => session::give_up_creation(&self.app, session),
            Binding::Attach(session) => {
                release(&self.app, session, &self.mailbox);
            }
            Binding::Keep | Binding::Destroy => {}
        }
        let seconds = pending.since.elapsed().as_secs_f64();
        self.app.metrics.command_answered(pending.method, seconds);
        let error = ApiError::new(
            Code::SessionUnresponsive,
            "the session did not answer in time; the request may still take effect",
        );
        if let Some(id) = pending.id {
            self.answer(&id, &Err(error));
        }
    }

    fn answer(&mut self, id: &str, outcome: &Result<serde_json::Value, ApiError>) {
        self.write(envelope::write(id, outcome), None);
    }

    fn write(&mut self, text: String, acknowledgement: Option<(SessionId, u64)>) {
        self.outbox.push_back(Outgoing {
            message: Message::text(text),
            acknowledgement,
        });
    }
}

fn release(app: &App, session: SessionId, mailbox: &Mailbox) -> bool {
    let timeout = app.config.disconnect_timeout;
    // Told before the next connection can claim the session, or it would undo that one's attach.
    app.registry.release(session, mailbox, timeout, || {
        app.link
            .submit(Request::SessionRelease { session }, Box::new(|_| {}));
    })
}

fn ending_of(error: &Error) -> Ending {
    match error {
        Error::Capacity(_) => Ending::Protocol(CloseCode::Size),
        Error::Utf8(_) => Ending::Protocol(CloseCode::Invalid),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ending::Peer,
        Error::Protocol(_) => Ending::Protocol(CloseCode::Protocol),
        _ => Ending::Peer,
    }
}
