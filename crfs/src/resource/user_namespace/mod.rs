//! User namespaces below the container's own.
//!
//! **What it is.** What unshare(2) or clone(2) with CLONE_NEWUSER makes inside the container: users and groups under other ids, and
//! capabilities that count only for what belongs to it.
//!
//! **Where the kernel keeps it.** `struct user_namespace`, to which credentials point:
//! <https://elixir.bootlin.com/linux/v6.18/source/include/linux/user_namespace.h>.
//!
//! **How it is read.** The links in /proc/PID/ns tell who is in which; uid_map, gid_map and setgroups beside them, and ioctl_nsfs(2), what
//! it is and which namespaces belong to it. Of one that nobody is in a child of the worker that joins it reads the maps. The ids that /proc tells of a process are the container's.
//!
//! **How it is made again.** By a child of the worker, as the user who made it; the worker writes the maps. A process takes its ids first,
//! joins by setns(2), which gives it every capability there and takes all others, and gives up those that it had not. What it needs
//! the container's capabilities for is done before, so it comes last of all. One that is to have several threads joins before it has them, since who has them cannot; they are born there, with
//! ids that the worker has made the next ones ([`super::pid_namespace`]): who is there may ask for none. One in another
//! is made and mapped by a child that joined that one. Namespaces of other types that belong to one are made by children that joined it.
//!
//! The container's own namespaces may belong to one, where the first process began it and them. The worker makes such ones before the first
//! process, which joins them in the place of new ones ([`super::unshared`]); that of mounts is made of the one it was born into ([`super::mount`]).
//!
//! **What is refused.** Processes in it that share directories with others; of those with several
//! threads what `report` tells.

mod capture;
mod restore;

pub use capture::{capture, report};
pub use restore::{UserNamespaces, enter, join, pull};
