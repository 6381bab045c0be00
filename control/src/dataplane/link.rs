//! Connects, says hello, keeps the heartbeat, and connects again. Reading never waits for anybody:
//! what arrives goes into bounded queues or is counted. A connection that is silent for 5 s is
//! closed and made anew.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ToFsName};
use rtpbridge_shared::ipc::frame::{self, FrameError, FrameReader};
use rtpbridge_shared::ipc::hello::{Hello, PROTOCOL_VERSION, Refusal, Role};
use rtpbridge_shared::ipc::{ToControl, ToDataplane};
use thiserror::Error;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info, warn};

use super::resync::{self, Snapshot};
use crate::app::App;
use crate::shutdown::Command;

const HEARTBEAT: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// Retries at the first interval before it grows: a dataplane that restarts is back within these.
const QUICK_RETRIES: u32 = 20;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The frames are not ours.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The dataplane does not take us.
    #[error("the dataplane refused: {0:?}")]
    Refused(Refusal),
    /// It speaks another version of the messages.
    #[error("the dataplane speaks protocol version {theirs}, this program {ours}")]
    Version {
        /// The dataplane's.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// It said something else than hello first.
    #[error("the dataplane did not answer the hello with one")]
    NoHello,
    /// It could not say which sessions it has, a worker being held up.
    #[error("the dataplane gave no snapshot")]
    NoSnapshot,
    /// The other side closed it.
    #[error("the dataplane closed the connection")]
    Closed,
    /// Nothing came for 5 s.
    #[error("the dataplane was silent for {} s", SILENCE.as_secs())]
    Silent,
    /// Another control process took over.
    #[error("another control process took over")]
    Displaced,
}

/// Runs until the process ends, or until another control process took over.
pub async fn run(app: Arc<App>) {
    let mut take_over = app.takes_over;
    let mut attempts: u32 = 0;
    let mut down_since: Option<Instant> = None;
    let mut reported = false;
    loop {
        let patience = connect_patience(&app, down_since);
        let error = match timeout(patience, connect(&app, take_over)).await {
            Ok(Ok(connection)) => {
                attempts = 0;
                down_since = None;
                reported = false;
                take_over = false;
                let error = serve(&app, connection).await;
                app.link.on_disconnected();
                warn!(%error, "link to the dataplane lost");
                error
            }
            Ok(Err(error)) => error,
            Err(_) => ConnectionError::Silent,
        };
        match &error {
            ConnectionError::Displaced => {
                app.lifecycle.command(Command::Displaced);
                return;
            }
            ConnectionError::Refused(Refusal::ControllerPresent { pid }) => {
                // Our own former connection, which the dataplane has not yet seen ending.
                take_over |= *pid == std::process::id();
            }
            _ => {}
        }
        if attempts == 1 && !reported {
            warn!(%error, "dataplane not reachable, trying again");
            reported = true;
        }
        give_up_when_due(&app, &mut down_since);
        let delay = retry_delay(attempts).min(connect_patience(&app, down_since));
        sleep(delay).await;
        attempts = attempts.saturating_add(1);
    }
}

/// A stopped dataplane accepts connections and stays silent; the loss is declared in time even so.
fn connect_patience(app: &App, down_since: Option<Instant>) -> Duration {
    let remaining = down_since.map_or(SILENCE, |since| {
        app.config
            .dataplane_loss_timeout
            .saturating_sub(since.elapsed())
    });
    if remaining.is_zero() {
        SILENCE
    } else {
        remaining.clamp(FIRST_RETRY, SILENCE)
    }
}

fn retry_delay(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(QUICK_RETRIES).min(8);
    (FIRST_RETRY * (1 << doublings)).min(LAST_RETRY)
}

fn give_up_when_due(app: &App, down_since: &mut Option<Instant>) {
    let since = *down_since.get_or_insert_with(Instant::now);
    if since.elapsed() >= app.config.dataplane_loss_timeout {
        let lost = app.registry.lose_all(true);
        if lost > 0 {
            warn!(
                lost,
                "the dataplane did not return in time, its sessions are lost"
            );
            app.cache.all_sessions_ended();
        }
    }
}

struct Connection {
    reader: FrameReader<ReadHalf<Stream>>,
    writer: WriteHalf<Stream>,
    peer: Hello,
}

async fn connect(app: &App, take_over: bool) -> Result<Connection, ConnectionError> {
    let name = app.config.ipc_socket.as_path();
    let stream = Stream::connect(name.to_fs_name::<GenericFilePath>()?).await?;
    let (receiving, mut writer) = split(stream);
    let mut reader = FrameReader::new(receiving);
    let mut hello = Vec::new();
    let role = Role::Controller { take_over };
    frame::encode(&ToDataplane::Hello(app.hello(role)), &mut hello)?;
    writer.write_all(&hello).await?;
    match reader.read::<ToControl>().await? {
        Some(ToControl::Hello(peer)) if peer.protocol_version == PROTOCOL_VERSION => {
            Ok(Connection {
                reader,
                writer,
                peer,
            })
        }
        Some(ToControl::Hello(peer)) => Err(ConnectionError::Version {
            theirs: peer.protocol_version,
            ours: PROTOCOL_VERSION,
        }),
        Some(ToControl::Refused(refusal)) => Err(ConnectionError::Refused(refusal)),
        Some(_) => Err(ConnectionError::NoHello),
        None => Err(ConnectionError::Closed),
    }
}

async fn serve(app: &Arc<App>, connection: Connection) -> ConnectionError {
    let Connection {
        mut reader,
        mut writer,
        peer,
    } = connection;
    info!(
        pid = peer.pid,
        version = peer.program_version,
        "connected to the dataplane"
    );
    let mut snapshot = resync::begin(app, peer);
    tokio::select! {
        error = read(app, &mut reader, &mut snapshot) => error,
        error = write(app, &mut writer) => error,
    }
}

async fn read(
    app: &Arc<App>,
    reader: &mut FrameReader<ReadHalf<Stream>>,
    snapshot: &mut Option<Snapshot>,
) -> ConnectionError {
    loop {
        match timeout(SILENCE, reader.read::<ToControl>()).await {
            Err(_) => return ConnectionError::Silent,
            Ok(Ok(None)) => return ConnectionError::Closed,
            Ok(Err(error)) => return error.into(),
            Ok(Ok(Some(ToControl::Displaced { by }))) => {
                info!(%by, "another control process took over");
                return ConnectionError::Displaced;
            }
            Ok(Ok(Some(message))) => dispatch(app, snapshot, message),
        }
        if snapshot.as_ref().is_some_and(Snapshot::is_refused) {
            return ConnectionError::NoSnapshot;
        }
    }
}

fn dispatch(app: &Arc<App>, snapshot: &mut Option<Snapshot>, message: ToControl) {
    match message {
        ToControl::Answer { number, result } => app.link.complete(number, result),
        ToControl::Event { session, event } => {
            if let Some(snapshot) = snapshot {
                snapshot.on_event(session, &event.event);
            }
            app.cache.on_event(session, &event.event);
            if app.registry.route(session, event) {
                app.metrics.events_dropped(1);
            }
        }
        ToControl::Counts(counts) => {
            if let Some(snapshot) = snapshot {
                snapshot.on_counts(counts);
            }
            app.registry.on_counts(counts);
        }
        ToControl::SessionEnded { session, reason } => {
            debug!(%session, ?reason, "session ended by itself");
            if let Some(snapshot) = snapshot {
                snapshot.on_ended(session);
            }
            app.cache.session_ended(session);
            app.registry.on_ended(session, reason);
        }
        ToControl::SnapshotPart { session, .. } => {
            if let Some(snapshot) = snapshot {
                snapshot.add(session);
            }
        }
        ToControl::SnapshotEnd { .. } => {
            if let Some(snapshot) = snapshot.take() {
                resync::finish(app, snapshot);
            }
        }
        ToControl::Draining => {
            info!("the dataplane drains");
            app.link.on_draining();
        }
        ToControl::SnapshotBegin { .. }
        | ToControl::Heartbeat
        | ToControl::Hello(_)
        | ToControl::Refused(_)
        | ToControl::Displaced { .. } => {}
    }
}

async fn write(app: &App, writer: &mut WriteHalf<Stream>) -> ConnectionError {
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.link.wake.notified() => {}
            _ = beat.tick() => app.link.send_heartbeat(),
        }
        let bytes = app.link.take_outgoing();
        if let Err(error) = writer.write_all(&bytes).await {
            return error.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_quick_at_first_and_never_slower_than_two_seconds() {
        assert_eq!(retry_delay(0), FIRST_RETRY);
        assert_eq!(retry_delay(QUICK_RETRIES), FIRST_RETRY);
        assert_eq!(retry_delay(QUICK_RETRIES + 2), FIRST_RETRY * 4);
        assert_eq!(retry_delay(u32::MAX), LAST_RETRY);
    }
}
