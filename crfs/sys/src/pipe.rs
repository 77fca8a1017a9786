//! Pipes beyond what nix covers: how much is queued, and who is signalled about it.
//!
//! Source: pipe(7), fcntl(2); `pipe_ioctl` in `fs/pipe.c`, v6.18.

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

// include/uapi/asm-generic/fcntl.h
const F_GETSIG: libc::c_int = 11;
const F_GETOWN_EX: libc::c_int = 16;

/// `struct f_owner_ex`
#[repr(C)]
struct OwnerEx {
    kind: libc::c_int,
    pid: libc::pid_t,
}
const _: () = assert!(size_of::<OwnerEx>() == 8);

/// Whether an open file description has an owner that is to be signalled (F_SETOWN, F_SETOWN_EX) or a signal chosen for that
/// (F_SETSIG). An owner that has died since counts as none.
pub fn has_owner(fd: BorrowedFd<'_>) -> Result<bool> {
    let mut owner = OwnerEx { kind: 0, pid: 0 };
    // SAFETY: the kernel writes one f_owner_ex.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, &raw mut owner) })?;
    // SAFETY: a number in, a number out.
    let signal = Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETSIG) })?;
    Ok(owner.pid != 0 || signal != 0)
}

/// tee(2): copies up to `length` bytes from the front of one pipe into another and consumes nothing. Never waits: `EAGAIN` when the
/// source is empty or there is no room.
pub fn tee(from: BorrowedFd<'_>, into: BorrowedFd<'_>, length: usize) -> Result<usize> {
    // SAFETY: numbers only.
    let result = unsafe { libc::tee(from.as_raw_fd(), into.as_raw_fd(), length, libc::SPLICE_F_NONBLOCK) };
    usize::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)
}
