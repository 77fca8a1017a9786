//! From the record to a signalfd.

use crate::failure::{Doing, Failure};
use crate::resource::descriptor::reopen::set_status;
use image_format::FileId;
use image_format::files::{File, Signalfd};
use image_format::layout::file_entry;
use std::os::fd::{AsFd, OwnedFd};

/// Makes a signalfd.
///
/// # Errors
/// When the system refuses.
pub(in crate::resource) fn restore(id: FileId, file: &File, record: &Signalfd) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let signalfd = crfs_sys::signalfd::create(record.mask.0).doing(|| format!("{object}: creating a signalfd"))?;
    set_status(signalfd.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
    Ok(signalfd)
}
