//! A directory that has no name any more, made again: for a moment it has one.

use image_format::Bytes;
use image_format::files::DeletedDirectory;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};
use std::ffi::{CString, OsStr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How many names beside a taken one are tried.
const NAMES: u32 = 1000;

/// Makes a directory at a path below `root`, or beside it where that is taken, in the nearest directory above that is there; opens
/// it with these flags, and deletes it.
pub(in crate::resource) fn make(
    root: BorrowedFd<'_>,
    path: &Bytes,
    record: &DeletedDirectory,
    flags: OFlag,
) -> std::io::Result<OwnedFd> {
    let path = Path::new(OsStr::from_bytes(&path.0));
    let above = open_above(root, path)?;
    let first = path.file_name().unwrap_or(OsStr::new("deleted")).as_bytes();
    for number in 0..NAMES {
        let suffix = if number == 0 { String::new() } else { format!(".{number}") };
        let name = CString::new([first, suffix.as_bytes()].concat())?;
        match mkdirat(&above, name.as_c_str(), Mode::S_IRWXU) {
            Err(Errno::EEXIST) => continue,
            other => other?,
        }
        let opened = openat(&above, name.as_c_str(), flags | OFlag::O_CLOEXEC, Mode::empty());
        let (uid, gid) = (Some(Uid::from_raw(record.uid)), Some(Gid::from_raw(record.gid)));
        let mode = Mode::from_bits_truncate(record.mode.0);
        let set = fchownat(&above, name.as_c_str(), uid, gid, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
            .and_then(|()| fchmodat(&above, name.as_c_str(), mode, FchmodatFlags::FollowSymlink));
        // First of all it goes again, whatever else did not work.
        unlinkat(&above, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
        set?;
        return Ok(opened?);
    }
    Err(Errno::EEXIST.into())
}

/// The nearest directory above a path that is there.
fn open_above(root: BorrowedFd<'_>, path: &Path) -> nix::Result<OwnedFd> {
    let mut above = path.parent();
    loop {
        let directory = above.unwrap_or(Path::new("/"));
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
        match openat2(root, directory, how.resolve(ResolveFlag::RESOLVE_IN_ROOT)) {
            Err(Errno::ENOENT | Errno::ENOTDIR) if directory.parent().is_some() => above = directory.parent(),
            other => return other,
        }
    }
}
