//! Locks that nix does not cover, or not for borrowed descriptors.
//!
//! Source: flock(2), fcntl(2).

use nix::Result;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `LOCK_SH`, `LOCK_EX` or `LOCK_UN` on the whole file, for the open file description, without waiting: `EWOULDBLOCK` when somebody
/// else holds it.
pub fn flock(file: BorrowedFd<'_>, operation: i32) -> Result<()> {
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) }).map(drop)
}

/// F_SETLEASE: `F_RDLCK`, `F_WRLCK` or `F_UNLCK` on the whole file, for the open file description; the caller is who is signalled
/// unless the description has an owner. `EAGAIN` when others have it open in a way that contradicts it.
pub fn set_lease(file: BorrowedFd<'_>, kind: i32) -> Result<()> {
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) }).map(drop)
}

/// F_GETLEASE: `F_RDLCK`, `F_WRLCK`, or `F_UNLCK` for none.
pub fn lease(file: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: a number out.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) })
}
