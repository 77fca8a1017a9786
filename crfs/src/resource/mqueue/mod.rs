//! POSIX message queues.
//!
//! **What it is.** A queue with a name of its own, messages in order of their priority, and at most one process that is told of the next
//! message; open like a file.
//!
//! **Where the kernel keeps it.** `struct mqueue_inode_info`, an inode of a file system that every ipc namespace has:
//! <https://elixir.bootlin.com/linux/v6.18/source/ipc/mqueue.c>.
//!
//! **How it is read.** The file system is mounted for a moment, seen by nobody, and lists the queues. What waits in one can only be taken,
//! so it is read from the kernel's memory, like the registration of mq_notify(3).
//!
//! **How it is made again.** In the worker, in the new namespace: made, filled, and opened once for every description; those without a
//! name lose a borrowed one. Whoever is to be told asks for it itself, when all descriptors are in place and nothing is sent any more:
//! a process that closes any descriptor of the queue takes its registration back. A limit of the namespace that a queue passes
//! is raised for the moment.
//!
//! **What is refused.** Limits of the namespace that were changed; notification of a process without a descriptor of the queue, or of
//! the netlink socket over which it is to start a thread (SIGEV_THREAD); queues of a namespace that nobody is in.

mod capture;
pub mod restore;

pub use capture::report;
pub(super) use capture::{Asked, Namespace, another_namespace, capture};
