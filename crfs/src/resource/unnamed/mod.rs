//! Files that no path leads to: memfds, deleted files, O_TMPFILE, shared memory in huge pages.
//!
//! **What it is.** An inode without a link that descriptors and mappings keep alive, in several processes at once. The content is
//! nowhere else, so the image has it. Shared anonymous memory in huge pages is such a file that is only mapped.
//!
//! **Where the kernel keeps it.** An inode with `i_nlink` 0; memfds lie in a tmpfs of the kernel's own:
//! <https://elixir.bootlin.com/linux/v6.18/source/mm/shmem.c>.
//!
//! **How it is read.** What /proc/PID/fd and /proc/PID/map_files lead to is told apart by device and inode. While the container stands
//! still the content is read through such a link; the freeze itself copies nothing.
//!
//! **How it is made again.** Once, in the worker: memfd_create(2); O_TMPFILE in its directory; or a file under its old path, or a
//! path beside it where that is taken, which is deleted again; or a mapping, whose link in map_files gives a descriptor. It is filled, and each description and mapping opens it anew
//! through /proc/self/fd. Seals come last, since some forbid what is mapped already. What consists of huge pages takes no write(2): its
//! pages are allocated, as far as they hold something, and written through a mapping.
//!
//! **What is refused.** A file that was deleted under the path it was opened by and has other names, of which none is in the same
//! directory; deleted files of a hugetlbfs; a memfd of huge pages whose size is not of whole ones.

mod capture;
mod restore;

pub(super) use capture::Found;
pub use capture::Unnamed;
pub use restore::Made;

use image_format::types::PAGE_SIZE;
use nix::sys::memfd::MFdFlags;

/// How memfd_create(2) makes a file with pages of so many bytes, a power of two, that can be sealed.
fn memfd_flags(page_size: u64) -> MFdFlags {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    if page_size == PAGE_SIZE {
        return flags;
    }
    let size = page_size.trailing_zeros() << libc::MFD_HUGE_SHIFT;
    flags | MFdFlags::MFD_HUGETLB | MFdFlags::from_bits_retain(size)
}
