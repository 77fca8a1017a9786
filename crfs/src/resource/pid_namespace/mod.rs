//! Pid namespaces below the container's own.
//!
//! **What it is.** What unshare(2) or clone(2) with CLONE_NEWPID makes inside the container. Whoever is in one has an id in it and in each
//! one around it, up to the container's own, by which an image names it.
//!
//! **Where the kernel keeps it.** `struct pid`, with a number a level; the namespace that children are born into is in `struct nsproxy`:
//! <https://elixir.bootlin.com/linux/v6.18/source/include/linux/pid_namespace.h>.
//!
//! **How it is read.** `NSpid`, `NSpgid` and `NSsid` in /proc/PID/status have the ids; the links in /proc/PID/ns tell who is in which, and
//! ioctl_nsfs(2) which lies in which.
//!
//! **How it is made again.** With its first process, by clone3(2) with CLONE_NEWPID; each task is made with all of its ids. Who is born
//! into one that its parent is not in has a parent that joins it by setns(2) for that moment. Calls that name a task name it as whoever
//! makes them sees it. Which thread began a namespace for children that are not born yet does so again, last of all. One that a
//! file system of /proc shows, or that belongs to a user namespace inside, is made before anybody is in it, by a child of the worker that is gone at once, and the mount by the option
//! `pidns`, so that paths lead there from the beginning. One that belongs to a user namespace and lies in another pid namespace is begun
//! so when the first process of that is there, just before its own: only who is in a pid namespace can begin one in it.
//!
//! **What is refused.** One that is not below the container's; children that would be born into
//! one whose processes have all ended; a process group or session of processes outside that was not inherited; a file system of /proc
//! that shows one which lies in another; descriptions that signal a process which nobody who has them knows.

mod capture;
mod next_id;
mod restore;

pub use capture::{capture, report};
pub use restore::{NEW, PidNamespaces, join, numbers, open};

use super::subject::Thread;

/// Whether a link of this name in /proc/PID/ns may lead elsewhere than that of the container's first process. Who has no ids of its own
/// further in is in the container's namespace, or in none below it.
pub(super) fn is_carried(name: &str, thread: &Thread) -> bool {
    name == "pid" && !thread.inner.task.is_empty()
}
