//! What files of huge pages have in common, whoever made them: memfds, shared anonymous memory, System V segments.
//!
//! Source: `fs/hugetlbfs/inode.c`, v6.18. They are read by read(2); `hugetlbfs_file_operations` has no way to write.

use crfs_sys::file_map;
use image_format::types::PAGE_SIZE;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{HUGETLBFS_MAGIC, statfs};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// Bytes of a page of the memory that a link of map_files leads to, huge or of the usual size.
pub(super) fn page_size(link: &Path) -> std::io::Result<u64> {
    let found = statfs(link)?;
    if found.filesystem_type() != HUGETLBFS_MAGIC {
        return Ok(PAGE_SIZE);
    }
    u64::try_from(found.block_size()).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

/// Writes into a file of huge pages, of which it first allocates those it needs: an empty pool is an error there, and a signal when
/// memory is touched.
pub(super) fn write(file: &File, page_size: u64, part: &[u8], at: u64) -> std::io::Result<()> {
    let end = at + part.len() as u64;
    let offset = |at: u64| i64::try_from(at).map_err(|_| std::io::ErrorKind::FileTooLarge);
    fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset(at)?, offset(end - at)?)?;
    Ok(file_map::write_pages(file.as_fd(), page_size, part, at)?)
}
