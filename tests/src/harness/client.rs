//! A client of the control protocol: one WebSocket, blocking, with the events that arrived kept in
//! order until a test asks for them.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

use super::wait::SOON;

/// An error answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RpcError {
    /// One of the protocol's codes.
    pub code: String,
    /// For people.
    pub message: String,
}

/// An event of the bound session.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its `data`.
    pub data: Value,
}

/// An upgrade that was not accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// HTTP status, 0 when the server closed without one.
    pub status: u16,
}

/// One message of the server, as the socket gave it.
#[derive(Clone, PartialEq, Debug)]
pub enum Incoming {
    /// A text frame, decoded.
    Json(Value),
    /// The connection ended; the close code when there was a close frame.
    Closed(Option<u16>),
}

/// A connected client.
#[derive(Debug)]
pub struct Client {
    socket: WebSocket<TcpStream>,
    events: VecDeque<Event>,
    next_id: u64,
    closed: Option<Option<u16>>,
}

impl Client {
    /// Connects to `/`; panics when refused.
    pub fn connect(to: SocketAddr) -> Self {
        Self::try_connect(to, "/", &[]).unwrap_or_else(|refused| panic!("upgrade: {refused:?}"))
    }

    /// Connects to any path with further headers.
    pub fn try_connect(
        to: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refused> {
        let stream = TcpStream::connect_timeout(&to, SOON).map_err(|_| Refused { status: 0 })?;
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(SOON)).expect("read timeout");
        let mut request = format!("ws://{to}{path}")
            .into_client_request()
            .expect("a valid request");
        for (name, value) in headers {
            request.headers_mut().insert(
                HeaderName::from_bytes(name.as_bytes()).expect("header name"),
                HeaderValue::from_str(value).expect("header value"),
            );
        }
        let config = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None);
        match tungstenite::client::client_with_config(request, stream, Some(config)) {
            Ok((socket, _)) => Ok(Self {
                socket,
                events: VecDeque::new(),
                next_id: 1,
                closed: None,
            }),
            Err(HandshakeError::Failure(Error::Http(response))) => Err(Refused {
                status: response.status().as_u16(),
            }),
            Err(_) => Err(Refused { status: 0 }),
        }
    }

    /// Connects and creates a session.
    pub fn with_session(to: SocketAddr) -> (Self, String) {
        let mut client = Self::connect(to);
        let created = client.call("session.create", json!({}));
        let session = created["session_id"]
            .as_str()
            .expect("session_id")
            .to_owned();
        (client, session)
    }

    /// A request that must succeed; gives its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        match self.request(method, params.clone()) {
            Ok(result) => result,
            Err(error) => panic!("{method} {params}: {} ({})", error.code, error.message),
        }
    }

    /// A request that must fail with this code; gives the message.
    pub fn refuse(&mut self, method: &str, params: Value, code: &str) -> String {
        match self.request(method, params.clone()) {
            Ok(result) => panic!("{method} {params} succeeded: {result}"),
            Err(error) => {
                assert_eq!(error.code, code, "{method} {params}: {}", error.message);
                error.message
            }
        }
    }

    /// A request and its answer; events that come before it are kept.
    pub fn request(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        let id = self.next_id.to_string();
        self.next_id += 1;
        self.send_text(&json!({"id": id, "method": method, "params": params}).to_string());
        let answer = self.answer();
        assert_eq!(answer["id"], json!(id), "answers come in order");
        result_of(&answer)
    }

    /// Sends a text frame as it is.
    pub fn send_text(&mut self, text: &str) {
        self.send(Message::text(text));
    }

    /// Sends each message as a text frame, all with one write to the socket.
    pub fn send_all(&mut self, messages: &[Value]) {
        for message in messages {
            let frame = Message::text(message.to_string());
            self.socket.write(frame).expect("room in the buffer");
        }
        self.socket.flush().expect("flush");
    }

    /// Sends any frame.
    pub fn send(&mut self, message: Message) {
        self.socket
            .send(message)
            .unwrap_or_else(|error| panic!("send: {error}"));
    }

    /// Sends any frame to a server that may be gone.
    pub fn try_send(&mut self, message: Message) -> bool {
        self.socket.send(message).is_ok()
    }

    /// The next answer; events before it are kept.
    pub fn answer(&mut self) -> Value {
        let deadline = Instant::now() + 2 * SOON;
        loop {
            match self.receive(deadline) {
                Some(Incoming::Json(message)) if message.get("event").is_some() => {
                    self.keep(message);
                }
                Some(Incoming::Json(message)) => return message,
                Some(Incoming::Closed(code)) => panic!("closed ({code:?}) instead of an answer"),
                None => panic!("no answer within {:?}", 2 * SOON),
            }
        }
    }

    /// The next event, whatever it is.
    pub fn next_event(&mut self, within: Duration) -> Option<Event> {
        let deadline = Instant::now() + within;
        while self.events.is_empty() && self.pump(deadline) {}
        self.events.pop_front()
    }

    /// The next event of this name; the others stay in their order.
    pub fn expect_event(&mut self, name: &str) -> Value {
        self.expect_event_where(name, |_| true)
    }

    /// The next event of this name and content; the others stay in their order.
    pub fn expect_event_where(&mut self, name: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + 2 * SOON;
        loop {
            let found = self
                .events
                .iter()
                .position(|event| event.name == name && matches(&event.data));
            if let Some(at) = found {
                return self.events.remove(at).expect("found it here").data;
            }
            assert!(
                self.pump(deadline),
                "no event {name} (closed: {:?}); present: {:?}",
                self.closed,
                self.events
            );
        }
    }

    /// Fails when an event of this name is there or comes within `during`.
    pub fn expect_no_event(&mut self, name: &str, during: Duration) {
        let deadline = Instant::now() + during;
        loop {
            let unwanted = self.events.iter().find(|event| event.name == name);
            assert!(unwanted.is_none(), "unexpected {unwanted:?}");
            if !self.pump(deadline) {
                return;
            }
        }
    }

    /// All events that are here now or come within `during`, in order.
    pub fn drain_events(&mut self, during: Duration) -> Vec<Event> {
        let deadline = Instant::now() + during;
        while self.pump(deadline) {}
        self.events.drain(..).collect()
    }

    /// Waits for the end of the connection; gives the close code when there was a close frame.
    pub fn expect_close(&mut self) -> Option<u16> {
        let deadline = Instant::now() + 2 * SOON;
        while self.pump(deadline) {}
        self.closed.expect("the server closes the connection")
    }

    /// Whether the server has ended the connection, as far as read.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Says goodbye with a close frame and waits for the server's; answers not awaited are dropped.
    pub fn close(mut self) {
        let _ = self.socket.close(None);
        let deadline = Instant::now() + SOON;
        while let Some(Incoming::Json(_)) = self.receive(deadline) {}
    }

    /// The next message; none when the deadline passes.
    pub fn receive(&mut self, deadline: Instant) -> Option<Incoming> {
        loop {
            if let Some(code) = self.closed {
                return Some(Incoming::Closed(code));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket
                .get_ref()
                .set_read_timeout(Some(left))
                .expect("read timeout");
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let value = serde_json::from_str(&text).expect("the server speaks JSON");
                    return Some(Incoming::Json(value));
                }
                Ok(Message::Close(frame)) => {
                    self.closed = Some(frame.map(|frame| frame.code.into()));
                    let _ = self.socket.flush();
                }
                Ok(_) => {}
                Err(Error::Io(error)) if is_timeout(&error) => return None,
                Err(_) => self.closed = Some(None),
            }
        }
    }

    /// The socket beneath, for tests that misbehave on it.
    pub fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    /// Reads one message into the event queue; false at the deadline or the end.
    fn pump(&mut self, deadline: Instant) -> bool {
        match self.receive(deadline) {
            Some(Incoming::Json(message)) => {
                self.keep(message);
                true
            }
            Some(Incoming::Closed(_)) | None => false,
        }
    }

    fn keep(&mut self, message: Value) {
        let name = message["event"]
            .as_str()
            .unwrap_or_else(|| panic!("neither event nor awaited answer: {message}"));
        self.events.push_back(Event {
            name: name.to_owned(),
            data: message["data"].clone(),
        });
    }
}

/// Splits an answer; it must have exactly one of the two members.
pub fn result_of(answer: &Value) -> Result<Value, RpcError> {
    match (answer.get("result"), answer.get("error")) {
        (Some(result), None) => Ok(result.clone()),
        (None, Some(error)) => Err(RpcError {
            code: error["code"].as_str().expect("code").to_owned(),
            message: error["message"].as_str().expect("message").to_owned(),
        }),
        _ => panic!("neither or both of result and error: {answer}"),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
