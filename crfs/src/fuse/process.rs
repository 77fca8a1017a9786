//! What a server process needs to know of the machine and of other servers before it mounts.

use crate::failure::{Doing, Failure, Kind};
use crate::freezer::Cgroup;
use crate::mountinfo::mounts;
use crate::registry::{Registry, create_dir};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Held as long as a server of the run directory lives, by the kernel: no stale file can be taken for it.
#[derive(Debug)]
pub struct ServerLock {
    _lock: Flock<File>,
}

impl ServerLock {
    /// Claims the run directory.
    ///
    /// # Errors
    /// [`Kind::Exists`] while another server has it, saying where that is mounted.
    pub fn take(registry: &Registry) -> Result<Self, Failure> {
        create_dir(registry.run_dir())?;
        let path = registry.run_dir().join("server.lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let mut file = open.doing(|| format!("{}: opening the lock", path.display()))?;
        let end = Instant::now() + ENDING;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(ServerLock { _lock: lock }),
                Err((file, Errno::EWOULDBLOCK)) => file,
                Err((_, errno)) => return Err(errno).doing(|| format!("{}: locking", path.display())),
            };
            // One that is no longer mounted is ending: `umount` returns before it has.
            let serving = registry.server().filter(|server| is_ours(&server.mountpoint));
            if let Some(server) = serving {
                return Err(Self::taken(
                    registry,
                    &format!(" (process {}, mounted on {})", server.pid, server.mountpoint.display()),
                ));
            }
            if Instant::now() > end {
                return Err(Self::taken(registry, ""));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn taken(registry: &Registry, which: &str) -> Failure {
        let run = registry.run_dir().display();
        let text = "serves this run directory; unmount it first, or set CRFS_RUN_DIR to another directory";
        Failure::new(Kind::Exists, format!("{run}: another server{which} {text}"))
    }
}

/// How long a server that is ending is waited for.
const ENDING: Duration = Duration::from_secs(3);

/// What stands at a mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountState {
    /// A directory.
    Free,
    /// A mount of a server of ours that answers.
    Served,
    /// A mount of a server that is dead.
    Stale,
}

/// Looks at a mount point; makes the directory where there is none.
///
/// # Errors
/// When it is no directory, or cannot be made.
pub fn mount_state(mountpoint: &Path) -> Result<MountState, Failure> {
    match fs::metadata(mountpoint) {
        Ok(metadata) if !metadata.is_dir() => {
            Err(Failure::new(Kind::BadName, format!("{}: is no directory; mount on one", mountpoint.display())))
        }
        Ok(_) => Ok(if is_ours(mountpoint) { MountState::Served } else { MountState::Free }),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Ok(MountState::Stale),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let make = fs::DirBuilder::new().mode(0o700).create(mountpoint);
            make.doing(|| format!("{}: making the directory to mount on", mountpoint.display()))?;
            Ok(MountState::Free)
        }
        Err(error) => Err(error).doing(|| format!("{}: looking at the mount point", mountpoint.display())),
    }
}

fn is_ours(mountpoint: &Path) -> bool {
    let Ok(path) = fs::canonicalize(mountpoint) else { return false };
    let Ok(text) = fs::read("/proc/self/mountinfo") else { return false };
    mounts(&text).iter().any(|mount| mount.path == path && mount.is_crfs())
}

/// Detaches the mount that a dead server left.
///
/// # Errors
/// The system's.
pub fn take_over(mountpoint: &Path) -> Result<(), Failure> {
    umount2(mountpoint, MntFlags::MNT_DETACH)
        .doing(|| format!("{}: detaching the mount that a dead server left", mountpoint.display()))
}

fn lacks(what: impl Into<String>) -> Result<(), Failure> {
    Err(Failure::new(Kind::Unsupported, what))
}

/// Whether this process may do what a server does.
///
/// # Errors
/// [`Kind::Unsupported`] unless it is root's.
pub fn check_privilege() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    lacks("crfs must run as root: it reads the memory of other users' programs; use sudo")
}

/// Whether this machine has what a server needs: FUSE and the cgroup v2 freezer. To be called by the one server of the registry.
///
/// # Errors
/// [`Kind::Unsupported`] with the first thing that is missing and what to do about it.
pub fn check_machine(registry: &Registry) -> Result<(), Failure> {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => {}
        Err(error) => {
            return lacks(format!(
                "/dev/fuse: {error}; the kernel's FUSE is needed: `modprobe fuse`, and in a container `--device /dev/fuse`"
            ));
        }
    }
    // Freezing was added to the cgroup v2 hierarchy in Linux 5.2; the root group has no such file, so that a group is made.
    let probe = Cgroup::of(registry, ".probe")?;
    probe.create()?;
    let freezer = probe.path().join("cgroup.freeze").exists();
    let removed = probe.remove(std::time::Duration::from_secs(1));
    if !freezer {
        return lacks(format!("{}: has no cgroup.freeze; Linux 5.2 or later is needed", probe.path().display()));
    }
    removed
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_server_a_run_directory() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path().join("run"), dir.path().join("staging"));
        let first = ServerLock::take(&registry).unwrap();
        let refused = ServerLock::take(&registry).unwrap_err();
        assert_eq!(refused.kind, Kind::Exists);
        assert!(refused.to_string().contains("CRFS_RUN_DIR"), "{refused}");
        drop(first);
        ServerLock::take(&registry).unwrap();
    }

    #[test]
    fn mount_points() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(mount_state(dir.path()).unwrap(), MountState::Free);
        let missing = dir.path().join("new");
        assert_eq!(mount_state(&missing).unwrap(), MountState::Free);
        assert!(missing.is_dir());
        let nowhere = mount_state(&dir.path().join("no/where")).unwrap_err();
        assert!(nowhere.to_string().contains("no/where: making the directory"), "{nowhere}");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(mount_state(&file).unwrap_err().kind, Kind::BadName);
    }
}
