//! User namespaces below a container's own.

use serde::{Deserialize, Serialize};

/// A user namespace that was made in the container's own. Ids of users and groups are those of that everywhere else in an image.
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
}

/// So many ids, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdRange {
    /// The first, inside.
    pub inside: u32,
    /// What that is in the container's own.
    pub outside: u32,
    /// How many.
    pub count: u32,
}
