//! Time namespaces below the container's own.
//!
//! **What it is.** What unshare(2) with CLONE_NEWTIME makes inside the container, for children; what is added to the clocks that have nothing to do
//! with the time of day.
//!
//! **Where the kernel keeps it.** `struct time_namespace`, two in `struct nsproxy`: <https://elixir.bootlin.com/linux/v6.18/source/kernel/time/namespace.c>.
//!
//! **How it is read.** The links `time` and `time_for_children` in /proc/PID/ns tell who is in which; /proc/PID/timens_offsets is that for
//! children, so a process's own is joined for a moment where it is another. An image has what each adds to the container's own clocks.
//!
//! **How it is made again.** One that some process has for its children is made by that process as soon as it is born, since setns(2) would take it there;
//! others by a child of the worker. A process joins its own as soon as it is born, while it has one thread and memory of its own; after who makes it.
//!
//! **What is refused.** Threads of a process, and processes that share memory, with different ones, for themselves or for their children; one for
//! children that belongs to a user namespace inside, or that two processes have.

mod capture;
mod restore;

pub use capture::{capture, report};
pub use restore::TimeNamespaces;
