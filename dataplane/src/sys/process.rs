//! What the process knows of itself: descriptor limit and the numbers of /proc/self, whose files
//! are opened before the sandbox closes the door.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};
use rtpbridge_shared::ipc::process::ProcessReport;

/// Raises the soft limit of open files to the hard one and returns it.
pub(crate) fn raise_file_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// How many files may be open.
pub(crate) fn file_limit() -> u32 {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// Reads the process's own numbers at any later time.
pub(crate) struct ProcessReader {
    stat: File,
    descriptors: nix::dir::Dir,
    started: f64,
}

impl ProcessReader {
    /// Opens what later reports need; call before the sandbox.
    pub(crate) fn open() -> io::Result<Self> {
        use nix::fcntl::OFlag;
        use nix::sys::stat::Mode;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self {
            stat: File::open("/proc/self/stat")?,
            descriptors: nix::dir::Dir::open("/proc/self/fd", flags, Mode::empty())?,
            started: since_epoch.map_or(0.0, |since| since.as_secs_f64()),
        })
    }

    /// The numbers now; what cannot be read is 0.
    pub(crate) fn report(&mut self) -> ProcessReport {
        let mut text = [0; 1024];
        let length = self.stat.read_at(&mut text, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        let open_fds = self.descriptors.iter().filter_map(Result::ok);
        let open_fds = open_fds.filter(|entry| !entry.file_name().to_bytes().starts_with(b"."));
        ProcessReport {
            open_fds: open_fds.count() as u64,
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
            start_time_seconds: self.started,
            ..parse_stat(&text)
        }
    }
}

/// Fields of proc_pid_stat(5), counted from the one after the parenthesised program name.
fn parse_stat(text: &str) -> ProcessReport {
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|f| f.parse().ok()).unwrap_or(0_u64);
    let per = |variable, default: i64| match sysconf(variable) {
        Ok(Some(value)) if value > 0 => value,
        _ => default,
    };
    let ticks_per_second = per(SysconfVar::CLK_TCK, 100) as f64;
    let page_bytes = per(SysconfVar::PAGE_SIZE, 4096) as u64;
    ProcessReport {
        cpu_seconds: (field(11) + field(12)) as f64 / ticks_per_second,
        threads: field(17),
        virtual_bytes: field(20),
        resident_bytes: field(21).saturating_mul(page_bytes),
        ..ProcessReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_sees_memory_threads_and_descriptors() {
        let mut reader = ProcessReader::open().expect("opens");
        let first = reader.report();
        let _held = File::open("/dev/null").expect("opens");
        let second = reader.report();
        assert!(first.resident_bytes > 100_000 && first.threads >= 1);
        assert!(first.open_fds > 3 && second.open_fds > 3);
        assert!(second.max_fds >= second.open_fds);
    }

    #[test]
    fn a_program_name_with_brackets_does_not_shift_the_fields() {
        let text = "1 (a) b) S 0 0 0 0 -1 0 0 0 0 0 150 50 0 0 20 0 7 0 9 4096 3 0";
        let report = parse_stat(text);
        assert_eq!(report.threads, 7);
        assert_eq!(report.virtual_bytes, 4096);
        assert!(report.cpu_seconds > 0.0);
    }
}
