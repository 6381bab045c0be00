//! The processes under measurement: found by the sockets they own, pinned, and asked for their cost
//! in /proc.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rtpbridge_tests::harness::procfs;

/// Which protocol's table in /proc/net names a socket.
#[derive(Clone, Copy, Debug)]
pub enum Table {
    /// Listening TCP sockets.
    Tcp,
    /// Bound UDP sockets.
    Udp,
}

/// The process that owns the socket bound to `address`.
pub fn owner_of(table: Table, address: SocketAddr) -> Option<Pid> {
    let name = match table {
        Table::Tcp => "tcp",
        Table::Udp => "udp",
    };
    let port = format!(":{:04X}", address.port());
    let inode = [name.to_owned(), format!("{name}6")]
        .iter()
        .find_map(|name| {
            let text = fs::read_to_string(format!("/proc/net/{name}")).ok()?;
            text.lines().skip(1).find_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let listening = matches!(table, Table::Udp) || *fields.get(3)? == "0A";
                (listening && fields.get(1)?.ends_with(&port))
                    .then(|| fields.get(9)?.parse().ok())?
            })
        })?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        owns(&entry.path(), inode).then(|| Pid::from_raw(pid))
    })
}

fn owns(process: &Path, inode: u64) -> bool {
    let descriptors = fs::read_dir(process.join("fd"));
    descriptors.into_iter().flatten().flatten().any(|entry| {
        fs::metadata(entry.path()).is_ok_and(|target| target.ino() == inode && is_socket(&target))
    })
}

fn is_socket(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_socket()
}

/// CPU time of all threads of all these processes so far, in nanoseconds.
pub fn cpu_ns(pids: &[Pid]) -> u64 {
    pids.iter().map(|pid| process_cpu_ns(*pid)).sum()
}

/// CPU time of the calling thread so far, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    let time = nix::time::clock_gettime(clock).expect("threads have a CPU clock");
    u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

/// Proportional share of memory of all these processes, in KiB.
pub fn pss_kib(pids: &[Pid]) -> u64 {
    pids.iter().map(|pid| procfs::pss_kib(*pid)).sum()
}

/// Puts every thread of a process on one core; threads it starts later inherit that.
pub fn pin(pid: Pid, core: usize) -> io::Result<()> {
    for thread in threads(pid) {
        pin_thread(thread, core)?;
    }
    Ok(())
}

/// Puts the calling thread on one core.
pub fn pin_self(core: usize) -> io::Result<()> {
    pin_thread(Pid::from_raw(0), core)
}

/// Does something on one core and then goes back: what it starts stays there.
pub fn on_core<T>(core: Option<usize>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(core) = core else {
        return work();
    };
    let before = sched_getaffinity(Pid::from_raw(0))?;
    pin_self(core)?;
    let outcome = work();
    sched_setaffinity(Pid::from_raw(0), &before)?;
    outcome
}

fn pin_thread(thread: Pid, core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(thread, &set)?)
}

fn threads(pid: Pid) -> Vec<Pid> {
    let listed = fs::read_dir(format!("/proc/{pid}/task"));
    listed
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// The scheduler's own nanoseconds; clock ticks where it keeps none.
fn process_cpu_ns(pid: Pid) -> u64 {
    let scheduled: Option<u64> = threads(pid)
        .iter()
        .map(|thread| {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    match scheduled {
        Some(ns) if ns > 0 => ns,
        _ => u64::try_from(procfs::cpu_time(pid).as_nanos()).unwrap_or(u64::MAX),
    }
}
