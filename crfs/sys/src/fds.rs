//! The descriptor table as a whole.
//!
//! Source: close_range(2), dup(2).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;

/// For a process about to execute `program`: `kept` under the number `number` without close-on-exec, `program` open until the
/// exec, and nothing else. Neither `number` may be one that `kept` or `program` has, unless it is `kept`'s.
///
/// Whoever calls this must not use any other descriptor afterwards.
///
/// # Errors
/// Of dup2(2) and close_range(2).
pub fn keep(kept: &OwnedFd, number: i32, program: &OwnedFd) -> Result<()> {
    // Everything closes at the exec: the program's file is needed until then, and a report may yet have to be written.
    // SAFETY: numbers.
    Errno::result(unsafe { libc::close_range(0, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) })?;
    if number == program.as_raw_fd() {
        return Err(Errno::EBUSY);
    }
    if number == kept.as_raw_fd() {
        // SAFETY: numbers.
        Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })?;
    } else {
        // SAFETY: numbers; what is closed by it is nobody's by the contract.
        Errno::result(unsafe { libc::dup2(kept.as_raw_fd(), number) })?;
    }
    Ok(())
}

/// Whether the number is an open descriptor of the calling process.
#[must_use]
pub fn is_open(number: i32) -> bool {
    // SAFETY: takes a number and reads a flag; one that is not open is an error.
    (unsafe { libc::fcntl(number, libc::F_GETFD) }) >= 0
}

/// Whether a read at this offset would give anything, which is asked without taking any of it: there is no room for it. For files of
/// which a read of nothing says nothing, as those of /proc.
///
/// # Errors
/// Of pread(2): what the reader would be told.
pub fn has_more(file: BorrowedFd<'_>, offset: i64) -> Result<bool> {
    // SAFETY: nothing is mapped at address 0, so that the kernel writes nothing: it gives up on the first byte.
    match Errno::result(unsafe { libc::pread(file.as_raw_fd(), std::ptr::null_mut(), 1, offset) }) {
        Err(Errno::EFAULT) => Ok(true),
        read => Ok(read? > 0),
    }
}
