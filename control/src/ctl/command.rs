//! What each command does.

use std::io::{IsTerminal, stdout};
use std::path::Path;
use std::time::Duration;

use clap::CommandFactory;
use hyper::{Method, StatusCode};
use rtpbridge_shared::config::{ConfigArgs, Scope, Sources};
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::session::SessionDetails;
use rtpbridge_shared::ipc::stats::StatsRow;
use rtpbridge_shared::vocab::SessionState;
use serde::Serialize;
use serde_json::{Value, json};

use super::cli::{Cli, Command, ConfigCommand, Process, RecordingsCommand, Target};
use super::error::CtlError;
use super::http::AdminClient;
use super::observer::Observer;
use super::{print, table, verify};
use crate::admin::{DrainAnswer, RecordingRow, SessionRow, StatusAnswer, VersionAnswer};
use crate::api::sessions;
use crate::clock::rfc3339;

const WATCH_INTERVAL: Duration = Duration::from_secs(1);
const DRAIN_POLL: Duration = Duration::from_millis(500);

/// One command line's target and manner of speaking.
pub(super) struct Session {
    target: Target,
    json: bool,
}

/// Both ways to an instance.
struct Instance {
    control: AdminClient,
    dataplane: Observer,
}

impl Session {
    pub(super) const fn new(target: Target, json: bool) -> Self {
        Self { target, json }
    }

    pub(super) async fn run(&self, command: Command) -> Result<(), CtlError> {
        match command {
            Command::Status => self.show(&self.instance()?.status().await?, table::status),
            Command::Sessions { watch: true } => self.watch_sessions().await,
            Command::Sessions { watch: false } => {
                let rows = self.instance()?.sessions().await?;
                self.show(&rows, |rows| table::sessions(rows))
            }
            Command::Session { id } => {
                let id = parse_id(&id)?;
                self.show(&self.instance()?.session(id).await?, table::session)
            }
            Command::Kick { id } => {
                let path = format!("/sessions/{}", parse_id(&id)?);
                self.order(Method::DELETE, &path, None).await
            }
            Command::Drain { wait } => self.drain(wait).await,
            Command::Undrain => self.undrain().await,
            Command::Handover => self.order(Method::POST, "/handover", None).await,
            Command::Recordings {
                command: Some(RecordingsCommand::Verify { file }),
            } => self.verify(&file),
            Command::Recordings { command: None } => {
                let rows = self.instance()?.recordings().await?;
                self.show(&rows, |rows| table::recordings(rows))
            }
            Command::Stats { id } => {
                let id = parse_id(&id)?;
                let rows = self.instance()?.stats(id).await?;
                self.show(&rows, |rows| table::stats(rows))
            }
            Command::LogLevel { level, process } => {
                let body = json!({ "level": level, "process": process_name(process) });
                self.order(Method::PUT, "/log-level", Some(body)).await
            }
            Command::Config(ConfigCommand::Check { file }) => self.check_config(&file),
            Command::Health => self.health().await,
            Command::Version => self.version().await,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "rtpbridgectl", &mut script);
                print(&String::from_utf8_lossy(&script))
            }
            Command::Man => print(&man_page()?),
        }
    }

    /// Where the sockets are, by the same search as the programs'.
    fn instance(&self) -> Result<Instance, CtlError> {
        let args = ConfigArgs {
            config: self.target.config.clone(),
            runtime_dir: self.target.runtime_dir.clone(),
            ..ConfigArgs::default()
        };
        let loaded = Sources::of_process(args).load(Scope::Tool);
        let config = loaded
            .map_err(|error| CtlError::Usage(error.to_string()))?
            .config;
        let admin = self.target.admin_socket.clone();
        Ok(Instance {
            control: AdminClient::new(admin.unwrap_or(config.admin_socket)),
            dataplane: Observer::new(config.ipc_socket),
        })
    }

    fn show<T: Serialize>(&self, value: &T, table: impl Fn(&T) -> String) -> Result<(), CtlError> {
        if self.json {
            let text = serde_json::to_string_pretty(value);
            print(&text.map_err(|error| CtlError::Failed(error.to_string()))?)
        } else {
            print(&table(value))
        }
    }

    /// Something that only control can do. Silent when it is done, as it should be.
    async fn order(&self, method: Method, path: &str, body: Option<Value>) -> Result<(), CtlError> {
        let answer: Value = self.instance()?.control.call(method, path, body).await?;
        if self.json {
            print(&answer.to_string())
        } else {
            Ok(())
        }
    }

    async fn watch_sessions(&self) -> Result<(), CtlError> {
        const CLEAR: &str = "\u{1b}[H\u{1b}[2J";
        let instance = self.instance()?;
        loop {
            let rows = instance.sessions().await?;
            let text = match (self.json, serde_json::to_string(&rows)) {
                (true, Ok(line)) => line,
                _ => {
                    let count = table::counted(rows.len() as u64, "session");
                    format!("{}\n\n{count}", table::sessions(&rows))
                }
            };
            let clears = !self.json && stdout().is_terminal();
            print(&format!("{}{text}", if clears { CLEAR } else { "" }))?;
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    async fn drain(&self, wait: bool) -> Result<(), CtlError> {
        let instance = self.instance()?;
        let call = instance.control.call(Method::POST, "/drain", None);
        let mut answer: DrainAnswer = call.await?;
        while wait && answer.sessions > 0 {
            tokio::time::sleep(DRAIN_POLL).await;
            answer.sessions = match instance.status().await {
                Ok(status) => sessions_in(&status),
                // Whoever drained may also have stopped both processes.
                Err(CtlError::Unreachable { .. }) => 0,
                Err(error) => return Err(error),
            };
        }
        self.show(&answer, |answer| {
            let left = table::counted(answer.sessions, "session");
            format!("draining, {left} left")
        })
    }

    async fn undrain(&self) -> Result<(), CtlError> {
        let control = self.instance()?.control;
        let answer: DrainAnswer = control.call(Method::POST, "/undrain", None).await?;
        if answer.draining {
            let text = "control was told to stop and goes on draining";
            return Err(CtlError::Failed(text.to_owned()));
        }
        if self.json {
            return self.show(&answer, |_| String::new());
        }
        Ok(())
    }

    async fn health(&self) -> Result<(), CtlError> {
        let instance = self.instance()?;
        let asked = instance
            .control
            .exchange(Method::GET, "/health", None)
            .await;
        let (status, body) = match asked {
            Ok(answer) => answer,
            Err(error) => {
                let media = instance.dataplane.status().await.is_ok();
                let word = if media {
                    "control_unavailable"
                } else {
                    "unavailable"
                };
                self.show(&json!({ "status": word }), |_| word.to_owned())?;
                return Err(error);
            }
        };
        let word = body
            .get("status")
            .and_then(Value::as_str)
            .unwrap_or("unknown");
        self.show(&body, |_| word.to_owned())?;
        match status {
            StatusCode::OK => Ok(()),
            _ => Err(CtlError::Failed(format!("not healthy: {word}"))),
        }
    }

    /// Our own version is always known; the others as far as they answer.
    async fn version(&self) -> Result<(), CtlError> {
        let mut versions = json!({ "rtpbridgectl": env!("CARGO_PKG_VERSION") });
        if let Ok(instance) = self.instance() {
            let running = match instance.control.get::<VersionAnswer>("/version").await {
                Ok(answer) => (Some(answer.version), answer.dataplane),
                Err(_) => {
                    let dataplane = instance.dataplane.status().await.ok();
                    (None, dataplane.map(|status| status.version))
                }
            };
            versions["control"] = json!(running.0);
            versions["dataplane"] = json!(running.1);
        }
        self.show(&versions, |versions| {
            let names = ["rtpbridgectl", "control", "dataplane"];
            let line = |name: &&str| {
                let version = versions.get(*name).and_then(Value::as_str);
                format!("{name:<13} {}", version.unwrap_or("not reachable"))
            };
            names.iter().map(line).collect::<Vec<_>>().join("\n")
        })
    }

    /// Needs no running instance, only the file.
    fn verify(&self, file: &Path) -> Result<(), CtlError> {
        let shown = file.display();
        let failed = |error: verify::VerifyError| CtlError::Failed(format!("{shown}: {error}"));
        let report = verify::read(file).map_err(failed)?;
        self.show(&report, table::verification)?;
        report.check().map_err(failed)
    }

    /// The file alone: our own shell's variables are not the service's.
    fn check_config(&self, file: &Path) -> Result<(), CtlError> {
        let sources = Sources {
            args: ConfigArgs {
                config: Some(file.to_path_buf()),
                ..ConfigArgs::default()
            },
            environment: Vec::new(),
        };
        let shown = file.display();
        match sources.load(Scope::Both) {
            Ok(_) => self.show(&json!({ "ok": true }), |_| format!("{shown}: ok")),
            Err(error) => {
                let faults: Vec<String> = error.faults.iter().map(ToString::to_string).collect();
                let report = json!({ "ok": false, "faults": faults });
                self.show(&report, |_| faults.join("\n"))?;
                let count = table::counted(faults.len() as u64, "fault");
                Err(CtlError::Failed(format!("{shown}: {count}")))
            }
        }
    }
}

impl Instance {
    async fn status(&self) -> Result<StatusAnswer, CtlError> {
        match self.control.get("/status").await {
            Err(CtlError::Unreachable { .. }) => {
                let dataplane = self.dataplane.status().await?;
                Ok(StatusAnswer::new(None, Some(dataplane)))
            }
            answer => answer,
        }
    }

    async fn sessions(&self) -> Result<Vec<SessionRow>, CtlError> {
        match self.control.get("/sessions").await {
            Err(CtlError::Unreachable { .. }) => {
                let sessions = self.dataplane.sessions().await?;
                Ok(sessions.iter().map(orphan_row).collect())
            }
            answer => answer,
        }
    }

    async fn session(&self, id: SessionId) -> Result<Value, CtlError> {
        match self.control.get(&format!("/sessions/{id}")).await {
            Err(CtlError::Unreachable { .. }) => {
                let details = self.dataplane.session(id).await?;
                Ok(sessions::info(&details, SessionState::Orphaned))
            }
            answer => answer,
        }
    }

    async fn stats(&self, id: SessionId) -> Result<Vec<StatsRow>, CtlError> {
        match self.control.get(&format!("/sessions/{id}/stats")).await {
            Err(CtlError::Unreachable { .. }) => self.dataplane.stats(id).await,
            answer => answer,
        }
    }

    async fn recordings(&self) -> Result<Vec<RecordingRow>, CtlError> {
        match self.control.get("/recordings").await {
            Err(CtlError::Unreachable { .. }) => {
                let sessions = self.dataplane.sessions().await?;
                Ok(sessions.iter().flat_map(recording_rows).collect())
            }
            answer => answer,
        }
    }
}

/// Without control no client holds any session.
fn orphan_row(details: &SessionDetails) -> SessionRow {
    SessionRow {
        session_id: details.session,
        state: SessionState::Orphaned,
        endpoint_count: details.endpoints.len() as u64,
        created_at: rfc3339(details.created_at_ms),
    }
}

fn recording_rows(details: &SessionDetails) -> Vec<RecordingRow> {
    let rows = details.recordings.iter().map(|recording| RecordingRow {
        recording_id: recording.recording,
        session_id: details.session,
        endpoint_id: recording.endpoint,
        file_path: recording.file_path.clone(),
        started_at: rfc3339(recording.started_at_ms),
        packets: recording.packets,
    });
    rows.collect()
}

/// The dataplane's count is the truth; control's while it does not answer.
fn sessions_in(status: &StatusAnswer) -> u64 {
    let dataplane = status
        .dataplane
        .as_ref()
        .map(|dataplane| dataplane.sessions);
    let control = status.control.as_ref().map(|control| control.sessions);
    dataplane.or(control).unwrap_or(0)
}

const fn process_name(process: Process) -> &'static str {
    match process {
        Process::All => "all",
        Process::Control => "control",
        Process::Dataplane => "dataplane",
    }
}

fn parse_id(text: &str) -> Result<SessionId, CtlError> {
    let bad = |_| CtlError::Usage(format!("{text:?} is not a session id (a UUID)"));
    text.parse().map_err(bad)
}

fn man_page() -> Result<String, CtlError> {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
    rendered.map_err(|error| CtlError::Failed(error.to_string()))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
