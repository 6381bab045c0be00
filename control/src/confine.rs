//! Landlock around the control process: its directories, what TLS and name resolution read, nothing
//! else. Applied before the first thread; what the kernel cannot enforce is said, not hidden.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use rtpbridge_shared::config::Config;

/// Read by name resolution, TLS roots, the metrics of this process, and the runtime.
const READ: &[&str] = &[
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/var/lib/ca-certificates",
    "/dev/null",
    "/dev/urandom",
];

const KERNEL_ABI: ABI = ABI::V5;

/// Confines this process for good. Returns one line per protection for `rtpbridgectl status`.
pub fn confine(config: &Config, enabled: bool) -> Vec<(String, String)> {
    let state = if enabled {
        match landlock(config) {
            Ok(RulesetStatus::FullyEnforced) => "enforced".to_owned(),
            Ok(RulesetStatus::PartiallyEnforced) => "partially enforced by this kernel".to_owned(),
            Ok(RulesetStatus::NotEnforced) => "not supported by this kernel".to_owned(),
            Err(error) => format!("failed: {error}"),
        }
    } else {
        "off (--no-sandbox)".to_owned()
    };
    vec![("landlock".to_owned(), state)]
}

fn landlock(config: &Config) -> Result<RulesetStatus, RulesetError> {
    let recordings = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::RemoveFile;
    let cache = recordings | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::Truncate;
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules: Vec<(PathBuf, BitFlags<AccessFs>)> = vec![
        (config.recording_dir.clone(), recordings),
        (config.cache_dir.clone(), cache),
    ];
    rules.extend(READ.iter().map(|path| (PathBuf::from(path), read)));
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        rules.extend(std::env::var_os(name).map(|path| (PathBuf::from(path), read)));
    }
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KERNEL_ABI))?
        .create()?;
    for (path, access) in rules {
        if let Ok(opened) = PathFd::new(&path) {
            let access = if path.is_dir() {
                access
            } else {
                access & AccessFs::from_file(KERNEL_ABI)
            };
            ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
        }
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// Creates a directory that has to exist before the confinement; a failure shows later, where the
/// directory is used.
pub fn prepare_directory(path: &Path) {
    if !path.exists()
        && let Err(error) = std::fs::create_dir_all(path)
    {
        tracing::warn!(path = %path.display(), %error, "directory could not be created");
    }
}
