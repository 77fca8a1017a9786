//! Files of /proc that a program keeps open and reads again and again, as top does, and its directories.
//!
//! **What it is.** An open file description whose content the kernel makes while it is read.
//!
//! **Where the kernel keeps it.** `struct proc_dir_entry` and, for files of a process, `struct proc_inode`:
//! <https://elixir.bootlin.com/linux/v6.18/source/fs/proc/internal.h>.
//!
//! **How it is read.** As a regular file: the link in /proc/PID/fd, looked up again, and the offset. No content is recorded.
//!
//! A place in the listing of a directory is a number of a process, thread or descriptor, or of an entry; all stay what they are.
//!
//! **How it is made again.** Its path is opened in the container's own /proc, when all processes are there, and the offset is set. What is
//! read from there on is as it is at that time, as it always was. A parameter below /proc/sys, which may be one of several namespaces, is
//! opened by a process of the container.
//!
//! **What is refused.** Those open for writing, which count with the credentials of who opened them. Those of an address space, which stay
//! with the one their process had when they were opened. Those of single threads, and of processes that have ended.

mod capture;
mod restore;

pub(super) use capture::capture;
pub(super) use restore::restore_all;
pub use restore::restore_inside;
