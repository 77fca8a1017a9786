//! A file of one's own, mapped: to be read, since page contents are written into other processes straight from the page cache; and to be
//! written, where a file of huge pages takes no write(2).
//!
//! Source: mmap(2); `hugetlbfs_file_operations` in `fs/hugetlbfs/inode.c`, v6.18.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};

use nix::Result;
use nix::errno::Errno;

/// A whole file, read-only, unmapped when it is dropped.
///
/// The file must belong to the caller in the sense that nobody writes to or truncates it meanwhile: reading beyond its new end
/// would end in SIGBUS. Files staged in a directory of root's, under a lock, are such files.
#[derive(Debug)]
pub struct FileMap {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: nobody writes to the mapping; its address and length never change.
unsafe impl Send for FileMap {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for FileMap {}

impl FileMap {
    /// Maps the file as long as it is now. An empty file is an empty slice.
    ///
    /// # Errors
    /// Of fstat(2) and mmap(2).
    pub fn new(file: &File) -> Result<Self> {
        let size = nix::sys::stat::fstat(file)?.st_size;
        let length = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        if length == 0 {
            return Ok(FileMap { start: NonNull::dangling(), length });
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let start = NonNull::new(start.cast()).ok_or(Errno::ENOMEM)?;
        Ok(FileMap { start, length })
    }

    /// Has the pages of a part mapped by one call, where each sixteen would be by a fault. What fails is mapped as it is read.
    pub fn populate(&self, part: Range<usize>) {
        /// `include/uapi/asm-generic/mman-common.h`, since v5.14.
        const MADV_POPULATE_READ: libc::c_int = 22;
        const PAGE: usize = 4096;
        let (from, to) = (part.start / PAGE * PAGE, part.end.min(self.length));
        if from < to {
            // SAFETY: within the mapping, whose contents stay what they are.
            unsafe { libc::madvise(self.start.as_ptr().add(from).cast(), to - from, MADV_POPULATE_READ) };
        }
    }

    /// The file's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping covers `length` bytes as long as self lives (or is empty), and by the contract nobody writes to the file.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        if self.length != 0 {
            // SAFETY: the mapping is ours and no slice of it outlives self. A failure would leave it mapped, harmlessly.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        }
    }
}
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
