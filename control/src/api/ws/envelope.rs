//! Requests in, answers out: the JSON frame of the protocol and its error codes. The code that a
//! client sees is chosen here and nowhere else. Nothing recurses with the depth of the input:
//! values are skipped iteratively and kept as raw text until a method asks for them.

use std::borrow::Cow;
use std::fmt;

use rtpbridge_shared::ipc::RequestError;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::dataplane::pending::LinkError;

/// Longest request id in bytes.
pub const MAX_ID_BYTES: usize = 1024;

/// A request that can be answered.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// Chosen by the client; 1 to 1024 bytes.
    pub id: Cow<'a, str>,
    /// As the client wrote it.
    pub method: Cow<'a, str>,
    /// Not looked into yet.
    pub params: Option<&'a RawValue>,
}

/// A message that is no request; answered all the same.
#[derive(Debug)]
pub struct Rejected {
    /// What to answer to; "" when none could be read.
    pub id: String,
    /// Why.
    pub error: ApiError,
}

/// An error as the client sees it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The protocol's code.
    pub code: Code,
    /// For people.
    pub message: String,
}

macro_rules! define_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// The error codes of the protocol.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Code { $($(#[$doc])* $variant),+ }

        impl Code {
            /// The protocol's text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text),+ }
            }
        }
    };
}

define_codes! {
    /// Not JSON, or no usable id or method.
    ParseError = "PARSE_ERROR",
    /// Empty id.
    InvalidRequest = "INVALID_REQUEST",
    /// Parameters missing, of a wrong type or out of range.
    InvalidParams = "INVALID_PARAMS",
    /// Unknown method.
    UnknownMethod = "UNKNOWN_METHOD",
    /// The method needs a session and none is bound.
    NoSession = "NO_SESSION",
    /// create or attach on a bound connection.
    SessionAlreadyBound = "SESSION_ALREADY_BOUND",
    /// No such session.
    SessionNotFound = "SESSION_NOT_FOUND",
    /// Another connection holds the session.
    SessionNotOrphaned = "SESSION_NOT_ORPHANED",
    /// The session's command queue is full.
    SessionBusy = "SESSION_BUSY",
    /// The session ended under the command.
    SessionGone = "SESSION_GONE",
    /// No answer in time.
    SessionUnresponsive = "SESSION_UNRESPONSIVE",
    /// No new sessions, the process stops.
    ShuttingDown = "SHUTTING_DOWN",
    /// max_sessions.
    MaxSessionsReached = "MAX_SESSIONS_REACHED",
    /// The dataplane is not connected.
    DataplaneUnavailable = "DATAPLANE_UNAVAILABLE",
    /// The machine cannot carry another call.
    Overloaded = "OVERLOADED",
    /// An endpoint operation failed.
    EndpointError = "ENDPOINT_ERROR",
    /// The endpoint is back where it was.
    TransferFailed = "TRANSFER_FAILED",
    /// A recording operation failed.
    RecordingError = "RECORDING_ERROR",
    /// A voice activity operation failed.
    VadError = "VAD_ERROR",
    /// A statistics operation failed.
    StatsError = "STATS_ERROR",
    /// A bug on our side.
    InternalError = "INTERNAL_ERROR",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a method is about; decides the code of failures that every kind of method can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// The own session.
    Session,
    /// `session.attach`: the session is a named object.
    Attach,
    /// Endpoints, files, tones, DTMF, bridges.
    Endpoint,
    /// `endpoint.transfer`
    Transfer,
    /// Recordings.
    Recording,
    /// Voice activity detection.
    Vad,
    /// Statistics.
    Stats,
}

impl Family {
    const fn code(self) -> Code {
        match self {
            Family::Session | Family::Attach => Code::InternalError,
            Family::Endpoint | Family::Transfer => Code::EndpointError,
            Family::Recording => Code::RecordingError,
            Family::Vad => Code::VadError,
            Family::Stats => Code::StatsError,
        }
    }
}

impl ApiError {
    /// With this code and text.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// `INVALID_PARAMS`, naming the field.
    pub fn invalid(field: &str, problem: &str) -> Self {
        Self::new(Code::InvalidParams, format!("{field}: {problem}"))
    }

    /// What a failed request to the dataplane is to a client whose method belongs to `family`.
    pub fn from_link(error: &LinkError, family: Family) -> Self {
        let refused = match error {
            LinkError::Unavailable => {
                return Self::new(Code::DataplaneUnavailable, error.to_string());
            }
            LinkError::Refused(refused) => refused,
        };
        let code = match refused {
            RequestError::SessionNotFound if family == Family::Attach => Code::SessionNotFound,
            RequestError::SessionNotFound | RequestError::SessionGone => Code::SessionGone,
            RequestError::TargetSessionNotFound => Code::SessionNotFound,
            RequestError::SessionBusy => Code::SessionBusy,
            RequestError::Overloaded => Code::Overloaded,
            RequestError::ShuttingDown => Code::ShuttingDown,
            RequestError::EndpointNotFound
            | RequestError::TooManyEndpoints { .. }
            | RequestError::WrongEndpointType { .. } => family.code(),
            RequestError::TargetFull { .. } if family == Family::Transfer => Code::TransferFailed,
            RequestError::TargetFull { .. } => Code::EndpointError,
            RequestError::InvalidParams { .. } => Code::InvalidParams,
            RequestError::Endpoint(_) => Code::EndpointError,
            RequestError::TransferFailed(_) => Code::TransferFailed,
            RequestError::Recording(_) => Code::RecordingError,
            RequestError::Vad(_) => Code::VadError,
            RequestError::Stats(_) => Code::StatsError,
            RequestError::Unresponsive => Code::SessionUnresponsive,
            RequestError::NotPermitted { .. }
            | RequestError::IdInUse
            | RequestError::Internal(_) => Code::InternalError,
        };
        Self::new(code, refused.to_string())
    }
}

/// Reads one text message.
///
/// # Errors
/// With the answer's id and error, when it is no request.
pub fn parse(text: &str) -> Result<Envelope<'_>, Box<Rejected>> {
    let mut members = Members::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer
        .deserialize_map(&mut members)
        .and_then(|()| deserializer.end());
    let id = members.id.and_then(string);
    if let Err(error) = read {
        return Err(rejected(
            &id.unwrap_or_default(),
            Code::ParseError,
            format!("not a request: {error}"),
        ));
    }
    let Some(id) = id else {
        return Err(rejected("", Code::ParseError, "id must be a string"));
    };
    let Some(method) = members.method.and_then(string) else {
        return Err(rejected(&id, Code::ParseError, "method must be a string"));
    };
    if id.is_empty() {
        return Err(rejected("", Code::InvalidRequest, "id must not be empty"));
    }
    if id.len() > MAX_ID_BYTES {
        let message = format!("id: the maximum length is {MAX_ID_BYTES} bytes");
        return Err(rejected(&id, Code::InvalidParams, message));
    }
    Ok(Envelope {
        id,
        method,
        params: members.params,
    })
}

/// The answer to a binary frame.
pub fn binary_refused() -> Rejected {
    *rejected("", Code::ParseError, "messages are text frames")
}

/// The text frame that answers the request `id`.
pub fn write(id: &str, outcome: &Result<Value, ApiError>) -> String {
    #[derive(Serialize)]
    struct Failure<'a> {
        code: &'a str,
        message: &'a str,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Part<'a> {
        Result(&'a Value),
        Error(Failure<'a>),
    }
    #[derive(Serialize)]
    struct Answer<'a> {
        id: &'a str,
        #[serde(flatten)]
        part: Part<'a>,
    }
    let part = match outcome {
        Ok(result) => Part::Result(result),
        Err(error) => Part::Error(Failure {
            code: error.code.as_str(),
            message: &error.message,
        }),
    };
    // Strings and values cannot fail to serialise.
    serde_json::to_string(&Answer { id, part }).unwrap_or_default()
}

fn rejected(id: &str, code: Code, message: impl Into<String>) -> Box<Rejected> {
    Box::new(Rejected {
        id: id[..id.floor_char_boundary(MAX_ID_BYTES)].to_owned(),
        error: ApiError::new(code, message),
    })
}

fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let text: Text<'_> = serde_json::from_str(raw.get()).ok()?;
    Some(text.0)
}

/// Members seen so far; they outlive an error further on in the text.
#[derive(Default)]
struct Members<'a> {
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
}

impl<'de> Visitor<'de> for &mut Members<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with id and method")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match name.as_ref() {
                "id" => self.id = Some(map.next_value()?),
                "method" => self.method = Some(map.next_value()?),
                "params" => self.params = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (String, Code) {
        let rejected = parse(text).expect_err("is no request");
        (rejected.id, rejected.error.code)
    }

    #[test]
    fn a_request_is_read_whatever_else_it_carries() {
        let text = r#"{"x":[1,{"y":2}],"params":{"a":1},"id":"7","method":"server.info"}"#;
        let envelope = parse(text).expect("is a request");
        assert_eq!(envelope.id, "7");
        assert_eq!(envelope.method, "server.info");
        assert_eq!(envelope.params.map(RawValue::get), Some(r#"{"a":1}"#));
        let escaped = parse(r#"{"id":"a\u0041\n","method":"m"}"#).expect("is a request");
        assert_eq!(escaped.id, "aA\n");
        assert!(escaped.params.is_none());
    }

    #[test]
    fn the_id_is_echoed_whenever_it_can_be_read() {
        let rows = [
            ("", "", Code::ParseError),
            ("[]", "", Code::ParseError),
            ("\"text\"", "", Code::ParseError),
            (r#"{"id":5,"method":"m"}"#, "", Code::ParseError),
            (r#"{"method":"m"}"#, "", Code::ParseError),
            (r#"{"id":"a"}"#, "a", Code::ParseError),
            (r#"{"id":"a","method":7}"#, "a", Code::ParseError),
            (r#"{"id":"a","method":"m""#, "a", Code::ParseError),
            (r#"{"id":"a","method":"m"} x"#, "a", Code::ParseError),
            (r#"{"id":"","method":"m"}"#, "", Code::InvalidRequest),
        ];
        for (text, id, code) in rows {
            assert_eq!(refusal(text), (id.to_owned(), code), "{text}");
        }
    }

    #[test]
    fn a_long_id_is_cut_at_a_character() {
        let id = format!("a{}", "ä".repeat(600));
        let text = format!(r#"{{"id":"{id}","method":"m"}}"#);
        let (echoed, code) = refusal(&text);
        assert_eq!(code, Code::InvalidParams);
        assert_eq!(echoed.len(), 1023);
        assert!(id.starts_with(&echoed));
        let longest = format!(r#"{{"id":"{}","method":"m"}}"#, "x".repeat(MAX_ID_BYTES));
        assert!(parse(&longest).is_ok());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = "[".repeat(120_000) + &"]".repeat(120_000);
        for text in [
            format!(r#"{{"id":"a","method":"m","params":{{"x":{deep}}}}}"#),
            format!(r#"{{"id":"a","method":"m","other":{deep}}}"#),
        ] {
            assert!(parse(&text).is_ok());
        }
        assert_eq!(
            refusal(&format!(r#"{{"id":"a","x":{}"#, "[".repeat(200_000))).0,
            "a"
        );
        assert_eq!(refusal(&format!(r#"{{"id":{deep},"method":"m"}}"#)).0, "");
    }

    #[test]
    fn answers_have_a_result_or_an_error() {
        let good = write("1", &Ok(serde_json::json!({"a": 1})));
        assert_eq!(good, r#"{"id":"1","result":{"a":1}}"#);
        let bad = write("", &Err(ApiError::new(Code::NoSession, "No session")));
        assert_eq!(
            bad,
            r#"{"id":"","error":{"code":"NO_SESSION","message":"No session"}}"#
        );
    }
}
