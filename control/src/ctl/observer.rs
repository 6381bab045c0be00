//! The dataplane, asked directly as an observer while control is down. Reads only; the dataplane
//! would refuse anything else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rtpbridge_shared::id::{InstanceId, SessionId};
use rtpbridge_shared::ipc::frame::{self, FrameReader};
use rtpbridge_shared::ipc::process::StatusReport;
use rtpbridge_shared::ipc::session::{SessionDetails, SessionSnapshot};
use rtpbridge_shared::ipc::stats::StatsRow;
use rtpbridge_shared::ipc::{
    Hello, PROTOCOL_VERSION, Reply, Request, Role, ToControl, ToDataplane,
};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::error::CtlError;

const PATIENCE: Duration = Duration::from_secs(10);
/// The only request of a connection.
const NUMBER: u64 = 1;

/// The dataplane, by its socket.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    socket: PathBuf,
}

/// What one request brought.
struct Answer {
    reply: Reply,
    /// Parts of a snapshot, when one was asked for.
    sessions: Vec<SessionDetails>,
}

impl Observer {
    pub(super) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(super) async fn status(&self) -> Result<StatusReport, CtlError> {
        match self.ask(Request::Status).await?.reply {
            Reply::Status(status) => Ok(*status),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn sessions(&self) -> Result<Vec<SessionDetails>, CtlError> {
        Ok(self.ask(Request::Snapshot).await?.sessions)
    }

    pub(super) async fn session(&self, session: SessionId) -> Result<SessionDetails, CtlError> {
        match self.ask(Request::SessionInfo { session }).await?.reply {
            Reply::Session(details) => Ok(details),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn stats(&self, session: SessionId) -> Result<Vec<StatsRow>, CtlError> {
        match self.ask(Request::StatsSnapshot { session }).await?.reply {
            Reply::Stats(rows) => Ok(rows),
            _ => Err(unexpected()),
        }
    }

    async fn ask(&self, request: Request) -> Result<Answer, CtlError> {
        let unreachable = |reason: String| CtlError::Unreachable {
            socket: self.socket.clone(),
            reason,
        };
        match timeout(PATIENCE, ask(&self.socket, request)).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(refusal))) => Err(CtlError::Failed(refusal)),
            Ok(Err(reason)) => Err(unreachable(reason)),
            Err(_) => Err(unreachable(format!(
                "no answer within {} s",
                PATIENCE.as_secs()
            ))),
        }
    }
}

fn unexpected() -> CtlError {
    CtlError::Failed("unexpected answer of the dataplane".to_owned())
}

/// The outer error is about the connection, the inner one is the dataplane's refusal.
async fn ask(socket: &Path, request: Request) -> Result<Result<Answer, String>, String> {
    let stream = UnixStream::connect(socket).await;
    let (source, mut sink) = stream.map_err(|error| error.to_string())?.into_split();
    let mut source = FrameReader::new(source);
    let hello = Hello {
        protocol_version: PROTOCOL_VERSION,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        role: Role::Observer,
        pid: std::process::id(),
        instance: InstanceId::random(),
    };
    send(&mut sink, &ToDataplane::Hello(hello)).await?;
    match receive(&mut source).await? {
        ToControl::Hello(_) => {}
        ToControl::Refused(refusal) => return Ok(Err(format!("refused: {refusal:?}"))),
        _ => return Err("the dataplane did not greet".to_owned()),
    }
    let number = NUMBER;
    send(&mut sink, &ToDataplane::Request { number, request }).await?;
    let mut sessions: Vec<SessionSnapshot> = Vec::new();
    let mut known: HashMap<SessionId, usize> = HashMap::new();
    loop {
        match receive(&mut source).await? {
            ToControl::Answer { number, result } if number == NUMBER => {
                let sessions = sessions.into_iter().map(|session| session.details);
                let answer = result.map(|reply| Answer {
                    reply,
                    sessions: sessions.collect(),
                });
                return Ok(answer.map_err(|error| error.to_string()));
            }
            ToControl::SnapshotPart { session, .. } => {
                let index = *known
                    .entry(session.details.session)
                    .or_insert(sessions.len());
                match sessions.get_mut(index) {
                    Some(begun) => begun.extend(session),
                    None => sessions.push(session),
                }
            }
            _ => {}
        }
    }
}

async fn send(sink: &mut OwnedWriteHalf, message: &ToDataplane) -> Result<(), String> {
    let mut buffer = Vec::new();
    frame::encode(message, &mut buffer).map_err(|error| error.to_string())?;
    sink.write_all(&buffer)
        .await
        .map_err(|error| error.to_string())
}

async fn receive(source: &mut FrameReader<OwnedReadHalf>) -> Result<ToControl, String> {
    match source.read().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err("the dataplane closed the connection".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
