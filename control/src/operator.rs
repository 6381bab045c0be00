//! What the admin interface can do here; see [`AdminBackend`].

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

use rtpbridge_shared::config::LogLevel;
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::process::StatusReport;
use rtpbridge_shared::ipc::stats::StatsRow;
use rtpbridge_shared::ipc::{Reply, Request, RequestError};
use rtpbridge_shared::vocab::SessionState;
use serde_json::Value;

use crate::admin::{
    AdminBackend, AdminError, ControlStatus, DrainAnswer, Health, LogTarget, RecordingRow,
    SessionRow, StatusAnswer,
};
use crate::api::sessions;
use crate::app::{App, VERSION};
use crate::clock::rfc3339;
use crate::dataplane::pending::LinkError;
use crate::event::{Body, LossReason};
use crate::session::orphan;
use crate::shutdown::Command;

const PATIENCE: Duration = Duration::from_secs(3);

/// The process as its operator sees it.
#[derive(Clone)]
pub struct Operator {
    app: Arc<App>,
}

impl Operator {
    /// Over the whole process.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    async fn ask(&self, request: Request, session: Option<SessionId>) -> Result<Reply, AdminError> {
        match self.app.link.call(request, PATIENCE).await {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(LinkError::Unavailable)) => Err(AdminError::DataplaneUnavailable),
            Some(Err(LinkError::Refused(RequestError::SessionNotFound))) => match session {
                Some(session) => Err(AdminError::SessionNotFound(session)),
                None => Err(AdminError::Failed("session not found".to_owned())),
            },
            Some(Err(LinkError::Refused(error))) => Err(AdminError::Failed(error.to_string())),
            None => Err(AdminError::Unresponsive(PATIENCE.as_secs())),
        }
    }

    fn control_status(&self) -> ControlStatus {
        let app = &self.app;
        let rows = app.registry.list();
        let orphaned = rows
            .iter()
            .filter(|row| row.state == SessionState::Orphaned);
        ControlStatus {
            version: VERSION.to_owned(),
            pid: std::process::id(),
            instance: app.instance,
            uptime_secs: app.started.elapsed().as_secs(),
            sessions: rows.len() as u64,
            orphaned: orphaned.count() as u64,
            connections: app.connections.count() as u64,
            max_sessions: u64::from(app.config.max_sessions.setting()),
            draining: app.lifecycle.is_draining(),
            dataplane_connected: app.link.is_up(),
            sandbox: app.sandbox.clone(),
        }
    }

    async fn dataplane_status(&self) -> Option<StatusReport> {
        match self.ask(Request::Status, None).await {
            Ok(Reply::Status(report)) => Some(*report),
            _ => None,
        }
    }

    fn state_of(&self, id: SessionId) -> Result<SessionState, AdminError> {
        let view = self.app.registry.view(id);
        view.map(|view| view.state)
            .ok_or(AdminError::SessionNotFound(id))
    }
}

impl AdminBackend for Operator {
    async fn status(&self) -> StatusAnswer {
        StatusAnswer::new(Some(self.control_status()), self.dataplane_status().await)
    }

    async fn sessions(&self) -> Vec<SessionRow> {
        let rows = self.app.registry.list();
        rows.iter()
            .map(|row| SessionRow {
                session_id: row.session,
                state: row.state,
                endpoint_count: u64::from(row.endpoint_count),
                created_at: rfc3339(row.created_at_ms),
            })
            .collect()
    }

    async fn session(&self, id: SessionId) -> Result<Value, AdminError> {
        let state = self.state_of(id)?;
        match self
            .ask(Request::SessionInfo { session: id }, Some(id))
            .await?
        {
            Reply::Session(details) => Ok(sessions::info(&details, state)),
            _ => Err(unexpected()),
        }
    }

    async fn stats(&self, id: SessionId) -> Result<Vec<StatsRow>, AdminError> {
        self.state_of(id)?;
        match self
            .ask(Request::StatsSnapshot { session: id }, Some(id))
            .await?
        {
            Reply::Stats(rows) => Ok(rows),
            _ => Err(unexpected()),
        }
    }

    async fn kick(&self, id: SessionId) -> Result<(), AdminError> {
        if !self.app.link.is_up() {
            return Err(AdminError::DataplaneUnavailable);
        }
        let farewell = Body::Lost(LossReason::Kicked);
        if !self.app.registry.begin_end(id, farewell) {
            return Err(AdminError::SessionNotFound(id));
        }
        let mut population = self.app.registry.watch_population();
        orphan::destroy(&self.app, id);
        let ended = until(&mut population, || !self.app.registry.all().contains(&id));
        match tokio::time::timeout(PATIENCE, ended).await {
            Ok(()) => Ok(()),
            Err(_) => Err(AdminError::Unresponsive(PATIENCE.as_secs())),
        }
    }

    async fn recordings(&self) -> Result<Vec<RecordingRow>, AdminError> {
        let mut rows = Vec::new();
        for view in self.app.registry.list() {
            if view.recording_count == 0 {
                continue;
            }
            let session = view.session;
            match self
                .ask(Request::SessionInfo { session }, Some(session))
                .await
            {
                Ok(Reply::Session(details)) => {
                    rows.extend(details.recordings.into_iter().map(|row| RecordingRow {
                        recording_id: row.recording,
                        session_id: session,
                        endpoint_id: row.endpoint,
                        file_path: row.file_path,
                        started_at: rfc3339(row.started_at_ms),
                        packets: row.packets,
                    }));
                }
                Ok(_) => return Err(unexpected()),
                Err(AdminError::SessionNotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rows)
    }

    async fn set_draining(&self, draining: bool) -> DrainAnswer {
        let command = if draining {
            Command::Drain
        } else {
            Command::Undrain
        };
        let mut stage = self.app.lifecycle.watch();
        self.app.lifecycle.command(command);
        // An operator who undrains a process that was told to stop sees in the answer that it stops.
        let reached = until(&mut stage, || {
            let now = self.app.lifecycle.stage();
            now.is_ending() || self.app.lifecycle.is_draining() == draining
        });
        let _ = tokio::time::timeout(PATIENCE, reached).await;
        DrainAnswer {
            draining: self.app.lifecycle.is_draining(),
            sessions: self.app.registry.list().len() as u64,
        }
    }

    async fn hand_over(&self) {
        self.app.lifecycle.command(Command::Handover);
    }

    async fn set_log_level(&self, target: LogTarget, level: LogLevel) -> Result<(), AdminError> {
        if target != LogTarget::Dataplane
            && let Some(log) = &self.app.log
            && !log.set_level(level)
        {
            return Err(AdminError::Failed("logging is gone".to_owned()));
        }
        if target != LogTarget::Control {
            let level = level.as_str().to_owned();
            self.ask(Request::SetLogLevel { level }, None).await?;
        }
        Ok(())
    }

    async fn health(&self) -> Health {
        if self.app.link.is_up() {
            Health::Ok
        } else {
            Health::DataplaneUnavailable
        }
    }
}

fn unexpected() -> AdminError {
    AdminError::Failed("unexpected answer of the dataplane".to_owned())
}

/// Waits for changes of what is watched until `is_true`. Unlike `wait_for`, it holds no lock of the
/// watch while it asks, so the question may take locks of its own.
async fn until<T>(watched: &mut watch::Receiver<T>, is_true: impl Fn() -> bool) {
    loop {
        watched.mark_unchanged();
        if is_true() || watched.changed().await.is_err() {
            return;
        }
    }
}
