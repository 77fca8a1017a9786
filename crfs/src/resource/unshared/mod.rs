//! Namespaces that some processes of a container are in instead of the container's own.
//!
//! **What it is.** What unshare(2) or a flag of clone(2) makes inside the container: of type uts, a host and a domain name; of type net,
//! sockets and `lo`, up or down; of type ipc, System V objects and message queues; of type cgroup, with one of the container's cgroups for its top.
//!
//! **Where the kernel keeps it.** `struct nsproxy`, to which each thread points: <https://elixir.bootlin.com/linux/v6.18/source/include/linux/nsproxy.h>.
//!
//! **How it is read.** The links in /proc/PID/ns tell who is in which. What is in one is read by joining it for a moment, in the worker; the
//! top of a cgroup namespace is what a new mount of the hierarchy shows there.
//!
//! **How it is made again.** The worker makes each by unshare(2), fills it and goes back; that of type cgroup is made by a child that is born into
//! its top, before controllers are in the way of that. A process joins its ipc namespace as soon as it is born, where it attaches segments and its threads
//! share adjustments of semaphores. In the others of the container's own all are until what they share there is made: pairs of sockets are
//! connected (those of another network by going there for them). Then each of its threads joins by
//! setns(2), through a descriptor of the worker's, while it still may.
//!
//! **What is refused.** Threads of one process in different ones; ipc namespaces whose limits were changed, net namespaces with more interfaces or
//! addresses; cgroup namespaces
//! whose top is elsewhere or threaded; all other types but those of the container's first process
//! ([`crate::resource::container`]).

mod capture;
mod cgroup;
mod empty;
mod ipc;
pub(super) mod maker;
mod restore;

pub(super) use capture::apart;
pub use capture::{capture, report};
pub use ipc::IpcNamespaces;
pub(super) use restore::enter;
pub use restore::{Made, of_container};

use image_format::files::NamespaceType;

/// The types of which processes may be in different ones, but for mount and time namespaces, which have modules of their own
/// ([`super::mount`], [`super::time_namespace`]).
const CARRIED: [NamespaceType; 4] = [NamespaceType::Cgroup, NamespaceType::Ipc, NamespaceType::Net, NamespaceType::Uts];

/// Whether processes may be in different ones of this type: a link's name in /proc/PID/ns.
pub(super) fn is_carried(name: &str) -> bool {
    name.starts_with("time") || CARRIED.iter().chain(&[NamespaceType::Mnt]).any(|kind| kind.name() == name)
}
