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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::{FromRawFd, OwnedFd};

    const PAGE: usize = 4096;
    const USER_MODE_ONLY: i32 = 1;

    #[repr(C)]
    struct Api([u64; 3]);
    #[repr(C)]
    struct Register([u64; 4]);
    nix::ioctl_readwrite!(uffdio_api, 0xaa, 0x3f, Api);
    nix::ioctl_readwrite!(uffdio_register, 0xaa, 0x00, Register);

    #[test]
    fn pages_are_made_up_to_one_that_is_there() {
        let length = 4 * PAGE;
        // SAFETY: new memory, never unmapped; the ioctls read and write the structures that they are given.
        let (memory, userfault) = unsafe {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let memory = libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0).cast::<u8>();
            assert_ne!(memory as isize, -1);
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY);
            let userfault = OwnedFd::from_raw_fd(i32::try_from(Errno::result(fd).unwrap()).unwrap());
            let mut api = Api([0xaa, 0, 0]);
            uffdio_api(userfault.as_raw_fd(), &raw mut api).unwrap();
            memory.add(2 * PAGE).write(9);
            let mut register = Register([memory as u64, length as u64, 1, 0]);
            uffdio_register(userfault.as_raw_fd(), &raw mut register).unwrap();
            (std::slice::from_raw_parts(memory, length), userfault)
        };
        let (userfault, at) =
            (std::os::fd::AsFd::as_fd(&userfault), |page: usize| memory.as_ptr() as u64 + (page * PAGE) as u64);
        let bytes = [7; 4 * PAGE];
        assert_eq!(copy(userfault, at(0), &bytes), Ok(2 * PAGE));
        assert_eq!(copy(userfault, at(2), &bytes[2 * PAGE..]), Err(Errno::EEXIST));
        assert_eq!(copy(userfault, at(3), &bytes[3 * PAGE..]), Ok(PAGE));
        assert_eq!([0, PAGE, 2 * PAGE, 3 * PAGE].map(|place| memory[place]), [7, 7, 9, 7]);
        assert_eq!(copy(userfault, 0x1000, &bytes), Err(Errno::ENOENT));
    }
}
