//! userfaultfd(2): pages put into another process's mappings.
//!
//! Source: ioctl_userfaultfd(2); `include/uapi/linux/userfaultfd.h`, `mm/userfaultfd.c`, v6.18.

use nix::Result;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Nobody waits for the pages.
const UFFDIO_COPY_MODE_DONTWAKE: u64 = 1;

/// `struct uffdio_copy`
#[repr(C)]
struct UffdioCopy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

mod ioctl {
    nix::ioctl_readwrite!(uffdio_copy, 0xaa, 0x03, super::UffdioCopy);
}

/// Makes pages of `bytes`, whole ones, at `address` of the mappings that the userfaultfd is registered for. Returns how many bytes are
/// there now, which are fewer where a page is there already.
///
/// `EEXIST`: the first is; `ENOENT`: it is in no such mapping; `EINVAL`: not whole pages.
pub fn copy(userfault: BorrowedFd<'_>, address: u64, bytes: &[u8]) -> Result<usize> {
    let (src, len) = (bytes.as_ptr() as u64, bytes.len() as u64);
    let mut request = UffdioCopy { dst: address, src, len, mode: UFFDIO_COPY_MODE_DONTWAKE, copy: 0 };
    // SAFETY: the kernel reads `len` bytes at `src`, which are those of `bytes`, and writes the last field.
    match unsafe { ioctl::uffdio_copy(userfault.as_raw_fd(), &raw mut request) } {
        Ok(_) => Ok(bytes.len()),
        Err(Errno::EAGAIN) if request.copy > 0 => usize::try_from(request.copy).map_err(|_| Errno::EPROTO),
        Err(errno) => Err(errno),
    }
}
