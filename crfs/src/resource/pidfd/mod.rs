//! pidfd_open(2).
//!
//! **What it is.** A process held by a descriptor, which is ready when it ends.
//!
//! **Where the kernel keeps it.** `struct pid`, behind an inode of its own: <https://elixir.bootlin.com/linux/v6.18/source/fs/pidfs.c>.
//!
//! **How it is read.** `Pid` in fdinfo, as the host numbers it; -1 when it was waited for.
//!
//! **How it is made again.** In the worker, when all processes are there and before the zombies among them have died. One of a process that
//! was waited for names a child of the worker's own, in the container's pid namespace, that was waited for as well.
//!
//! **What is refused.** One of a process outside the container, or of a thread that is not the first of its process.

mod capture;
mod restore;

pub(super) use capture::capture;
pub use restore::restore;
