//! Directories, opened by their path.
//!
//! **What it is.** An open file description on a directory: a place to start path walks from, or a listing in progress.
//!
//! **Where the kernel keeps it.** `struct file`; what its offset means is the file system's own business:
//! <https://elixir.bootlin.com/linux/v6.18/source/fs/readdir.c>.
//!
//! **How it is read.** As a regular file: the link in /proc/PID/fd, looked up again, and the offset.
//!
//! **How it is made again.** Its path is looked up, must be a directory, and is opened with the recorded flags.
//!
//! **What is refused.** A listing in progress ("was read in part"): the offset is a cookie of one file system. A
//! directory that was removed or hidden; a directory of a process in proc, which another process has after a restore.

mod capture;
mod restore;

pub(super) use capture::capture;
pub(super) use restore::restore;
