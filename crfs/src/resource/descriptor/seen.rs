//! What /proc tells of one descriptor.

use super::fdinfo::FdInfo;
use image_format::Pid;
use image_format::files::OpenFlags;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;
use std::cell::OnceCell;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// How the links of pipes and sockets begin that have no path.
const WITHOUT_A_PATH: [&[u8]; 2] = [b"pipe:[", b"socket:["];

/// A descriptor of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holder {
    /// The process, as the container numbers it.
    pub(crate) pid: Pid,
    /// Whose table it is in: the process, or a thread of it.
    pub(crate) owner: Pid,
    /// The process, or a thread of it that lives, as the host numbers it.
    pub(crate) host: i32,
    /// The descriptor.
    pub(crate) fd: RawFd,
}

impl Holder {
    /// The link in /proc that leads to what is open.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", self.host, self.fd))
    }
}

/// A process whose descriptors are looked at. What leads to them is opened once: a walk from /proc to each of thousands takes longer than
/// what is asked there.
#[derive(Debug)]
pub(crate) struct Process {
    host: i32,
    /// /proc/PID
    directory: File,
    pidfd: OnceLock<OwnedFd>,
}

impl Process {
    /// By its number, or that of a thread of it, on the host. `ENOENT`: it is gone.
    pub(crate) fn open(host: i32) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let directory = File::options().read(true).custom_flags(flags).open(format!("/proc/{host}"))?;
        Ok(Process { host, directory, pidfd: OnceLock::new() })
    }

    fn file(&self, name: &str, fd: RawFd, flags: OFlag) -> nix::Result<File> {
        let path = format!("{name}/{fd}");
        Ok(openat(&self.directory, path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())?.into())
    }

    /// The text of the link of a descriptor.
    fn link(&self, fd: RawFd) -> io::Result<Vec<u8>> {
        match readlinkat(&self.directory, format!("fd/{fd}").as_str()) {
            // It has one that /proc cannot show. No path check will find it, and that names the obstacle.
            Err(Errno::ENAMETOOLONG) => Ok(b"(a path longer than 4095 bytes)".to_vec()),
            other => Ok(other?.into_vec()),
        }
    }

    /// A duplicate of a descriptor in this process.
    fn duplicate(&self, fd: RawFd) -> nix::Result<OwnedFd> {
        let pidfd = match self.pidfd.get() {
            Some(pidfd) => pidfd,
            None => {
                let opened = crfs_sys::pidfd::open_any(nix::unistd::Pid::from_raw(self.host))?;
                self.pidfd.get_or_init(|| opened)
            }
        };
        crfs_sys::pidfd::getfd(pidfd.as_fd(), fd)
    }

    /// The fdinfo of a descriptor. `ENOENT`, `ESRCH`: it is gone.
    pub(crate) fn info(&self, fd: RawFd) -> io::Result<FdInfo> {
        let mut file = self.file("fdinfo", fd, OFlag::O_RDONLY)?;
        // By hand: read_to_string would ask for the size first, which /proc does not know.
        let mut text = Vec::new();
        let mut chunk = [0; 1024];
        loop {
            let length = file.read(&mut chunk)?;
            text.extend_from_slice(&chunk[..length]);
            // It is one record (single_open, fs/proc/fd.c, v6.18): a read that does not fill the buffer has its end.
            if length < chunk.len() {
                break;
            }
        }
        String::from_utf8(text).ok().and_then(FdInfo::parse).ok_or_else(|| io::Error::from(Errno::EPROTO))
    }
}

/// What is open under a descriptor.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Whose it is.
    pub(crate) holder: Holder,
    /// The text of the link: a path, or the name of something that has none.
    pub(crate) link: Vec<u8>,
    /// stat(2) of what is open.
    pub(crate) metadata: Metadata,
    /// Its fdinfo.
    pub(crate) info: FdInfo,
    /// Of a file, a directory or a mere place: the magic number of its file system (statfs(2)). Otherwise 0.
    pub(crate) file_system: i64,
    process: Arc<Process>,
    kept: OnceCell<OwnedFd>,
}

impl Seen {
    /// Looks. None when the descriptor (or its process) is gone.
    pub(crate) fn look(holder: Holder, process: &Arc<Process>) -> io::Result<Option<Self>> {
        there(process.link(holder.fd).and_then(|link| Self::by_proc(holder, process, link)))
    }

    /// Looks where close-on-exec is known: of pipes and sockets without a path a duplicate tells the rest but for locks, in a fifth of the
    /// time.
    pub(crate) fn look_fast(holder: Holder, process: &Arc<Process>, cloexec: bool) -> io::Result<Option<Self>> {
        there(process.link(holder.fd).and_then(|link| {
            if !WITHOUT_A_PATH.iter().any(|kind| link.starts_with(kind)) {
                return Self::by_proc(holder, process, link);
            }
            match process.duplicate(holder.fd) {
                Ok(duplicate) => Self::by_duplicate(holder, process, link, cloexec, duplicate.into()),
                // Where there are too many, /proc still tells.
                Err(_) => Self::by_proc(holder, process, link),
            }
        }))
    }

    fn by_proc(holder: Holder, process: &Arc<Process>, link: Vec<u8>) -> io::Result<Self> {
        // Not a duplicate: closing one of a regular file may wait for a server.
        let place = process.file("fd", holder.fd, OFlag::O_PATH)?;
        // Of a process that has ended nobody can say how many there are, which stat(2) is to tell (`proc_fd_getattr`, fs/proc/fd.c, v6.18).
        let metadata = place.metadata().map_err(|error| match is_gone(&error) {
            true => io::Error::other("it lists the descriptors of a process that has ended"),
            false => error,
        })?;
        let info = process.info(holder.fd)?;
        let mut seen =
            Seen { holder, link, metadata, info, file_system: 0, process: Arc::clone(process), kept: OnceCell::new() };
        if matches!(seen.file_type(), libc::S_IFREG | libc::S_IFDIR) || seen.is_path() {
            seen.file_system = fstatfs(&place).map_or(0, |found| found.filesystem_type().0);
        }
        Ok(seen)
    }

    fn by_duplicate(
        holder: Holder,
        process: &Arc<Process>,
        link: Vec<u8>,
        cloexec: bool,
        duplicate: File,
    ) -> io::Result<Self> {
        let flags = u64::from(fcntl(&duplicate, FcntlArg::F_GETFL)?.cast_unsigned());
        Ok(Seen {
            holder,
            link,
            metadata: duplicate.metadata()?,
            info: FdInfo::without_a_path(flags, cloexec),
            file_system: 0,
            process: Arc::clone(process),
            kept: OnceCell::from(OwnedFd::from(duplicate)),
        })
    }

    /// Whether it was looked at without asking for locks.
    pub(crate) fn is_without_locks(&self) -> bool {
        self.kept.get().is_some()
    }

    /// Looks once more. None when the descriptor is gone.
    pub(crate) fn again(&self) -> io::Result<Option<Self>> {
        Self::look(self.holder, &self.process)
    }

    /// A duplicate in this process.
    pub(crate) fn duplicate(&self) -> nix::Result<OwnedFd> {
        self.process.duplicate(self.holder.fd)
    }

    /// Asks a duplicate: the one that is kept, or one that is closed at once, since an end of a pipe is looked for in all processes.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(BorrowedFd<'_>) -> nix::Result<T>) -> nix::Result<T> {
        match self.kept.get() {
            Some(kept) => question(kept.as_fd()),
            None => question(self.duplicate()?.as_fd()),
        }
    }

    /// The duplicate of a socket or an end of a pipe, which are asked much: kept as long as this.
    pub(crate) fn kept(&self) -> nix::Result<BorrowedFd<'_>> {
        if self.kept.get().is_none() {
            // Empty, as was just seen.
            let _ = self.kept.set(self.duplicate()?);
        }
        self.kept.get().map(AsFd::as_fd).ok_or(Errno::EBADF)
    }

    /// Status flags and access mode.
    pub(crate) fn flags(&self) -> OpenFlags {
        OpenFlags(self.info.flags)
    }

    /// Whether data can be read through it.
    pub(crate) fn readable(&self) -> bool {
        !self.flags().contains(OpenFlags::O_WRONLY) && !self.is_path()
    }

    /// Whether data can be written through it.
    pub(crate) fn writable(&self) -> bool {
        is_writable(self.flags()) && !self.is_path()
    }

    /// Whether it only names a place (O_PATH).
    pub(crate) fn is_path(&self) -> bool {
        self.flags().contains(OpenFlags::O_PATH)
    }

    /// Device and inode.
    pub(crate) fn inode(&self) -> (u64, u64) {
        (self.metadata.dev(), self.metadata.ino())
    }

    /// Whether what stands under a path is what is open. A device is what its number says: every node of it leads to the same
    /// driver, and a container's root has nodes of its own.
    pub(crate) fn is_same(&self, found: &Metadata) -> bool {
        let kind = |mode: u32| mode & libc::S_IFMT;
        if self.file_type() == libc::S_IFCHR {
            return kind(found.mode()) == libc::S_IFCHR && found.rdev() == self.metadata.rdev();
        }
        (found.dev(), found.ino()) == self.inode()
    }

    /// The kind's bits of the mode (S_IFMT).
    pub(crate) fn file_type(&self) -> u32 {
        self.metadata.mode() & libc::S_IFMT
    }

    /// The link for people.
    pub(crate) fn name(&self) -> String {
        image_format::Bytes(self.link.clone()).escaped()
    }
}

/// None for what is gone.
pub(crate) fn there<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(seen) => Ok(Some(seen)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the descriptor or its process is no longer there.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Whether the access mode allows writing.
pub(crate) fn is_writable(flags: OpenFlags) -> bool {
    flags.0 & (OpenFlags::O_WRONLY.0 | OpenFlags::O_RDWR.0) != 0
}
