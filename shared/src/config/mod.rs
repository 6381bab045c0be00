//! One configuration for all programs: arguments over `RTPBRIDGE_*` environment over a TOML file
//! over defaults. Every value is checked here and parsed into a type that cannot be wrong; all
//! faults are reported together. The programs decide about exit codes (2 for a [`ConfigError`]).
//!
//! Field names are the keys of the configuration; where a key's unit went into the type
//! (`Duration`, bytes), the unit left the name.

mod args;
mod error;
mod keys;
mod load;
mod print;
mod probe;
mod raw;
mod read;
mod value;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub use args::ConfigArgs;
pub use error::{ConfigError, Fault, Origin};
pub use load::{Loaded, Scope, Sources};
pub use read::Setting;
pub use value::{Limit, LogFormat, LogLevel, MediaIp, PortRange};

use crate::vocab::{RtpLearning, SrtpSuite};

/// The effective configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Control's TCP addresses; never empty.
    pub listen: Vec<SocketAddr>,
    /// Addresses that media sockets are bound to.
    pub media_ip: MediaIp,
    /// Addresses shown to peers instead, per family; see [`Config::advertised`].
    pub media_advertise_ip: Option<MediaIp>,
    /// Even/odd pairs for plain RTP.
    pub rtp_port_range: PortRange,
    /// Ports of WebRTC endpoints; `None`: the operating system chooses.
    pub webrtc_port_range: Option<PortRange>,
    /// How long an orphaned session waits for `session.attach`.
    pub disconnect_timeout: Duration,
    /// How long a drain may take.
    pub shutdown_max_wait: Duration,
    /// How long the dataplane keeps sessions without any controller.
    pub control_loss_timeout: Duration,
    /// How long control keeps sessions without the dataplane.
    pub dataplane_loss_timeout: Duration,
    /// `None`: off.
    pub session_idle_timeout: Option<Duration>,
    /// `None`: off.
    pub empty_session_timeout: Option<Duration>,
    /// Silence after which `endpoint.media_timeout` is sent.
    pub media_timeout: Duration,
    /// Sessions per instance.
    pub max_sessions: Limit,
    /// Endpoints in one session.
    pub max_endpoints_per_session: Limit,
    /// Running recordings in one session; at least 1.
    pub max_recordings_per_session: u32,
    /// Client connections.
    pub max_connections: Limit,
    /// Absolute.
    pub recording_dir: PathBuf,
    /// Absolute; `None`: local files are refused.
    pub media_dir: Option<PathBuf>,
    /// Absolute; control creates it with [`crate::runtime_dir::create_private`].
    pub cache_dir: PathBuf,
    /// Interval of the cache's cleaning.
    pub cache_cleanup_interval: Duration,
    /// Downloads at one time; at least 1.
    pub max_concurrent_downloads: usize,
    /// Largest URL source.
    pub max_file_download_bytes: u64,
    /// Largest recording served over HTTP.
    pub max_recording_download_bytes: u64,
    /// How long a recording may take to be flushed.
    pub recording_flush_timeout: Duration,
    /// Places in a recording's queue, in packets; at least 1.
    pub recording_channel_size: usize,
    /// Largest WebSocket message, in bytes.
    pub ws_max_message_bytes: usize,
    /// Largest SDP, in bytes.
    pub max_sdp_bytes: usize,
    /// Interval of WebSocket pings.
    pub ws_ping_interval: Duration,
    /// Places for all events of a connection; at least 1.
    pub event_channel_size: usize,
    /// Further places for critical events; at least 1.
    pub critical_event_channel_size: usize,
    /// Encoded frames shared between destinations; at least 1.
    pub transcode_cache_size: usize,
    /// Origins allowed to open a WebSocket, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// File whose content clients must present as bearer token.
    pub auth_token_file: Option<PathBuf>,
    /// Threads; `None`: one per available core. See [`Config::worker_count`].
    pub media_workers: Option<NonZeroUsize>,
    /// How long a worker may sleep before it looks again; zero: wake for each packet.
    pub batch_window: Duration,
    /// Lateness above which a worker takes no new session; `None`: never refuse.
    pub max_lateness: Option<Duration>,
    /// bit/s, 6000 to 128000.
    pub opus_bitrate: u32,
    /// 0 to 10.
    pub opus_complexity: u8,
    /// Suites of our offers, in order; never empty, none twice.
    pub srtp_suites: Vec<SrtpSuite>,
    /// Send nothing to a plain-RTP party before its first packet.
    pub rtp_wait_for_inbound: bool,
    /// How far symmetric RTP may move the send address.
    pub rtp_learning: RtpLearning,
    /// Runtime directory as found by the search; not yet created, see [`crate::runtime_dir`].
    pub runtime_dir: PathBuf,
    /// DSCP of media packets, 0 to 63.
    pub media_dscp: u8,
    /// The dataplane's socket.
    pub ipc_socket: PathBuf,
    /// Control's admin socket.
    pub admin_socket: PathBuf,
    /// Users that may connect to `ipc_socket` beside our own and root; resolved by the dataplane.
    pub ipc_allow_users: Vec<String>,
    /// Level at start; can change at run time.
    pub log_level: LogLevel,
    /// Form of log lines.
    pub log_format: LogFormat,
}

impl Config {
    /// Directory of recordings where none is configured.
    pub const DEFAULT_RECORDING_DIR: &'static str = "/var/lib/rtpbridge/recordings";

    /// The address to show to peers for a socket bound to `bound`.
    pub fn advertised(&self, bound: IpAddr) -> IpAddr {
        self.media_advertise_ip
            .and_then(|shown| shown.same_family(bound))
            .unwrap_or(bound)
    }

    /// Whether `recording_dir` is the default one, which may be missing.
    pub fn recording_dir_is_default(&self) -> bool {
        self.recording_dir.as_os_str() == Self::DEFAULT_RECORDING_DIR
    }

    /// Number of media worker threads: configured, or one per available core.
    pub fn worker_count(&self) -> NonZeroUsize {
        self.media_workers
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN)
    }
}

#[cfg(test)]
mod tests;
