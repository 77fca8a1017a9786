//! Opening a path below a container's root, sure of what it is before it is opened.

use crate::failure::{Doing, Failure, Kind};
use image_format::Bytes;
use image_format::files::OpenFlags;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat2};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

/// Status flags that fcntl(2) F_SETFL can change.
const SETTABLE: u64 = OpenFlags::O_APPEND.0 | OpenFlags::O_NONBLOCK.0 | OpenFlags::O_DIRECT.0 | OpenFlags::O_NOATIME.0;

/// Flags that open(2) takes and that stay visible afterwards. Close-on-exec is the descriptor's.
const OPENABLE: u64 = SETTABLE
    | OpenFlags::O_WRONLY.0
    | OpenFlags::O_RDWR.0
    | OpenFlags::O_DSYNC.0
    | OpenFlags::O_LARGEFILE.0
    | OpenFlags::O_DIRECTORY.0
    | OpenFlags::O_NOFOLLOW.0
    | OpenFlags::__O_SYNC.0
    | OpenFlags::O_PATH.0;

/// Set when all processes are there ([`crate::resource::owner`]); of what nothing signals about, a flag of open(2).
const ASYNCHRONOUS: u64 = OpenFlags::FASYNC.0;

/// Flags that change what O_PATH opens.
const WITH_PATH: u64 = OpenFlags::O_PATH.0 | OpenFlags::O_DIRECTORY.0 | OpenFlags::O_NOFOLLOW.0;

/// Never visible afterwards.
const NOCTTY: u64 = 0o400;

/// Devices and inodes of what stood at paths, as one walk by them found it: of two descriptions of one file, one look is enough.
#[derive(Debug, Default)]
pub(crate) struct Looked(Mutex<HashMap<Walk, (u64, u64)>>);

/// A root, a path below it, and how it is opened.
type Walk = (RawFd, Bytes, OFlag);

impl Looked {
    /// What stood at a path below a root when it was looked at last, if it was; otherwise what `look` sees there.
    fn at(
        &self,
        root: BorrowedFd<'_>,
        path: &Bytes,
        follow: OFlag,
        look: impl FnOnce() -> Result<(u64, u64), Failure>,
    ) -> Result<(u64, u64), Failure> {
        let key = (root.as_raw_fd(), path.clone(), follow);
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&there) = known().get(&key) {
            return Ok(there);
        }
        let there = look()?;
        known().insert(key, there);
        Ok(there)
    }
}

/// How often a path walk is tried again that a rename elsewhere disturbed: openat2(2) leaves that to the caller.
const TRIES: u32 = 100;

/// Finds what stands at a path without opening it: no device is woken, no FIFO waits for its other end. A symbolic link at the
/// path's end is not followed.
pub(crate) fn look(root: BorrowedFd<'_>, path: &Bytes) -> io::Result<File> {
    Ok(File::from(walk(root, path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?))
}

/// Opens what [`look`] was pleased with, for reading.
pub(crate) fn read(root: BorrowedFd<'_>, path: &Bytes) -> io::Result<File> {
    Ok(File::from(walk(root, path, OFlag::O_RDONLY | OFlag::O_NOFOLLOW)?))
}

fn walk(root: BorrowedFd<'_>, path: &Bytes, flags: OFlag) -> nix::Result<OwnedFd> {
    let path = std::ffi::OsStr::from_bytes(&path.0);
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    for _ in 1..TRIES {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
    openat2(root, path, how)
}

/// Opens `path` with the flags of a record. `expected` is the kind's bits of the mode (S_IFMT), `what` their name.
///
/// # Errors
/// [`Kind::Incompatible`] when it is not there or something else stands there, with `object` (a file of the image) in front.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    path: &Bytes,
    flags: OpenFlags,
    expected: (u32, &str),
    object: &str,
) -> Result<File, Failure> {
    open_seen(root, path, flags, expected, object, &Looked::default()).map(|(file, _)| file)
}

/// [`open`], with what was opened as it is now. What is known to stand there is not looked at before it is opened.
///
/// # Errors
/// As there.
pub(crate) fn open_seen(
    root: BorrowedFd<'_>,
    path: &Bytes,
    flags: OpenFlags,
    expected: (u32, &str),
    object: &str,
    looked: &Looked,
) -> Result<(File, Metadata), Failure> {
    let unfit = |reason: String| Failure::new(Kind::Incompatible, format!("{object}: {path}: {reason}"));
    check_flags(flags, object)?;
    let follow = if flags.contains(OpenFlags::O_NOFOLLOW) { OFlag::O_NOFOLLOW } else { OFlag::empty() };
    let (mode, what) = expected;
    let there = looked.at(root, path, follow, || {
        let place = walk(root, path, OFlag::O_PATH | follow);
        let place = File::from(place.map_err(|errno| unfit(format!("not found: {}", errno.desc())))?);
        let there = place.metadata().doing(|| format!("{object}: {path}: looking at it"))?;
        if there.mode() & libc::S_IFMT != mode {
            return Err(unfit(format!("it is no {what} here")));
        }
        Ok((there.dev(), there.ino()))
    })?;
    let wanted = if flags.contains(OpenFlags::O_PATH) {
        flags.0 & WITH_PATH
    } else if mode == libc::S_IFCHR {
        flags.0 & !ASYNCHRONOUS | OpenFlags::O_NONBLOCK.0 | NOCTTY
    } else {
        // Should a FIFO take the place meanwhile, opening it must not wait, and a terminal must not become ours.
        flags.0 | OpenFlags::O_NONBLOCK.0 | NOCTTY
    };
    let bits = i32::try_from(wanted).map_err(|_| unfit("its flags are too large".to_owned()))?;
    let opened = walk(root, path, OFlag::from_bits_retain(bits));
    let opened = opened.map_err(|errno| unfit(format!("cannot be opened: {}", errno.desc())))?;
    let file = File::from(opened);
    let here = file.metadata().doing(|| format!("{object}: {path}: looking at it"))?;
    if (here.dev(), here.ino()) != there {
        return Err(unfit("it is being replaced at this moment".to_owned()));
    }
    let added = wanted & !flags.0 & SETTABLE;
    if added != 0 {
        let flags = OFlag::from_bits_retain(bits) & !OFlag::O_NONBLOCK;
        fcntl(&file, FcntlArg::F_SETFL(flags)).doing(|| format!("{object}: {path}: setting its flags"))?;
    }
    Ok((file, here))
}

/// Refuses flags that cannot be those of an open file: an image may have been edited.
pub(crate) fn check_flags(flags: OpenFlags, object: &str) -> Result<(), Failure> {
    let refuse = |reason: String| Err(Failure::new(Kind::BadImage, format!("{object}: flags: {reason}")));
    let unknown = flags.0 & !OPENABLE & !ASYNCHRONOUS;
    if unknown != 0 {
        return refuse(format!("{:?} cannot be restored", OpenFlags(unknown)));
    }
    if flags.contains(OpenFlags(OpenFlags::O_WRONLY.0 | OpenFlags::O_RDWR.0)) {
        return refuse("O_WRONLY and O_RDWR exclude each other".to_owned());
    }
    Ok(())
}

/// Sets the status flags of a description to those of a record.
pub(crate) fn set_status(fd: BorrowedFd<'_>, flags: OpenFlags) -> nix::Result<()> {
    let now = u64::try_from(fcntl(fd, FcntlArg::F_GETFL)?).map_err(|_| Errno::EPROTO)?;
    let wanted = flags.0 & SETTABLE;
    if now & SETTABLE == wanted {
        return Ok(());
    }
    let bits = i32::try_from(now & !SETTABLE | wanted).map_err(|_| Errno::EINVAL)?;
    fcntl(fd, FcntlArg::F_SETFL(OFlag::from_bits_retain(bits))).map(drop)
}
