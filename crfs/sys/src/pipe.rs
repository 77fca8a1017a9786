//! Pipes beyond what nix covers: how much is queued, and copies of it.
//!
//! Source: pipe(7), tee(2); `pipe_ioctl` in `fs/pipe.c`, v6.18.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;
use nix::errno::Errno;

mod ioctl {
    nix::ioctl_read_bad!(fionread, libc::FIONREAD, libc::c_int);
}

/// Bytes queued in a pipe; either end can be asked.
pub fn queued(pipe: BorrowedFd<'_>) -> Result<u64> {
    let mut bytes = 0;
    // SAFETY: the kernel writes one int.
    unsafe { ioctl::fionread(pipe.as_raw_fd(), &raw mut bytes) }?;
    u64::try_from(bytes).map_err(|_| Errno::EOVERFLOW)
}

/// tee(2): copies up to `length` bytes from the front of one pipe into another and consumes nothing. Never waits: `EAGAIN` when the
/// source is empty or there is no room.
pub fn tee(from: BorrowedFd<'_>, into: BorrowedFd<'_>, length: usize) -> Result<usize> {
    // SAFETY: numbers only.
    let result = unsafe { libc::tee(from.as_raw_fd(), into.as_raw_fd(), length, libc::SPLICE_F_NONBLOCK) };
    usize::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)
}
