//! inotify instances.
//!
//! **What it is.** A set of watched inodes, each with a number and the events that are asked for, and a queue of events to read.
//!
//! **Where the kernel keeps it.** `struct fsnotify_group` and `struct inotify_inode_mark`:
//! <https://elixir.bootlin.com/linux/v6.18/source/fs/notify/inotify/inotify_user.c>.
//!
//! **How it is read.** `inotify` lines in fdinfo name inodes by file handles; open_by_handle_at(2) finds one, and its link in /proc a
//! path. FIONREAD tells whether events wait; the number of the next watch is read from the kernel's memory.
//!
//! **How it is made again.** The instance is created with the other descriptions, since messages may carry it. What it watches is added
//! last of all that is opened ([`watch_all`]), so that nothing of the restore is reported, each watch under its number
//! (INOTIFY_IOC_SETNEXTWD). Events that wait cannot be put back. The kernel's own word for lost events, after which programs look at
//! everything anew, can: a queue that is full gets IN_Q_OVERFLOW at its end, and what fills it is read off.
//!
//! **What is refused.** A watch of an inode that no path leads to.

mod capture;
mod restore;

pub(super) use capture::capture;
pub(super) use restore::restore;
pub use restore::watch_all;
