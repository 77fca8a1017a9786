//! A file of one's own, mapped to be read: page contents are written into other processes straight from the page cache.
//!
//! Source: mmap(2).

use std::fs::File;
use std::os::fd::AsRawFd;
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
