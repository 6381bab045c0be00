//! What the dataplane process reports about itself.

use serde::{Deserialize, Serialize};

use crate::id::InstanceId;

/// Everything control needs for /metrics. Counters begin at 0 with a new instance.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct MetricsReport {
    /// Sessions ever created.
    pub sessions_total: u64,
    /// Endpoints ever created.
    pub endpoints_total: u64,
    /// Sessions now.
    pub sessions_active: u64,
    /// Endpoints now.
    pub endpoints_active: u64,
    /// Recordings now.
    pub recordings_active: u64,
    /// RTP packets sent to destinations.
    pub packets_routed: u64,
    /// RTP and RTCP packets received.
    pub packets_received: u64,
    /// Packets written to recordings.
    pub packets_recorded: u64,
    /// Packets lost to recordings.
    pub packets_recording_dropped: u64,
    /// SRTP packets that failed.
    pub srtp_errors: u64,
    /// Frames that failed to decode or encode.
    pub transcode_errors: u64,
    /// Digits detected.
    pub dtmf_events: u64,
    /// Events lost in the dataplane, full queues and unattached sessions together.
    pub events_dropped: u64,
    /// Packets refused, by reason.
    pub packets_rejected: Vec<(String, u64)>,
    /// Further counters: name without the `rtpbridge_` prefix and the `_total` suffix, help, value.
    pub extra_counters: Vec<(String, String, u64)>,
    /// Arrival in the kernel to packet sent, seconds.
    pub forward_latency: Histogram,
    /// Mixer tick due to tick begun, seconds.
    pub mixer_lateness: Histogram,
    /// One row per worker.
    pub workers: Vec<WorkerReport>,
    /// The process itself.
    pub process: ProcessReport,
    /// Whether no worker can take another session in time.
    pub overloaded: bool,
}

/// Cumulative histogram in the Prometheus sense.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// Upper bound in seconds and the number of observations at or below it, ascending.
    pub buckets: Vec<(f64, u64)>,
    /// All observations.
    pub count: u64,
    /// Sum in seconds.
    pub sum: f64,
}

/// One worker's load.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its index.
    pub worker: u32,
    /// Busy share of the last 5 s, 0 to 1.
    pub load: f64,
    /// Sessions on it.
    pub sessions: u64,
    /// Packets received per second, over the last 5 s.
    pub packets_per_second: f64,
    /// 99th percentile of lateness over the last 5 s in ms, when there were enough samples.
    pub lateness_p99_ms: Option<f64>,
}

/// What the `process_*` metrics show, read from /proc/self.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ProcessReport {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Open descriptors.
    pub open_fds: u64,
    /// Soft limit of descriptors.
    pub max_fds: u64,
    /// Virtual memory.
    pub virtual_bytes: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Since the Unix epoch.
    pub start_time_seconds: f64,
    /// Threads.
    pub threads: u64,
}

/// What `rtpbridgectl status` shows of the dataplane.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatusReport {
    /// Program version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// This run.
    pub instance: InstanceId,
    /// Seconds since start.
    pub uptime_secs: u64,
    /// Sessions now.
    pub sessions: u64,
    /// Endpoints now.
    pub endpoints: u64,
    /// Recordings now.
    pub recordings: u64,
    /// Waiting for sessions to end.
    pub draining: bool,
    /// Whether a controller is connected.
    pub controller_connected: bool,
    /// One line per protection: name and what is in force.
    pub sandbox: Vec<(String, String)>,
    /// One row per worker.
    pub workers: Vec<WorkerReport>,
}
