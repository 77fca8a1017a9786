//! `numa`: from which nodes threads and mappings get their memory.

use crate::flags;
use crate::types::{Address, Pid};
use serde::{Deserialize, Serialize};

/// No kernel knows more nodes (MAX_NUMNODES with CONFIG_NODES_SHIFT=10, include/linux/numa.h, v6.18).
pub const NODE_LIMIT: u32 = 1024;

/// A line of `numa`: a policy other than the default, of set_mempolicy(2) or mbind(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumaPolicy {
    /// What it is for.
    pub of: NumaOwner,
    /// `MPOL_` mode.
    pub mode: NumaMode,
    /// `MPOL_F_` flags.
    pub flags: NumaFlags,
    /// The nodes, ascending.
    pub nodes: Vec<u32>,
    /// Of set_mempolicy_home_node(2).
    pub home_node: Option<u32>,
}

/// What has a policy. First threads, then mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumaOwner {
    /// A thread, for whatever has no policy of its own.
    Thread(Pid),
    /// The mapping of `mem.segments` that begins there.
    Mapping(Address),
}

/// How nodes are chosen (include/uapi/linux/mempolicy.h, v6.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the kernel's own names, described in set_mempolicy(2)")]
pub enum NumaMode {
    Preferred = 1,
    Bind = 2,
    Interleave = 3,
    Local = 4,
    PreferredMany = 5,
    WeightedInterleave = 6,
}

impl NumaMode {
    /// Every mode.
    pub const ALL: [NumaMode; 6] = [
        NumaMode::Preferred,
        NumaMode::Bind,
        NumaMode::Interleave,
        NumaMode::Local,
        NumaMode::PreferredMany,
        NumaMode::WeightedInterleave,
    ];

    /// The mode that the kernel has under this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&mode| mode as u32 == number)
    }
}

flags! {
    /// `MPOL_F_` flags (include/uapi/linux/mempolicy.h, v6.18).
    NumaFlags {
        MPOL_F_NUMA_BALANCING = 0x2000, MPOL_F_RELATIVE_NODES = 0x4000, MPOL_F_STATIC_NODES = 0x8000,
    }
}
