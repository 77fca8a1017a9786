//! A saved content in the place of a file that changed, where its record asks for that.

use super::restore::is_same;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen;
use image_format::FileId;
use image_format::files::{File, FileKind, IfChanged, OpenFlags, RegularFile};
use image_format::layout::file_entry;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Replaces a file below `root` that is not as it was, if its record says by what. What stood there stays with whoever has it open.
///
/// # Errors
/// [`Kind::Incompatible`] when there is no such content, or it is not as long as the file was.
pub(in crate::resource) fn replace(
    id: FileId,
    file: &File,
    root: BorrowedFd<'_>,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let FileKind::Regular(record) = &file.kind else { return Ok(()) };
    let IfChanged::Replace(saved) = &record.if_changed else { return Ok(()) };
    let now = reopen::look(root, &record.path).and_then(|found| found.metadata()).ok();
    if now.as_ref().is_some_and(|now| is_same(record, now)) {
        return Ok(());
    }
    let object = file_entry(id);
    let mut source = reopen::open(root, &saved.from, OpenFlags(0), (libc::S_IFREG, "regular file"), &object)?;
    let found = source.metadata().doing(|| format!("{object}: {}: looking at it", saved.from))?;
    if found.size() != record.size {
        let (from, path, is, was) = (&saved.from, &record.path, found.size(), record.size);
        let reason = format!(
            "{object}: {from} has {is} bytes, and {path}, which it is to replace, had {was}; name the content that was saved"
        );
        return Err(Failure::new(Kind::Incompatible, reason));
    }
    put(root, record, &mut source, now.as_ref().unwrap_or(&found))
        .doing(|| format!("{object}: {}: replacing it", record.path))?;
    notes.push(format!("{object}: {} was modified since the checkpoint, and replaced by {}", record.path, saved.from));
    Ok(())
}

/// Writes a copy beside the file, which takes its place at once.
fn put(root: BorrowedFd<'_>, record: &RegularFile, source: &mut std::fs::File, like: &Metadata) -> std::io::Result<()> {
    let path = Path::new(OsStr::from_bytes(&record.path.0));
    let name = path.file_name().ok_or(nix::errno::Errno::EISDIR)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
    let directory = openat2(root, directory, how.resolve(ResolveFlag::RESOLVE_IN_ROOT))?;
    let beside = [name.as_bytes(), b".crfs-new"].concat();
    // A restore that was killed in the middle may have left one.
    match unlinkat(&directory, beside.as_slice(), UnlinkatFlags::NoRemoveDir) {
        Err(nix::errno::Errno::ENOENT) => {}
        other => other?,
    }
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mut copy = std::fs::File::from(openat(&directory, beside.as_slice(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    let made = fill(&mut copy, record, source, like)
        .and_then(|()| Ok(renameat(&directory, beside.as_slice(), &directory, name)?));
    if made.is_err() {
        unlinkat(&directory, beside.as_slice(), UnlinkatFlags::NoRemoveDir)?;
    }
    made
}

fn fill(
    copy: &mut std::fs::File,
    record: &RegularFile,
    source: &mut std::fs::File,
    like: &Metadata,
) -> std::io::Result<()> {
    std::io::copy(source, copy)?;
    fchown(copy.as_fd(), Some(Uid::from_raw(like.uid())), Some(Gid::from_raw(like.gid())))?;
    fchmod(copy.as_fd(), Mode::from_bits_truncate(like.mode() & 0o7777))?;
    let modified = TimeSpec::new(record.modified.sec, record.modified.nsec.into());
    Ok(futimens(copy.as_fd(), &TimeSpec::UTIME_OMIT, &modified)?)
}
