//! From a record to an open file, if the file is still what the program believes.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen;
use crate::resource::descriptor::seen::is_writable;
use crate::resource::unnamed::Made;
use image_format::files::{File, IfChanged, OpenFlags, RegularFile, Unnamed};
use image_format::layout::file_entry;
use image_format::{FileId, Timespec};
use std::io::{Seek, SeekFrom};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a regular file again below `root`, and tells what a user should know although it works.
///
/// # Errors
/// [`Kind::Incompatible`] with what differs.
pub(in crate::resource) fn restore(
    id: FileId,
    file: &File,
    record: &RegularFile,
    root: BorrowedFd<'_>,
    looked: &reopen::Looked,
) -> Result<(OwnedFd, Option<String>), Failure> {
    let object = file_entry(id);
    let expected = (libc::S_IFREG, "regular file");
    let (mut opened, metadata) = reopen::open_seen(root, &record.path, file.flags, expected, &object, looked)?;
    if file.flags.contains(OpenFlags::O_PATH) {
        return Ok((opened.into(), None));
    }
    let mut position = file.position;
    let note = match &record.if_changed {
        IfChanged::Default => compare(&object, file, record, &metadata)?,
        _ if is_same(record, &metadata) => None,
        IfChanged::Strict | IfChanged::Replace(_) => {
            let (path, was, is) = (&record.path, record.size, metadata.size());
            let reason = format!(
                "{object}: {path} was modified since the checkpoint (it had {was} bytes, and has {is}), and its `if_changed` lets nothing pass; put it back, or edit that"
            );
            return Err(Failure::new(Kind::Incompatible, reason));
        }
        IfChanged::Ignore => {
            let path = &record.path;
            Some(format!("{object}: {path} was modified since the checkpoint, which its `if_changed` ignores"))
        }
        IfChanged::Append => {
            position = metadata.size();
            let path = &record.path;
            Some(format!("{object}: {path} was modified since the checkpoint; writing goes on at its end"))
        }
    };
    seek(&mut opened, position, &object)?;
    Ok((opened.into(), note))
}

/// Whether a file is as it was, as far as size and time tell.
pub(super) fn is_same(record: &RegularFile, now: &std::fs::Metadata) -> bool {
    let ns = i128::from(now.mtime()) * 1_000_000_000 + i128::from(now.mtime_nsec());
    (now.size(), Timespec::from_ns(ns)) == (record.size, record.modified)
}

/// Opens a file again that the image holds.
///
/// # Errors
/// [`Kind::BadImage`] for flags that no open file has.
pub(in crate::resource) fn restore_unnamed(
    id: FileId,
    file: &File,
    record: &Unnamed,
    made: &Made,
) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    reopen::check_flags(file.flags, &object)?;
    // By a link of /proc, which must be followed.
    let flags = i32::try_from(file.flags.0 & !OpenFlags::O_NOFOLLOW.0).doing(|| format!("{object}: its flags"))?;
    let mut opened = std::fs::File::from(made.open(record.file, flags)?);
    seek(&mut opened, file.position, &object)?;
    Ok(opened.into())
}

/// A note when the file is another and that does no harm.
fn compare(
    object: &str,
    file: &File,
    record: &RegularFile,
    now: &std::fs::Metadata,
) -> Result<Option<String>, Failure> {
    let path = &record.path;
    let unfit = |reason: String| {
        Failure::new(
            Kind::Incompatible,
            format!("{object}: {path} {reason}. Put the file back as it was, or name another path in the image"),
        )
    };
    let (was, is) = (record.size, now.size());
    if is < was {
        return Err(unfit(format!("has shrunk from {was} to {is} bytes since the checkpoint")));
    }
    let writable = is_writable(file.flags);
    if is > was {
        if !writable {
            return Err(unfit(format!(
                "has grown from {was} to {is} bytes since the checkpoint, and the program reads it"
            )));
        }
        let on = if file.flags.contains(OpenFlags::O_APPEND) {
            "at its end".to_owned()
        } else {
            format!("at offset {}", file.position)
        };
        return Ok(Some(format!(
            "{object}: {path} has grown from {was} to {is} bytes since the checkpoint; writing goes on {on}"
        )));
    }
    if is_same(record, now) {
        return Ok(None);
    }
    if !file.flags.contains(OpenFlags::O_WRONLY) {
        return Err(unfit("was modified since the checkpoint, and the program reads it".to_owned()));
    }
    Ok(Some(format!("{object}: {path} was modified since the checkpoint; its size is still {is} bytes")))
}

/// Opens the log for a description that was the container's log.
pub(in crate::resource) fn restore_log(id: FileId, file: &File, log: &Path) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    reopen::check_flags(file.flags, &object)?;
    let writable = is_writable(file.flags);
    let readable = !file.flags.contains(OpenFlags::O_WRONLY);
    // The container's programs must not run over each other's lines, nor over those of other tools.
    let flags = file.flags.0 & (OpenFlags::O_LARGEFILE.0 | OpenFlags::O_DSYNC.0 | OpenFlags::__O_SYNC.0);
    let bits = i32::try_from(flags).unwrap_or(0) | libc::O_APPEND | libc::O_NOCTTY;
    let opened = std::fs::File::options().read(readable).write(writable).custom_flags(bits).open(log);
    let mut opened = opened.doing(|| format!("{object}: opening the container's log {}", log.display()))?;
    use std::os::fd::AsFd;
    reopen::set_status(opened.as_fd(), OpenFlags(file.flags.0 | OpenFlags::O_APPEND.0))
        .doing(|| format!("{object}: setting the flags of the container's log"))?;
    seek(&mut opened, file.position, &object)?;
    Ok(opened.into())
}

/// Sets the position of what was just opened.
fn seek(file: &mut std::fs::File, position: u64, object: &str) -> Result<(), Failure> {
    if position == 0 {
        return Ok(());
    }
    match file.seek(SeekFrom::Start(position)) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Err(Failure::new(Kind::BadImage, format!("{object}: position {position} is none that the file can have")))
        }
        Err(error) => Err(error).doing(|| format!("{object}: setting its position")),
    }
}
