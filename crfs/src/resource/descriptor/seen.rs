//! What /proc tells of one descriptor.

use super::fdinfo::FdInfo;
use image_format::Pid;
use image_format::files::OpenFlags;
use nix::errno::Errno;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A descriptor of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holder {
    /// The process, as the container numbers it.
    pub(crate) pid: Pid,
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

    /// Its fdinfo. `ENOENT`, `ESRCH`: it is gone.
    pub(crate) fn info(&self) -> io::Result<FdInfo> {
        let mut file = fs::File::open(format!("/proc/{}/fdinfo/{}", self.host, self.fd))?;
        // By hand: read_to_string would ask for the size first, which /proc does not know.
        let mut text = Vec::new();
        let mut chunk = [0; 1024];
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                length => text.extend_from_slice(&chunk[..length]),
            }
        }
        String::from_utf8(text).ok().and_then(FdInfo::parse).ok_or_else(|| io::Error::from(Errno::EPROTO))
    }

    /// A duplicate in this process.
    pub(crate) fn duplicate(&self) -> nix::Result<OwnedFd> {
        let process = crfs_sys::pidfd::open_any(nix::unistd::Pid::from_raw(self.host))?;
        crfs_sys::pidfd::getfd(process.as_fd(), self.fd)
    }
}

/// What is open under a descriptor.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Whose it is.
    pub(crate) holder: Holder,
    /// The text of the link: a path, or the name of something that has none.
    pub(crate) link: Vec<u8>,
    /// stat(2) of what is open.
    pub(crate) metadata: Metadata,
    /// Its fdinfo.
    pub(crate) info: FdInfo,
}

impl Seen {
    /// Looks. None when the descriptor (or its process) is gone.
    pub(crate) fn look(holder: Holder) -> io::Result<Option<Self>> {
        there(Self::try_look(holder))
    }

    fn try_look(holder: Holder) -> io::Result<Self> {
        let path = holder.path();
        let link = match fs::read_link(&path) {
            // It has one that /proc cannot show. No path check will find it, and that names the obstacle.
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => {
                b"(a path longer than 4095 bytes)".to_vec()
            }
            other => other?.into_os_string().into_vec(),
        };
        let metadata = fs::metadata(&path)?;
        let info = holder.info()?;
        Ok(Seen { holder, link, metadata, info })
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
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the access mode allows writing.
pub(crate) fn is_writable(flags: OpenFlags) -> bool {
    flags.0 & (OpenFlags::O_WRONLY.0 | OpenFlags::O_RDWR.0) != 0
}
