//! From the record to an open namespace.

use crate::failure::{Doing, Failure};
use crate::resource::descriptor::reopen::{check_flags, set_status};
use image_format::FileId;
use image_format::files::{File, OpenFlags};
use image_format::layout::file_entry;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, OwnedFd};

/// Opens a namespace in the calling process, by a path that leads to it.
///
/// # Errors
/// [`crate::failure::Kind::BadImage`] for flags that no open file has; when it is not there.
pub fn restore(id: FileId, file: &File, path: &str) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    check_flags(file.flags, &object)?;
    let is_place = file.flags.contains(OpenFlags::O_PATH);
    let mode = match is_place {
        true => OFlag::O_PATH,
        false if file.flags.contains(OpenFlags::O_RDWR) => OFlag::O_RDWR,
        false if file.flags.contains(OpenFlags::O_WRONLY) => OFlag::O_WRONLY,
        false => OFlag::O_RDONLY,
    };
    let opened = open(path, mode | OFlag::O_CLOEXEC, Mode::empty());
    let opened = opened.doing(|| format!("{object}: {path}: opening"))?;
    if !is_place {
        set_status(opened.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
    }
    Ok(opened)
}
