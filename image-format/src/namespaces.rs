//! `namespaces`: those that some processes are in instead of the container's own.

use crate::files::NamespaceType;
use crate::image::Image;
use crate::manifest::NamespaceKind;
use crate::pid_namespaces::PidNamespace;
use crate::sysv::{SharedSegment, SysV};
use crate::time_namespaces::TimeNamespace;
use crate::types::{Bytes, FileId, Pid};
use crate::user_namespaces::UserNamespace;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A line of `namespaces`: one that was made inside the container (unshare(2)), and who is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnsharedNamespace {
    /// Of which type it is, and what it holds.
    pub content: NamespaceContent,
    /// The processes that are in it, with all their threads. Those that no line of a type lists are in the container's own.
    pub processes: Vec<Pid>,
    /// The user namespace that it belongs to, or, being one itself, lies in: counted from 1 among the lines of that type. None: the container's own.
    pub user: Option<u32>,
}

impl UnsharedNamespace {
    /// The processes, or of a pid namespace threads, that join it, or have it joined by their children, once they are made.
    pub fn joined_by(&self) -> impl Iterator<Item = Pid> + '_ {
        let joined: &[Pid] = match &self.content {
            // Who is in one was born into it.
            NamespaceContent::Pid(pids) => &pids.for_children_of,
            // Joined with the ids of users, last of all.
            NamespaceContent::User(_) => &[],
            // Joined by its first process before the others are born.
            NamespaceContent::Mnt(_) => &[],
            // Joined, or begun for children, by each as it is born.
            NamespaceContent::Time(_) => &[],
            _ => &self.processes,
        };
        joined.iter().copied()
    }

    /// Of which type it is.
    #[must_use]
    pub fn kind(&self) -> NamespaceType {
        match self.content {
            NamespaceContent::Cgroup(_) => NamespaceType::Cgroup,
            NamespaceContent::Ipc(_) => NamespaceType::Ipc,
            NamespaceContent::Mnt(_) => NamespaceType::Mnt,
            NamespaceContent::Net(_) => NamespaceType::Net,
            NamespaceContent::Pid(_) => NamespaceType::Pid,
            NamespaceContent::Time(_) => NamespaceType::Time,
            NamespaceContent::User(_) => NamespaceType::User,
            NamespaceContent::Uts(_) => NamespaceType::Uts,
        }
    }
}

impl UnsharedNamespace {
    /// Notes the open files whose paths are those of a mount namespace, by its number.
    pub fn add_files(&mut self, files: &BTreeMap<u32, Vec<FileId>>) {
        if let NamespaceContent::Mnt(content) = &mut self.content {
            content.files.extend(files.get(&content.number).into_iter().flatten());
        }
    }

    /// Notes the sockets that were made in a network namespace, by a process that is in it.
    pub fn add_sockets(&mut self, sockets: &BTreeMap<Pid, Vec<FileId>>) {
        if let NamespaceContent::Net(content) = &mut self.content {
            content.sockets.extend(self.processes.iter().filter_map(|process| sockets.get(process)).flatten());
        }
    }
}

/// What a namespace holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceContent {
    /// What its processes take for the top of all cgroups.
    Cgroup(CgroupRoot),
    /// System V objects, and the POSIX message queues that have its number.
    Ipc(SysV),
    /// What the lines of `mounts` say that have its number.
    Mnt(MountNamespace),
    /// No interface but `lo`.
    Net(NetworkNamespace),
    /// Ids of its own, below the container's. Lines of this type stand after those of the namespaces that they lie in.
    Pid(PidNamespace),
    /// Clocks of its own.
    Time(TimeNamespace),
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

/// A network namespace in which nothing is but what a new one has, and sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkNamespace {
    /// Whether `lo` was brought up.
    pub loopback: bool,
    /// The sockets that were made in it, in order: another process may hold them.
    pub sockets: Vec<FileId>,
}

/// A mount namespace: a copy of another one, in which some is otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountNamespace {
    /// Counted from 1 inside the image.
    pub number: u32,
    /// Of which namespace it is a copy: 0 for the container's own, or a lower number.
    pub base: u32,
    /// All that it has from there exchanges mounts with nobody, as unshare(1) makes it (MS_REC | MS_PRIVATE).
    pub private: bool,
    /// The open files whose paths are those of this namespace, in order: another process may hold them too.
    pub files: Vec<FileId>,
}

impl Image {
    /// The user namespaces below the container's own, as others name them: counted from 1.
    pub fn user_namespaces(&self) -> impl Iterator<Item = (u32, &UserNamespace)> {
        let users = self.namespaces.iter().filter_map(|namespace| match &namespace.content {
            NamespaceContent::User(user) => Some(user),
            _ => None,
        });
        (1..).zip(users)
    }

    /// The user namespace that a mount namespace belongs to, by its number (0: the container's own); None: the container's own.
    #[must_use]
    pub fn user_of_mounts(&self, number: u32) -> Option<u32> {
        if number == 0 {
            return self.user_of_container(NamespaceKind::Mnt);
        }
        let is_it = |namespace: &&UnsharedNamespace| matches!(&namespace.content, NamespaceContent::Mnt(content) if content.number == number);
        self.namespaces.iter().find(is_it)?.user
    }

    /// The objects of every ipc namespace: of the container's own (0), and of those that some processes have apart, counted from 1.
    pub fn ipc_namespaces(&self) -> impl Iterator<Item = (u32, &SysV)> {
        let apart = ipc_namespaces(&self.namespaces).map(|(number, objects, _)| (number, objects));
        [(0, &self.sysv)].into_iter().chain(apart)
    }

    /// The ipc namespace that a process is in, and its objects.
    #[must_use]
    pub fn ipc_of_process(&self, process: Pid) -> (u32, &SysV) {
        let mut apart = ipc_namespaces(&self.namespaces);
        let found = apart.find(|(_, _, members)| members.contains(&process));
        found.map_or((0, &self.sysv), |(number, objects, _)| (number, objects))
    }

    /// Whether message queues cannot be made again in an ipc namespace apart, by its number: the container's root is nobody in the user namespace
    /// that it belongs to.
    #[must_use]
    pub fn keeps_queues_out(&self, ipc: u32) -> bool {
        let mut apart = (1..).zip(self.namespaces.iter().filter(|line| line.kind() == NamespaceType::Ipc));
        let user = apart.find(|(number, _)| *number == ipc).and_then(|(_, line)| line.user);
        user.is_some_and(|user| self.user_namespaces().any(|(number, of)| number == user && of.keeps_queues_out()))
    }

    /// The System V segment that a mapping of a process is of, and the ipc namespace that it lies in: one of the process's own, or of the
    /// container's, which the process was in before.
    #[must_use]
    pub fn segment_of(&self, process: Pid, id: u32) -> Option<(u32, &SharedSegment)> {
        let number = namespace_of_segment(&self.namespaces, process, id);
        let objects = self.ipc_namespaces().find(|(known, _)| *known == number)?.1;
        Some((number, objects.segments.iter().find(|segment| segment.id == id)?))
    }

    /// The network namespaces that some processes have apart, and who is in each.
    pub fn networks(&self) -> impl Iterator<Item = (&NetworkNamespace, &[Pid])> {
        self.namespaces.iter().filter_map(|namespace| match &namespace.content {
            NamespaceContent::Net(content) => Some((content, namespace.processes.as_slice())),
            _ => None,
        })
    }

    /// The network namespace that a socket was made in, counted from 1 among those of [`Image::networks`]; 0 for the container's own.
    #[must_use]
    pub fn network_of_socket(&self, socket: FileId) -> usize {
        self.networks().position(|(content, _)| content.sockets.binary_search(&socket).is_ok()).map_or(0, |at| at + 1)
    }

    /// The mount namespaces that some processes have apart, and who is in each.
    pub fn mount_namespaces(&self) -> impl Iterator<Item = (&MountNamespace, &[Pid])> {
        self.namespaces.iter().filter_map(|namespace| match &namespace.content {
            NamespaceContent::Mnt(content) => Some((content, namespace.processes.as_slice())),
            _ => None,
        })
    }

    /// The number of the mount namespace that a process is in; 0 for the container's own.
    #[must_use]
    pub fn mounts_of_process(&self, process: Pid) -> u32 {
        self.mount_namespaces().find(|(_, members)| members.contains(&process)).map_or(0, |(content, _)| content.number)
    }

    /// The number of the mount namespace whose paths an open file has; 0 for the container's own.
    #[must_use]
    pub fn mounts_of_file(&self, file: FileId) -> u32 {
        let mut namespaces = self.mount_namespaces().map(|(content, _)| content);
        namespaces.find(|content| content.files.binary_search(&file).is_ok()).map_or(0, |content| content.number)
    }
}

/// The ipc namespaces among these lines, counted from 1, and who is in each.
pub fn ipc_namespaces(lines: &[UnsharedNamespace]) -> impl Iterator<Item = (u32, &SysV, &[Pid])> {
    let apart = lines.iter().filter_map(|line| match &line.content {
        NamespaceContent::Ipc(objects) => Some((objects, line.processes.as_slice())),
        _ => None,
    });
    (1..).zip(apart).map(|(number, (objects, members))| (number, objects, members))
}

/// The ipc namespace in which a System V segment lies that a process has attached: that of the process, if it has one apart with such an
/// id, and otherwise the container's own (0).
#[must_use]
pub fn namespace_of_segment(lines: &[UnsharedNamespace], process: Pid, id: u32) -> u32 {
    let has = |objects: &SysV| objects.segments.iter().any(|segment| segment.id == id);
    let mut apart = ipc_namespaces(lines);
    apart.find(|(_, objects, members)| members.contains(&process) && has(objects)).map_or(0, |(number, ..)| number)
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
