//! Answers as tables for people. What a table leaves out, `--json` shows.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use rtpbridge_shared::ipc::process::StatusReport;
use rtpbridge_shared::ipc::stats::StatsRow;
use serde_json::Value;

use super::verify::{Tail, Verification};
use crate::admin::{ControlStatus, RecordingRow, SessionRow, StatusAnswer};

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

fn number(value: impl ToString) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

fn finish(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| {
            line.strip_prefix(" ")
                .unwrap_or(&line)
                .trim_end()
                .to_owned()
        })
        .collect();
    lines.join("\n")
}

/// A number and what it counts, which is one of them when the number is 1.
pub(super) fn counted(count: impl Into<u64>, one: &str) -> String {
    match count.into() {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    }
}

/// `sessions`
pub(super) fn sessions(rows: &[SessionRow]) -> String {
    let mut table = table(&["SESSION", "STATE", "ENDPOINTS", "CREATED"]);
    for row in rows {
        table.add_row([
            Cell::new(row.session_id),
            Cell::new(row.state),
            number(row.endpoint_count),
            Cell::new(&row.created_at),
        ]);
    }
    finish(&table)
}

/// `recordings`
pub(super) fn recordings(rows: &[RecordingRow]) -> String {
    let mut table = table(&["RECORDING", "SESSION", "LEG", "PACKETS", "STARTED", "FILE"]);
    for row in rows {
        let leg = row
            .endpoint_id
            .map_or("all".to_owned(), |id| id.to_string());
        table.add_row([
            Cell::new(row.recording_id),
            Cell::new(row.session_id),
            Cell::new(leg),
            number(row.packets),
            Cell::new(&row.started_at),
            Cell::new(printable(&row.file_path)),
        ]);
    }
    finish(&table)
}

/// `recordings verify FILE`: a table of its streams, then the file as a whole.
pub(super) fn verification(report: &Verification) -> String {
    let header = [
        "LEG",
        "DIRECTION",
        "SSRC",
        "PT",
        "PACKETS",
        "MISSING",
        "FIRST ms",
        "LAST ms",
        "PAUSE ms",
    ];
    let mut table = table(&header);
    for row in &report.streams {
        let types: Vec<String> = row.payload_types.iter().map(u8::to_string).collect();
        table.add_row([
            Cell::new(row.leg),
            Cell::new(row.direction),
            Cell::new(format!("{:08x}", row.ssrc)),
            Cell::new(types.join(",")),
            number(row.packets),
            number(format!("{} ({:.2} %)", row.gaps, row.loss_percent())),
            number(row.first_ms),
            number(row.last_ms),
            number(row.longest_pause_ms),
        ]);
    }
    let seconds = report.duration_ms as f64 / 1000.0;
    let tail = match report.tail {
        Tail::Whole => "whole".to_owned(),
        Tail::Cut { bytes } => {
            let bytes = counted(bytes, "byte");
            format!("cut: {bytes} after the last whole record")
        }
    };
    let mut lines = vec![
        finish(&table),
        String::new(),
        format!(
            "records    {}, of them {} RTCP",
            report.records, report.rtcp
        ),
        format!("time       {seconds:.3} s from {}", report.started_at),
        format!("tail       {tail}"),
    ];
    if report.foreign > 0 {
        let foreign = counted(report.foreign, "record");
        lines.push(format!("foreign    {foreign} that no recorder writes"));
    }
    lines.join("\n")
}

/// `stats ID`
pub(super) fn stats(rows: &[StatsRow]) -> String {
    let header = [
        "ENDPOINT",
        "STATE",
        "CODEC",
        "IN",
        "LOST",
        "JITTER ms",
        "LAST ms",
        "OUT",
        "RTT ms",
    ];
    let mut table = table(&header);
    for row in rows {
        let rtt = row.rtt_ms.map_or("-".to_owned(), |rtt| format!("{rtt:.1}"));
        table.add_row([
            Cell::new(row.endpoint_id),
            Cell::new(row.state),
            Cell::new(printable(&row.codec)),
            number(row.inbound.packets),
            number(row.inbound.packets_lost),
            number(format!("{:.1}", row.inbound.jitter_ms)),
            number(row.inbound.last_received_ms_ago),
            number(row.outbound.packets),
            number(rtt),
        ]);
    }
    finish(&table)
}

/// `session ID`: members of `session.info`, then a table of its endpoints.
pub(super) fn session(info: &Value) -> String {
    let text = |value: &Value, name: &str| match value.get(name) {
        Some(Value::String(text)) => printable(text),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let mut lines = Vec::new();
    for name in ["session_id", "state", "created_at"] {
        lines.push(format!("{name:<12}{}", text(info, name)));
    }
    let rows = |name: &str| info.get(name).and_then(Value::as_array).cloned();
    let mut endpoints = table(&[
        "ENDPOINT",
        "TYPE",
        "STATE",
        "DIRECTION",
        "CODEC",
        "LOCAL",
        "REMOTE",
    ]);
    for row in rows("endpoints").unwrap_or_default() {
        let names = [
            "endpoint_id",
            "endpoint_type",
            "state",
            "direction",
            "codec",
            "local_rtp_addr",
            "remote_rtp_addr",
        ];
        endpoints.add_row(names.map(|name| text(&row, name)));
    }
    lines.push(String::new());
    lines.push(finish(&endpoints));
    let recordings = rows("recordings").unwrap_or_default();
    if !recordings.is_empty() {
        let mut table = table(&["RECORDING", "LEG", "FILE"]);
        for row in recordings {
            table
                .add_row(["recording_id", "endpoint_id", "file_path"].map(|name| text(&row, name)));
        }
        lines.push(String::new());
        lines.push(finish(&table));
    }
    lines.join("\n")
}

/// `status`
pub(super) fn status(answer: &StatusAnswer) -> String {
    let mut lines = Vec::new();
    match &answer.control {
        Some(control) => lines.extend(control_lines(control)),
        None => lines.push("control    not reachable; media flows on without it".to_owned()),
    }
    match &answer.dataplane {
        Some(dataplane) => lines.extend(dataplane_lines(dataplane)),
        None => lines.push("dataplane  not reachable".to_owned()),
    }
    let room = match answer.calls_that_fit {
        Some(1) => "about 1 more call like the present ones".to_owned(),
        Some(calls) => format!("about {calls} more calls like the present ones"),
        None => "too little runs to tell".to_owned(),
    };
    lines.push(format!("room       {room}"));
    lines.join("\n")
}

fn control_lines(control: &ControlStatus) -> Vec<String> {
    let limit = match control.max_sessions {
        0 => "no limit".to_owned(),
        limit => format!("at most {limit}"),
    };
    let state = if control.draining {
        "draining"
    } else {
        "running"
    };
    let up = uptime(control.uptime_secs);
    let (version, pid) = (printable(&control.version), control.pid);
    let mut lines = vec![
        format!("control    {state}, version {version}, pid {pid}, up {up}"),
        format!(
            "           {} ({limit}), {} without a client, {}",
            counted(control.sessions, "session"),
            control.orphaned,
            counted(control.connections, "connection")
        ),
    ];
    if !control.dataplane_connected {
        lines.push("           the dataplane is not connected".to_owned());
    }
    lines.extend(sandbox_line(&control.sandbox));
    lines
}

fn dataplane_lines(dataplane: &StatusReport) -> Vec<String> {
    let state = if dataplane.draining {
        "draining"
    } else {
        "running"
    };
    let up = uptime(dataplane.uptime_secs);
    let (version, pid) = (printable(&dataplane.version), dataplane.pid);
    let packets: f64 = dataplane
        .workers
        .iter()
        .map(|worker| worker.packets_per_second)
        .sum();
    let mut lines = vec![
        format!("dataplane  {state}, version {version}, pid {pid}, up {up}"),
        format!(
            "           {}, {}, {}, {packets:.0} packets/s",
            counted(dataplane.sessions, "session"),
            counted(dataplane.endpoints, "endpoint"),
            counted(dataplane.recordings, "recording")
        ),
    ];
    lines.extend(sandbox_line(&dataplane.sandbox));
    for worker in &dataplane.workers {
        let lateness = worker.lateness_p99_ms;
        let lateness = lateness.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
        lines.push(format!(
            "worker {:<4}{:>3.0} % busy, {}, {:.0} packets/s, lateness p99 {lateness}",
            worker.worker,
            worker.load * 100.0,
            counted(worker.sessions, "session"),
            worker.packets_per_second
        ));
    }
    lines
}

fn sandbox_line(sandbox: &[(String, String)]) -> Option<String> {
    let parts = sandbox
        .iter()
        .map(|(name, state)| format!("{name} {state}"));
    let parts: Vec<String> = parts.collect();
    let text = printable(&parts.join(", "));
    (!parts.is_empty()).then(|| format!("           sandbox: {text}"))
}

fn uptime(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{seconds:02}s"),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// File names are clients' words: nothing of them may steer a terminal.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtpbridge_shared::id::{InstanceId, SessionId};
    use rtpbridge_shared::ipc::process::WorkerReport;
    use rtpbridge_shared::vocab::SessionState;

    #[test]
    fn sessions_line_up_under_their_header() {
        let row = |n: u8, state| SessionRow {
            session_id: SessionId::from_bytes([n; 16]),
            state,
            endpoint_count: u64::from(n),
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
        };
        let rows = [row(1, SessionState::Active), row(2, SessionState::Orphaned)];
        let text = sessions(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let column = lines[0].find("STATE").expect("header");
        assert!(lines[1][column..].starts_with("active"), "{text}");
        assert!(lines[2][column..].starts_with("orphaned"), "{text}");
    }

    #[test]
    fn status_says_what_is_missing() {
        let text = status(&StatusAnswer::new(None, None));
        assert!(text.contains("control    not reachable"));
        assert!(text.contains("dataplane  not reachable"));
        let dataplane = StatusReport {
            version: "9.9".to_owned(),
            pid: 7,
            instance: InstanceId::from_bytes([0; 16]),
            uptime_secs: 90_061,
            sessions: 3,
            endpoints: 6,
            recordings: 1,
            draining: false,
            controller_connected: false,
            sandbox: vec![("landlock".to_owned(), "enforced".to_owned())],
            workers: vec![WorkerReport {
                load: 0.25,
                sessions: 3,
                packets_per_second: 300.4,
                ..WorkerReport::default()
            }],
        };
        let text = status(&StatusAnswer::new(None, Some(dataplane)));
        assert!(
            text.contains("up 1d01h") && text.contains("300 packets/s"),
            "{text}"
        );
        assert!(text.contains("sandbox: landlock enforced"), "{text}");
        assert!(
            text.contains("3 sessions, 6 endpoints, 1 recording, 300"),
            "{text}"
        );
        assert!(text.contains(" 25 % busy, 3 sessions,"), "{text}");
    }

    #[test]
    fn one_of_a_kind_is_no_plural() {
        let said = [0_u64, 1, 2].map(|count| counted(count, "session"));
        assert_eq!(said, ["0 sessions", "1 session", "2 sessions"]);
    }

    #[test]
    fn names_of_files_cannot_steer_the_terminal() {
        let info = serde_json::json!({
            "session_id": "x", "state": "active", "created_at": "now", "endpoints": [],
            "recordings": [{"recording_id": "r", "endpoint_id": null, "file_path": "/a\u{1b}[2J"}],
        });
        let text = session(&info);
        assert!(!text.contains('\u{1b}') && text.contains("/a"), "{text}");
    }
}
