//! What sockets of every family have in common: their options, their addresses, the network they belong to.
//!
//! **What it is.** An end of a communication, behind a descriptor like a file.
//!
//! **Where the kernel keeps it.** `struct socket` and `struct sock`: <https://elixir.bootlin.com/linux/v6.18/source/include/net/sock.h>.
//!
//! **How it is read.** By questions to a duplicate (pidfd_getfd(2)) in the worker, while its tasks stand still; what a question cannot
//! tell comes from the family's own module. A socket belongs to the network of whoever made it, which a number tells ([`network`]).
//!
//! **How it is made again.** In the worker, which enters the network that it belongs to ([`inside`]). All processes are there by then, so that
//! calls which leave a process's credentials behind can be made in it ([`Processes`]).
//!
//! **What is refused.** Those of a network that no process is in, filters that are BPF programs, bindings to an interface, errors that a program has not been told yet
//! ([`capture::refused`]).

pub(crate) mod address;
pub(crate) mod capture;
pub(crate) mod inside;
pub(crate) mod network;
pub(crate) mod options;
pub(crate) mod restore;

pub use restore::{Processes, notes, restore_all};
