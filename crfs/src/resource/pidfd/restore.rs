//! From the record to a pidfd.

use crate::failure::{Doing, Failure};
use crate::resource::descriptor::reopen::set_status;
use image_format::FileId;
use image_format::files::{File, Pidfd};
use image_format::layout::file_entry;
use std::os::fd::{AsFd, OwnedFd};

/// Makes a pidfd in the calling process. `host` is the process as the host numbers it.
///
/// # Errors
/// When the process is not there.
pub fn restore(id: FileId, file: &File, record: &Pidfd, host: i32) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let pidfd = crfs_sys::pidfd::open(nix::unistd::Pid::from_raw(host), record.thread);
    let pidfd = pidfd.doing(|| format!("{object}: opening a pidfd"))?;
    set_status(pidfd.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
    Ok(pidfd)
}
