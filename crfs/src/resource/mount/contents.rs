//! The contents of the files of a tmpfs, read one after the other as `mounts.N.data` has them.

use image_format::Bytes;
use image_format::mounts::TreeEntry;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Where a mount of a container is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountPlace {
    /// A process that sees it, as the host numbers it.
    pub host: i32,
    /// Its path there.
    pub path: Bytes,
}

impl MountPlace {
    /// A copy of it that is attached nowhere, and shows what other mounts hide; itself where it must not be copied (MS_UNBINDABLE).
    ///
    /// # Errors
    /// When the process or the mount is gone.
    pub(super) fn copy(&self) -> io::Result<OwnedFd> {
        let open = |name: &str, flags: i32| {
            File::options().read(true).custom_flags(flags).open(format!("/proc/{}/{name}", self.host))
        };
        detached(&open("root", libc::O_PATH)?, &open("ns/mnt", 0)?, &self.path)
    }
}

/// A copy of the mount at a path below a root directory of a namespace, as [`MountPlace::copy`] makes it.
pub(super) fn detached(root: &File, namespace: &File, path: &Bytes) -> io::Result<OwnedFd> {
    let path = Path::new(OsStr::from_bytes(&path.0));
    let below = path.strip_prefix("/").unwrap_or(path);
    // The kernel copies only from the caller's own namespace. A thread that has left the others' root and working directory
    // may join another.
    let visit = || {
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNS)?;
        crfs_sys::mount::detached_copy(root.as_fd(), below)
    };
    match std::thread::scope(|scope| scope.spawn(visit).join()).unwrap_or(Err(Errno::EIO)) {
        Err(Errno::EINVAL) => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
            Ok(openat2(root, path, how)?)
        }
        other => Ok(other?),
    }
}

/// The files of a tmpfs whose contents are read.
#[derive(Debug)]
pub struct Contents {
    top: OwnedFd,
    paths: Vec<Bytes>,
    pieces: Vec<Piece>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where it begins in `mounts.N.data`.
    start: u64,
    length: u64,
    /// Which of the paths.
    path: usize,
    /// Where it begins in its file.
    offset: u64,
}

impl Contents {
    /// Opens them, as `tree` lists them.
    ///
    /// # Errors
    /// When the process or the mount is gone.
    pub fn open(place: &MountPlace, tree: &[TreeEntry]) -> io::Result<Self> {
        let mut contents = Contents { top: place.copy()?, paths: Vec::new(), pieces: Vec::new() };
        let mut start = 0;
        for entry in tree.iter().filter(|entry| !entry.parts().is_empty()) {
            for part in entry.parts() {
                let (length, offset) = (part.length, part.offset);
                contents.pieces.push(Piece { start, length, path: contents.paths.len(), offset });
                start += length;
            }
            contents.paths.push(entry.path.clone());
        }
        Ok(contents)
    }

    /// Fills a buffer with what there is from `offset` on.
    ///
    /// # Errors
    /// That there is less, or that a file is gone.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        let mut next = self.pieces.partition_point(|piece| piece.start + piece.length <= offset);
        while !buffer.is_empty() {
            let piece = self.pieces.get(next).ok_or(io::ErrorKind::UnexpectedEof)?;
            let into = offset - piece.start;
            let length = usize::try_from(piece.length - into).unwrap_or(usize::MAX).min(buffer.len());
            let (now, rest) = buffer.split_at_mut(length);
            self.file(piece.path)?.read_exact_at(now, piece.offset + into)?;
            offset += length as u64;
            (buffer, next) = (rest, next + 1);
        }
        Ok(())
    }

    fn file(&self, path: usize) -> io::Result<File> {
        let path = self.paths.get(path).ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOATIME | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        let how = OpenHow::new().flags(flags).resolve(resolve);
        Ok(File::from(openat2(&self.top, Path::new(OsStr::from_bytes(&path.0)), how)?))
    }
}
