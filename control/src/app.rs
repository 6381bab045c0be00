//! What every part of the control process shares, and how it is put together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rtpbridge_shared::config::{Config, Setting};
use rtpbridge_shared::id::InstanceId;
use rtpbridge_shared::ipc::hello::{Hello, PROTOCOL_VERSION, Role};
use rtpbridge_shared::logging::LogHandle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::api::access::Access;
use crate::dataplane::pending::Link;
use crate::fetch::cache::Cache;
use crate::metrics::Metrics;
use crate::session::admission::Connections;
use crate::session::registry::Registry;
use crate::shutdown::Lifecycle;

/// Version of the program, as clients and the dataplane see it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A quarter of the HTTP connections: downloads take long, and others must get through.
const MAX_DOWNLOADS: usize = 256;

/// The shared state of the process. Its parts know nothing of each other; code that connects them
/// takes the whole.
pub struct App {
    /// Effective configuration.
    pub config: Config,
    /// Where each value came from.
    pub settings: Vec<Setting>,
    /// Changes the log level at run time; none in tests.
    pub log: Option<LogHandle>,
    /// This run of the process.
    pub instance: InstanceId,
    /// Start of this run.
    pub started: Instant,
    /// Of this machine.
    pub hostname: String,
    /// Displace a living control process when connecting to the dataplane.
    pub takes_over: bool,
    /// One line per protection: name and what is in force.
    pub sandbox: Vec<(String, String)>,
    /// Who may open connections.
    pub access: Access,
    /// Sessions.
    pub registry: Registry,
    /// Client connections.
    pub connections: Arc<Connections>,
    /// Recordings that may be read by clients at the same time.
    pub downloads: Arc<Semaphore>,
    /// The dataplane.
    pub link: Link,
    /// Files downloaded for playback.
    pub cache: Arc<Cache>,
    /// Counters of this process.
    pub metrics: Metrics,
    /// Running, draining, leaving.
    pub lifecycle: Lifecycle,
}

/// What `main` found out before the runtime starts.
pub struct Startup {
    /// Effective configuration.
    pub config: Config,
    /// Where each value came from.
    pub settings: Vec<Setting>,
    /// Log level handle.
    pub log: Option<LogHandle>,
    /// Token of `auth_token_file`.
    pub token: Option<String>,
    /// Addresses the listeners are really bound to.
    pub bound: Vec<SocketAddr>,
    /// Whether the listeners come from a living control process.
    pub takes_over: bool,
    /// Protections in force.
    pub sandbox: Vec<(String, String)>,
}

impl App {
    /// Puts the process together; nothing runs yet.
    pub fn new(startup: Startup) -> Arc<Self> {
        let Startup {
            config,
            settings,
            log,
            token,
            bound,
            takes_over,
            sandbox,
        } = startup;
        Arc::new(Self {
            access: Access::new(&config.allowed_origins, &bound, token),
            connections: Arc::new(Connections::new(config.max_connections)),
            downloads: Arc::new(Semaphore::new(MAX_DOWNLOADS)),
            cache: Cache::new(&config),
            registry: Registry::new(),
            link: Link::new(),
            metrics: Metrics::new(),
            lifecycle: Lifecycle::new(),
            instance: InstanceId::random(),
            started: Instant::now(),
            hostname: nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            config,
            settings,
            log,
            takes_over,
            sandbox,
        })
    }

    /// Our side of the hello.
    pub fn hello(&self, role: Role) -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            program_version: VERSION.to_owned(),
            role,
            pid: std::process::id(),
            instance: self.instance,
        }
    }

    /// How long a request that flushes recordings may take.
    pub fn flush_patience(&self) -> Duration {
        self.config.recording_flush_timeout + Duration::from_secs(1)
    }
}
