//! What /proc/self says about this process, for the `process_*` metrics.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};
use rtpbridge_shared::ipc::process::ProcessReport;

/// Reads the present numbers; what cannot be read is 0.
pub fn report() -> ProcessReport {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let mut report = from_stat(&stat, boot_time_seconds());
    report.open_fds = fs::read_dir("/proc/self/fd")
        .map(|entries| entries.count() as u64)
        .unwrap_or_default();
    report.max_fds = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    report
}

fn from_stat(stat: &str, boot_time_seconds: f64) -> ProcessReport {
    // The second field, the program's name, may hold spaces and parentheses: fields count from
    // behind the last one (proc_pid_stat(5)), the first of them being number 3.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let number = |position: usize| -> u64 {
        let text = position.checked_sub(3).and_then(|at| fields.get(at));
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    let ticks = ticks_per_second();
    ProcessReport {
        cpu_seconds: (number(14) + number(15)) as f64 / ticks,
        virtual_bytes: number(23),
        resident_bytes: number(24) * page_bytes(),
        start_time_seconds: boot_time_seconds + number(22) as f64 / ticks,
        threads: number(20),
        ..ProcessReport::default()
    }
}

fn boot_time_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|text| text.trim().parse().ok())
        .unwrap_or_default()
}

fn ticks_per_second() -> f64 {
    match sysconf(SysconfVar::CLK_TCK) {
        Ok(Some(ticks)) if ticks > 0 => ticks as f64,
        _ => 100.0,
    }
}

fn page_bytes() -> u64 {
    match sysconf(SysconfVar::PAGE_SIZE) {
        Ok(Some(bytes)) => u64::try_from(bytes).unwrap_or(4096),
        _ => 4096,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_has_threads_memory_and_descriptors() {
        let report = report();
        assert!(report.threads >= 1);
        assert!(report.resident_bytes > 100_000);
        assert!(report.open_fds >= 3);
        assert!(report.max_fds >= report.open_fds);
        assert!(report.start_time_seconds > 1e9);
    }

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let line = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0 3 0 1000 4096 2 0";
        let report = from_stat(line, 0.0);
        assert_eq!(report.threads, 3);
        assert_eq!(report.virtual_bytes, 4096);
        assert!((report.cpu_seconds - 300.0 / ticks_per_second()).abs() < 1e-9);
    }
}
