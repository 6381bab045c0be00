//! Where recordings may be made. A client's path is only text: what lies beneath `recording_dir` is
//! decided by the kernel (openat2, RESOLVE_BENEATH, no symlinks), so no race between a check and the
//! open can lead out of it. Files are created exclusively, mode 0640.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use rtpbridge_shared::ipc::RequestError;
use thiserror::Error;

const MAX_PATH_BYTES: usize = 4095;
const FIELD: &str = "file_path";

/// Why a file cannot be created.
#[derive(Debug, Error)]
pub(crate) enum PathError {
    /// It does not begin with a slash.
    #[error("must be an absolute path")]
    NotAbsolute,
    /// It, or a part of it, is longer than it can be.
    #[error("must be at most {MAX_PATH_BYTES} bytes long, and no name in it over 255")]
    TooLong,
    /// It has a control character, or a component that goes up.
    #[error("must not contain control characters, . or ..")]
    Malformed,
    /// It names no file beneath the directory.
    #[error("must lie inside recording_dir")]
    Outside,
    /// A directory of the path is missing or no directory.
    #[error("its directory does not exist")]
    NoParent,
    /// It exists.
    #[error("the file exists already")]
    Exists,
    /// There is no recording directory.
    #[error("recording is disabled: {0} cannot be used")]
    Disabled(PathBuf),
    /// Anything else.
    #[error("cannot create the file: {0}")]
    Create(io::Error),
}

impl From<PathError> for RequestError {
    fn from(error: PathError) -> Self {
        match error {
            PathError::NotAbsolute
            | PathError::TooLong
            | PathError::Malformed
            | PathError::Outside
            | PathError::NoParent => RequestError::InvalidParams {
                field: FIELD.to_owned(),
                problem: error.to_string(),
            },
            PathError::Exists | PathError::Disabled(_) | PathError::Create(_) => {
                RequestError::Recording(error.to_string())
            }
        }
    }
}

/// `recording_dir`, held open.
pub(crate) struct RecordingDirectory {
    path: PathBuf,
    canonical: PathBuf,
    handle: Option<OwnedFd>,
}

impl RecordingDirectory {
    /// Opens `path`; a directory that cannot be opened disables recording, with the reason.
    pub(crate) fn open(path: &Path) -> (Self, Option<io::Error>) {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = open(path, flags, Mode::empty());
        let (handle, error) = match opened {
            Ok(handle) => (Some(handle), None),
            Err(errno) => (None, Some(errno.into())),
        };
        let directory = Self {
            canonical: path.canonicalize().unwrap_or_else(|_| path.to_owned()),
            path: path.to_owned(),
            handle,
        };
        (directory, error)
    }

    /// Creates the file that a client named.
    pub(crate) fn create(&self, file_path: &str) -> Result<File, PathError> {
        let relative = self.relative(file_path)?;
        let Some(handle) = &self.handle else {
            return Err(PathError::Disabled(self.path.clone()));
        };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new()
            .flags(flags)
            .mode(Mode::from_bits_truncate(0o640))
            .resolve(resolve);
        loop {
            return match openat2(handle, relative, how) {
                Ok(fd) => Ok(File::from(fd)),
                // A rename elsewhere in the path can make the kernel unsure; it asks to try again.
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(Errno::EEXIST) => Err(PathError::Exists),
                Err(Errno::EXDEV | Errno::ELOOP) => Err(PathError::Outside),
                Err(Errno::ENOENT | Errno::ENOTDIR) => Err(PathError::NoParent),
                Err(Errno::ENAMETOOLONG) => Err(PathError::TooLong),
                Err(Errno::EISDIR | Errno::EINVAL) => Err(PathError::Malformed),
                Err(errno) => Err(PathError::Create(errno.into())),
            };
        }
    }

    /// The part of `file_path` beneath the directory, by its text alone.
    fn relative<'a>(&self, file_path: &'a str) -> Result<&'a Path, PathError> {
        if file_path.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        if file_path.chars().any(char::is_control) {
            return Err(PathError::Malformed);
        }
        let path = Path::new(OsStr::from_bytes(file_path.as_bytes()));
        if !path.is_absolute() {
            return Err(PathError::NotAbsolute);
        }
        let climbs = path.components().any(|part| part == Component::ParentDir);
        let dotted = file_path.split('/').any(|part| part == ".");
        if climbs || dotted || file_path.ends_with('/') {
            return Err(PathError::Malformed);
        }
        let beneath = path.strip_prefix(&self.path);
        let beneath = beneath.or_else(|_| path.strip_prefix(&self.canonical));
        match beneath {
            Ok(relative) if relative.file_name().is_some() => Ok(relative),
            _ => Err(PathError::Outside),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn create(dir: &Path, path: &str) -> Result<File, PathError> {
        let (directory, error) = RecordingDirectory::open(dir);
        assert!(error.is_none());
        directory.create(path)
    }

    #[test]
    fn a_file_is_made_once_with_its_mode() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("call.pcap");
        let text = path.to_str().expect("utf-8");
        create(temp.path(), text).expect("creates");
        let mode = path.metadata().expect("exists").mode();
        assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
        assert!(matches!(create(temp.path(), text), Err(PathError::Exists)));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let temp = tempfile::tempdir().expect("a directory");
        let outside = tempfile::tempdir().expect("a directory");
        let dir = temp.path().join("rec");
        std::fs::create_dir(&dir).expect("creates");
        std::fs::create_dir(dir.join("sub")).expect("creates");
        symlink(outside.path(), dir.join("link")).expect("links");
        symlink("sub", dir.join("inner")).expect("links");
        symlink(outside.path().join("f"), dir.join("file")).expect("links");
        let dir_text = dir.to_str().expect("utf-8");
        let long = "a".repeat(300);
        let cases = [
            ("rel.pcap".to_owned(), "absolute"),
            (format!("{dir_text}/../x.pcap"), ".."),
            (format!("{dir_text}/./x.pcap"), ". or"),
            (format!("{dir_text}-other/x.pcap"), "inside"),
            (dir_text.to_owned(), "inside"),
            ("/etc/passwd".to_owned(), "inside"),
            (format!("{dir_text}/link/x.pcap"), "inside"),
            (format!("{dir_text}/inner/x.pcap"), "inside"),
            (format!("{dir_text}/file"), "exists already"),
            (format!("{dir_text}/none/x.pcap"), "does not exist"),
            (format!("{dir_text}/a\nb"), "control"),
            (format!("{dir_text}/a\0b"), "control"),
            (format!("{dir_text}/{long}"), "over 255"),
            (format!("/{}", "a/".repeat(3000)), "at most"),
            (format!("{dir_text}/"), ". or"),
        ];
        for (path, message) in cases {
            let error = create(&dir, &path).expect_err(&path).to_string();
            assert!(error.contains(message), "{path}: {error}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).expect("reads").count(), 0);
        create(&dir, &format!("{dir_text}/sub/x.pcap")).expect("a real directory is fine");
    }

    #[test]
    fn without_a_directory_recording_is_disabled() {
        let (directory, error) = RecordingDirectory::open(Path::new("/nonexistent/rec"));
        assert!(error.is_some());
        let refused = directory.create("/nonexistent/rec/a.pcap");
        let refused = RequestError::from(refused.expect_err("no directory"));
        assert!(matches!(refused, RequestError::Recording(text) if text.contains("disabled")));
    }
}
