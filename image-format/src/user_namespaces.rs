//! User namespaces below a container's own.

use serde::{Deserialize, Serialize};

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
