//! `seccomp`: the filters that system calls of the container's threads go through.

use crate::flags;
use crate::types::Blob;
use serde::{Deserialize, Serialize};

/// A line of `seccomp`: one filter on top of those that were in force before it. What threads share of their filters is
/// there once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeccompFilter {
    /// Its number inside the image: that of its line, from 1 on.
    pub filter: u32,
    /// The filter it was put on top of; null for the first one of a thread.
    pub after: Option<u32>,
    /// What it was installed with.
    pub flags: SeccompFlags,
    /// Its instructions, `struct sock_filter` of 8 bytes each.
    pub program: Blob,
}

flags! {
    /// `SECCOMP_FILTER_FLAG_` bits that the kernel keeps with a filter.
    SeccompFlags {
        SECCOMP_FILTER_FLAG_LOG = 2,
    }
}

/// Which system calls a thread may make (`seccomp` of its `attr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Seccomp {
    /// All.
    #[default]
    None,
    /// read, write, exit and sigreturn (SECCOMP_MODE_STRICT).
    Strict,
    /// What this filter of the file `seccomp` and those before it let through: the number of the newest one.
    Filter(u32),
}
