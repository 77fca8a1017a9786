//! Namespaces that some processes of a container are in instead of the container's own.
//!
//! **What it is.** What unshare(2) or a flag of clone(2) makes inside the container: of type uts, a host and a domain name; of type ipc,
//! as long as there is nothing in it.
//!
//! **Where the kernel keeps it.** `struct nsproxy`, to which each thread points: <https://elixir.bootlin.com/linux/v6.18/source/include/linux/nsproxy.h>.
//!
//! **How it is read.** The links in /proc/PID/ns tell who is in which. What is in one is read by joining it for a moment, in the worker.
//!
//! **How it is made again.** The worker makes each by unshare(2), fills it and goes back. Every process is born into those of its creator and
//! joins its own by setns(2) through a descriptor of the worker's: before it has threads, which inherit them, and while it may.
//!
//! **What is refused.** Threads of one process in different ones; ipc namespaces that hold anything; all other types but those of the container's first process
//! ([`crate::resource::container`]).

mod capture;
mod ipc;
mod restore;

pub use capture::{capture, report};
pub use restore::Made;

use image_format::files::NamespaceType;

/// The types of which processes may be in different ones.
const CARRIED: [NamespaceType; 2] = [NamespaceType::Ipc, NamespaceType::Uts];

/// Whether processes may be in different ones of this type: a link's name in /proc/PID/ns.
pub(super) fn is_carried(name: &str) -> bool {
    CARRIED.iter().any(|kind| kind.name() == name)
}
