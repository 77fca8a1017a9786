//! The worker in the container's network, and in its file system, for as long as sockets are made or asked there.

use crate::failure::{Doing, Failure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chroot, fchdir};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Runs `part` in the network namespace of a process (host pid).
///
/// # Errors
/// When the namespace cannot be entered, or not left again; and what `part` returns.
pub(crate) fn in_network<T>(host: i32, part: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    in_open_network(&open(&format!("/proc/{host}/ns/net"))?, part)
}

/// The same by a descriptor of the namespace.
///
/// # Errors
/// As [`in_network`].
pub(crate) fn in_open_network<T>(theirs: &File, part: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let own = open("/proc/thread-self/ns/net")?;
    if identity(&own)? == identity(theirs)? {
        return part();
    }
    setns(theirs.as_fd(), CloneFlags::CLONE_NEWNET).doing(|| "entering the container's network")?;
    let result = part();
    setns(own.as_fd(), CloneFlags::CLONE_NEWNET).doing(|| "leaving the container's network")?;
    result
}

/// Whether a process (host pid) has the network of the calling thread, and not one of its own.
///
/// # Errors
/// When the process is gone.
pub(crate) fn shares_network(host: i32) -> Result<bool, Failure> {
    Ok(identity(&open("/proc/thread-self/ns/net")?)? == identity(&open(&format!("/proc/{host}/ns/net"))?)?)
}

/// Runs `part` with the mounts of a process (host pid) and `root` as the root directory: paths are the container's. The caller must
/// have one thread, and stands in `/` afterwards.
///
/// # Errors
/// As [`in_network`].
pub(crate) fn in_files<T>(
    host: i32,
    root: BorrowedFd<'_>,
    part: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let own = open("/proc/thread-self/ns/mnt")?;
    let home = directory(Path::new("/"))?;
    let theirs = open(&format!("/proc/{host}/ns/mnt"))?;
    // A thread that filled memory may just be ending, and until then shares what setns is to change.
    unshare(CloneFlags::CLONE_FS).doing(|| "getting directories of its own")?;
    setns(theirs.as_fd(), CloneFlags::CLONE_NEWNS).doing(|| "entering the container's mounts")?;
    let result = change_root(root).and_then(|()| part());
    setns(own.as_fd(), CloneFlags::CLONE_NEWNS).doing(|| "leaving the container's mounts")?;
    change_root(home.as_fd())?;
    result
}

/// Runs `part` with a directory as the root, in the caller's own mounts; for paths that are to lead nowhere.
///
/// # Errors
/// As [`in_network`].
pub(crate) fn in_directory<T>(root: &Path, part: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let home = directory(Path::new("/"))?;
    let result = directory(root).and_then(|root| change_root(root.as_fd())).and_then(|()| part());
    change_root(home.as_fd())?;
    result
}

fn change_root(root: BorrowedFd<'_>) -> Result<(), Failure> {
    fchdir(root).and_then(|()| chroot(".")).doing(|| "changing the worker's root directory")
}

fn directory(path: &Path) -> Result<File, Failure> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    File::options().read(true).custom_flags(flags).open(path).doing(|| format!("{}: opening", path.display()))
}

fn open(path: &str) -> Result<File, Failure> {
    File::open(path).doing(|| format!("{path}: opening"))
}

fn identity(namespace: &File) -> Result<u64, Failure> {
    namespace.metadata().map(|metadata| metadata.ino()).doing(|| "looking at a namespace")
}
