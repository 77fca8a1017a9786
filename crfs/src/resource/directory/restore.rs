//! From a record to an open directory.

use super::deleted;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen;
use image_format::files::{Directory, File};
use image_format::layout::file_entry;
use image_format::{FileId, Timespec};
use nix::fcntl::OFlag;
use std::io::{Seek, SeekFrom};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// Opens a directory again below `root`, at its position.
///
/// # Errors
/// [`Kind::Incompatible`] when it is not there, or changed in the middle of its listing.
pub(in crate::resource) fn restore(
    id: FileId,
    file: &File,
    record: &Directory,
    root: BorrowedFd<'_>,
) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    if let Some(gone) = &record.deleted {
        reopen::check_flags(file.flags, &object)?;
        let flags = i32::try_from(file.flags.0).doing(|| format!("{object}: its flags"))?;
        return deleted::make(root, &record.path, gone, OFlag::from_bits_retain(flags))
            .doing(|| format!("{object}: {}: making a directory that was deleted", record.path));
    }
    let mut opened = reopen::open(root, &record.path, file.flags, (libc::S_IFDIR, "directory"), &object)?;
    let Some(listing) = &record.listing else { return Ok(opened.into()) };
    let here = opened.metadata().doing(|| format!("{object}: {}: looking at it", record.path))?;
    let modified = Timespec { sec: here.mtime(), nsec: u32::try_from(here.mtime_nsec()).unwrap_or(0) };
    if (here.ino(), modified) != (listing.inode, listing.modified) {
        let reason = format!(
            "{object}: {} was modified since the checkpoint, or is another directory, and the program is in the middle of listing it; put it back as it was, with its time",
            record.path
        );
        return Err(Failure::new(Kind::Incompatible, reason));
    }
    match opened.seek(SeekFrom::Start(file.position)) {
        Ok(_) => Ok(opened.into()),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let reason = format!("{object}: position {} is none that the directory can have", file.position);
            Err(Failure::new(Kind::BadImage, reason))
        }
        Err(error) => Err(error).doing(|| format!("{object}: setting its position")),
    }
}
