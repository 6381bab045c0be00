//! Reads other processes in /proc.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::unistd::Pid;

/// Open descriptors of a process.
pub fn fd_count(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .map(Iterator::count)
        .unwrap_or(0)
}

/// Local ports of all UDP sockets over IPv4 here.
pub fn udp_ports() -> BTreeSet<u16> {
    let table = fs::read_to_string("/proc/net/udp").unwrap_or_default();
    let port = |line: &str| {
        let (_, port) = line.split_whitespace().nth(1)?.split_once(':')?;
        u16::from_str_radix(port, 16).ok()
    };
    table.lines().filter_map(port).collect()
}

/// Threads of a process.
pub fn thread_count(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/task"))
        .map(Iterator::count)
        .unwrap_or(0)
}

/// Resident memory in KiB.
pub fn rss_kib(pid: Pid) -> u64 {
    field_kib(&format!("/proc/{pid}/smaps_rollup"), "Rss:")
}

/// Proportional share of memory in KiB.
pub fn pss_kib(pid: Pid) -> u64 {
    field_kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// User and system time of all threads so far.
pub fn cpu_time(pid: Pid) -> Duration {
    let fields = stat_fields(pid).unwrap_or_default();
    let ticks: u64 = fields
        .iter()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Parent of a process, while it exists.
pub fn parent(pid: Pid) -> Option<Pid> {
    let fields = stat_fields(pid)?;
    Some(Pid::from_raw(fields.get(1)?.parse().ok()?))
}

/// Whether the process exists and is not merely waiting to be reaped.
pub fn is_alive(pid: Pid) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

/// Live children of a process whose program has this name.
pub fn child_named(of: Pid, name: &str) -> Option<Pid> {
    all_pids().find(|pid| {
        parent(*pid) == Some(of) && is_alive(*pid) && program(*pid).as_deref() == Some(name)
    })
}

/// All live children of a process.
pub fn children(of: Pid) -> Vec<Pid> {
    all_pids()
        .filter(|pid| parent(*pid) == Some(of) && is_alive(*pid))
        .collect()
}

/// File name of the program a process runs.
pub fn program(pid: Pid) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some(name.trim_end_matches(" (deleted)").to_owned())
}

fn all_pids() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
}

/// Fields of /proc/PID/stat after the parenthesised name: state, ppid, …
fn stat_fields(pid: Pid) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn field_kib(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
