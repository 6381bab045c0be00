//! A file system of a test's own on a loop device, which can be frozen as a stalled disk is.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use super::tool;

const BYTES: u64 = 16 * 1024 * 1024;

/// A mounted file system; it is thawed and unmounted when this is dropped.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    frozen: bool,
}

impl Disk {
    /// Makes an image and mounts it; none where loop devices are not to be had.
    pub fn mount(image: &Path, at: &Path) -> Option<Self> {
        File::create_new(image).ok()?.set_len(BYTES).ok()?;
        let paths = [image.to_str()?, at.to_str()?];
        let made = tool::attempt("mkfs.ext4", &["-q", paths[0]]);
        let mounted = tool::attempt("mount", &["-o", "loop", paths[0], paths[1]]);
        if !made.status.success() || !mounted.status.success() {
            return None;
        }
        let disk = Self {
            at: at.to_owned(),
            frozen: false,
        };
        fs::set_permissions(at, fs::Permissions::from_mode(0o700)).ok()?;
        Some(disk)
    }

    /// Whatever writes to it waits from now on.
    pub fn freeze(&mut self) {
        self.run_fsfreeze("--freeze");
        self.frozen = true;
    }

    /// Lets writers go on.
    pub fn thaw(&mut self) {
        self.run_fsfreeze("--unfreeze");
        self.frozen = false;
    }

    fn run_fsfreeze(&self, what: &str) {
        let at = self.at.to_str().expect("a path of ours");
        tool::run("fsfreeze", &[what, at]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.frozen {
            // Or the processes that wait for it could not even be killed.
            self.thaw();
        }
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}
