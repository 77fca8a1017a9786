//! Finds a command as the container will find it, before anything is made for it.

use super::RunError;
use crate::failure::{Failure, Kind};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fstat};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where a command is searched that has no slash, when PATH is not set: as execvp(3) does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The path to execute for `command`, as the container will see it.
///
/// `root` is the container's root, `directory` the working directory it will have, `path` the PATH it will have.
///
/// # Errors
/// [`RunError::CommandNotFound`] and [`RunError::NotExecutable`], as a shell tells them apart (127 and 126).
pub(super) fn resolve(
    command: &OsStr,
    root: Option<&Path>,
    directory: &Path,
    path: Option<&OsStr>,
) -> Result<PathBuf, RunError> {
    let root = root.unwrap_or(Path::new("/"));
    let root = open(AT_FDCWD, root, ResolveFlag::empty())
        .map_err(|errno| RunError::Failed(Failure::new(Kind::System, format!("{}: {errno}", root.display()))))?;
    let directory =
        if open(&root, directory, ResolveFlag::RESOLVE_IN_ROOT).is_ok() { directory } else { Path::new("/") };
    let candidates: Vec<PathBuf> = if command.as_bytes().contains(&b'/') {
        vec![PathBuf::from(command)]
    } else {
        let default = OsString::from(DEFAULT_PATH);
        // An empty part of PATH means the working directory.
        std::env::split_paths(path.unwrap_or(&default))
            .map(|part| if part.as_os_str().is_empty() { PathBuf::from(".") } else { part })
            .map(|part| part.join(command))
            .collect()
    };
    let mut refused = None;
    for candidate in candidates {
        match examine(&root, &directory.join(&candidate)) {
            Ok(()) => return Ok(candidate),
            Err(Some(why)) => refused = refused.or(Some((candidate, why))),
            Err(None) => {}
        }
    }
    Err(match refused {
        Some((candidate, why)) => {
            RunError::NotExecutable(Failure::new(Kind::System, format!("command {}: {why}", candidate.display())))
        }
        None => RunError::CommandNotFound(Failure::new(
            Kind::NotFound,
            format!("command {}: not found; give its path, or look at PATH", command.display()),
        )),
    })
}

/// Whether a file can be executed: `Err(None)` it is not there, `Err(Some)` it cannot.
fn examine(root: &OwnedFd, path: &Path) -> Result<(), Option<&'static str>> {
    let file = open(root, path, ResolveFlag::RESOLVE_IN_ROOT).map_err(|errno| match errno {
        nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR => None,
        nix::errno::Errno::ELOOP => Some("too many symbolic links"),
        _ => Some("cannot be opened"),
    })?;
    let mode = fstat(&file).map_err(|_| Some("cannot be looked at"))?.st_mode;
    match mode & libc::S_IFMT {
        libc::S_IFREG if mode & 0o111 != 0 => Ok(()),
        libc::S_IFREG => Err(Some("permission denied: it has no execute permission (chmod +x)")),
        libc::S_IFDIR => Err(Some("it is a directory")),
        _ => Err(Some("it is no regular file")),
    }
}

fn open(at: impl std::os::fd::AsFd, path: &Path, flags: ResolveFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).mode(Mode::empty()).resolve(flags);
    openat2(at, path, how)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn root_with_programs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("opt/bin")).unwrap();
        std::fs::create_dir_all(root.path().join("work")).unwrap();
        for (name, mode) in [("opt/bin/tool", 0o755), ("opt/bin/data", 0o644), ("work/here", 0o755)] {
            std::fs::write(root.path().join(name), "").unwrap();
            std::fs::set_permissions(root.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        // Absolute, so it must be read below the container's root and not the host's.
        symlink("/opt/bin/tool", root.path().join("link")).unwrap();
        root
    }

    #[test]
    fn finds_what_the_container_will_find() {
        let root = root_with_programs();
        let find = |command: &str, path: &str| {
            resolve(OsStr::new(command), Some(root.path()), Path::new("/work"), Some(OsStr::new(path)))
        };
        assert_eq!(find("tool", "/bin:/opt/bin").unwrap(), Path::new("/opt/bin/tool"));
        assert_eq!(find("/link", "").unwrap(), Path::new("/link"));
        assert_eq!(find("here", ":/bin").unwrap(), Path::new("./here"));
        assert_eq!(find("./here", "").unwrap(), Path::new("./here"));
        assert!(matches!(find("here", "/bin"), Err(RunError::CommandNotFound(_))));
        assert!(matches!(find("sh", "/bin:/usr/bin"), Err(RunError::CommandNotFound(_))));
        assert!(matches!(find("data", "/opt/bin"), Err(RunError::NotExecutable(_))));
        assert!(matches!(find("/opt", ""), Err(RunError::NotExecutable(_))));
    }

    #[test]
    fn a_working_directory_that_is_missing_is_the_root() {
        let root = root_with_programs();
        let found = resolve(OsStr::new("opt/bin/tool"), Some(root.path()), Path::new("/nowhere"), None);
        assert_eq!(found.unwrap(), Path::new("opt/bin/tool"));
    }
}
