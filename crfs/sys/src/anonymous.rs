//! Anonymous memory of one's own, addressed by words: private or shared with children, of any protection.
//!
//! Source: mmap(2), mprotect(2).

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::Result;
use nix::errno::Errno;

/// What a [`Region`] is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kind {
    /// `MAP_SHARED`: children see what is written, and write themselves.
    pub shared: bool,
    /// `MAP_NORESERVE`: address space that is not counted until it is used.
    pub noreserve: bool,
}

/// A mapping, unmapped when it is dropped. Words are read and written atomically, since other processes may share them.
///
/// Access to a page without the protection for it ends in SIGSEGV, as the hardware has it.
#[derive(Debug)]
pub struct Region {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the words are atomic, and the mapping belongs to the region alone.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `bytes` (rounded up to whole words) of zeros, readable and writable.
    pub fn new(bytes: usize, kind: Kind) -> Result<Self> {
        let sharing = if kind.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let reserve = if kind.noreserve { libc::MAP_NORESERVE } else { 0 };
        Self::with_flags(bytes, sharing | reserve)
    }

    /// As [`Region::new`], with flags of mmap(2) beside `MAP_ANONYMOUS`. `MAP_FIXED` is left out.
    pub fn with_flags(bytes: usize, flags: i32) -> Result<Self> {
        let words = bytes.div_ceil(8);
        let flags = (flags | libc::MAP_ANONYMOUS) & !(libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(null_mut(), words * 8, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Region { start: NonNull::new(start.cast()).ok_or(Errno::EFAULT)?, words })
    }

    /// Maps the first `bytes` of a file that is open for reading and writing, shared.
    pub fn of_file(file: BorrowedFd<'_>, bytes: usize) -> Result<Self> {
        let words = bytes.div_ceil(8);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(null_mut(), words * 8, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Region { start: NonNull::new(start.cast()).ok_or(Errno::EFAULT)?, words })
    }

    /// The address of the first byte.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    /// How many words it has.
    #[must_use]
    pub fn words(&self) -> usize {
        self.words
    }

    /// The word of this index.
    ///
    /// # Panics
    /// When it lies outside.
    #[must_use]
    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: inside the mapping, aligned, and zero pages are valid words; it lives as long as the region.
        unsafe { self.start.add(index).as_ref() }
    }

    /// Reads a word.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Relaxed)
    }

    /// Writes a word.
    pub fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Relaxed);
    }

    /// Sets the protection (`PROT_*`) of the pages that hold words `first..first + count`. `EINVAL` when these lie outside or
    /// do not start at a page.
    pub fn protect(&self, first: usize, count: usize, protection: i32) -> Result<()> {
        let start = self.part(first, count)?;
        // SAFETY: the range lies in this mapping, in which no Rust object stands but the atomic words.
        let result = unsafe { libc::mprotect(start.as_ptr().cast(), count * 8, protection) };
        Errno::result(result).map(drop)
    }

    /// madvise(2) on the pages that hold words `first..first + count`, which are zeros or guards afterwards by some advice.
    pub fn advise(&self, first: usize, count: usize, advice: i32) -> Result<()> {
        let start = self.part(first, count)?;
        // SAFETY: as for `protect`; a page that is taken away is one of zeros, which are valid words.
        let result = unsafe { libc::madvise(start.as_ptr().cast(), count * 8, advice) };
        Errno::result(result).map(drop)
    }

    /// mlock2(2) of the whole; `on_fault`: pages as they are touched.
    pub fn lock(&self, on_fault: bool) -> Result<()> {
        let flags = if on_fault { libc::MLOCK_ONFAULT } else { 0 };
        // SAFETY: locking changes no contents, and the range is this mapping.
        let result = unsafe { libc::mlock2(self.start.as_ptr().cast(), self.words * 8, flags) };
        Errno::result(result).map(drop)
    }

    /// mseal(2) of the whole, which then stays mapped, with its protection, until the process ends.
    pub fn seal(&self) -> Result<()> {
        // SAFETY: sealing changes no contents, and the range is this mapping.
        let result = unsafe { libc::syscall(libc::SYS_mseal, self.start.as_ptr(), self.words * 8, 0) };
        Errno::result(result).map(drop)
    }

    /// The first of these words; `EINVAL` when some lie outside.
    fn part(&self, first: usize, count: usize) -> Result<NonNull<AtomicU64>> {
        if first.checked_add(count).is_none_or(|end| end > self.words) {
            return Err(Errno::EINVAL);
        }
        // SAFETY: inside the mapping, or just behind it.
        Ok(unsafe { self.start.add(first) })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the words borrowed from it are gone.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * 8) };
    }
}
