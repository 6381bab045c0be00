//! The numbers of a run, as JSON and as a table.

use serde::Serialize;

use crate::histogram::Quantiles;
use crate::load::Outcome;

/// A generator above this share of its core may be the limit itself.
const GENERATOR_BUSY_LIMIT: f64 = 0.85;
/// A generator whose sends are later than this may be the limit itself.
const GENERATOR_LATE_LIMIT_US: u64 = 5000;

/// Everything one invocation measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Two-party calls.
    pub calls: usize,
    /// Set-up time per call.
    pub set_up: SetUp,
    /// Memory of the server's processes.
    pub memory: Memory,
    /// One row per stretch, in order.
    pub stretches: Vec<Row>,
    /// Server's CPU per packet over the floor's; median of the rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_floor: Option<f64>,
    /// CPU per packet that recording adds; with recording only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording_adds_us_per_packet: Option<f64>,
    /// Packets in the recordings and lost to them; with recording only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<RecordedTotals>,
}

/// Totals over all recordings.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct RecordedTotals {
    /// Packets written.
    pub packets: u64,
    /// Packets lost to the queue.
    pub dropped: u64,
}

/// Time from the first byte of the connection to the second answer.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct SetUp {
    /// Mean per call in ms.
    pub mean_ms: f64,
    /// Median in ms.
    pub p50_ms: f64,
    /// 99 of 100 are at or below, in ms.
    pub p99_ms: f64,
}

/// Proportional set size of both processes together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    /// Before the first call.
    pub before_kib: u64,
    /// With all calls up and after media has flowed.
    pub after_kib: u64,
    /// Growth per call.
    pub per_call_kib: f64,
}

/// One stretch of traffic.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `floor`, `server` or `recorded`.
    pub what: &'static str,
    /// Packets sent.
    pub sent: u64,
    /// Sent and not come back.
    pub lost: u64,
    /// Came to the wrong party.
    pub misrouted: u64,
    /// Sends that the kernel refused.
    pub send_errors: u64,
    /// Forwarded per second in the measured part.
    pub packets_per_second: f64,
    /// CPU time per forwarded packet.
    pub cpu_us_per_packet: f64,
    /// From just before the send to the arrival in the receiver's kernel.
    pub latency: Quantiles,
    /// The forwarder's system calls per packet; floor only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_calls_per_packet: Option<f64>,
    /// The generator's own share of its core.
    pub generator_busy: f64,
    /// How late the generator sent.
    pub generator_lateness: Quantiles,
    /// Whether the generator may have been the limit.
    pub generator_limited: bool,
}

impl Row {
    /// Sums up a stretch.
    pub fn new(what: &'static str, outcome: &Outcome) -> Self {
        let wall_ns = outcome.measured_ns.max(1) as f64;
        let packets = outcome.measured_packets.max(1) as f64;
        let busy = outcome.generator_cpu_ns as f64 / wall_ns;
        let lateness = outcome.lateness.quantiles();
        Self {
            what,
            sent: outcome.sent,
            lost: outcome.sent.saturating_sub(outcome.received),
            misrouted: outcome.misrouted,
            send_errors: outcome.send_errors,
            packets_per_second: packets / wall_ns * 1e9,
            cpu_us_per_packet: outcome.measured_cpu_ns as f64 / packets / 1000.0,
            latency: outcome.latency.quantiles(),
            system_calls_per_packet: None,
            generator_busy: busy,
            generator_lateness: lateness,
            generator_limited: busy > GENERATOR_BUSY_LIMIT
                || lateness.p99_us > GENERATOR_LATE_LIMIT_US,
        }
    }
}

impl Report {
    /// Derives the comparisons from the rows.
    pub fn compare(&mut self) {
        let of = |what: &str| -> Vec<f64> {
            let rows = self.stretches.iter().filter(|row| row.what == what);
            rows.map(|row| row.cpu_us_per_packet).collect()
        };
        let (floor, server, recorded) = (of("floor"), of("server"), of("recorded"));
        let ratios = server.iter().zip(&floor).map(|(cost, floor)| cost / floor);
        self.ratio_to_floor = median(ratios.collect());
        let added = recorded
            .iter()
            .zip(&server)
            .map(|(with, without)| with - without);
        self.recording_adds_us_per_packet = median(added.collect());
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} calls, set-up {:.2} ms each (p50 {:.2}, p99 {:.2}); memory {} -> {} KiB, {:.1} KiB per call\n",
            self.calls,
            self.set_up.mean_ms,
            self.set_up.p50_ms,
            self.set_up.p99_ms,
            self.memory.before_kib,
            self.memory.after_kib,
            self.memory.per_call_kib,
        );
        text.push_str(&rows(&self.stretches));
        if let Some(ratio) = self.ratio_to_floor {
            text.push_str(&format!("server / floor: {ratio:.3}\n"));
        }
        if let (Some(added), Some(recorded)) = (self.recording_adds_us_per_packet, self.recorded) {
            text.push_str(&format!(
                "recording adds {added:.3} us per packet; {} recorded, {} lost to the queue\n",
                recorded.packets, recorded.dropped
            ));
        }
        text
    }
}

/// Stretches for people, a line each.
pub fn rows(stretches: &[Row]) -> String {
    let mut text = "what      packets/s   lost  cpu us/pkt    p50 us    p99 us  p99.9 us    max us  generator: busy  p99 late us\n".to_owned();
    for row in stretches {
        text.push_str(&format!(
            "{:<9} {:>9.0} {:>6} {:>11.3} {:>9} {:>9} {:>9} {:>9} {:>15.0}% {:>12}{}\n",
            row.what,
            row.packets_per_second,
            row.lost,
            row.cpu_us_per_packet,
            row.latency.p50_us,
            row.latency.p99_us,
            row.latency.p999_us,
            row.latency.max_us,
            row.generator_busy * 100.0,
            row.generator_lateness.p99_us,
            match row.generator_limited {
                true => "  THE GENERATOR MAY BE THE LIMIT",
                false => "",
            },
        ));
        if let Some(calls) = row.system_calls_per_packet {
            text.push_str(&format!("          {calls:.3} system calls per packet\n"));
        }
    }
    text
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(what: &'static str, cost: f64) -> Row {
        let mut row = Row::new(what, &Outcome::default());
        row.cpu_us_per_packet = cost;
        row
    }

    #[test]
    fn rounds_are_compared_pair_by_pair() {
        let mut report = Report {
            calls: 1,
            set_up: SetUp::default(),
            memory: Memory::default(),
            stretches: vec![
                row("floor", 4.0),
                row("server", 6.0),
                row("floor", 2.0),
                row("server", 4.0),
                row("floor", 4.0),
                row("server", 5.0),
            ],
            ratio_to_floor: None,
            recording_adds_us_per_packet: None,
            recorded: None,
        };
        report.compare();
        assert_eq!(report.ratio_to_floor, Some(1.5));
        assert_eq!(report.recording_adds_us_per_packet, None);
    }
}
