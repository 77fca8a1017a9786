//! Open files: which descriptors share a description, whether it was locked, and how many ends a pipe has.
//!
//! Source: include/linux/fdtable.h, include/linux/fs.h, include/linux/filelock.h, include/linux/pipe_fs_i.h, v6.18.

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::{KernelState, View};
use crate::tasks::{Task, word};

/// Slots of a descriptor table that are read at once.
const CHUNK: u32 = 8192;
/// More slots than a table of a gigabyte: it is no table.
const MAX_SLOTS: u32 = 1 << 27;

const S_IFMT: u16 = 0o170_000;
const S_IFIFO: u16 = 0o010_000;

/// How many open file descriptions a pipe has at each end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeEnds {
    /// Open for reading.
    pub readers: u32,
    /// Open for writing.
    pub writers: u32,
}

/// A descriptor that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenDescriptor {
    /// Its number.
    pub fd: i32,
    /// The identity of its open file description: [`KernelState::file_address`].
    pub address: u64,
    /// Close-on-exec.
    pub cloexec: bool,
}

impl KernelState {
    /// The identity of the open file description behind a descriptor: equal for two descriptors, in whatever tasks, exactly if they
    /// share file position and status flags. Good as long as the description stays open.
    ///
    /// # Errors
    /// [`Error::NotOpen`], [`Error::FeatureOff`], [`Error::Gone`] for a task that has ended, [`Error::Read`].
    pub fn file_address(&self, task: &Task, fd: i32) -> Result<u64, Error> {
        file(&self.view(Feature::Files, task)?, fd)
    }

    /// Every open descriptor of the task.
    ///
    /// # Errors
    /// As [`KernelState::file_address`]; [`Error::List`] for a table that is longer than any.
    pub fn descriptors(&self, task: &Task) -> Result<Vec<OpenDescriptor>, Error> {
        let view = self.view(Feature::Files, task)?;
        let (slots, table) = table(&view)?;
        if slots > MAX_SLOTS {
            return Err(Error::List { tid: task.tid(), list: "fdtable" });
        }
        let bits = view.u64(&[Path::TaskFiles, Path::FilesFdt, Path::FdtCloexec])?;
        let mut found = Vec::new();
        let mut buf = vec![0; CHUNK as usize * 8];
        let mut cloexec = vec![0; CHUNK as usize / 8];
        for first in (0..slots).step_by(CHUNK as usize) {
            let length = (slots - first).min(CHUNK) as usize;
            let buf = &mut buf[..length * 8];
            view.bytes_at(table.wrapping_add(u64::from(first) * 8), Path::FdtFd, buf)?;
            // A bit for each slot, the lowest first.
            let cloexec = &mut cloexec[..length.div_ceil(8)];
            view.bytes_at(bits.wrapping_add(u64::from(first) / 8), Path::FdtCloexec, cloexec)?;
            let slots = (first.cast_signed()..).zip(buf.chunks_exact(8).map(|slot| word(slot, 0))).enumerate();
            found.extend(slots.filter(|&(_, (_, address))| address != 0).map(|(at, (fd, address))| OpenDescriptor {
                fd,
                address,
                cloexec: cloexec[at / 8] & (1 << (at % 8)) != 0,
            }));
        }
        Ok(found)
    }

    /// Whether what an open file description is open on was locked since it came into memory, by whomever and in whatever way; `file` is the
    /// description's identity.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`] for a task that has ended, [`Error::Read`].
    pub fn was_locked(&self, task: &Task, file: u64) -> Result<bool, Error> {
        let view = self.view(Feature::FileLocks, task)?;
        Ok(view.u64_from(file, &[Path::FileInode, Path::InodeLocks])? != 0)
    }

    /// How many open file descriptions the pipe or FIFO behind a descriptor has at each end, in whatever tasks.
    ///
    /// # Errors
    /// [`Error::NotAPipe`]; otherwise as [`KernelState::file_address`].
    pub fn pipe_ends(&self, task: &Task, fd: i32) -> Result<PipeEnds, Error> {
        self.pipe_ends_of(task, fd, file(&self.view(Feature::PipeEnds, task)?, fd)?)
    }

    /// The same for a descriptor of which the identity of its open file description is known.
    ///
    /// # Errors
    /// As [`KernelState::pipe_ends`].
    pub fn pipe_ends_of(&self, task: &Task, fd: i32, file: u64) -> Result<PipeEnds, Error> {
        let view = self.view(Feature::PipeEnds, task)?;
        let mut mode = [0; 2];
        view.bytes_from(file, &[Path::FileInode, Path::InodeMode], &mut mode)?;
        if u16::from_ne_bytes(mode) & S_IFMT != S_IFIFO {
            return Err(Error::NotAPipe { tid: task.tid(), fd });
        }
        let end = |path| view.u32_from(file, &[Path::FileInode, Path::InodePipe, path]);
        match (end(Path::PipeReaders), end(Path::PipeWriters)) {
            (Ok(readers), Ok(writers)) => Ok(PipeEnds { readers, writers }),
            // A FIFO opened with O_PATH has no pipe behind it yet.
            (Err(Error::Gone { .. }), _) => Err(Error::NotAPipe { tid: task.tid(), fd }),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    /// The same for a descriptor of the calling thread.
    ///
    /// # Errors
    /// As [`KernelState::pipe_ends`].
    pub fn own_pipe_ends(&self, fd: i32) -> Result<PipeEnds, Error> {
        self.pipe_ends(&Task::caller(0), fd)
    }
}

/// The number of slots of the descriptor table, and where they are.
fn table(view: &View<'_>) -> Result<(u32, u64), Error> {
    let slots = view.u32(&[Path::TaskFiles, Path::FilesFdt, Path::FdtMax])?;
    Ok((slots, view.u64(&[Path::TaskFiles, Path::FilesFdt, Path::FdtFd])?))
}

/// Where the struct file behind a descriptor lies.
pub(crate) fn file(view: &View<'_>, fd: i32) -> Result<u64, Error> {
    let not_open = || Error::NotOpen { tid: view.tid(), fd };
    let (slots, table) = table(view)?;
    let number = u32::try_from(fd).ok().filter(|&fd| fd < slots).ok_or_else(not_open)?;
    let mut slot = [0; 8];
    view.bytes_at(table.wrapping_add(u64::from(number) * 8), Path::FdtFd, &mut slot)?;
    match word(&slot, 0) {
        0 => Err(not_open()),
        address => Ok(address),
    }
}

/// Where the struct sock of the socket behind a descriptor lies.
pub(crate) fn sock(view: &View<'_>, fd: i32) -> Result<u64, Error> {
    view.u64_from(file(view, fd)?, &[Path::FilePrivate, Path::SocketSock])
}
