//! fanotify groups.
//!
//! **What it is.** Marks of inodes, mounts and file systems, each with the events that are asked for and those that are ignored, and a queue
//! of events to read.
//!
//! **Where the kernel keeps it.** `struct fsnotify_group` and `struct fanotify_mark`:
//! <https://elixir.bootlin.com/linux/v6.18/source/fs/notify/fanotify/fanotify_user.c>.
//!
//! **How it is read.** fdinfo tells the flags and every mark: of an inode the file handle, of a mount its number, of a file system its device.
//! FIONREAD tells whether events wait; whether the group was made without privileges is read from the kernel's memory.
//!
//! **How it is made again.** As an inotify instance: the group with the other descriptions, its marks last of all that is opened
//! ([`mark_all`]). For events that wait stands FAN_Q_OVERFLOW: the queue is filled with events of a tmpfs of our own until it overflows, and
//! all but the last are read off.
//!
//! **What is refused.** A mark whose events somebody waits for to be answered: while the group is frozen, everyone who touches what it
//! watches would wait, and crfs with them. Marks to which no path leads; groups that watch namespaces (FAN_REPORT_MNT); events that wait
//! in a queue without limit, which cannot overflow.

mod capture;
mod overflow;
mod restore;

pub(super) use capture::capture;
pub use restore::mark_all;
pub(super) use restore::restore;
