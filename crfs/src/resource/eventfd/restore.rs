//! From the record to an eventfd.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen::set_status;
use image_format::FileId;
use image_format::files::{Eventfd, File};
use image_format::layout::file_entry;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, OwnedFd};

/// Makes an eventfd.
///
/// # Errors
/// [`Kind::BadImage`] for a counter that cannot be.
pub(in crate::resource) fn restore(id: FileId, file: &File, record: &Eventfd) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    if record.count.0 == u64::MAX {
        return Err(Failure::new(Kind::BadImage, format!("{object}: count: the highest is 0xfffffffffffffffe")));
    }
    let mut flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    flags.set(EfdFlags::EFD_SEMAPHORE, record.semaphore);
    let eventfd = EventFd::from_flags(flags).doing(|| format!("{object}: creating an eventfd"))?;
    eventfd.write(record.count.0).doing(|| format!("{object}: setting its counter"))?;
    set_status(eventfd.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
    Ok(eventfd.into())
}
