//! Regular files, opened by their path.
//!
//! **What it is.** An open file description on a file of a file system: access mode, status flags, offset. The content is the file
//! system's, and is not part of an image.
//!
//! **Where the kernel keeps it.** `f_pos` and `f_flags` of `struct file`:
//! <https://elixir.bootlin.com/linux/v6.18/source/include/linux/fs.h>.
//!
//! **How it is read.** The path is the link in /proc/PID/fd, taken relative to the container's root directory and looked up again:
//! it must lead to the same inode. Size and modification time are recorded, to know the file again.
//!
//! **How it is made again.** The path is looked up without opening it (what is no regular file is never opened), compared with the
//! record, and opened with the recorded flags; then the offset is set. A description of the container's log is opened on
//! the log of the container it is restored as, always appending.
//!
//! Files that no path leads to are part of the image: [`crate::resource::unnamed`].
//!
//! **What is refused.** At capture: files that were deleted and have names in other directories only ("was deleted or replaced while it is open"),
//! namespaces, files of sysfs and its like. At restore: a file that is not there, is shorter than it was, or
//! was changed although the program reads it; each with what differs, all in one report. A file open for writing only may have
//! changed, and one open for writing may have grown: that is told in a note. What `if_changed` of the record says instead goes before that:
//! refuse whatever differs, let it pass, go on at the end, or put a saved content in the place of the file.

mod capture;
mod replace;
mod restore;

pub(super) use capture::{capture, capture_unnamed, is_unnamed};
pub(super) use replace::replace;
pub(super) use restore::{restore, restore_log, restore_unnamed};
