//! Advisory locks.
//!
//! **What it is.** flock(2) and open file description locks belong to a description, POSIX locks to a process. They bind nobody who does not ask.
//!
//! **Where the kernel keeps it.** `struct file_lock_context` of the inode:
//! <https://elixir.bootlin.com/linux/v6.18/source/fs/locks.c>.
//!
//! **How it is read.** /proc/PID/fdinfo shows each lock with the descriptors it was taken through, a POSIX lock only to the process
//! that holds it (`show_fd_locks`).
//!
//! **How it is made again.** What belongs to a description is taken in the worker, POSIX locks by the processes themselves,
//! when their descriptors are in place: closing any descriptor of the file would let go of a POSIX lock. Before that, all are compared with
//! those that others hold now. A lease is tried in the worker, and taken by the process that had it, which is signalled. Who waits for a lock does so by a call in progress, which is entered again.
//!
//! **What is refused.** Leases that are being broken, delegations; at the restore, a lock that somebody else holds, and a lease on a file that
//! somebody else has open.

mod capture;
mod restore;

pub(super) use capture::{capture, lease_taker};
pub use restore::{inject, take};
