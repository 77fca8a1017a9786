//! What stands in the way of a checkpoint.

use serde::{Deserialize, Serialize};

/// One obstacle: a line of `blockers`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocker {
    /// The object, as a path in the tree where there is one: `0x00000007/fds: 5`.
    pub object: String,
    /// Why it cannot be carried, in words.
    pub reason: String,
    /// What the user can do about it.
    pub remedy: String,
}

impl Blocker {
    /// A blocker from its three parts.
    pub fn new(object: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Blocker { object: object.into(), reason: reason.into(), remedy: remedy.into() }
    }
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}. {}", self.object, self.reason, self.remedy)
    }
}
