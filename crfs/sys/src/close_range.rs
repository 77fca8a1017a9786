//! close_range(2): marking or closing all descriptors at once.
//!
//! Source: close_range(2); `include/uapi/linux/close_range.h`, v6.18.

use nix::Result;
use nix::errno::Errno;

/// Marks every descriptor from `first` on close-on-exec: they serve until exec and do not leak through it.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: three numbers; no descriptor is closed by this, so nobody's ownership is touched.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}
