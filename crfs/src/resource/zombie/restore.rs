//! Makes a zombie again: what a task must be like before it ends, and where it may leave the core dump that its status tells of.

use crate::failure::{Doing, Failure};
use crfs_sys::limits::{self, Limit};
use crfs_tracee::{Batch, HostPid};
use image_format::Bytes;
use image_format::process::{EndedThread, Zombie};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const PR_SET_PDEATHSIG: u64 = 1;
const PR_SET_DUMPABLE: u64 = 4;
const PR_SET_NAME: u64 = 15;
/// In a wait(2) status: a core was dumped.
const CORE: u32 = 0x80;
const RLIMIT_CORE: u32 = 4;
/// More than headers and registers need, which is all that goes in.
const MOST: u64 = 1 << 20;

/// Whether its status says that it dumped core, of which the kernel is told by dumping one only.
#[must_use]
pub fn dumps_core(zombie: &Zombie) -> bool {
    zombie.status & 0x7f != 0 && zombie.status & CORE != 0
}

/// The calls by which a task takes the name and the ids that the zombie had.
pub fn attributes(batch: &mut Batch, zombie: &Zombie, dumpable: bool) {
    identity(batch, &zombie.name, zombie.uid, zombie.gid);
    if dumpable {
        batch.call(libc::SYS_prctl, &[PR_SET_DUMPABLE.into(), 1u64.into()], "prctl(PR_SET_DUMPABLE)");
    }
}

/// The calls by which a first thread that is to end before the others takes its name and ids. The signal that it gets when the
/// worker ends would end the others too.
pub fn attributes_of_thread(batch: &mut Batch, ended: &EndedThread) {
    identity(batch, &ended.name, ended.uid, ended.gid);
    batch.call(libc::SYS_prctl, &[PR_SET_PDEATHSIG.into(), 0u64.into()], "prctl(PR_SET_PDEATHSIG)");
}

fn identity(batch: &mut Batch, name: &Bytes, uid: [u32; 4], gid: [u32; 4]) {
    let mut name = name.0.clone();
    name.push(0);
    let name = batch.data(&name);
    batch.call(libc::SYS_prctl, &[PR_SET_NAME.into(), name.into()], "prctl(PR_SET_NAME)");
    let [real, effective, saved, _] = gid;
    batch.call(libc::SYS_setresgid, &[real.into(), effective.into(), saved.into()], "setresgid");
    let [real, effective, saved, _] = uid;
    batch.call(libc::SYS_setresuid, &[real.into(), effective.into(), saved.into()], "setresuid");
}

/// A directory for a core dump that nobody wants: wherever core_pattern leads, below this or nowhere. Removed when dropped.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    directory: OwnedFd,
}

impl Place {
    /// Makes the directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(path: &Path) -> Result<Self, Failure> {
        let doing = || format!("{}: making a directory for core dumps", path.display());
        match fs::create_dir(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error).doing(doing),
            _ => {}
        }
        // Whoever the zombie was writes there.
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).doing(doing)?;
        let directory = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(path)
            .doing(doing)?;
        Ok(Place { path: path.to_owned(), directory: directory.into() })
    }

    /// The calls by which a task makes it its root and working directory; `link` is its pidfd of the worker.
    pub fn enter(&self, batch: &mut Batch, link: u32) {
        let fd = self.directory.as_raw_fd();
        let fd = batch.call(libc::SYS_pidfd_getfd, &[link.into(), fd.into(), 0u64.into()], "pidfd_getfd");
        let here = batch.data(b".\0");
        batch.call(libc::SYS_fchdir, &[fd.into()], "fchdir");
        batch.call(libc::SYS_chroot, &[here.into()], "chroot");
    }

    /// Lets the task dump core: hardly more than registers.
    ///
    /// # Errors
    /// When the task is gone.
    pub fn allow(&self, task: HostPid) -> Result<(), Failure> {
        let filter = format!("/proc/{}/coredump_filter", task.raw());
        fs::write(&filter, "0").doing(|| format!("{filter}: writing"))?;
        let limit = limits::get(task.pid(), RLIMIT_CORE).doing(|| "reading RLIMIT_CORE")?;
        let limit = Limit { soft: MOST.min(limit.hard), hard: limit.hard };
        limits::set(task.pid(), RLIMIT_CORE, limit).map(drop).doing(|| "setting RLIMIT_CORE")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is removed with the container.
        let _ = fs::remove_dir_all(&self.path);
    }
}
