//! From the record to a pidfd.

use crate::failure::{Doing, Failure};
use crate::resource::container::inside::{PID, inside};
use crate::resource::descriptor::reopen::set_status;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use image_format::FileId;
use image_format::files::{File, Pidfd};
use image_format::layout::file_entry;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::os::fd::{AsFd, OwnedFd};

/// Makes a pidfd in the calling process, which must have one thread. `host` is the process as the host numbers it, None for one that was
/// waited for; `first` is the container's first process.
///
/// # Errors
/// When the process is not there.
pub fn restore(id: FileId, file: &File, record: &Pidfd, host: Option<i32>, first: i32) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let pidfd = match host {
        Some(host) => crfs_sys::pidfd::open(Pid::from_raw(host), record.thread).doing(|| "opening a pidfd"),
        // Who is of another pid namespace is told otherwise that it is not there.
        None => inside(first, &[PID], || ended(record.thread).doing(|| "making a process to end")),
    };
    let pidfd = pidfd.map_err(|failure| failure.within(object.clone()))?;
    set_status(pidfd.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
    Ok(pidfd)
}

/// A pidfd of a process that has ended and was waited for.
fn ended(thread: bool) -> nix::Result<OwnedFd> {
    match fork_into(&CloneArgs::default())? {
        Forked::Child => exit_now(0),
        Forked::Parent { child, .. } => {
            let pidfd = crfs_sys::pidfd::open(child, thread);
            waitpid(child, Some(WaitPidFlag::__WALL))?;
            pidfd
        }
    }
}
