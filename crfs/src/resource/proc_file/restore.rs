//! From the records to open files of the container's /proc.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::refused::PROC;
use crate::resource::descriptor::reopen;
use image_format::files::{FileKind, OpenFlags};
use image_format::layout::file_entry;
use image_format::{FileId, Image};
use nix::sys::statfs::fstatfs;
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Opens every file of /proc of an image below `root`, once the processes are there.
///
/// # Errors
/// [`Kind::Incompatible`] when one is not there, or something else stands under its path.
pub(in crate::resource) fn restore_all(
    image: &Image,
    root: BorrowedFd<'_>,
    open: &mut BTreeMap<FileId, OwnedFd>,
) -> Result<(), Failure> {
    for (&id, file) in &image.files {
        let FileKind::Proc(record) = &file.kind else { continue };
        let object = file_entry(id);
        let path = &record.path;
        let mut opened = reopen::open(root, path, file.flags, (libc::S_IFREG, "regular file"), &object)?;
        let magic = fstatfs(&opened).doing(|| format!("{object}: {path}: looking at it"))?.filesystem_type().0;
        if magic != PROC {
            let reason = format!("{object}: {path}: it is no file of the proc file system here");
            return Err(Failure::new(Kind::Incompatible, reason));
        }
        if !file.flags.contains(OpenFlags::O_PATH) {
            opened.seek(SeekFrom::Start(file.position)).doing(|| format!("{object}: setting its position"))?;
        }
        open.insert(id, opened.into());
    }
    Ok(())
}
