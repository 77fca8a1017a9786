//! Putting descriptors into a process: pulled from the worker one by one, under their numbers.

use crate::failure::{Failure, Kind};
use crfs_tracee::Batch;
use image_format::process::Fd;
use image_format::{FileId, layout};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

/// The calls that give a process exactly these descriptors, and `link`, a pidfd of the worker that holds the descriptions.
///
/// # Errors
/// When a description was not opened, which is a mistake of the caller.
pub fn place_all(batch: &mut Batch, fds: &[Fd], opened: &BTreeMap<FileId, OwnedFd>, link: u32) -> Result<(), Failure> {
    close_all(batch, link);
    let mut fds: Vec<&Fd> = fds.iter().collect();
    fds.sort_by_key(|fd| fd.fd);
    for (placed, fd) in (0..).zip(fds) {
        let missing = || Failure::new(Kind::System, format!("{}: was not opened", layout::file_entry(fd.file)));
        let source = opened.get(&fd.file).ok_or_else(missing)?.as_raw_fd();
        let pulled = batch.call(libc::SYS_pidfd_getfd, &[link.into(), source.into(), 0u32.into()], "pidfd_getfd");
        let cloexec = if fd.cloexec { libc::O_CLOEXEC } else { 0 };
        // A new descriptor gets the lowest free number: this one's own, unless there is a gap below.
        if placed == fd.fd {
            // It comes close-on-exec.
            if !fd.cloexec {
                batch.call(libc::SYS_fcntl, &[pulled.into(), libc::F_SETFD.into(), 0u32.into()], "fcntl(F_SETFD)");
            }
        } else {
            batch.call(libc::SYS_dup3, &[pulled.into(), fd.fd.into(), cloexec.into()], "dup3");
            batch.call(libc::SYS_close, &[pulled.into()], "close");
        }
    }
    Ok(())
}

/// The calls that close every descriptor but `link`.
pub fn close_all(batch: &mut Batch, link: u32) {
    batch.call(libc::SYS_close_range, &[0u32.into(), (link - 1).into(), 0u32.into()], "close_range");
    batch.call(libc::SYS_close_range, &[(link + 1).into(), u32::MAX.into(), 0u32.into()], "close_range");
}

/// The call by which a thread leaves its process's descriptor table for one of its own.
pub fn leave(batch: &mut Batch) {
    batch.call(libc::SYS_unshare, &[libc::CLONE_FILES.into()], "unshare(CLONE_FILES)");
}
