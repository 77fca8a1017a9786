//! Shared anonymous memory as a descriptor.
//!
//! `mmap(MAP_SHARED | MAP_ANONYMOUS)` makes an unnamed tmpfs file without a descriptor; /proc/self/map_files gives one, by
//! which other processes can map the very same kind of object (a memfd would be named differently in their maps).
//!
//! Source: mmap(2), proc_pid_map_files(5): opening needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.

use std::fs::{File, OpenOptions};
use std::io;
use std::ptr::null_mut;

/// Makes a new object of so many bytes, all zero, and returns a descriptor for reading and writing.
///
/// # Errors
/// Of mmap(2) and of opening the link.
pub fn create(size: u64) -> io::Result<File> {
    let length = usize::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?.next_multiple_of(4096);
    map(length, 0)
}

/// Makes a new object of one huge page of so many bytes, a power of two, and returns a descriptor for reading and writing. It can be
/// made longer; no page is taken from the pool.
///
/// # Errors
/// `EINVAL` for a size that the kernel has no pool of; of mmap(2) and of opening the link.
pub fn create_huge(page_size: u64) -> io::Result<File> {
    let length = usize::try_from(page_size).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    let exponent = i32::try_from(page_size.trailing_zeros()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    map(length, libc::MAP_HUGETLB | exponent << libc::MAP_HUGE_SHIFT)
}

fn map(length: usize, kind: i32) -> io::Result<File> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // MAP_NORESERVE: who maps it accounts for it.
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | kind;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let start = unsafe { libc::mmap(null_mut(), length, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let address = start as usize;
    let link = format!("/proc/self/map_files/{:x}-{:x}", address, address + length);
    let file = OpenOptions::new().read(true).write(true).open(link);
    // SAFETY: the mapping is ours and nothing refers to it. The descriptor keeps the object.
    unsafe { libc::munmap(start, length) };
    file
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    #[test]
    fn object_is_the_anonymous_kind_and_holds_what_is_written() {
        let file = super::create(10_000).expect("root may open map_files");
        file.write_all_at(b"here", 8192).expect("write");
        let mut read = [0; 4];
        file.read_exact_at(&mut read, 8192).expect("read");
        assert_eq!(&read, b"here");
        let name =
            std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).expect("link");
        assert_eq!(name.to_string_lossy(), "/dev/zero (deleted)");
        assert_eq!(file.metadata().expect("stat").len(), 12_288);
    }

    #[test]
    fn object_of_huge_pages_takes_none() {
        use std::os::unix::fs::MetadataExt;
        let file = super::create_huge(2 << 20).expect("made though the pool is empty");
        file.set_len(6 << 20).expect("longer");
        let metadata = file.metadata().expect("stat");
        assert_eq!((metadata.len(), metadata.blksize(), metadata.blocks()), (6 << 20, 2 << 20, 0));
        let name =
            std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).expect("link");
        assert_eq!(name.to_string_lossy(), "/anon_hugepage (deleted)");
    }
}
