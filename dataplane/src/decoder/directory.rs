//! Where files to be played may lie. A client's path is only text: what lies beneath the directory is
//! decided by the kernel (openat2, RESOLVE_BENEATH). Opened without blocking, and only regular files:
//! a FIFO or a device is refused at once.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use thiserror::Error;

const MAX_PATH_BYTES: usize = 4095;
/// A file being replaced can make the kernel unsure; it asks to try again.
const MAX_TRIES: usize = 16;

/// Why a file cannot be played.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// There is no such directory in the configuration.
    #[error("local files are disabled: media_dir is not set")]
    Disabled,
    /// The directory itself could not be opened when the process started.
    #[error("the directory of the file cannot be used: {0}")]
    Unusable(String),
    /// Empty, too long or with a NUL.
    #[error("source is not a usable path")]
    Malformed,
    /// Not beneath the directory.
    #[error("source lies outside media_dir")]
    Outside,
    /// A directory, FIFO, socket or device.
    #[error("source is not a regular file")]
    NotRegular,
    /// Anything else: missing, not permitted.
    #[error("source cannot be opened: {0}")]
    Io(#[from] io::Error),
}

/// `media_dir` or `cache_dir`, held open.
pub(crate) struct MediaDirectory {
    root: Result<Root, Absence>,
}

struct Root {
    path: PathBuf,
    canonical: PathBuf,
    handle: OwnedFd,
}

/// Why there is no directory.
enum Absence {
    NotConfigured,
    Unusable(String),
}

impl MediaDirectory {
    /// Opens the directory, before the sandbox closes. One that cannot be opened has no files, and
    /// neither has none; both say why whenever a file is wanted.
    pub(crate) fn open(path: Option<&Path>) -> Self {
        let root = path.ok_or(Absence::NotConfigured).and_then(|path| {
            let unusable = |error: io::Error| Absence::Unusable(error.to_string());
            Root::open(path).map_err(unusable)
        });
        Self { root }
    }

    /// Why no file of it can be opened, although it was configured.
    pub(crate) fn problem(&self) -> Option<&str> {
        match &self.root {
            Err(Absence::Unusable(problem)) => Some(problem),
            Err(Absence::NotConfigured) | Ok(_) => None,
        }
    }

    /// Opens a file beneath it, named absolutely or from the directory on.
    pub(crate) fn open_file(&self, source: &str) -> Result<File, OpenError> {
        if source.is_empty() || source.len() > MAX_PATH_BYTES || source.contains('\0') {
            return Err(OpenError::Malformed);
        }
        let root = match &self.root {
            Ok(root) => root,
            Err(Absence::NotConfigured) => return Err(OpenError::Disabled),
            Err(Absence::Unusable(problem)) => return Err(OpenError::Unusable(problem.clone())),
        };
        let source = Path::new(source);
        let relative = if source.is_absolute() {
            source
                .strip_prefix(&root.path)
                .or_else(|_| source.strip_prefix(&root.canonical))
                .map_err(|_| OpenError::Outside)?
        } else {
            source
        };
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        for _ in 0..MAX_TRIES {
            match openat2(&root.handle, relative, how) {
                Ok(fd) => return regular(File::from(fd)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(Errno::EXDEV | Errno::ELOOP) => return Err(OpenError::Outside),
                // What an unread FIFO's other end or a driverless device says.
                Err(Errno::ENXIO | Errno::ENODEV) => return Err(OpenError::NotRegular),
                Err(errno) => return Err(OpenError::Io(errno.into())),
            }
        }
        Err(OpenError::Io(Errno::EAGAIN.into()))
    }
}

impl Root {
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let handle = open(path, flags, Mode::empty())?;
        let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Ok(Self {
            path: path.to_owned(),
            canonical,
            handle,
        })
    }
}

fn regular(file: File) -> Result<File, OpenError> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(OpenError::NotRegular)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_regular_files_beneath_the_directory_open() {
        let dir = tempfile::tempdir().expect("tempdir");
        let media = dir.path().join("media");
        fs::create_dir_all(media.join("sub")).expect("mkdir");
        fs::write(media.join("sub/a.wav"), b"x").expect("write");
        fs::write(dir.path().join("secret"), b"x").expect("write");
        symlink("sub/a.wav", media.join("inside")).expect("symlink");
        symlink("../secret", media.join("outside")).expect("symlink");
        symlink("/etc/passwd", media.join("absolute")).expect("symlink");
        mkfifo(&media.join("fifo"), Mode::S_IRWXU).expect("mkfifo");
        let directory = MediaDirectory::open(Some(&media));
        let absolute = media.join("sub/a.wav");
        for good in [
            "sub/a.wav",
            "sub/../sub/a.wav",
            "inside",
            absolute.to_str().expect("utf-8"),
        ] {
            assert!(directory.open_file(good).is_ok(), "{good}");
        }
        for outside in [
            "../secret",
            "sub/../../secret",
            "outside",
            "absolute",
            "/etc/passwd",
        ] {
            let refused = directory.open_file(outside);
            assert!(
                matches!(refused, Err(OpenError::Outside)),
                "{outside}: {refused:?}"
            );
        }
        for other in ["fifo", "sub", "."] {
            let refused = directory.open_file(other);
            assert!(
                matches!(refused, Err(OpenError::NotRegular)),
                "{other}: {refused:?}"
            );
        }
        assert!(matches!(
            directory.open_file("missing"),
            Err(OpenError::Io(_))
        ));
        let unset = MediaDirectory::open(None);
        assert!(matches!(unset.open_file("a"), Err(OpenError::Disabled)));
        let gone = MediaDirectory::open(Some(&media.join("gone")));
        assert!(matches!(gone.open_file("a"), Err(OpenError::Unusable(_))));
        assert!(matches!(directory.open_file(""), Err(OpenError::Malformed)));
        assert!(matches!(
            directory.open_file("a\0b"),
            Err(OpenError::Malformed)
        ));
    }
}
