//! From a record to an open device.

use super::is_carried;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen;
use image_format::FileId;
use image_format::files::{Device, File};
use image_format::layout::file_entry;
use nix::sys::stat::makedev;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// Opens a device again below `root`.
///
/// # Errors
/// [`Kind::BadImage`] for a device that keeps state: opening one can have effects. [`Kind::Incompatible`] when the path is not
/// that device here.
pub(in crate::resource) fn restore(
    id: FileId,
    file: &File,
    record: &Device,
    root: BorrowedFd<'_>,
) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let Device { path, major, minor } = record;
    if !is_carried(*major, *minor) {
        let reason = format!("{object}: device {major}:{minor} cannot be restored");
        return Err(Failure::new(Kind::BadImage, reason));
    }
    let there = reopen::look(root, path).and_then(|there| there.metadata());
    let there =
        there.map_err(|error| Failure::new(Kind::Incompatible, format!("{object}: {path}: not found: {error}")))?;
    if there.mode() & libc::S_IFMT != libc::S_IFCHR || there.rdev() != makedev((*major).into(), (*minor).into()) {
        let reason = format!("{object}: {path} is not the character device {major}:{minor} here");
        return Err(Failure::new(Kind::Incompatible, reason));
    }
    let opened = reopen::open(root, path, file.flags, (libc::S_IFCHR, "character device"), &object)?;
    let here = opened.metadata().doing(|| format!("{object}: {path}: looking at it"))?;
    if here.rdev() != there.rdev() {
        return Err(Failure::new(Kind::Incompatible, format!("{object}: {path} is being replaced at this moment")));
    }
    Ok(opened.into())
}
