//! From the record to a ring.

use super::shape;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen::set_status;
use crfs_sys::io_uring::{Ring, SETUP_R_DISABLED, Shape};
use image_format::FileId;
use image_format::files::File;
use image_format::io_uring::{IoUring, R_DISABLED, SINGLE_ISSUER};
use image_format::layout::{file_entry, socket_data};
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Makes a ring. `staging` has its memory. One that belongs to a thread is left disabled, for [`super::issuer`].
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
    let shape = shape(record);
    // It belongs to whoever enables it.
    let is_owned = record.has(SINGLE_ISSUER);
    let flags = shape.flags | if is_owned { SETUP_R_DISABLED } else { 0 };
    let ring = Ring::new(Shape { flags, ..shape }).map_err(|errno| {
        let why = match errno {
            Errno::EPERM => "kernel.io_uring_disabled forbids it".to_owned(),
            Errno::EMEDIUMTYPE => "rings are laid out in another way on this kernel".to_owned(),
            errno => errno.desc().to_owned(),
        };
        Failure::new(Kind::Incompatible, format!("{object}: making an io_uring: {why}"))
    })?;
    let is_enabled = !record.has(R_DISABLED);
    if is_owned && is_enabled && record.issuer.is_none() {
        // Its thread has ended: that of this worker's does as well.
        ring.enable().doing(|| format!("{object}: enabling the new io_uring"))?;
    }
    if record.issuer.is_none() {
        if is_enabled {
            ring.advance(record.submitted, record.completed)
                .doing(|| format!("{object}: passing requests through the new io_uring"))?;
        }
        set_memory(id, &ring, &memory(id, staging)?)?;
    }
    let fd = ring.into_fd();
    set_status(fd.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
    Ok(fd)
}

/// The memory of a ring, as the image has it.
pub(super) fn memory(id: FileId, staging: &Path) -> Result<Vec<u8>, Failure> {
    let data = staging.join(socket_data(id));
    std::fs::read(&data).doing(|| format!("{}: reading", data.display()))
}

/// Lets the memory of a ring, which has come to where it was, be what it was.
pub(super) fn set_memory(id: FileId, ring: &Ring, memory: &[u8]) -> Result<(), Failure> {
    ring.write(memory).doing(|| format!("{}: writing the memory of the io_uring", file_entry(id)))
}
