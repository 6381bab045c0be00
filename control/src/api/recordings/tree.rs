//! The recording directory: walking it, and opening and deleting beneath it (openat2 with
//! RESOLVE_BENEATH: the kernel refuses every way out).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open as open_dir, openat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

const MAX_DEPTH: usize = 10;
const MAX_FILES: usize = 1_000_000;
const SUFFIX: &str = ".pcap";

/// What an error means to somebody who asked for a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// The path leads out of the directory.
    Outside,
    /// There is no such file.
    Missing,
    /// Something else.
    Other,
}

/// Sorts errors of [`open`] and [`delete`].
pub(super) fn classify(error: &io::Error) -> Failure {
    let Some(code) = error.raw_os_error() else {
        return match error.kind() {
            io::ErrorKind::NotFound => Failure::Missing,
            _ => Failure::Other,
        };
    };
    match Errno::from_raw(code) {
        Errno::EXDEV | Errno::ELOOP | Errno::EACCES | Errno::EPERM => Failure::Outside,
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::EISDIR | Errno::EINVAL => {
            Failure::Missing
        }
        _ => Failure::Other,
    }
}

/// Opens a regular file beneath `dir` for reading.
pub(super) fn open(dir: &Path, path: &Path) -> io::Result<File> {
    let file = File::from(resolve(dir, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(file)
}

/// Removes a file beneath `dir`.
pub(super) fn delete(dir: &Path, path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::NotFound)?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let parent = resolve(dir, parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
    Ok(())
}

/// Relative paths of all recordings that begin with `prefix`, sorted. Symlinks are not followed,
/// unreadable directories are passed over.
pub(super) fn list(dir: &Path, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<(PathBuf, String, usize)> = vec![(dir.to_path_buf(), String::new(), 1)];
    while let Some((dir, base, depth)) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let (Some(name), Ok(kind)) = (name.to_str(), entry.file_type()) else {
                continue;
            };
            let relative = format!("{base}{name}");
            if kind.is_dir() && depth < MAX_DEPTH {
                open.push((entry.path(), format!("{relative}/"), depth + 1));
            } else if kind.is_file() && relative.ends_with(SUFFIX) && relative.starts_with(prefix) {
                found.push(relative);
            }
        }
        if found.len() >= MAX_FILES {
            break;
        }
    }
    found.sort_unstable();
    found
}

fn resolve(dir: &Path, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    if path.components().any(|part| part == Component::ParentDir) || path.is_absolute() {
        return Err(Errno::EXDEV.into());
    }
    let root = open_dir(
        dir,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(&root, path, how)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn prepared() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().join("rec");
        std::fs::create_dir_all(root.join("a/b")).expect("directories");
        std::fs::write(dir.path().join("secret.pcap"), "s").expect("file");
        for name in ["z.pcap", "a/1.pcap", "a/b/2.pcap", "a/note.txt"] {
            std::fs::write(root.join(name), name).expect("file");
        }
        symlink("../secret.pcap", root.join("leak.pcap")).expect("link");
        symlink("..", root.join("up")).expect("link");
        symlink("a/1.pcap", root.join("inside.pcap")).expect("link");
        dir
    }

    #[test]
    fn lists_recordings_sorted_and_by_prefix_without_following_links() {
        let dir = prepared();
        let root = dir.path().join("rec");
        assert_eq!(list(&root, ""), ["a/1.pcap", "a/b/2.pcap", "z.pcap"]);
        assert_eq!(list(&root, "a/b"), ["a/b/2.pcap"]);
        assert!(list(&root.join("missing"), "").is_empty());
    }

    #[test]
    fn depth_is_bounded() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut path = dir.path().to_path_buf();
        for level in 1..=12 {
            std::fs::write(path.join(format!("{level}.pcap")), "").expect("file");
            path.push("d");
            std::fs::create_dir(&path).expect("directory");
        }
        assert_eq!(list(dir.path(), "").len(), MAX_DEPTH);
    }

    #[test]
    fn nothing_outside_can_be_opened_or_deleted() {
        let dir = prepared();
        let root = dir.path().join("rec");
        for path in [
            "leak.pcap",
            "up/secret.pcap",
            "../secret.pcap",
            "/etc/passwd",
            "a/../../x",
        ] {
            let error = open(&root, Path::new(path)).expect_err(path);
            assert_eq!(classify(&error), Failure::Outside, "{path}");
        }
        for path in ["missing.pcap", "a", "a/1.pcap/x", "a/\0"] {
            let error = open(&root, Path::new(path)).expect_err(path);
            assert_eq!(classify(&error), Failure::Missing, "{path}");
        }
        assert!(open(&root, Path::new("inside.pcap")).is_ok());
        assert!(delete(&root, Path::new("up/secret.pcap")).is_err());
        assert!(dir.path().join("secret.pcap").exists());
        delete(&root, Path::new("a/1.pcap")).expect("deleted");
        assert!(!root.join("a/1.pcap").exists());
    }
}
