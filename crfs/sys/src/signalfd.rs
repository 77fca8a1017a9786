//! signalfd with any signal: nix has no names for the real-time ones.
//!
//! Source: signalfd(2); `fs/signalfd.c`, v6.18.

use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::Result;
use nix::errno::Errno;

/// A signalfd, close-on-exec, that accepts the signals of `mask` (signal 1 in bit 0). The kernel drops `SIGKILL` and `SIGSTOP`.
pub fn create(mask: u64) -> Result<OwnedFd> {
    // SAFETY: the kernel reads 8 bytes of mask. The raw call is used since the C library's set has another size.
    let result =
        unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, size_of::<u64>(), libc::SFD_CLOEXEC) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
