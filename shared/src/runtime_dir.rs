//! The directory of the Unix sockets: the same search in all programs, and its creation. A
//! directory that another user owns is refused, because whoever owns it can put sockets of their
//! own in the place of ours.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Uid, access};

use crate::config::Scope;

/// Why a private directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// It could not be created or examined.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Something else has its name; a symbolic link counts as something else.
    #[error("{} is not a directory", .path.display())]
    NotADirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Another user than us or root owns it.
    #[error("{} belongs to another user (uid {owner})", .path.display())]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Everybody may write to it.
    #[error("{} is writable by everybody (mode {mode:o})", .path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

const SYSTEM_DIR: &str = "/run/rtpbridge";

/// Creates `dir` with mode 0700, parents included, or checks what is there: a directory of ours
/// (or root's, as systemd-tmpfiles makes it) that not everybody can write to.
///
/// # Errors
/// Says what stands in the way; nothing that exists is changed.
pub fn create_private(dir: &Path) -> Result<(), RuntimeDirError> {
    let io_error = |source| RuntimeDirError::Io {
        path: dir.to_path_buf(),
        source,
    };
    let created = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    match created {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(error)),
        _ => {}
    }
    let metadata = fs::symlink_metadata(dir).map_err(io_error)?;
    check_private(dir, &metadata, Uid::effective().as_raw())
}

fn check_private(dir: &Path, metadata: &Metadata, our_uid: u32) -> Result<(), RuntimeDirError> {
    let path = dir.to_path_buf();
    if !metadata.is_dir() {
        return Err(RuntimeDirError::NotADirectory { path });
    }
    let owner = metadata.uid();
    if owner != our_uid && owner != 0 {
        return Err(RuntimeDirError::ForeignOwner { path, owner });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o002 != 0 {
        return Err(RuntimeDirError::Open { path, mode });
    }
    Ok(())
}

/// Where the directory is when no argument, variable or file says so: `$RUNTIME_DIRECTORY`,
/// `/run/rtpbridge` when it is writable, `$XDG_RUNTIME_DIR/rtpbridge`, `/tmp/rtpbridge-<uid>`.
/// A tool takes the first of these in which one of our sockets lies.
pub(crate) fn search(environment: &[(String, String)], scope: Scope) -> PathBuf {
    search_with(Path::new(SYSTEM_DIR), environment, scope)
}

fn search_with(system: &Path, environment: &[(String, String)], scope: Scope) -> PathBuf {
    let fallback = PathBuf::from(format!("/tmp/rtpbridge-{}", Uid::effective()));
    let system = system.to_path_buf();
    let in_use = |dir: &PathBuf| {
        let sockets = ["admin.sock", "dataplane.sock"];
        sockets.iter().any(|name| dir.join(name).exists())
    };
    let named = named_directories(environment);
    if scope == Scope::Tool {
        let before = named.service.clone().into_iter();
        let mut all = before
            .chain([system.clone()])
            .chain(named.user.clone())
            .chain([fallback.clone()]);
        if let Some(dir) = all.find(in_use) {
            return dir;
        }
    }
    named
        .service
        .or_else(|| writable(&system).then_some(system))
        .or(named.user)
        .unwrap_or(fallback)
}

struct NamedDirectories {
    /// What systemd made for this service; the first when there are several.
    service: Option<PathBuf>,
    /// Below the login session's directory.
    user: Option<PathBuf>,
}

fn named_directories(environment: &[(String, String)]) -> NamedDirectories {
    let value = |wanted: &str| {
        let found = environment.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone())
    };
    let absolute = |text: String| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    let service = value("RUNTIME_DIRECTORY");
    let service = service.and_then(|list| absolute(list.split(':').next()?.to_owned()));
    let user = value("XDG_RUNTIME_DIR").and_then(absolute);
    NamedDirectories {
        service,
        user: user.map(|dir| dir.join("rtpbridge")),
    }
}

/// Whether we could put a socket there, creating the directory where its parent lets us.
fn writable(dir: &Path) -> bool {
    let may_write = |dir: &Path| access(dir, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    match fs::symlink_metadata(dir) {
        Ok(metadata) => metadata.is_dir() && may_write(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            dir.parent().is_some_and(may_write)
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        owned.collect()
    }

    #[test]
    fn the_service_manager_has_the_first_word() {
        let vars = vars(&[
            ("RUNTIME_DIRECTORY", "/run/a:/run/b"),
            ("XDG_RUNTIME_DIR", "/run/user/7"),
        ]);
        assert_eq!(search(&vars, Scope::Both), PathBuf::from("/run/a"));
    }

    #[test]
    fn without_any_name_the_fallback_carries_the_uid() {
        let named = named_directories(&vars(&[("XDG_RUNTIME_DIR", "relative")]));
        assert_eq!(named.user, None);
        let found = search(&[], Scope::Both);
        let fallback = PathBuf::from(format!("/tmp/rtpbridge-{}", Uid::effective()));
        assert!(
            found == fallback || found == Path::new(SYSTEM_DIR),
            "{found:?}"
        );
    }

    #[test]
    fn a_tool_goes_where_a_socket_is() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ours = dir.path().join("rtpbridge");
        fs::create_dir(&ours).expect("directory");
        fs::write(ours.join("admin.sock"), "").expect("file");
        let xdg = dir.path().to_string_lossy().into_owned();
        let vars = vars(&[("RUNTIME_DIRECTORY", "/nowhere"), ("XDG_RUNTIME_DIR", &xdg)]);
        let system = dir.path().join("system");
        let found = |scope| search_with(&system, &vars, scope);
        assert_eq!(found(Scope::Tool), ours);
        assert_eq!(found(Scope::Control), PathBuf::from("/nowhere"));
        fs::create_dir(&system).expect("directory");
        assert_eq!(found(Scope::Tool), ours, "no socket lies in the other");
        fs::write(system.join("dataplane.sock"), "").expect("file");
        assert_eq!(found(Scope::Tool), system);
    }

    #[test]
    fn a_new_directory_is_private() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("a/b");
        create_private(&path).expect("created");
        let mode = fs::metadata(&path).expect("exists").mode() & 0o777;
        assert_eq!(mode, 0o700);
        create_private(&path).expect("a second time is fine");
    }

    #[test]
    fn links_files_and_open_directories_are_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let link = dir.path().join("link");
        symlink(dir.path(), &link).expect("link");
        let refused = create_private(&link);
        assert!(matches!(
            refused,
            Err(RuntimeDirError::NotADirectory { .. })
        ));
        let file = dir.path().join("file");
        fs::write(&file, "").expect("file");
        let refused = create_private(&file);
        assert!(matches!(
            refused,
            Err(RuntimeDirError::NotADirectory { .. })
        ));
        let open = dir.path().join("open");
        fs::create_dir(&open).expect("directory");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("mode");
        assert!(matches!(
            create_private(&open),
            Err(RuntimeDirError::Open { .. })
        ));
    }

    #[test]
    fn another_users_directory_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let metadata = fs::metadata(dir.path()).expect("exists");
        let stranger = metadata.uid() + 1;
        // Seen from another user's side; root's directories are everybody's to use.
        let checked = check_private(dir.path(), &metadata, stranger);
        if metadata.uid() == 0 {
            assert!(checked.is_ok());
        } else {
            assert!(matches!(checked, Err(RuntimeDirError::ForeignOwner { .. })));
        }
    }
}
