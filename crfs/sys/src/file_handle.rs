//! Files by their handles: what is left of a file where the kernel tells no path.
//!
//! Source: open_by_handle_at(2); `fs/fhandle.c`, v6.18.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::Result;
use nix::errno::Errno;

/// MAX_HANDLE_SZ
const LONGEST: usize = 128;

/// `struct file_handle` with room for any.
#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; LONGEST],
}
const _: () = assert!(size_of::<RawHandle>() == 8 + LONGEST);

/// An O_PATH descriptor of the file that a handle means on the file system of `mount`, which was opened for reading there.
/// `ESTALE`: there is no such file, or the file system has no handles to find one by.
pub fn open(mount: BorrowedFd<'_>, kind: i32, handle: &[u8]) -> Result<OwnedFd> {
    let mut raw = RawHandle { bytes: 0, kind, handle: [0; LONGEST] };
    raw.bytes = u32::try_from(handle.len()).map_err(|_| Errno::EINVAL)?;
    raw.handle.get_mut(..handle.len()).ok_or(Errno::EINVAL)?.copy_from_slice(handle);
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the kernel reads a handle of the length that stands in it, which fits.
    let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw const raw, flags) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
