//! From the records to locks.

use crate::failure::{Doing, Failure, Kind};
use crfs_tracee::Batch;
use image_format::layout::{LOCKS, file_entry};
use image_format::locks::{Lock, LockKind};
use image_format::process::Fd;
use image_format::{FileId, Image, Pid};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Takes what belongs to descriptions, after all were compared with the locks of others.
///
/// # Errors
/// [`Kind::Incompatible`] naming every lock that somebody else holds.
pub fn take(image: &Image, opened: &BTreeMap<FileId, OwnedFd>) -> Result<(), Failure> {
    let mut held = Vec::new();
    for lock in image.locks.iter().filter(|lock| matches!(lock.kind, LockKind::Posix | LockKind::Ofd)) {
        let mut asked = range(lock);
        fcntl(description(lock, opened)?, FcntlArg::F_OFD_GETLK(&mut asked))
            .doing(|| format!("{LOCKS}: {}: comparing", file_entry(lock.file)))?;
        if i32::from(asked.l_type) != libc::F_UNLCK {
            held.push(taken(lock));
        }
    }
    if held.is_empty() {
        for lock in &image.locks {
            let fd = description(lock, opened)?;
            if !own(lock, fd)? {
                held.push(taken(lock));
            }
        }
    }
    held.sort();
    held.dedup();
    if held.is_empty() { Ok(()) } else { Err(Failure::new(Kind::Incompatible, held.join("; "))) }
}

fn description<'a>(lock: &Lock, opened: &'a BTreeMap<FileId, OwnedFd>) -> Result<BorrowedFd<'a>, Failure> {
    let fd = opened.get(&lock.file);
    fd.map(AsFd::as_fd).ok_or_else(|| Failure::new(Kind::System, format!("{}: was not opened", file_entry(lock.file))))
}

fn taken(lock: &Lock) -> String {
    format!(
        "{LOCKS}: somebody else holds a lock on what {} names; let it go, or put another file there",
        file_entry(lock.file)
    )
}

/// Takes a lock that belongs to the description. False: somebody else has it.
fn own(lock: &Lock, fd: BorrowedFd<'_>) -> Result<bool, Failure> {
    let doing = || format!("{LOCKS}: {}: taking it", file_entry(lock.file));
    match lock.kind {
        LockKind::Posix => Ok(true),
        LockKind::Flock => {
            let operation = if lock.exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
            match crfs_sys::lock::flock(fd, operation) {
                Err(Errno::EWOULDBLOCK) => Ok(false),
                other => other.map(|()| true).doing(doing),
            }
        }
        LockKind::Lease => match try_lease(lock, fd) {
            Err(Errno::EAGAIN) => Ok(false),
            other => other.map(|()| true).doing(doing),
        },
        LockKind::Ofd => match fcntl(fd, FcntlArg::F_OFD_SETLK(&range(lock))) {
            Err(Errno::EAGAIN) => Ok(false),
            other => other.map(|_| true).doing(doing),
        },
    }
}

/// Whether a lease can be had: nobody else has the file open against it. It is let go again, since its process must take it.
fn try_lease(lock: &Lock, fd: BorrowedFd<'_>) -> nix::Result<()> {
    crfs_sys::lock::set_lease(fd, lease(lock))?;
    crfs_sys::lock::set_lease(fd, libc::F_UNLCK)?;
    crfs_sys::owner::set(fd, crfs_sys::owner::F_OWNER_TID, 0)
}

fn lease(lock: &Lock) -> i32 {
    if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK }
}

/// The range as fcntl(2) takes it.
fn range(lock: &Lock) -> libc::flock {
    let start = i64::try_from(lock.start).unwrap_or(i64::MAX);
    // 0 is up to the end, wherever that is.
    let length = lock.end.map_or(0, |end| i64::try_from(end - lock.start + 1).unwrap_or(0));
    let kind = if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    libc::flock { l_type: i16::try_from(kind).unwrap_or(0), l_whence: 0, l_start: start, l_len: length, l_pid: 0 }
}

/// The calls by which a process, or a thread with descriptors of its own, takes its POSIX locks and leases; `fds`, its descriptors,
/// are in place.
pub fn inject(batch: &mut Batch, locks: &[Lock], owner: Pid, fds: &[Fd]) {
    for lock in locks.iter().filter(|lock| lock.process == owner) {
        let Some(fd) = fds.iter().find(|fd| fd.file == lock.file) else { continue };
        match lock.kind {
            LockKind::Flock | LockKind::Ofd => {}
            LockKind::Lease => {
                let kind = lease(lock);
                batch.call(libc::SYS_fcntl, &[fd.fd.into(), libc::F_SETLEASE.into(), kind.into()], "fcntl(F_SETLEASE)");
            }
            LockKind::Posix => {
                let libc::flock { l_type, l_whence, l_start, l_len, .. } = range(lock);
                // struct flock: two shorts, padding, two longs, a pid, padding.
                let mut record = [l_type.to_ne_bytes(), l_whence.to_ne_bytes()].concat();
                record.extend([0; 4]);
                record.extend([l_start.to_ne_bytes(), l_len.to_ne_bytes(), [0; 8]].concat());
                let record = batch.data(&record);
                batch.call(libc::SYS_fcntl, &[fd.fd.into(), libc::F_SETLK.into(), record.into()], "fcntl(F_SETLK)");
            }
        }
    }
}
