//! From the records to open files and directories of pseudo file systems.

use super::capture::is_sysctl;
use super::{file_system, name};
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen::{self, set_status};
use crate::resource::mount::Roots;
use crate::resource::socket::Processes;
use crfs_sys::pidfd;
use crfs_tracee::Batch;
use image_format::files::{FileKind, OpenFlags, PseudoFile, PseudoFileSystem};
use image_format::layout::file_entry;
use image_format::{FileId, Image, Pid};
use nix::errno::Errno;
use nix::sys::statfs::fstatfs;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Opens every file and directory of an image that the kernel makes up, below their roots, once the processes are there.
///
/// # Errors
/// [`Kind::Incompatible`] when one is not there, or something else stands under its path.
pub(in crate::resource) fn restore_all(
    image: &Image,
    roots: &Roots<'_>,
    open: &mut BTreeMap<FileId, OwnedFd>,
) -> Result<(), Failure> {
    for (&id, file) in &image.files {
        let FileKind::Pseudo(record) = &file.kind else { continue };
        let object = file_entry(id);
        let (path, root) = (&record.path, roots.of_file(id));
        let there = reopen::look(root, path).and_then(|found| found.metadata());
        let expected = match there.is_ok_and(|found| found.is_dir()) {
            true => (libc::S_IFDIR, "directory"),
            false => (libc::S_IFREG, "regular file"),
        };
        let opened = reopen::open(root, path, file.flags, expected, &object)?;
        check(&opened, record, &object)?;
        open.insert(id, opened.into());
    }
    Ok(())
}

/// Puts something under the number of each descriptor of which a file in /proc/PID/fdinfo is open, for it is there only while the number is
/// taken; who reads it is told of what stands there at that time (`seq_show`, fs/proc/fd.c, v6.18). The true ones replace them.
///
/// # Errors
/// When a process cannot do so.
pub fn take_numbers(image: &Image, processes: &mut dyn Processes) -> Result<(), Failure> {
    for file in image.files.values() {
        let FileKind::Pseudo(record) = &file.kind else { continue };
        let Some((process, number)) = described(&record.path.0) else { continue };
        if !image.tables().any(|table| table.process == process && table.fds.iter().any(|fd| fd.fd == number)) {
            continue;
        }
        let mut batch = Batch::new();
        batch.call(libc::SYS_dup3, &[processes.link().into(), number.into(), libc::O_CLOEXEC.into()], "dup3");
        processes.run(process, &batch)?;
    }
    Ok(())
}

/// Reads a byte that does not end at a position, which stays what it is.
fn read_elsewhere(file: &File, position: u64) -> io::Result<()> {
    match position {
        // Nothing was made.
        0 => Ok(()),
        1 => file.read_at(&mut [0; 1], 1).map(drop),
        _ => file.read_at(&mut [0; 1], 0).map(drop),
    }
}

/// The process and the number of the descriptor that a path in /proc/PID/fdinfo or /proc/PID/task/TID/fdinfo is about.
fn described(path: &[u8]) -> Option<(Pid, u32)> {
    let (process, below) = std::str::from_utf8(path).ok()?.strip_prefix("/proc/")?.split_once('/')?;
    let (directory, number) = below.rsplit_once('/')?;
    let is_of_descriptors = directory == "fdinfo" || directory.ends_with("/fdinfo");
    let process = process.parse().ok().map(Pid)?;
    is_of_descriptors.then(|| number.parse().ok()).flatten().map(|number| (process, number))
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
        let FileKind::Pseudo(record) = &file.kind else { continue };
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
        check(&taken, record, &object)?;
        open.insert(id, taken.into());
    }
    Ok(())
}

/// Refuses what stands under the path of a record on another file system.
fn check(opened: &File, record: &PseudoFile, object: &str) -> Result<(), Failure> {
    let path = &record.path;
    let magic = fstatfs(opened).doing(|| format!("{object}: {path}: looking at it"))?.filesystem_type().0;
    if file_system(magic) == Some(record.file_system) {
        return Ok(());
    }
    let of = name(record.file_system);
    let reason = format!("{object}: {path}: it is no file of the {of} file system here");
    Err(Failure::new(Kind::Incompatible, reason))
}

/// Sets every file as far as its program had read it, or to its end: once the processes are as they were.
///
/// A file of /proc makes its content by that, as whoever reads it may see it: a path in /proc/PID/cgroup is one below the top of the reader's
/// cgroup namespace. What the worker made must not be what the program goes on with. The kernel makes it anew for a read that does not
/// follow the last one (`seq_read_iter`, fs/seq_file.c, v6.18), so the last one is made to be elsewhere.
///
/// # Errors
/// When one cannot be read.
pub fn read_on(image: &Image, open: &BTreeMap<FileId, OwnedFd>) -> Result<(), Failure> {
    for (id, file) in &image.files {
        let FileKind::Pseudo(record) = &file.kind else { continue };
        let Some(opened) = open.get(id).filter(|_| !file.flags.contains(OpenFlags::O_PATH)) else { continue };
        let doing = || format!("{}: {}: reading it again as far as it was read", file_entry(*id), record.path);
        let mut opened = File::from(opened.try_clone().doing(doing)?);
        if record.at_end {
            io::copy(&mut opened, &mut io::sink()).doing(doing)?;
        } else {
            opened.seek(SeekFrom::Start(file.position)).doing(doing)?;
            if record.file_system == PseudoFileSystem::Proc && opened.metadata().doing(doing)?.is_file() {
                read_elsewhere(&opened, file.position).doing(doing)?;
            }
        }
    }
    Ok(())
}
