//! Descriptors of namespaces: /proc/PID/ns/NAME that is open, as setns(2) takes it, or what ioctl_nsfs(2) gives.
//!
//! **What it is.** An open file description that holds a namespace. Nothing is read from it.
//!
//! **Where the kernel keeps it.** An inode of nsfs for each namespace: <https://elixir.bootlin.com/linux/v6.18/source/fs/nsfs.c>.
//!
//! **How it is read.** The link in /proc/PID/fd says the type, and device and inode which namespace it is. /proc/PID/ns/pid_for_children
//! and time_for_children lead to the same inode as pid and time, where they are the same namespace.
//!
//! **How it is made again.** In the worker: the container's own by the link in /proc/PID/ns of a process, others as the worker made them for who
//! is in them ([`super::unshared`] and its like). It is another one than before, with another number.
//!
//! **What is refused.** A namespace that no process of the container is in; one that was opened where it is mounted.

mod capture;
mod restore;

pub(super) use capture::{capture, is_one};
pub use restore::restore;
