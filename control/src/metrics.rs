//! GET /metrics: what the dataplane reports and what control counts, in the Prometheus text format.
//! Every name of operations.md exists from the start. A dataplane that does not answer costs a
//! scrape at most [`PATIENCE`].

use std::sync::Mutex;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, TextEncoder};
use rtpbridge_shared::ipc::process::{Histogram, MetricsReport, ProcessReport};
use rtpbridge_shared::ipc::{Reply, Request};

use crate::app::{App, VERSION};
use crate::lock::lock;
use crate::process;

/// How long a scrape waits for the dataplane.
const PATIENCE: Duration = Duration::from_millis(600);

const COMMAND_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Counters of this process, and the dataplane's last report.
#[derive(Debug)]
pub struct Metrics {
    commands: HistogramVec,
    events_dropped: IntCounter,
    /// Files downloaded for playback.
    pub downloads: IntCounter,
    /// Downloads that failed, and waits for one that took too long.
    pub download_failures: IntCounter,
    last_report: Mutex<MetricsReport>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at 0.
    pub fn new() -> Self {
        let options = HistogramOpts::new(
            "rtpbridge_command_seconds",
            "Time from a client's request to its answer.",
        )
        .buckets(COMMAND_BUCKETS.to_vec());
        let commands = HistogramVec::new(options, &["method"])
            .expect("the name, label and buckets are constants that are well formed");
        // The name is there before the first request.
        commands.with_label_values(&["session.create"]);
        Self {
            commands,
            events_dropped: counter("events_dropped"),
            downloads: counter("downloads"),
            download_failures: counter("download_failures"),
            last_report: Mutex::default(),
        }
    }

    /// A request of a known method was answered.
    pub fn command_answered(&self, method: &'static str, seconds: f64) {
        self.commands.with_label_values(&[method]).observe(seconds);
    }

    /// Events were lost to a full queue of a connection.
    pub fn events_dropped(&self, count: u64) {
        self.events_dropped.inc_by(count);
    }
}

/// Asks the dataplane for its numbers; on failure the last known ones and `false`.
pub async fn dataplane_report(app: &App) -> (MetricsReport, bool) {
    let outcome = app.link.call(Request::Metrics, PATIENCE).await;
    let mut last = lock(&app.metrics.last_report);
    if let Some(Ok(Reply::Metrics(report))) = outcome {
        *last = *report;
        (last.clone(), true)
    } else {
        (last.clone(), false)
    }
}

/// The text of one scrape.
///
/// # Errors
/// When a family is malformed, which would be a bug.
pub async fn scrape(app: &App) -> Result<String, prometheus::Error> {
    let (report, up) = dataplane_report(app).await;
    let mut page = Page::default();
    page.dataplane(&report);
    page.sessions(app, &report, up);
    page.control(app, &report, up);
    page.processes(&process::report(), &report.process);
    let mut families = page.families;
    let commands = app.metrics.commands.collect();
    families.extend(
        commands
            .into_iter()
            .filter(|family| !family.get_metric().is_empty()),
    );
    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|left, right| left.name().cmp(right.name()));
    TextEncoder::new().encode_to_string(&families)
}

/// A number that this process counts; its full name and its help are given where it is shown.
fn counter(name: &str) -> IntCounter {
    IntCounter::new(name, "counted in control").expect("the name is a constant that is well formed")
}

#[derive(Default)]
struct Page {
    families: Vec<MetricFamily>,
}

type Labelled<'a> = (&'a [(&'a str, &'a str)], f64);

impl Page {
    fn dataplane(&mut self, report: &MetricsReport) {
        for (name, help, value) in dataplane_counters(report) {
            self.counter(name, help, value);
        }
        for (name, help, value) in &report.extra_counters {
            if is_metric_name(name) {
                self.counter(&format!("rtpbridge_{name}_total"), help, *value);
            }
        }
        let rejected: Vec<Metric> = report
            .packets_rejected
            .iter()
            .map(|(reason, count)| {
                metric(&[("reason", reason)], MetricType::COUNTER, *count as f64)
            })
            .collect();
        self.push(
            "rtpbridge_packets_rejected_total",
            "Packets refused.",
            MetricType::COUNTER,
            if rejected.is_empty() {
                vec![metric(&[("reason", "malformed")], MetricType::COUNTER, 0.0)]
            } else {
                rejected
            },
        );
        self.histogram(
            "rtpbridge_forward_latency_seconds",
            "Arrival in the kernel to packet sent, one packet in 64.",
            &report.forward_latency,
        );
        self.histogram(
            "rtpbridge_mixer_lateness_seconds",
            "Mixer tick due to tick begun.",
            &report.mixer_lateness,
        );
        self.workers(report);
    }

    fn workers(&mut self, report: &MetricsReport) {
        let names: Vec<String> = report
            .workers
            .iter()
            .map(|row| row.worker.to_string())
            .collect();
        let rows = || names.iter().zip(&report.workers);
        let load: Vec<Metric> = rows()
            .map(|(name, row)| metric(&[("worker", name)], MetricType::GAUGE, row.load))
            .collect();
        let sessions: Vec<Metric> = rows()
            .map(|(name, row)| metric(&[("worker", name)], MetricType::GAUGE, row.sessions as f64))
            .collect();
        let gauge = MetricType::GAUGE;
        self.push(
            "rtpbridge_worker_load",
            "Busy share of the last 5 s.",
            gauge,
            load,
        );
        self.push(
            "rtpbridge_worker_sessions",
            "Sessions on the worker.",
            gauge,
            sessions,
        );
    }

    fn sessions(&mut self, app: &App, report: &MetricsReport, up: bool) {
        let views = app.registry.list();
        let mirrored = (
            views.len() as u64,
            views
                .iter()
                .map(|view| u64::from(view.endpoint_count))
                .sum(),
            views
                .iter()
                .map(|view| u64::from(view.recording_count))
                .sum(),
        );
        let (sessions, endpoints, recordings) = if up {
            (
                report.sessions_active,
                report.endpoints_active,
                report.recordings_active,
            )
        } else {
            mirrored
        };
        self.gauge(
            "rtpbridge_sessions_active",
            "Sessions now.",
            sessions as f64,
        );
        self.gauge(
            "rtpbridge_endpoints_active",
            "Endpoints now.",
            endpoints as f64,
        );
        self.gauge(
            "rtpbridge_recordings_active",
            "Recordings now.",
            recordings as f64,
        );
        let limit = f64::from(app.config.max_sessions.setting());
        self.gauge(
            "rtpbridge_sessions_limit",
            "max_sessions, 0 = no limit.",
            limit,
        );
    }

    fn control(&mut self, app: &App, report: &MetricsReport, up: bool) {
        let dropped = report.events_dropped + app.metrics.events_dropped.get();
        let lost = "Events that clients did not get.";
        self.counter("rtpbridge_events_dropped_total", lost, dropped);
        let connected = "Whether the dataplane answers.";
        self.gauge("rtpbridge_dataplane_up", connected, f64::from(u8::from(up)));
        let restarts = "Other dataplane processes found in place of a known one.";
        self.counter(
            "rtpbridge_dataplane_restarts_total",
            restarts,
            app.link.restarts(),
        );
        let downloads = "Files downloaded for playback.";
        let count = app.metrics.downloads.get();
        self.counter("rtpbridge_downloads_total", downloads, count);
        let failures = "Downloads for playback that failed or took too long.";
        let count = app.metrics.download_failures.get();
        self.counter("rtpbridge_download_failures_total", failures, count);
        let files = "Downloaded files in the cache.";
        self.gauge("rtpbridge_cache_files", files, app.cache.len() as f64);
        let overloaded = "Whether no worker takes another session.";
        self.gauge(
            "rtpbridge_overloaded",
            overloaded,
            f64::from(u8::from(report.overloaded)),
        );
        let connections = app.connections.count() as f64;
        self.gauge(
            "rtpbridge_connections",
            "Open client connections.",
            connections,
        );
        let peer = app.link.peer().map(|peer| peer.program_version);
        let build = metric(
            &[
                ("version", VERSION),
                ("dataplane_version", peer.as_deref().unwrap_or("")),
            ],
            MetricType::GAUGE,
            1.0,
        );
        self.push(
            "rtpbridge_build_info",
            "Program versions.",
            MetricType::GAUGE,
            vec![build],
        );
    }

    fn processes(&mut self, control: &ProcessReport, dataplane: &ProcessReport) {
        type Read = fn(&ProcessReport) -> f64;
        let rows: [(&str, &str, MetricType, Read); 7] = [
            (
                "process_cpu_seconds_total",
                "User and system time.",
                MetricType::COUNTER,
                |p| p.cpu_seconds,
            ),
            (
                "process_open_fds",
                "Open descriptors.",
                MetricType::GAUGE,
                |p| p.open_fds as f64,
            ),
            (
                "process_max_fds",
                "Soft limit of descriptors.",
                MetricType::GAUGE,
                |p| p.max_fds as f64,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory.",
                MetricType::GAUGE,
                |p| p.virtual_bytes as f64,
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory.",
                MetricType::GAUGE,
                |p| p.resident_bytes as f64,
            ),
            (
                "process_start_time_seconds",
                "Start, since the Unix epoch.",
                MetricType::GAUGE,
                |p| p.start_time_seconds,
            ),
            ("process_threads", "Threads.", MetricType::GAUGE, |p| {
                p.threads as f64
            }),
        ];
        for (name, help, kind, read) in rows {
            let both: [Labelled<'_>; 2] = [
                (&[("process", "control")], read(control)),
                (&[("process", "dataplane")], read(dataplane)),
            ];
            let metrics = both
                .iter()
                .map(|(labels, value)| metric(labels, kind, *value));
            self.push(name, help, kind, metrics.collect());
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let kind = MetricType::COUNTER;
        self.push(name, help, kind, vec![metric(&[], kind, value as f64)]);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let kind = MetricType::GAUGE;
        self.push(name, help, kind, vec![metric(&[], kind, value)]);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        let buckets = histogram.buckets.iter().map(|(bound, count)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        });
        let mut value = proto::Histogram::default();
        value.set_bucket(buckets.collect());
        value.set_sample_count(histogram.count);
        value.set_sample_sum(histogram.sum);
        let mut row = Metric::default();
        row.set_histogram(value);
        self.push(name, help, MetricType::HISTOGRAM, vec![row]);
    }

    fn push(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.families.push(family);
    }
}

fn metric(labels: &[(&str, &str)], kind: MetricType, value: f64) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut row = Metric::from_label(pairs.collect());
    if kind == MetricType::COUNTER {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        row.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        row.set_gauge(gauge);
    }
    row
}

fn is_metric_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Name, help and value of every plain counter that the dataplane keeps.
fn dataplane_counters(report: &MetricsReport) -> [(&'static str, &'static str, u64); 9] {
    [
        (
            "rtpbridge_sessions_total",
            "Sessions created.",
            report.sessions_total,
        ),
        (
            "rtpbridge_endpoints_total",
            "Endpoints created.",
            report.endpoints_total,
        ),
        (
            "rtpbridge_packets_routed_total",
            "RTP packets sent to destinations.",
            report.packets_routed,
        ),
        (
            "rtpbridge_packets_received_total",
            "RTP and RTCP packets received.",
            report.packets_received,
        ),
        (
            "rtpbridge_packets_recorded_total",
            "Packets written to recordings.",
            report.packets_recorded,
        ),
        (
            "rtpbridge_packets_recording_dropped_total",
            "Packets lost to recordings.",
            report.packets_recording_dropped,
        ),
        (
            "rtpbridge_srtp_errors_total",
            "SRTP packets that failed.",
            report.srtp_errors,
        ),
        (
            "rtpbridge_transcode_errors_total",
            "Frames that failed to decode or encode.",
            report.transcode_errors,
        ),
        (
            "rtpbridge_dtmf_events_total",
            "Digits detected.",
            report.dtmf_events,
        ),
    ]
}
