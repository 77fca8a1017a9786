//! timerfd beyond what nix covers.
//!
//! Source: timerfd_create(2); `fs/timerfd.c`, v6.18.

use std::os::fd::{AsRawFd, BorrowedFd};

use libc::itimerspec;
use nix::Result;
use nix::errno::Errno;

mod ioctl {
    // _IOW('T', 0, __u64) in include/uapi/linux/timerfd.h
    nix::ioctl_write_ptr!(set_ticks, b'T', 0, u64);
}

/// Sets the number of expirations that the next read returns, and wakes readers. `EINVAL` for 0; `ENOTTY` without
/// CONFIG_CHECKPOINT_RESTORE.
pub fn set_ticks(timer: BorrowedFd<'_>, ticks: u64) -> Result<()> {
    // SAFETY: the kernel reads one u64.
    unsafe { ioctl::set_ticks(timer.as_raw_fd(), &raw const ticks) }.map(drop)
}

/// timerfd_gettime(2) for its side effect: a periodic timer that has expired counts the expirations missed since and is
/// started again for its next one, which otherwise the next read would do. What a program can see stays the same.
pub fn catch_up(timer: BorrowedFd<'_>) -> Result<()> {
    const ZERO: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut now = itimerspec { it_interval: ZERO, it_value: ZERO };
    // SAFETY: the kernel writes one itimerspec.
    Errno::result(unsafe { libc::timerfd_gettime(timer.as_raw_fd(), &raw mut now) }).map(drop)
}
