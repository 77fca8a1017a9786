//! What stays open below /proc/PID when the process or thread has ended, as monitors have it that keep files of those they watch; and what stays
//! somebody's working or root directory there, in which nothing is found and nothing can be made, as sandboxes choose it (Chromium's).
//!
//! **What it is.** An open file description that says nothing any more: reading fails (ESRCH), or there is nothing to read.
//!
//! **Where the kernel keeps it.** `struct proc_inode` holds the `struct pid`, which has no task (`fs/proc/base.c`):
//! <https://elixir.bootlin.com/linux/v6.18/source/fs/proc/internal.h>.
//!
//! **How it is read.** The link in /proc/PID/fd, whose path leads there no more. Whether a reader would be told of the end, of an error, or
//! of what the kernel still keeps of the text, is asked by a read to where nothing can be written, which takes nothing away.
//!
//! **How it is made again.** In the worker, before there is any process but the first, so that the id is free: a child of the worker's own is
//! born with it in the container's pid namespace, its file is opened, and read to its end where that had been done; then the child ends
//! and is waited for. Of a thread it is the first of a process with its id. Where the id is in use on the host it is any other.
//!
//! A process enters such a directory only while there is a task that it tells of, so that this one lives until all have entered theirs.
//!
//! **What is refused.** Files open for writing; those that tell of more than the task (its namespaces, descriptors), or are of another mount than /proc of
//! the first process; those of which the
//! rest of a text is still to be read.

mod capture;
mod restore;

pub use capture::report_directories;
pub(super) use capture::{capture, directory};
pub use restore::restore_all;
pub(super) use restore::{Task, enter};
