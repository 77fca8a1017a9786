//! From the record to a ring.

use super::shape;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen::set_status;
use crfs_sys::io_uring::Ring;
use image_format::FileId;
use image_format::files::File;
use image_format::io_uring::IoUring;
use image_format::layout::{file_entry, socket_data};
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Makes a ring. `staging` has its memory.
///
/// # Errors
/// [`Kind::Incompatible`] where this kernel has no such ring.
pub(in crate::resource) fn restore(
    id: FileId,
    file: &File,
    record: &IoUring,
    staging: &Path,
) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let data = staging.join(socket_data(id));
    let memory = std::fs::read(&data).doing(|| format!("{}: reading", data.display()))?;
    let ring = Ring::new(shape(record)).map_err(|errno| {
        let why = match errno {
            Errno::EPERM => "kernel.io_uring_disabled forbids it".to_owned(),
            Errno::EMEDIUMTYPE => "rings are laid out in another way on this kernel".to_owned(),
            errno => errno.desc().to_owned(),
        };
        Failure::new(Kind::Incompatible, format!("{object}: making an io_uring: {why}"))
    })?;
    ring.advance(record.submitted, record.completed)
        .doing(|| format!("{object}: passing requests through the new io_uring"))?;
    ring.write(&memory).doing(|| format!("{object}: writing the memory of the io_uring"))?;
    let fd = ring.into_fd();
    set_status(fd.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
    Ok(fd)
}
