//! In what a mount namespace differs from the one that it is a copy of.

use super::cgroup_mounts;
use super::own::{self, Own, Sources};
use super::views::View;
use crate::mountinfo::Mount;
use image_format::mounts::{BindMount, MountFlags, MountKind};
use std::cmp::Reverse;
use std::path::Path;

/// What is to be done to a copy.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// All of it is made private first.
    pub(super) private: bool,
    /// The lines of `mounts`, in their order.
    pub(super) lines: Vec<Own>,
    /// What cannot be made again, and why not.
    pub(super) refused: Vec<(Mount, &'static str)>,
}

const NOT_AGAIN: &str = "which a restore would not do";
const HIDDEN: &str = "hidden by another mount";
const SHARED: &str = "below a mount that is shared with another namespace";
const OWNED: &str = "whose file system belongs to a user namespace inside";
const MASTER: &str = "and receives mounts from where a restore would not have it";

/// What else is known when namespaces are compared.
pub(super) struct Surroundings<'a> {
    /// Where the container's cgroup is in its hierarchy, if it has a namespace that ends there.
    pub(super) cgroups: Option<&'a Path>,
    /// The numbers of file systems that other namespaces than these two have mounted.
    pub(super) elsewhere: Vec<&'a [u8]>,
}

impl Difference {
    /// How much there is to be done; what cannot be counts most.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.refused.len(), self.lines.len())
    }

    /// Compares a namespace with the one that it may have begun as a copy of.
    pub(super) fn between(base: &View, view: &View, surroundings: &Surroundings<'_>) -> Self {
        let mut pairs = pairs(&base.mounts, &view.mounts);
        pairs.sort_by(|(_, one), (_, other)| one.path.cmp(&other.path));
        let is_kept = |pair: &&(&Mount, &Mount)| has_relations(pair.0) && relations(pair.0) == relations(pair.1);
        let is_lost = |pair: &&(&Mount, &Mount)| has_relations(pair.0) && !has_relations(pair.1);
        let private = pairs.iter().any(|pair| is_lost(&pair)) && !pairs.iter().any(|pair| is_kept(&pair));
        let mut difference = Difference { private, ..Difference::default() };
        difference.unmounted(base, &pairs);
        difference.changed(base, view, &pairs);
        difference.added(base, view, &pairs, surroundings);
        difference
    }

    fn refuse(&mut self, mount: &Mount, reason: &'static str) {
        self.refused.push((mount.clone(), reason));
    }

    /// What the copy has and the namespace has not, from the top down.
    fn unmounted(&mut self, base: &View, pairs: &[(&Mount, &Mount)]) {
        let mut gone: Vec<&Mount> =
            base.mounts.iter().filter(|mount| !pairs.iter().any(|(kept, _)| kept.id == mount.id)).collect();
        let order = |mount: &Mount| Reverse((depth(mount, &base.mounts), mount.path.clone()));
        gone.sort_by_cached_key(|mount| order(mount));
        for &mount in &gone {
            let below = pairs.iter().find(|(kept, _)| kept.id == mount.parent);
            let under_gone = || gone.iter().any(|other| other.id != mount.id && other.path == mount.path);
            if below.is_some_and(|(_, below)| below.peers.is_some()) {
                self.refuse(mount, SHARED);
            } else if own::mount_at(&base.place, &mount.path) == Some(mount.id) || under_gone() {
                let mount = Mount { peers: None, master: None, unbindable: false, ..mount.clone() };
                self.lines.push(Own { mount, kind: MountKind::Unmounted, flags: MountFlags(0) });
            } else {
                self.refuse(mount, HIDDEN);
            }
        }
    }

    /// What has other flags or exchanges mounts with others than the copy does. What is hidden in the copy is passed over.
    fn changed(&mut self, base: &View, view: &View, pairs: &[(&Mount, &Mount)]) {
        for &(before, now) in pairs {
            let expected = match relations(before) {
                _ if self.private => (None, None, false),
                // Who makes a copy for another user namespace only receives from what was shared (CL_SHARED_TO_SLAVE).
                (peers, master, unbindable) if is_lowered(base, view) => (None, peers.or(master), unbindable),
                same => same,
            };
            let same = before.attributes == now.attributes && relations(now) == expected;
            if same || own::mount_at(&base.place, &before.path) != Some(before.id) {
                continue;
            }
            // Whose mounts it receives must be known where it is made again.
            let is_master = |master| {
                let leads = |mount: &Mount| mount.peers == Some(master);
                base.mounts.iter().chain(&view.mounts).any(leads)
            };
            let kept = !self.private && now.master == before.master;
            match own::flags(now) {
                None => self.refuse(now, NOT_AGAIN),
                Some(_) if now.master.is_some_and(|master| !kept && !is_master(master)) => self.refuse(now, MASTER),
                Some(flags) => self.lines.push(Own { mount: now.clone(), kind: MountKind::Inherited, flags }),
            }
        }
    }

    /// What the namespace has and the copy has not, in an order in which it can be made.
    fn added(&mut self, base: &View, view: &View, pairs: &[(&Mount, &Mount)], surroundings: &Surroundings<'_>) {
        let kept: Vec<u32> = pairs.iter().map(|(_, now)| now.id).collect();
        let mut left: Vec<&Mount> = view.mounts.iter().filter(|mount| !kept.contains(&mount.id)).collect();
        left.sort_by(|one, other| one.path.cmp(&other.path));
        let mut placed: Vec<&Mount> = Vec::new();
        // In the order of paths, but for what hangs on another or is a part of it: a restore numbers them in another order.
        loop {
            let before = left.len();
            left.retain(|mount| {
                let stands = kept.contains(&mount.parent) || placed.iter().any(|below| below.id == mount.parent);
                let added = stands && self.add(mount, base, view, &placed, surroundings);
                if added {
                    placed.push(mount);
                }
                !added
            });
            if left.len() == before {
                break;
            }
        }
        for mount in left {
            self.refuse(mount, NOT_AGAIN);
        }
    }

    /// Adds the line of a mount, or an obstacle. False: what it is a part of may still come.
    fn add(
        &mut self,
        mount: &Mount,
        base: &View,
        view: &View,
        placed: &[&Mount],
        surroundings: &Surroundings<'_>,
    ) -> bool {
        if own::mount_at(&view.place, &mount.path) != Some(mount.id) {
            // Nobody sees it, and it matters if something of it is only here.
            if !base.mounts.iter().any(|known| known.device == mount.device) {
                self.refuse(mount, HIDDEN);
            }
            return true;
        }
        let Some((kind, flags)) = kind(mount, base, view, placed, surroundings).zip(own::flags(mount)) else {
            return false;
        };
        let shared = view.mounts.iter().any(|below| below.id == mount.parent && below.peers.is_some());
        let covered = mount.unbindable && view.mounts.iter().any(|other| other.parent == mount.id);
        let is_overlay = matches!(&kind, MountKind::Fresh(fresh) if fresh.file_system == "overlay");
        if is_overlay && is_lowered(base, view) {
            self.refuse(mount, OWNED);
        } else if shared {
            self.refuse(mount, SHARED);
        } else if covered && matches!(kind, MountKind::Tmpfs(_)) {
            self.refuse(mount, HIDDEN);
        } else {
            self.lines.push(Own { mount: mount.clone(), kind, flags });
        }
        true
    }
}

/// How a mount is made again that the copy does not have.
fn kind(
    mount: &Mount,
    base: &View,
    view: &View,
    placed: &[&Mount],
    surroundings: &Surroundings<'_>,
) -> Option<MountKind> {
    let is_of_cgroups = |own: &&Path| mount.kind == "cgroup2" && mount.root.starts_with(own);
    if let Some(own) = surroundings.cgroups.filter(is_of_cgroups) {
        return cgroup_mounts::kind(mount, placed, &view.place, own);
    }
    let seen_in_base = base.mounts.iter().filter(|from| own::mount_at(&base.place, &from.path) == Some(from.id));
    let taken = seen_in_base.filter_map(|from| own::source((mount, &view.place), (from, &base.place))).next();
    if let Some(source) = taken {
        return Some(MountKind::Taken(BindMount { source }));
    }
    let is_elsewhere = surroundings.elsewhere.contains(&mount.device.as_slice())
        || base.mounts.iter().any(|known| known.device == mount.device);
    if is_elsewhere {
        return None;
    }
    own::kind(mount, placed, &view.place, &Sources { own_cgroup: None, host: &[] }).filter(|kind| match kind {
        MountKind::Fresh(fresh) => !view.ambiguous.contains(&fresh.file_system.as_str()),
        _ => true,
    })
}

/// The mounts of a copy with those of the original, where both hang at the same place of the tree.
fn pairs<'a>(base: &'a [Mount], view: &'a [Mount]) -> Vec<(&'a Mount, &'a Mount)> {
    let is_root =
        |mount: &Mount, all: &[Mount]| !all.iter().any(|other| other.id == mount.parent && other.id != mount.id);
    let mut pairs: Vec<(&Mount, &Mount)> = Vec::new();
    loop {
        let before = pairs.len();
        for now in view {
            if pairs.iter().any(|(_, known)| known.id == now.id) {
                continue;
            }
            let hangs_alike = |original: &&Mount| {
                let roots = is_root(original, base) && is_root(now, view);
                roots || pairs.iter().any(|(below, known)| below.id == original.parent && known.id == now.parent)
            };
            let is_free = |original: &&Mount| !pairs.iter().any(|(known, _)| known.id == original.id);
            let original = base.iter().filter(is_free).filter(|it| it.what() == now.what()).find(hangs_alike);
            pairs.extend(original.map(|original| (original, now)));
        }
        if pairs.len() == before {
            return pairs;
        }
    }
}

/// Whether a copy belongs to another user namespace.
fn is_lowered(base: &View, copy: &View) -> bool {
    base.owner != copy.owner
}

/// Peers, master, and whether it cannot be bound elsewhere.
fn relations(mount: &Mount) -> (Option<u32>, Option<u32>, bool) {
    (mount.peers, mount.master, mount.unbindable)
}

fn has_relations(mount: &Mount) -> bool {
    mount.peers.is_some() || mount.master.is_some()
}

/// How many mounts a mount hangs on.
fn depth(mount: &Mount, all: &[Mount]) -> usize {
    let below = |mount: &Mount| all.iter().find(|other| other.id == mount.parent && other.id != mount.id);
    std::iter::successors(below(mount), |&mount| below(mount)).take(all.len()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mountinfo::mounts;

    const BASE: &[u8] = b"27 1 254:0 / / rw - ext4 /dev/vda rw\n24 27 0:6 / /dev rw - devtmpfs d rw\n\
        25 24 0:24 / /dev/pts rw - devpts p rw\n30 27 0:30 / /srv rw - tmpfs t rw\n31 30 0:31 / /srv/in rw - tmpfs t rw\n";

    fn paired(view: &[u8]) -> Vec<(u32, u32)> {
        let (base, view) = (mounts(BASE), mounts(view));
        pairs(&base, &view).into_iter().map(|(original, copy)| (original.id, copy.id)).collect()
    }

    #[test]
    fn what_is_bound_over_a_copy_is_another() {
        let view = b"96 71 254:0 / / rw,nosuid - ext4 /dev/vda rw\n98 96 0:6 / /dev rw - devtmpfs d rw\n\
            99 98 0:24 / /dev/pts rw - devpts p rw\n119 98 0:6 / /dev rw - devtmpfs d rw\n120 119 0:24 / /dev/pts rw - devpts p rw\n";
        assert_eq!(paired(view), [(27, 96), (24, 98), (25, 99)]);
    }

    #[test]
    fn what_hangs_on_something_new_is_no_copy() {
        let view = b"96 71 254:0 / / rw - ext4 /dev/vda rw\n97 96 0:90 / /srv rw - tmpfs t rw\n\
            98 97 0:31 / /srv/in rw - tmpfs t rw\n";
        assert_eq!(paired(view), [(27, 96)]);
    }

    #[test]
    fn children_are_deeper_than_what_they_hang_on() {
        let base = mounts(BASE);
        assert_eq!(base.iter().map(|mount| depth(mount, &base)).collect::<Vec<_>>(), [0, 1, 2, 1, 2]);
    }
}
