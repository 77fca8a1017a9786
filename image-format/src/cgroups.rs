//! `cgroups`: the container's own cgroup and those made inside it, with their limits, and who lies in them.

use crate::types::{Bytes, Octal, Pid};
use serde::{Deserialize, Serialize};

/// A line of `cgroups`. The first is the container's own cgroup; each of the others stands after the one that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cgroup {
    /// Below the container's own, which is `.` itself.
    pub path: Bytes,
    /// It can hold threads of processes that lie elsewhere (`threaded` in cgroup.type).
    pub threaded: bool,
    /// It is frozen by itself (cgroup.freeze), and stays so when the container is thawed. Never of the container's own.
    pub frozen: bool,
    /// Permission bits of its directory.
    pub mode: Octal,
    /// Owner of its directory.
    pub uid: u32,
    /// Group of its directory.
    pub gid: u32,
    /// Who made it, and so owns the files in it.
    pub maker: Maker,
    /// Files in it that were given other owners or permissions: so a cgroup is delegated.
    pub delegated: Vec<DelegatedFile>,
    /// Controllers that it offers to those inside it (cgroup.subtree_control). May be edited.
    pub controllers: Vec<String>,
    /// What says something else than in a fresh cgroup. May be edited.
    pub settings: Vec<Setting>,
    /// Processes that lie in it. Those that are listed nowhere lie in the container's own.
    pub processes: Vec<Pid>,
    /// Threads that lie in it while their process lies elsewhere.
    pub threads: Vec<Pid>,
}

/// Owner and group of the files of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maker {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A file of a cgroup with an owner or permissions of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelegatedFile {
    /// Its name: `cgroup.procs`.
    pub file: String,
    /// Permission bits.
    pub mode: Octal,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A file of a cgroup that was written to: a limit, a weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Its name: `memory.max`.
    pub file: String,
    /// What it says, without the newline at the end; several lines where it has one for each device or resource.
    pub value: String,
}

impl Setting {
    /// Files that say what other fields say, or are no settings although they can be read and written: triggers, counters that can
    /// be set back, and cpu.weight by another name. `Documentation/admin-guide/cgroup-v2.rst`, v6.18.
    #[must_use]
    pub fn is_no_setting(file: &str) -> bool {
        const ELSEWHERE: [&str; 6] = [
            "cgroup.procs",
            "cgroup.threads",
            "cgroup.type",
            "cgroup.freeze",
            "cgroup.subtree_control",
            "cpu.weight.nice",
        ];
        let is_trigger = file.ends_with(".pressure") && file != "cgroup.pressure";
        ELSEWHERE.contains(&file) || is_trigger || file.ends_with(".peak")
    }

    /// The controller that it belongs to; `cgroup` for what every cgroup has.
    #[must_use]
    pub fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }
}
