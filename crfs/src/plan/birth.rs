//! How each process of a restore comes to be: what the planning of the tree ([`super::tree`]) finds, and all other planning uses.

use image_format::Pid;
use image_format::pid_namespaces::PidSpace;
use image_format::process::Shares;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What stands for everything outside of the tree: the stub that clones its roots.
pub const OUTSIDE: Pid = Pid(0);

/// The pid namespace that a tree is restored into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// A new one that begins with the root of the tree: pid 1.
    Own,
    /// The host's, in which these ids are in use.
    Host(BTreeSet<Pid>),
    /// A new one under a stub init: the tree lived in the host's, where ids of it are taken.
    Stub,
}

/// How a process of the restore comes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Its pid inside the container.
    pub pid: Pid,
    /// All of its ids, from its own pid namespace out to the container's, as clone3(2) takes them.
    pub ids: Vec<Pid>,
    /// The pid namespace that it is born into.
    pub born_into: BornInto,
    /// Who clones it; None for the first process.
    pub creator: Option<Pid>,
    /// Which thread of the creator; None for its first.
    pub creator_thread: Option<Pid>,
    /// It becomes its creator's sibling (CLONE_PARENT).
    pub clone_parent: bool,
    /// Whose child it is once helpers are gone.
    pub parent: Pid,
    /// Calls setsid.
    pub own_session: bool,
    /// Must be cloned before its creator calls setsid, to be born into the session the creator had until then.
    pub before_creators_session: bool,
    /// The group it joins or founds; None where it is born into the right one or setsid makes it.
    pub group: Option<Pid>,
    /// Must be cloned while its creator is in its group, which its own pid namespace does not know.
    pub born_into_group: bool,
    /// Its creator puts it into that group, for the same reason.
    pub group_by_creator: bool,
    /// What it has from its creator rather than for itself.
    pub shares: Shares,
    /// Job control has stopped it, or continued it with its parent yet to be told.
    pub job_control: bool,
    /// The session it is in.
    pub session: Pid,
    /// What it does about a controlling terminal.
    pub terminal: Terminal,
    /// What becomes of it.
    pub role: Role,
}

/// Into which pid namespace a process is born.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BornInto {
    /// Its creator's.
    Creators,
    /// A new one below that, with its first process.
    New(PidSpace),
    /// One below that, which others are in already.
    Inner(PidSpace),
}

/// What a process does about a controlling terminal, which it otherwise has from its creator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// Nothing.
    Inherited,
    /// Takes this one, as the leader of its session.
    Taken(u32),
    /// Gives up the one its session has.
    GivenUp(u32),
}

/// What a process of the restore is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A process of the image.
    Live,
    /// A child that died and was not waited for: it exits again with this wait(2) status.
    Zombie(u32),
    /// Not in the image: a dead leader or dead parent. It exits once it has served, and this process waits for it.
    Helper {
        /// Who reaps it.
        reaper: Pid,
    },
    /// Not in the image: [`OUTSIDE`].
    Stub {
        /// As pid 1, for the reaping; otherwise it exits once the roots are there.
        stays: bool,
    },
}

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.creator {
            Some(OUTSIDE) => write!(f, "by the stub")?,
            Some(creator) => write!(f, "by {}", self.creator_thread.unwrap_or(creator))?,
            None => write!(f, "first")?,
        }
        if self.clone_parent {
            f.write_str(", as its sibling")?;
        }
        if let [own, _, ..] = self.ids[..] {
            write!(f, ", as {own} of an inner pid namespace")?;
        }
        match self.role {
            Role::Live => {}
            Role::Stub { stays: true } => write!(f, ", a stub that stays as pid 1")?,
            Role::Stub { stays: false } => write!(f, ", a stub that leaves its children to the host")?,
            Role::Zombie(status) => write!(f, ", to become a zombie with status {status:#x}")?,
            Role::Helper { reaper } => write!(f, ", a helper that {reaper} reaps")?,
        }
        Ok(())
    }
}

/// The process of the image whose memory a new process is born with: its creator's, or, as helpers keep what they were
/// born with, that of the first creator that is no helper; told by the process that has the record of that memory.
#[must_use]
pub(super) fn memory_parent(births: &BTreeMap<Pid, Birth>, pid: Pid) -> Option<Pid> {
    let mut creator = births.get(&pid)?.creator?;
    while let Some(birth) = births.get(&creator) {
        if birth.role == Role::Live {
            return Some(birth.shares.memory.unwrap_or(creator));
        }
        creator = birth.creator?;
    }
    None
}
