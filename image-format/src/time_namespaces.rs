//! Time namespaces below a container's own: whose clocks show what.

use crate::image::Image;
use crate::manifest::Clocks;
use crate::namespaces::{NamespaceContent, UnsharedNamespace};
use crate::types::{Pid, Timespec};
use serde::{Deserialize, Serialize};

/// What a time namespace adds to the container's own clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeNamespace {
    /// To `CLOCK_MONOTONIC`; may be negative. May be edited.
    pub monotonic: Timespec,
    /// To `CLOCK_BOOTTIME`; may be negative. May be edited.
    pub boottime: Timespec,
    /// Processes in another one, in order, whose next children are born into it, whichever thread bears them.
    pub for_children_of: Vec<Pid>,
}

/// Why a process cannot be given its clocks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockHindrance {
    /// It shares memory with this process, which has other ones, for itself or for its children.
    SharedMemory(Pid),
    /// Those for its children belong to a user namespace inside.
    User,
    /// Another process than this one, which does not share memory with it, has the same for its children.
    Others(Pid),
}

impl Image {
    /// The time namespaces below the container's own, each with its line.
    pub fn time_namespaces(&self) -> impl Iterator<Item = (&TimeNamespace, &UnsharedNamespace)> {
        self.namespaces.iter().filter_map(|line| match &line.content {
            NamespaceContent::Time(time) => Some((time, line)),
            _ => None,
        })
    }

    /// The place among them of the one that a process is in. None: the container's own.
    #[must_use]
    pub fn time_of_process(&self, process: Pid) -> Option<usize> {
        self.time_namespaces().position(|(_, line)| line.processes.contains(&process))
    }

    /// The place among them of the one that the next children of a process are born into, where that is not its own.
    #[must_use]
    pub fn time_of_children(&self, process: Pid) -> Option<usize> {
        self.time_namespaces().position(|(time, _)| time.for_children_of.contains(&process))
    }

    /// The process that makes one, as it was made: who has it for children, and memory that it has not from another.
    #[must_use]
    pub fn maker_of_time(&self, time: &TimeNamespace) -> Option<Pid> {
        let has_own = |pid: &Pid| self.processes.get(pid).is_some_and(|one| one.process.shares.memory.is_none());
        time.for_children_of.iter().copied().find(has_own)
    }

    /// The clocks of a process at the freeze.
    #[must_use]
    pub fn clocks_of(&self, process: Pid) -> Clocks {
        let own = &self.manifest.clocks;
        let found = self.time_of_process(process).and_then(|place| self.time_namespaces().nth(place));
        let later = |clock: Timespec, by: Timespec| Timespec::from_ns(clock.ns() + by.ns());
        found.map_or_else(
            || own.clone(),
            |(time, _)| Clocks {
                realtime: own.realtime,
                monotonic: later(own.monotonic, time.monotonic),
                boottime: later(own.boottime, time.boottime),
            },
        )
    }

    /// Whose clocks cannot be made again. Only one process of those that share memory can move, before it has them; and one that moves is in the new
    /// one from then on, so that who has it only for children must make it.
    #[must_use]
    pub fn clock_hindrances(&self) -> Vec<(Pid, ClockHindrance)> {
        let mut found = Vec::new();
        let places = |pid: Pid| (self.time_of_process(pid), self.time_of_children(pid));
        for (&pid, process) in &self.processes {
            let other = process.process.shares.memory.filter(|&other| places(other) != places(pid));
            found.extend(other.map(|other| (pid, ClockHindrance::SharedMemory(other))));
        }
        for (time, line) in self.time_namespaces() {
            let Some(maker) = self.maker_of_time(time) else { continue };
            if line.user.is_some() {
                found.push((maker, ClockHindrance::User));
            }
            let has_own = |pid: &Pid| self.processes.get(pid).is_some_and(|one| one.process.shares.memory.is_none());
            let others = time.for_children_of.iter().copied().filter(|&pid| pid != maker && has_own(&pid));
            found.extend(others.map(|pid| (pid, ClockHindrance::Others(maker))));
        }
        found
    }
}
