//! From the record to a group, and to its marks.

use super::overflow::overflow;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen::{look, set_status};
use crate::resource::mount::Roots;
use crfs_sys::fanotify::{self, MARK_EVICTABLE, MARK_IGNORE};
use image_format::fanotify::{Fanotify, FanotifyMark, Marked};
use image_format::files::{File, FileKind};
use image_format::layout::file_entry;
use image_format::{FileId, Hex, Image};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes a group without marks.
///
/// # Errors
/// When the system refuses: a user may have so many (fs.fanotify.max_user_groups).
pub(in crate::resource) fn restore(id: FileId, file: &File, record: &Fanotify) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let group = make(record).doing(|| format!("{object}: creating a fanotify group"))?;
    set_status(group.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
    Ok(group)
}

fn make(record: &Fanotify) -> nix::Result<OwnedFd> {
    let create = if record.unprivileged { fanotify::create_unprivileged } else { fanotify::create };
    let group = create(number(record.flags)?, number(record.event_flags)?)?;
    // Not by a flag of the group, which it would keep.
    fcntl(&group, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(group)
}

/// Makes the marks of each group of an image, below their roots. `open` has the groups. Whatever is done to what is marked from then on is
/// reported, so everything else must be in its place. `notes` gets what a user should know.
///
/// # Errors
/// [`Kind::Incompatible`] for what is not there.
pub fn mark_all(
    image: &Image,
    roots: &Roots<'_>,
    open: &BTreeMap<FileId, OwnedFd>,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    for (&id, file) in &image.files {
        let (FileKind::Fanotify(record), Some(group)) = (&file.kind, open.get(&id)) else { continue };
        let object = file_entry(id);
        if record.unread {
            overflow(group.as_fd())
                .map_err(|failure| failure.within(format!("{object}: making its queue overflow")))?;
            notes.push(format!(
                "{object}: events that waited in a fanotify group are lost; it reports that some were (FAN_Q_OVERFLOW)"
            ));
        }
        for mark in &record.marks {
            let unfit = |reason: String| Failure::new(Kind::Incompatible, format!("{object}: {}: {reason}", mark.path));
            let place = look(roots.of_file(id), &mark.path).map_err(|error| unfit(format!("not found: {error}")))?;
            let place = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
            add(group.as_fd(), mark, &place)
                .map_err(|errno| unfit(format!("it cannot be marked for fanotify: {}", errno.desc())))?;
        }
    }
    Ok(())
}

/// Makes a mark: first what it ignores, since what it tells about would be told of what comes between.
fn add(group: BorrowedFd<'_>, mark: &FanotifyMark, place: &Path) -> nix::Result<()> {
    let on = match mark.on {
        Marked::Inode => libc::FAN_MARK_INODE,
        Marked::Mount => libc::FAN_MARK_MOUNT,
        Marked::Filesystem => libc::FAN_MARK_FILESYSTEM,
    };
    let flags = number(mark.flags)?;
    if mark.ignored_mask.0 != 0 {
        let way = if flags & MARK_IGNORE == 0 { libc::FAN_MARK_IGNORED_MASK } else { 0 };
        fanotify::add_mark(group, on | way | flags, mark.ignored_mask.0, place)?;
    }
    if mark.mask.0 != 0 {
        fanotify::add_mark(group, on | flags & MARK_EVICTABLE, mark.mask.0, place)?;
    }
    Ok(())
}

fn number(flags: Hex) -> nix::Result<u32> {
    u32::try_from(flags.0).map_err(|_| Errno::EINVAL)
}
