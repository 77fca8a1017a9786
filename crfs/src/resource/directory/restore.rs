//! From a record to an open directory.

use crate::failure::{Failure, Kind};
use crate::resource::descriptor::reopen;
use image_format::FileId;
use image_format::files::{Directory, File};
use image_format::layout::file_entry;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Opens a directory again below `root`.
///
/// # Errors
/// [`Kind::Incompatible`] when it is not there; [`Kind::BadImage`] for an offset.
pub(in crate::resource) fn restore(
    id: FileId,
    file: &File,
    record: &Directory,
    root: BorrowedFd<'_>,
) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    if file.position != 0 {
        return Err(Failure::new(Kind::BadImage, format!("{object}: position: a directory is restored at 0 only")));
    }
    Ok(reopen::open(root, &record.path, file.flags, (libc::S_IFDIR, "directory"), &object)?.into())
}
