//! From the records to what is open of tasks that have ended.

use crate::failure::{Doing, Failure};
use crate::resource::container::inside::{PID, inside};
use crate::resource::descriptor::reopen;
use crate::resource::mount::Roots;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use image_format::ended::{EndedTask, Entry};
use image_format::files::{File, FileKind, OpenFlags};
use image_format::layout::file_entry;
use image_format::{FileId, Image};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{self, Pid, pipe2};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Opens every file and directory of an image that is one of a task which has ended. The calling process must have one thread; `first`
/// is the container's first process, as the host numbers it, and the only one yet.
///
/// # Errors
/// [`crate::failure::Kind::Incompatible`] when one cannot be opened; when no process can be made.
pub fn restore_all(
    first: i32,
    image: &Image,
    roots: &Roots<'_>,
    open: &mut BTreeMap<FileId, OwnedFd>,
) -> Result<(), Failure> {
    for (&id, file) in &image.files {
        let FileKind::EndedTask(record) = &file.kind else { continue };
        // Who is of another pid namespace begins one of the host's.
        let opened = inside(first, &[PID], || restore(&file_entry(id), file, record, roots.of_file(id)))?;
        open.insert(id, opened.into());
    }
    Ok(())
}

fn restore(object: &str, file: &File, record: &EndedTask, root: BorrowedFd<'_>) -> Result<fs::File, Failure> {
    let entry = Entry::of(&record.path.0).ok_or(Errno::EINVAL).doing(|| format!("{object}: path"))?;
    let task = Task::begin(entry.id).doing(|| format!("{object}: making a process to end"))?;
    let id = task.id().doing(|| format!("{object}: the id of a process to end"))?;
    let expected = match entry.is_directory() {
        true => (libc::S_IFDIR, "directory"),
        false => (libc::S_IFREG, "regular file"),
    };
    let mut opened = reopen::open(root, &entry.path(id), file.flags, expected, object)?;
    let is_place = file.flags.contains(OpenFlags::O_PATH);
    if record.at_end {
        io::copy(&mut opened, &mut io::sink()).doing(|| format!("{object}: reading it as far as it was read"))?;
    } else if !is_place {
        opened.seek(SeekFrom::Start(file.position)).doing(|| format!("{object}: reading it as far as it was read"))?;
    }
    task.end().doing(|| format!("{object}: ending a process"))?;
    if !record.at_end && !is_place && !entry.is_directory() {
        // What going to a position may have left of the text is forgotten: that this fails is what is restored.
        let _ = opened.read_at(&mut [0], 0);
    }
    Ok(opened)
}

/// A directory of /proc as a place, of a process that is to end when all who stand in the directory have entered it; `used` are ids that it
/// is not to have, and gets the one that it has. The calling process must have one thread; `first` is the container's first process, as the host numbers it.
///
/// # Errors
/// When no process can be made, or its directory cannot be opened.
pub(in crate::resource) fn enter(
    first: i32,
    entry: &Entry<'_>,
    root: BorrowedFd<'_>,
    used: &mut BTreeSet<u32>,
) -> Result<(OwnedFd, Task), Failure> {
    let beyond = used.last().map_or(entry.id, |last| last + 1);
    let wanted = if used.contains(&entry.id) { beyond } else { entry.id };
    let task = inside(first, &[PID], || Task::begin(wanted).doing(|| "making a process to end"))?;
    let id = task.id().doing(|| "asking for the id of a process to end")?;
    used.insert(id);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let opened = openat2(root, entry.path(id).0.as_slice(), how).doing(|| "opening a directory of /proc")?;
    Ok((opened, task))
}

/// A process that lives until it is told to end, or nobody can tell it any more. It has nothing open.
#[derive(Debug)]
pub(in crate::resource) struct Task {
    process: Pid,
    alive: OwnedFd,
}

impl Task {
    /// With this id where it is free, otherwise with any.
    fn begin(id: u32) -> nix::Result<Self> {
        let (wait, alive) = pipe2(OFlag::O_CLOEXEC)?;
        let (ready, begun) = pipe2(OFlag::O_CLOEXEC)?;
        let wanted = [id.cast_signed()];
        let forked = match fork_into(&CloneArgs { set_tid: &wanted, ..CloneArgs::default() }) {
            // In use, or above what this host gives out.
            Err(Errno::EEXIST | Errno::EINVAL) => fork_into(&CloneArgs::default())?,
            forked => forked?,
        };
        match forked {
            Forked::Child => {
                if crfs_sys::close_range::close_all_but(&[wait.as_raw_fd(), begun.as_raw_fd()]).is_ok() {
                    let _ = unistd::write(&begun, b".");
                    let _ = fs::File::from(wait).read(&mut [0]);
                }
                exit_now(0)
            }
            Forked::Parent { child, .. } => {
                drop(begun);
                match unistd::read(&ready, &mut [0])? {
                    0 => Err(Errno::ECHILD),
                    _ => Ok(Task { process: child, alive }),
                }
            }
        }
    }

    /// Its id in the container's pid namespace, which is the innermost that it is in.
    fn id(&self) -> io::Result<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process))?;
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let id = ids.and_then(|ids| ids.split_ascii_whitespace().last()?.parse().ok());
        id.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Ends it.
    pub(in crate::resource) fn end(self) -> nix::Result<()> {
        drop(self.alive);
        waitpid(self.process, Some(WaitPidFlag::__WALL)).map(drop)
    }
}
