//! From the records to open files and directories of the container's /proc.

use super::capture::is_sysctl;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::refused::PROC;
use crate::resource::descriptor::reopen::{self, set_status};
use crate::resource::socket::Processes;
use crfs_sys::pidfd;
use crfs_tracee::Batch;
use image_format::files::{File as Record, FileKind, OpenFlags};
use image_format::layout::file_entry;
use image_format::{Bytes, FileId, Image, Pid};
use nix::errno::Errno;
use nix::sys::statfs::fstatfs;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Opens every file and directory of /proc of an image below `root`, once the processes are there.
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
        let there = reopen::look(root, path).and_then(|found| found.metadata());
        let expected = match there.is_ok_and(|found| found.is_dir()) {
            true => (libc::S_IFDIR, "directory"),
            false => (libc::S_IFREG, "regular file"),
        };
        let opened = reopen::open(root, path, file.flags, expected, &object)?;
        open.insert(id, finish(opened, file, path, &object)?);
    }
    Ok(())
}

/// Opens kernel parameters (/proc/sys) again by `process`, in whose namespaces they are the container's. Its root directory is the
/// container's.
///
/// # Errors
/// When one is not there.
pub fn restore_inside(
    image: &Image,
    process: Pid,
    processes: &mut dyn Processes,
    open: &mut BTreeMap<FileId, OwnedFd>,
) -> Result<(), Failure> {
    for (&id, file) in &image.files {
        let FileKind::Proc(record) = &file.kind else { continue };
        if !is_sysctl(&record.path.0) || file.flags.contains(OpenFlags::O_PATH) {
            continue;
        }
        let object = file_entry(id);
        let mut batch = Batch::new();
        let path = batch.data(&[&record.path.0[..], &[0]].concat());
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        batch.call(libc::SYS_openat, &[libc::AT_FDCWD.into(), path.into(), flags.into()], "openat");
        let results = processes.run(process, &batch).map_err(|failure| failure.within(object.clone()))?;
        let fd = results.first().and_then(|&fd| i32::try_from(fd).ok());
        let (fd, host) = fd.zip(processes.host(process)).ok_or(Errno::ESRCH).doing(|| object.clone())?;
        let taken = pidfd::open_any(nix::unistd::Pid::from_raw(host)).and_then(|it| pidfd::getfd(it.as_fd(), fd));
        let taken = File::from(taken.doing(|| format!("{object}: taking it over"))?);
        let mut batch = Batch::new();
        batch.call(libc::SYS_close, &[fd.into()], "close");
        processes.run(process, &batch)?;
        set_status(taken.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
        open.insert(id, finish(taken, file, &record.path, &object)?);
    }
    Ok(())
}

/// What was opened, at its position.
fn finish(mut opened: File, file: &Record, path: &Bytes, object: &str) -> Result<OwnedFd, Failure> {
    let magic = fstatfs(&opened).doing(|| format!("{object}: {path}: looking at it"))?.filesystem_type().0;
    if magic != PROC {
        let reason = format!("{object}: {path}: it is no file of the proc file system here");
        return Err(Failure::new(Kind::Incompatible, reason));
    }
    if !file.flags.contains(OpenFlags::O_PATH) {
        opened.seek(SeekFrom::Start(file.position)).doing(|| format!("{object}: setting its position"))?;
    }
    Ok(opened.into())
}
