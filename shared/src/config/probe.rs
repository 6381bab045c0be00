//! Rules that only the machine can answer: may this address be bound, is this directory there and
//! writable. Each process asks only about what it uses itself, so that a restart of control does
//! not fail for a thing of the dataplane. The probing socket is closed before the answer.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{AccessFlags, Uid, access};

use super::Config;
use super::load::Scope;
use super::read::Reader;

impl Reader {
    pub(super) fn probe(&mut self, config: &Config, scope: Scope) {
        if scope.runs_dataplane() {
            self.probe_media(config);
        }
        if scope.runs_control() {
            self.probe_control(config);
        }
        // The default directory may be missing: recording is then off, and everything else runs.
        let recordings = &config.recording_dir;
        let may_be_missing = config.recording_dir_is_default() && !recordings.exists();
        if scope != Scope::Tool && !may_be_missing {
            self.problem("recording_dir", recordings, directory_problem(recordings));
        }
    }

    fn probe_media(&mut self, config: &Config) {
        for ip in config.media_ip.iter() {
            if let Err(error) = UdpSocket::bind((ip, 0)) {
                self.fault("media_ip", ip, format!("cannot be bound here: {error}"));
            }
        }
        if let Some(dir) = &config.media_dir {
            let problem = (!dir.is_dir()).then(|| "must be a directory".to_owned());
            self.problem("media_dir", dir, problem);
        }
    }

    fn probe_control(&mut self, config: &Config) {
        let cache = &config.cache_dir;
        let problem = directory_problem(cache).or_else(|| foreign_owner(cache));
        self.problem("cache_dir", cache, problem);
        if let Some(file) = &config.auth_token_file {
            let problem = fs::File::open(file).err();
            let problem = problem.map(|error| format!("must be readable: {error}"));
            self.problem("auth_token_file", file, problem);
        }
    }

    fn problem(&mut self, key: &'static str, path: &Path, problem: Option<String>) {
        if let Some(bound) = problem {
            self.fault(key, path.display(), bound);
        }
    }
}

/// Why `dir` could neither be used nor be created.
fn directory_problem(dir: &Path) -> Option<String> {
    match fs::metadata(dir) {
        Ok(metadata) if !metadata.is_dir() => Some("must be a directory".to_owned()),
        Ok(_) => {
            let allowed = access(dir, AccessFlags::W_OK | AccessFlags::X_OK);
            allowed
                .err()
                .map(|error| format!("must be writable: {}", error.desc()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match dir.parent() {
            Some(parent) if parent.is_dir() => None,
            _ => Some("its parent directory must exist".to_owned()),
        },
        Err(error) => Some(format!("cannot be examined: {error}")),
    }
}

fn foreign_owner(dir: &Path) -> Option<String> {
    let owner = fs::symlink_metadata(dir).ok()?.uid();
    (owner != Uid::effective().as_raw()).then(|| format!("belongs to another user (uid {owner})"))
}
