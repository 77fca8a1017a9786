//! Files that no path leads to: memfds, deleted files, O_TMPFILE.
//!
//! **What it is.** An inode without a link that descriptors and mappings keep alive, in several processes at once. The content is
//! nowhere else, so the image has it.
//!
//! **Where the kernel keeps it.** An inode with `i_nlink` 0; memfds lie in a tmpfs of the kernel's own:
//! <https://elixir.bootlin.com/linux/v6.18/source/mm/shmem.c>.
//!
//! **How it is read.** What /proc/PID/fd and /proc/PID/map_files lead to is told apart by device and inode. While the container stands
//! still the content is read through such a link; the freeze itself copies nothing.
//!
//! **How it is made again.** Once, in the worker: memfd_create(2); O_TMPFILE in its directory; or a file under its old path, or a
//! path beside it where that is taken, which is deleted again. It is filled, and each description and mapping opens it anew
//! through /proc/self/fd. Seals come last, since some forbid what is mapped already.
//!
//! **What is refused.** A file that was deleted under the path it was opened by and has other names, of which none is in the same
//! directory; memfds of huge pages.

mod capture;
mod restore;

pub(super) use capture::Found;
pub use capture::Unnamed;
pub use restore::Made;
