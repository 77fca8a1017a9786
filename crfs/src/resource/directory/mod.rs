//! Directories, opened by their path.
//!
//! **What it is.** An open file description on a directory: a place to start path walks from, or a listing in progress.
//!
//! **Where the kernel keeps it.** `struct file`; what its offset means is the file system's own business:
//! <https://elixir.bootlin.com/linux/v6.18/source/fs/readdir.c>.
//!
//! **How it is read.** As a regular file: the link in /proc/PID/fd, looked up again, and the offset. In the middle of a listing also inode
//! and modification time: the offset is a cookie of the file system, which holds good for the same directory as long as it is unchanged.
//!
//! **How it is made again.** Its path is looked up, must be a directory, and is opened with the recorded flags. One that was deleted is made
//! at its path (or beside it, where that is taken), opened, and deleted again: nothing was in it, and nothing can be made in it.
//!
//! **What is refused.** A listing in progress on a file system whose offsets are not known to last ("was read in part"). A
//! directory that is hidden. At the restore, a directory that changed in the middle of its listing. Those of proc are files of proc.

mod capture;
mod deleted;
mod restore;

pub(super) use capture::{capture, deleted, former};
pub(super) use deleted::make;
pub(super) use restore::restore;
