//! Joining namespaces of a container for a moment: there is no view of some of them from elsewhere.

use crate::failure::{Doing, Failure};
use crfs_sys::namespaces::CLONE_NEWTIME;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::os::fd::AsFd;

/// The uts namespace, as [`inside`] takes it.
pub(in crate::resource) const UTS: (&str, CloneFlags) = ("uts", CloneFlags::CLONE_NEWUTS);
/// The pid namespace, in which the caller's children begin.
pub(in crate::resource) const PID: (&str, CloneFlags) = ("pid", CloneFlags::CLONE_NEWPID);
/// The ipc namespace.
pub(in crate::resource) const IPC: (&str, CloneFlags) = ("ipc", CloneFlags::CLONE_NEWIPC);
/// The cgroup namespace.
pub(in crate::resource) const CGROUP: (&str, CloneFlags) = ("cgroup", CloneFlags::CLONE_NEWCGROUP);
/// The time namespace, whose clocks the caller reads meanwhile.
pub(in crate::resource) const TIME: (&str, CloneFlags) = ("time", CLONE_NEWTIME);
/// The network namespace.
pub(in crate::resource) const NET: (&str, CloneFlags) = ("net", CloneFlags::CLONE_NEWNET);

/// Visits a namespace that is open, of a kind as above.
///
/// The caller must have one thread, and is back in its own namespace afterwards.
///
/// # Errors
/// When it cannot be joined; and those of the visit.
pub(in crate::resource) fn inside_of<T>(
    namespace: &File,
    (name, kind): (&str, CloneFlags),
    visit: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let path = format!("/proc/self/ns/{name}");
    let own = File::open(&path).doing(|| format!("{path}: opening"))?;
    let joined = setns(namespace.as_fd(), kind).doing(|| format!("an {name} namespace: joining"));
    let visited = joined.and_then(|()| visit());
    setns(own.as_fd(), kind).doing(|| "going back to the own namespace")?;
    visited
}

/// Visits namespaces of a process (host pid).
///
/// The caller must have one thread, and is back in its own namespaces afterwards.
///
/// # Errors
/// When the process is gone, or a namespace cannot be joined; and those of the visit.
pub(in crate::resource) fn inside<T>(
    process: i32,
    namespaces: &[(&str, CloneFlags)],
    visit: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let open = |task: &str, name: &str| {
        let path = format!("/proc/{task}/ns/{name}");
        File::open(&path).doing(|| format!("{path}: opening"))
    };
    let mut own = Vec::new();
    let mut entered = Ok(());
    for &(name, kind) in namespaces {
        own.push((open("self", name)?, kind));
        let joined = open(&process.to_string(), name)
            .and_then(|file| setns(file.as_fd(), kind).doing(|| format!("the container's {name} namespace: joining")));
        entered = entered.and(joined);
    }
    let visited = entered.and_then(|()| visit());
    for (file, kind) in own {
        setns(file.as_fd(), kind).doing(|| "going back to the own namespaces")?;
    }
    visited
}
