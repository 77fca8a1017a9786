//! A lock that nix does not cover for borrowed descriptors.
//!
//! Source: flock(2).

use nix::Result;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `LOCK_SH`, `LOCK_EX` or `LOCK_UN` on the whole file, for the open file description, without waiting: `EWOULDBLOCK` when somebody
/// else holds it.
pub fn flock(file: BorrowedFd<'_>, operation: i32) -> Result<()> {
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) }).map(drop)
}
