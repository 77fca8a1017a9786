//! Files that are written through a mapping: those of huge pages, which take no write(2).
//!
//! Source: mmap(2); `hugetlbfs_file_operations` in `fs/hugetlbfs/inode.c`, v6.18.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use nix::Result;
use nix::errno::Errno;

/// Writes bytes at an offset through a mapping of the pages, of `page_size` bytes, on which they lie. No page is reserved.
///
/// The pages must be allocated, and nobody may truncate the file meanwhile: touching what is not there would end in SIGBUS.
///
/// # Errors
/// `EINVAL` for a `page_size` that is no power of two, `EOVERFLOW` beyond the end of all files; of mmap(2).
pub fn write_pages(file: BorrowedFd<'_>, page_size: u64, bytes: &[u8], at: u64) -> Result<()> {
    if !page_size.is_power_of_two() {
        return Err(Errno::EINVAL);
    }
    let first = at & !(page_size - 1);
    let end = at.checked_add(bytes.len() as u64).and_then(|end| end.checked_next_multiple_of(page_size));
    let length = end.and_then(|end| usize::try_from(end - first).ok()).ok_or(Errno::EOVERFLOW)?;
    let skip = usize::try_from(at - first).map_err(|_| Errno::EOVERFLOW)?;
    let offset = libc::off_t::try_from(first).map_err(|_| Errno::EOVERFLOW)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let start = unsafe { libc::mmap(null_mut(), length, protection, flags, file.as_raw_fd(), offset) };
    if start == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the mapping is new, so that `bytes` is no part of it, and reaches from `first` to the end of `bytes` or further.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.cast::<u8>().add(skip), bytes.len()) };
    // SAFETY: the mapping is ours and nothing refers to it.
    Errno::result(unsafe { libc::munmap(start, length) }).map(drop)
}
