//! Pid namespaces below a container's own: who is in which, and under which ids.

use crate::image::Image;
use crate::mounts::{Mount, MountKind};
use crate::namespaces::{NamespaceContent, UnsharedNamespace};
use crate::types::{Bytes, Pid};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a pid namespace below the container's own holds. Everywhere else in an image its members have the ids that the container's own
/// knows them by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PidNamespace {
    /// Every id that it knows, by that of the container: of processes, threads and zombies in it and in those below it, and of groups
    /// and sessions whose leaders were. Its first process has 1. Empty: nobody was born into it yet.
    pub ids: BTreeMap<Pid, Pid>,
    /// Threads of processes in a namespace above it, whose next children will be born into it.
    pub for_children_of: Vec<Pid>,
    /// The lines of `mounts`, in order, that are a new file system of /proc and show it; all others show the container's own.
    pub shown_by: Vec<u32>,
}

/// The place of a pid namespace among those of an image, outer ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PidSpace(usize);

/// All pid namespaces below a container's own. Of those that an id is known in each lies in the one before.
#[derive(Clone, Debug, Default)]
pub struct PidSpaces<'a>(Vec<&'a PidNamespace>);

impl<'a> PidSpaces<'a> {
    /// Those among the lines of `namespaces`.
    #[must_use]
    pub fn of(lines: &'a [UnsharedNamespace]) -> Self {
        let pids = lines.iter().filter_map(|line| match &line.content {
            NamespaceContent::Pid(pids) => Some(pids),
            _ => None,
        });
        PidSpaces(pids.collect())
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (PidSpace, &'a PidNamespace)> + '_ {
        self.0.iter().enumerate().map(|(at, &space)| (PidSpace(at), space))
    }

    /// The innermost one that an id is known in: where a task of that id is. None: the container's own.
    #[must_use]
    pub fn space(&self, id: Pid) -> Option<PidSpace> {
        self.0.iter().rposition(|space| space.ids.contains_key(&id)).map(PidSpace)
    }

    /// The one that another lies in; None: the container's own.
    #[must_use]
    pub fn above(&self, PidSpace(at): PidSpace) -> Option<PidSpace> {
        let space = self.0.get(at)?;
        match space.ids.keys().next() {
            Some(id) => self.0[..at].iter().rposition(|outer| outer.ids.contains_key(id)).map(PidSpace),
            None => self.space(*space.for_children_of.first()?),
        }
    }

    /// Whether one is another, or lies in it at any depth.
    #[must_use]
    pub fn is_within(&self, inner: Option<PidSpace>, outer: Option<PidSpace>) -> bool {
        let mut at = inner;
        while let Some(space) = at {
            if at == outer {
                return true;
            }
            at = self.above(space);
        }
        outer.is_none()
    }

    /// The ids that a task has, from its own namespace outwards, the container's last: as clone3(2) takes them.
    #[must_use]
    pub fn ids(&self, id: Pid) -> Vec<Pid> {
        self.0.iter().rev().filter_map(|space| space.ids.get(&id)).copied().chain([id]).collect()
    }

    /// What an id is to a task; None where that cannot name it. 0 is nobody everywhere.
    #[must_use]
    pub fn seen_by(&self, viewer: Pid, id: Pid) -> Option<Pid> {
        match self.space(viewer) {
            Some(PidSpace(at)) if id != Pid(0) => self.0[at].ids.get(&id).copied(),
            _ => Some(id),
        }
    }

    /// The first process of one: whose end is everybody's in it.
    #[must_use]
    pub fn first(&self, PidSpace(at): PidSpace) -> Option<Pid> {
        self.0.get(at)?.ids.iter().find(|(_, inner)| **inner == Pid(1)).map(|(&id, _)| id)
    }

    /// Whether a task is the first process of one.
    #[must_use]
    pub fn is_first(&self, id: Pid) -> bool {
        self.space(id).and_then(|space| self.first(space)) == Some(id)
    }

    /// The one that the children of a thread are born into, where that is not its own.
    #[must_use]
    pub fn of_children(&self, thread: Pid) -> Option<PidSpace> {
        self.0.iter().position(|space| space.for_children_of.contains(&thread)).map(PidSpace)
    }
}

impl Image {
    /// Lines of `mounts` of the container's own mount namespace that are made once pid namespaces are there: those that show one, and what
    /// hangs on them or is bound from them.
    #[must_use]
    pub fn late_mounts(&self) -> BTreeSet<u32> {
        let spaces = PidSpaces::of(&self.namespaces);
        let shown: BTreeSet<u32> = spaces.all().flat_map(|(_, pids)| pids.shown_by.iter().copied()).collect();
        let mut late: Vec<&Mount> = Vec::new();
        for mount in self.mounts.iter().filter(|mount| mount.namespace == 0) {
            let is_below = |path: &Bytes, top: &Mount| {
                let rest = path.0.strip_prefix(top.path.0.as_slice());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            };
            let hangs = late.iter().any(|top| match &mount.kind {
                MountKind::Bind(bind) => is_below(&mount.path, top) || is_below(&bind.source, top),
                _ => is_below(&mount.path, top),
            });
            if hangs || shown.contains(&mount.number) {
                late.push(mount);
            }
        }
        late.into_iter().map(|mount| mount.number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_inside_outwards() {
        let line = |ids: &[(u32, u32)], processes: &[u32], for_children_of: &[u32]| UnsharedNamespace {
            content: NamespaceContent::Pid(PidNamespace {
                ids: ids.iter().map(|&(id, inner)| (Pid(id), Pid(inner))).collect(),
                for_children_of: for_children_of.iter().copied().map(Pid).collect(),
                shown_by: Vec::new(),
            }),
            processes: processes.iter().copied().map(Pid).collect(),
            user: None,
        };
        let lines = [
            line(&[(12, 1), (13, 2), (14, 3), (15, 4)], &[12, 13], &[11]),
            line(&[(14, 1), (15, 2)], &[14, 15], &[]),
            line(&[], &[], &[15]),
        ];
        let spaces = PidSpaces::of(&lines);
        assert_eq!(spaces.ids(Pid(15)), [Pid(2), Pid(4), Pid(15)]);
        assert_eq!(spaces.ids(Pid(11)), [Pid(11)]);
        let [outer, inner, empty] = [PidSpace(0), PidSpace(1), PidSpace(2)];
        assert_eq!([11, 13, 15].map(|id| spaces.space(Pid(id))), [None, Some(outer), Some(inner)]);
        assert_eq!([outer, inner, empty].map(|space| spaces.above(space)), [None, Some(outer), Some(inner)]);
        assert!(spaces.is_within(Some(empty), Some(outer)) && spaces.is_within(Some(outer), None));
        assert!(!spaces.is_within(None, Some(outer)) && !spaces.is_within(Some(outer), Some(inner)));
        assert_eq!(spaces.seen_by(Pid(13), Pid(15)), Some(Pid(4)));
        assert_eq!(spaces.seen_by(Pid(15), Pid(13)), None);
        assert_eq!([spaces.seen_by(Pid(11), Pid(15)), spaces.seen_by(Pid(15), Pid(0))], [Some(Pid(15)), Some(Pid(0))]);
        assert!(spaces.is_first(Pid(14)) && !spaces.is_first(Pid(15)) && !spaces.is_first(Pid(11)));
        assert_eq!([11, 12, 15].map(|id| spaces.of_children(Pid(id))), [Some(outer), None, Some(empty)]);
    }
}
