//! User namespaces below a container's own.

use crate::files::{FileKind, PseudoFileSystem};
use crate::image::{Image, ProcessImage};
use crate::manifest::NamespaceKind;
use crate::namespaces::NamespaceContent;
use crate::pid_namespaces::PidSpaces;
use crate::thread::ThreadAttr;
use crate::types::{FileId, Pid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A user namespace that was made in the container's own, or in another one below it. Ids of users and groups are those of that everywhere else in an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserNamespace {
    /// The user who made it.
    pub owner: u32,
    /// /proc/PID/uid_map; empty where nobody has written it yet.
    pub uid_map: Vec<IdRange>,
    /// /proc/PID/gid_map.
    pub gid_map: Vec<IdRange>,
    /// /proc/PID/setgroups: whether setgroups(2) is allowed.
    pub setgroups: bool,
    /// The types of the container's own namespaces that belong to it: the container's first process made them there. Not `pid`.
    pub container: BTreeSet<NamespaceKind>,
}

impl UserNamespace {
    /// Whether the container's root, who makes message queues again, is nobody in it: the file system that holds them takes none of nobody.
    #[must_use]
    pub fn keeps_queues_out(&self) -> bool {
        [&self.uid_map, &self.gid_map].iter().any(|map| inside(map, 0).is_none())
    }
}

/// So many ids, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdRange {
    /// The first, inside.
    pub inside: u32,
    /// What that is in the container's own, also where it lies in another.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    /// Whether all ids outside are among those of another range.
    #[must_use]
    pub fn is_within(&self, other: &IdRange) -> bool {
        let end = |range: &IdRange| u64::from(range.outside) + u64::from(range.count);
        other.outside <= self.outside && end(self) <= end(other)
    }
}

/// What an id of the container's own is inside; None where it is nobody.
#[must_use]
pub fn inside(map: &[IdRange], outside: u32) -> Option<u32> {
    let one = IdRange { inside: 0, outside, count: 1 };
    let range = map.iter().find(|range| one.is_within(range))?;
    range.inside.checked_add(outside - range.outside)
}

/// Why the threads of a process in a user namespace cannot be made again. They are born there, with all that the first one has by then, and
/// without what only the container's own root may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The first thread has ended.
    FirstEnded,
    /// This one has descriptors or directories of its own.
    Apart(Pid),
    /// This one is another user than the first.
    OtherUser(Pid),
    /// The children are born into another pid namespace.
    ForChildren,
    /// This file of /proc, of a thread, is opened before it is there.
    FileOfThread(FileId),
    /// Nobody else has this description open, which signals on behalf of another user.
    OtherOwner(FileId),
}

impl Image {
    /// The user namespace that the container's own namespace of a type belongs to, as others name it; None: the container's own.
    #[must_use]
    pub fn user_of_container(&self, kind: NamespaceKind) -> Option<u32> {
        self.user_namespaces().find(|(_, user)| user.container.contains(&kind)).map(|(number, _)| number)
    }

    /// Whether a user namespace is another, or lies in it at any depth; each as others name it, None being the container's own.
    #[must_use]
    pub fn is_user_within(&self, inner: Option<u32>, outer: Option<u32>) -> bool {
        let lines = self.namespaces.iter().filter(|line| matches!(line.content, NamespaceContent::User(_)));
        let above: Vec<Option<u32>> = lines.map(|line| line.user).collect();
        let above =
            |number: &u32| usize::try_from(*number).ok().and_then(|number| *above.get(number.checked_sub(1)?)?);
        // A check of them tells circles.
        let mut around = std::iter::successors(inner, above).take(self.namespaces.len() + 1);
        outer.is_none() || around.any(|number| Some(number) == outer)
    }

    /// The processes in user namespaces below the container's own which have more threads than one: they join before those are there.
    #[must_use]
    pub fn threaded_in_user_namespaces(&self) -> BTreeSet<Pid> {
        let users = self.namespaces.iter().filter(|line| matches!(line.content, NamespaceContent::User(_)));
        let has_threads = |pid: &Pid| {
            let process = self.processes.get(pid);
            process.is_some_and(|one| one.threads.len() > 1 || one.process.first_thread_ended.is_some())
        };
        users.flat_map(|line| &line.processes).copied().filter(has_threads).collect()
    }

    /// What keeps such a process from being made again.
    #[must_use]
    pub fn hindrances(&self, pid: Pid) -> Vec<Hindrance> {
        let Some(process) = self.processes.get(&pid) else { return Vec::new() };
        let spaces = PidSpaces::of(&self.namespaces);
        let mut found = Vec::new();
        found.extend(process.process.first_thread_ended.is_some().then_some(Hindrance::FirstEnded));
        let first = process.threads.get(&pid).map(|first| &first.attr);
        for (&tid, thread) in &process.threads {
            // What a thread has of whoever cloned it, for good.
            let is_alike = |first: &ThreadAttr| {
                let (own, firsts) = (&thread.attr.credentials, &first.credentials);
                (own.uid, own.gid, &own.groups) == (firsts.uid, firsts.gid, &firsts.groups)
                    && thread.attr.login_uid == first.login_uid
            };
            let is_apart = thread.fds.is_some() || thread.attr.directories.is_some();
            found.extend(is_apart.then_some(Hindrance::Apart(tid)));
            found.extend((!first.is_none_or(is_alike)).then_some(Hindrance::OtherUser(tid)));
        }
        let is_for_children = process.threads.keys().any(|&tid| spaces.of_children(tid).is_some());
        found.extend(is_for_children.then_some(Hindrance::ForChildren));
        let threads: Vec<Pid> = process.threads.keys().copied().filter(|&tid| tid != pid).collect();
        for (&id, file) in &self.files {
            let FileKind::Pseudo(pseudo) = &file.kind else { continue };
            // Under any of the numbers that it has.
            let names = threads.iter().flat_map(|&tid| spaces.ids(tid)).map(|tid| format!("/task/{tid}"));
            let is_of_thread = pseudo.file_system == PseudoFileSystem::Proc
                && names.into_iter().any(|name| pseudo.path.0.windows(name.len()).any(|part| part == name.as_bytes()));
            found.extend(is_of_thread.then_some(Hindrance::FileOfThread(id)));
        }
        found.extend(self.owners_of_others(pid, process));
        found
    }

    fn owners_of_others(&self, pid: Pid, process: &ProcessImage) -> Vec<Hindrance> {
        let members = self.threaded_in_user_namespaces();
        let elsewhere = self.tables().filter(|table| !members.contains(&table.process));
        let elsewhere: BTreeSet<FileId> = elsewhere.flat_map(|table| table.fds).map(|fd| fd.file).collect();
        let own = process.threads.get(&pid).map(|first| first.attr.credentials.uid);
        let mut here: Vec<FileId> = process.fds.iter().map(|fd| fd.file).collect();
        here.sort_unstable();
        here.dedup();
        here.retain(|id| {
            let owner = self.files.get(id).and_then(|file| file.owner.as_ref());
            let is_own = |uid: u32, euid: u32| own.is_some_and(|own| own[..2] == [uid, euid]);
            owner.is_some_and(|owner| owner.id != Pid(0) && !is_own(owner.uid, owner.euid)) && !elsewhere.contains(id)
        });
        here.into_iter().map(Hindrance::OtherOwner).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_somebody_inside_or_nobody() {
        let map = [IdRange { inside: 0, outside: 1000, count: 1 }, IdRange { inside: 5, outside: 10, count: 3 }];
        assert_eq!([1000, 12, 13, 0].map(|id| inside(&map, id)), [Some(0), Some(7), None, None]);
        assert!(!IdRange { inside: 0, outside: 12, count: 2 }.is_within(&map[1]));
    }
}
