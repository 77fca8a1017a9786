//! From a record to a place.

use crate::failure::Failure;
use crate::resource::descriptor::reopen;
use image_format::FileId;
use image_format::files::{File, OpenFlags, PathOnly, PathType};
use image_format::layout::file_entry;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Opens a place again below `root`, never what stands there.
///
/// # Errors
/// [`crate::failure::Kind::Incompatible`] when it is not there, or something else is.
pub(in crate::resource) fn restore(
    id: FileId,
    file: &File,
    record: &PathOnly,
    root: BorrowedFd<'_>,
) -> Result<OwnedFd, Failure> {
    let expected = match record.file_type {
        PathType::SymbolicLink => (libc::S_IFLNK, "symbolic link"),
        PathType::Fifo => (libc::S_IFIFO, "FIFO"),
        PathType::Socket => (libc::S_IFSOCK, "socket"),
        PathType::BlockDevice => (libc::S_IFBLK, "block device"),
        PathType::CharacterDevice => (libc::S_IFCHR, "character device"),
    };
    let flags = OpenFlags(file.flags.0 | OpenFlags::O_PATH.0);
    Ok(reopen::open(root, &record.path, flags, expected, &file_entry(id))?.into())
}
