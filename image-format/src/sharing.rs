//! Who makes a process that shares with others what threads share (clone(2) with single flags).
//!
//! Such a process has what it shares from whoever clones it. That is its parent; or, where the parent has no part in it, one of those
//! who have: as its sibling (CLONE_PARENT), or through a child that ends at once and so leaves it to its reaper.

use crate::image::ProcessImage;
use crate::process::Shares;
use crate::signal::Signal;
use crate::types::Pid;
use std::collections::{BTreeMap, BTreeSet};

/// One of the things that are shared: its name in a record, and where it stands there.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The field of [`Shares`].
    pub name: &'static str,
    /// Whose it is.
    pub of: fn(&Shares) -> Option<Pid>,
    /// Makes it another's.
    pub set: fn(&mut Shares, Pid),
}

/// All of them.
pub const PARTS: [Part; 4] = [
    Part { name: "memory", of: |shares| shares.memory, set: |shares, owner| shares.memory = Some(owner) },
    Part {
        name: "descriptors",
        of: |shares| shares.descriptors,
        set: |shares, owner| shares.descriptors = Some(owner),
    },
    Part {
        name: "directories",
        of: |shares| shares.directories,
        set: |shares, owner| shares.directories = Some(owner),
    },
    Part {
        name: "signal_actions",
        of: |shares| shares.signal_actions,
        set: |shares, owner| shares.signal_actions = Some(owner),
    },
];

/// Who clones a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Its parent.
    Parent,
    /// A child of the same parent.
    Sibling(Pid),
    /// A child of this process, which ends: the parent has adopted it.
    Adopted(Pid),
}

/// What of a process decides who can have made it.
#[derive(Clone, Debug)]
pub struct Kin {
    /// Its parent.
    pub parent: Pid,
    /// Its session.
    pub session: Pid,
    /// What its parent is told when it ends.
    pub exit_signal: Option<Signal>,
    /// What it shares, by whose it is.
    pub shares: Shares,
    /// Whether it is the first process of a pid namespace.
    pub is_first: bool,
    /// Whether it adopts orphans.
    pub is_reaper: bool,
}

/// All processes.
#[derive(Clone, Debug)]
pub struct Family(BTreeMap<Pid, Kin>);

impl Family {
    /// Those of an image. `is_first` tells the first process of each pid namespace.
    #[must_use]
    pub fn of(processes: &BTreeMap<Pid, ProcessImage>, is_first: impl Fn(Pid) -> bool) -> Self {
        let kin = |(&pid, image): (&Pid, &ProcessImage)| {
            let record = &image.process;
            let is_first = pid == Pid(1) || is_first(pid);
            let kin = Kin {
                parent: record.parent,
                session: record.session,
                exit_signal: record.exit_signal,
                shares: record.shares,
                is_first,
                is_reaper: is_first || image.attr.child_subreaper,
            };
            (pid, kin)
        };
        Family(processes.iter().map(kin).collect())
    }

    /// What a process shares.
    #[must_use]
    pub fn shares(&self, pid: Pid) -> Shares {
        self.0.get(&pid).map_or_else(Shares::default, |kin| kin.shares)
    }

    /// The same family in which `members` have a part from one of them.
    #[must_use]
    pub fn with_owner(&self, part: Part, owner: Pid, members: &[Pid]) -> Family {
        let mut family = self.clone();
        for member in members.iter().filter(|&&member| member != owner) {
            if let Some(kin) = family.0.get_mut(member) {
                (part.set)(&mut kin.shares, owner);
            }
        }
        family
    }

    /// Who clones a process. None: nobody can, so that it has what it shares.
    #[must_use]
    pub fn maker(&self, pid: Pid) -> Option<Maker> {
        let own = self.0.get(&pid)?;
        if own.shares == Shares::default() {
            return Some(Maker::Parent);
        }
        if self.has_all(own.parent, own) && self.gives_session(own.parent, pid, own) {
            return Some(Maker::Parent);
        }
        let owners: BTreeSet<Pid> = PARTS.iter().filter_map(|part| (part.of)(&own.shares)).collect();
        owners.into_iter().filter(|&owner| self.has_all(owner, own)).find_map(|owner| self.made_by(owner, pid, own))
    }

    /// Whether a process has a part in everything that `own` shares.
    fn has_all(&self, pid: Pid, own: &Kin) -> bool {
        let Some(other) = self.0.get(&pid) else { return false };
        PARTS.iter().all(|part| {
            (part.of)(&own.shares).is_none_or(|owner| owner == pid || (part.of)(&other.shares) == Some(owner))
        })
    }

    /// Whether a child of `parent` is born into the session of `own`: before its parent began one, or into that.
    fn gives_session(&self, parent: Pid, pid: Pid, own: &Kin) -> bool {
        let Some(parents) = self.0.get(&parent) else { return true };
        let before =
            || parents.session == parent && self.0.get(&parents.parent).map(|kin| kin.session) == Some(own.session);
        own.session == pid || own.session == parents.session || before()
    }

    fn made_by(&self, maker: Pid, pid: Pid, own: &Kin) -> Option<Maker> {
        let makers = self.0.get(&maker).filter(|makers| own.session == pid || own.session == makers.session)?;
        // A sibling has its maker's exit signal, and the first process of a pid namespace makes none (kernel/fork.c, copy_process, v6.18).
        let are_alike = makers.parent == own.parent && makers.exit_signal == own.exit_signal;
        if are_alike && !makers.is_first && self.0.contains_key(&own.parent) {
            return Some(Maker::Sibling(maker));
        }
        // Who is adopted gets SIGCHLD for exit signal (kernel/exit.c, reparent_leader, v6.18).
        let is_orphan = own.exit_signal == Some(Signal::SIGCHLD) && self.reaper(maker) == Some(own.parent);
        is_orphan.then_some(Maker::Adopted(maker))
    }

    /// Who adopts what the children of a process leave.
    fn reaper(&self, pid: Pid) -> Option<Pid> {
        let mut at = pid;
        // As many steps as there are processes: parents may stand in a circle.
        for _ in 0..=self.0.len() {
            let kin = self.0.get(&at)?;
            if kin.is_reaper {
                return Some(at);
            }
            at = kin.parent;
        }
        None
    }
}
