//! From the records of the ends of a pipe with a name to the FIFO that stands under its path.

use super::restore::{End, check, fill};
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen;
use image_format::FileId;
use image_format::files::{Fifo, FileKind, OpenFlags};
use image_format::layout::file_entry;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What must stand under the path.
const EXPECTED: (u32, &str) = (libc::S_IFIFO, "FIFO");

/// Opens all ends of a FIFO below `root`, and fills it. `staging` holds `files/pipe.N`.
///
/// # Errors
/// [`Kind::BadImage`] when the ends contradict each other or the data; [`Kind::Incompatible`] when the FIFO is not there, somebody
/// else has it open, or the capacity is not allowed.
pub(in crate::resource) fn restore_fifo(
    ends: &[End<'_>],
    staging: &Path,
    root: BorrowedFd<'_>,
) -> Result<Vec<(FileId, OwnedFd)>, Failure> {
    let data = check(ends, staging)?;
    let object = file_entry(ends[0].id);
    let first = fifo(ends[0])?;
    let place = reopen::open(root, &first.path, OpenFlags::O_PATH, EXPECTED, &object)?;
    let inode = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
    let here = inode(&place).doing(|| format!("{object}: looking at it"))?;
    // What is queued lasts as long as one end is open.
    let _reader = alone(&place).doing(|| format!("{object}: looking at it"))?.ok_or_else(|| {
        Failure::new(
            Kind::Incompatible,
            format!("{object}: {}: somebody else has it open; end who has, or edit the path", first.path),
        )
    })?;
    let writer = through(&place, false, true).doing(|| format!("{object}: opening it for writing"))?;
    fill(writer.as_fd(), &first.pipe, &data, &object)?;
    let open = |end: &End<'_>| {
        let object = file_entry(end.id);
        let record = fifo(*end)?;
        let opened = reopen::open(root, &record.path, end.file.flags, EXPECTED, &object)?;
        if inode(&opened).doing(|| format!("{object}: looking at it"))? != here {
            let reason = format!(
                "{object}: {}: it is another FIFO than {}; give all ends of one pipe one path",
                record.path, first.path
            );
            return Err(Failure::new(Kind::Incompatible, reason));
        }
        Ok((end.id, OwnedFd::from(opened)))
    };
    let awaits_writer = |end: &&End<'_>| fifo(**end).is_ok_and(|fifo| fifo.awaits_writer);
    let mut opened: Vec<_> = ends.iter().filter(|end| !awaits_writer(end)).map(open).collect::<Result<_, _>>()?;
    drop(writer);
    for end in ends.iter().filter(awaits_writer) {
        opened.push(open(end)?);
    }
    Ok(opened)
}

fn fifo(end: End<'_>) -> Result<&Fifo, Failure> {
    match &end.file.kind {
        FileKind::Fifo(fifo) => Ok(fifo),
        _ => Err(Failure::new(Kind::System, format!("{}: the other ends have a name", file_entry(end.id)))),
    }
}

/// Opens a FIFO for reading; None when somebody has it open. Neither question waits, nor takes anything away.
fn alone(place: &File) -> std::io::Result<Option<File>> {
    match through(place, false, true) {
        // Nobody reads.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {}
        Err(error) => return Err(error),
        Ok(_) => return Ok(None),
    }
    let mut reader = through(place, true, false)?;
    if crfs_sys::pipe::queued(reader.as_fd())? > 0 {
        return Ok(None);
    }
    match reader.read(&mut [0; 1]) {
        // Nobody writes.
        Ok(0) => Ok(Some(reader)),
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(None),
    }
}

/// Opens what a descriptor names, which never waits here.
fn through(place: &File, read: bool, write: bool) -> std::io::Result<File> {
    let link = format!("/proc/self/fd/{}", place.as_raw_fd());
    File::options().read(read).write(write).custom_flags(libc::O_NONBLOCK).open(link)
}
