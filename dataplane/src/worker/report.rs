//! What a worker tells of itself: duties of every turn (load, heartbeat) and the totals behind the
//! metrics.

use std::sync::atomic::Ordering;

use rtpbridge_core::session::Counters;
use rtpbridge_shared::ipc::process::{MetricsReport, WorkerReport};

use super::Worker;
use super::budget::Observations;

/// One worker's totals since its start.
pub(crate) struct WorkerTotals {
    pub(crate) report: WorkerReport,
    pub(crate) late: bool,
    counters: Counters,
    send_errors: u64,
    recording_dropped: u64,
    sessions_total: u64,
    endpoints_total: u64,
    pub(crate) endpoints: u64,
    pub(crate) recordings: u64,
    forward_latency: Observations,
    mixer_lateness: Observations,
}

impl Worker {
    /// What has to be done once in a while.
    pub(super) fn run_duties(&mut self) {
        self.expire_waits();
        self.retry_moves();
        self.end_some_sessions();
        let Some(load) = self.budget.poll_load(self.out.now_ns) else {
            return;
        };
        self.load = load;
        let gauges = &self.handle.gauges;
        let permille = (load.busy * 1000.0) as u32;
        gauges.load_permille.store(permille, Ordering::Relaxed);
        gauges.placed.store(0, Ordering::Relaxed);
        let bound = self
            .shared
            .settings
            .max_lateness
            .map(|bound| bound.as_nanos());
        let late = bound.zip(load.lateness_p99_ns);
        let late = late.is_some_and(|(bound, p99)| u128::from(p99) > bound);
        gauges.late.store(late, Ordering::Relaxed);
    }

    pub(super) fn totals(&self) -> WorkerTotals {
        let counts = self.sessions.iter().map(|(_, slot)| slot.session.counts());
        let (endpoints, recordings) = counts.fold((0, 0), |(endpoints, recordings), counts| {
            let endpoints = endpoints + u64::from(counts.endpoints);
            (endpoints, recordings + u64::from(counts.recordings))
        });
        WorkerTotals {
            report: WorkerReport {
                worker: self.index,
                load: self.load.busy,
                sessions: self.sessions.len() as u64,
                packets_per_second: self.load.packets_per_second,
                lateness_p99_ms: self.load.lateness_p99_ns.map(|ns| ns as f64 / 1e6),
            },
            late: self.handle.gauges.late.load(Ordering::Relaxed),
            counters: self.out.counters.clone(),
            send_errors: self.out.send_errors,
            recording_dropped: self.out.recording_dropped,
            sessions_total: self.sessions_total,
            endpoints_total: self.endpoints_total,
            endpoints,
            recordings,
            forward_latency: self.forward_latency.clone(),
            mixer_lateness: self.out.mixer_lateness.clone(),
        }
    }
}

/// All workers' totals as control wants them; what is not a worker's is left at its default.
pub(crate) fn merge(workers: &[Box<WorkerTotals>]) -> MetricsReport {
    let sum = |what: fn(&WorkerTotals) -> u64| workers.iter().map(|w| what(w)).sum::<u64>();
    let mut latency = Observations::default();
    let mut lateness = Observations::default();
    for worker in workers {
        latency.add(&worker.forward_latency);
        lateness.add(&worker.mixer_lateness);
    }
    let rejected = [
        ("source", sum(|w| w.counters.rejected_source)),
        ("stun", sum(|w| w.counters.rejected_stun)),
        ("malformed", sum(|w| w.counters.rejected_malformed)),
        ("payload_type", sum(|w| w.counters.rejected_payload_type)),
    ];
    let extra = [
        (
            "rtcp_sent",
            "RTCP packets sent",
            sum(|w| w.counters.rtcp_sent),
        ),
        (
            "file_underruns",
            "Frames of files played as silence because the decoder was late",
            sum(|w| w.counters.file_underruns),
        ),
        (
            "send_errors",
            "Datagrams that the system did not take",
            sum(|w| w.send_errors),
        ),
    ];
    MetricsReport {
        sessions_total: sum(|w| w.sessions_total),
        endpoints_total: sum(|w| w.endpoints_total),
        sessions_active: sum(|w| w.report.sessions),
        endpoints_active: sum(|w| w.endpoints),
        recordings_active: sum(|w| w.recordings),
        packets_routed: sum(|w| w.counters.packets_routed),
        packets_received: sum(|w| w.counters.packets_received),
        packets_recording_dropped: sum(|w| w.recording_dropped),
        srtp_errors: sum(|w| w.counters.srtp_errors),
        transcode_errors: sum(|w| w.counters.transcode_errors),
        dtmf_events: sum(|w| w.counters.dtmf_events),
        events_dropped: sum(|w| w.counters.events_dropped),
        packets_rejected: rejected.map(|(reason, n)| (reason.to_owned(), n)).to_vec(),
        extra_counters: extra
            .map(|(name, help, n)| (name.to_owned(), help.to_owned(), n))
            .to_vec(),
        forward_latency: latency.histogram(),
        mixer_lateness: lateness.histogram(),
        workers: workers.iter().map(|worker| worker.report.clone()).collect(),
        overloaded: !workers.is_empty() && workers.iter().all(|worker| worker.late),
        ..MetricsReport::default()
    }
}
