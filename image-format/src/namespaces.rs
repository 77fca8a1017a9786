//! `namespaces`: those that some processes are in instead of the container's own.

use crate::files::NamespaceType;
use crate::pid_namespaces::PidNamespace;
use crate::types::{Bytes, Pid};
use crate::user_namespaces::UserNamespace;
use serde::{Deserialize, Serialize};

/// A line of `namespaces`: one that was made inside the container (unshare(2)), and who is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnsharedNamespace {
    /// Of which type it is, and what it holds.
    pub content: NamespaceContent,
    /// The processes that are in it, with all their threads. Those that no line of a type lists are in the container's own.
    pub processes: Vec<Pid>,
}

impl UnsharedNamespace {
    /// The processes that join it, or have it joined by their children, once they are made.
    pub fn joined_by(&self) -> impl Iterator<Item = Pid> + '_ {
        let joined: &[Pid] = match &self.content {
            // Who is in one was born into it.
            NamespaceContent::Pid(pids) => &pids.for_children_of,
            // Joined with the ids of users, last of all.
            NamespaceContent::User(_) => &[],
            _ => &self.processes,
        };
        joined.iter().copied()
    }

    /// Of which type it is.
    #[must_use]
    pub fn kind(&self) -> NamespaceType {
        match self.content {
            NamespaceContent::Cgroup(_) => NamespaceType::Cgroup,
            NamespaceContent::Ipc => NamespaceType::Ipc,
            NamespaceContent::Net(_) => NamespaceType::Net,
            NamespaceContent::Pid(_) => NamespaceType::Pid,
            NamespaceContent::User(_) => NamespaceType::User,
            NamespaceContent::Uts(_) => NamespaceType::Uts,
        }
    }
}

/// What a namespace holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceContent {
    /// What its processes take for the top of all cgroups.
    Cgroup(CgroupRoot),
    /// No System V object and no POSIX message queue.
    Ipc,
    /// No interface but `lo`, and no socket.
    Net(EmptyNetwork),
    /// Ids of its own, below the container's. Lines of this type stand after those of the namespaces that they lie in.
    Pid(PidNamespace),
    /// Users and groups of its own.
    User(UserNamespace),
    /// Host and domain name.
    Uts(UtsNames),
}

/// What a cgroup namespace holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupRoot {
    /// The path of a line of `cgroups`, which is no threaded one.
    pub root: Bytes,
}

/// A network namespace in which nothing is but what a new one has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmptyNetwork {
    /// Whether `lo` was brought up.
    pub loopback: bool,
}

/// What a uts namespace holds: at most 64 bytes each, without NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UtsNames {
    /// Node name. May be edited.
    pub hostname: Bytes,
    /// NIS domain name. May be edited.
    pub domainname: Bytes,
}
