//! What a container is given: the mounts that a fresh one has of the host's, and gets for itself.

use super::super::container::Place;
use super::own::{Own, flags, look, mount_at, mount_of};
use crate::mountinfo::{Mount, paths_of};
use crate::registry::Record;
use image_format::manifest::NamespaceKind;
use image_format::mounts::{MountFlags, MountKind};
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The attributes of the /proc that a container gets for itself (`launch::surroundings`).
const PROC: MountFlags =
    MountFlags(MountFlags::MS_NOSUID.0 | MountFlags::MS_NODEV.0 | MountFlags::MS_NOEXEC.0 | MountFlags::MS_RELATIME.0);
/// Those of its terminals.
const DEVPTS: MountFlags = MountFlags(MountFlags::MS_NOSUID.0 | MountFlags::MS_NOEXEC.0 | MountFlags::MS_RELATIME.0);

/// The mounts of the host and those inside a container, side by side.
pub(super) struct Given<'a> {
    host: &'a [Mount],
    inside: &'a [Mount],
    /// The container's root directory on the host, and the mount there that it is bound from.
    root: Option<(&'a Path, Option<u32>)>,
    /// A fresh container has the host's devices.
    devices: bool,
    /// The /proc and the terminals that every container gets for itself, with the attributes they get; the former where it has
    /// processes or a root directory of its own.
    fresh: Vec<(u32, MountFlags)>,
}

impl<'a> Given<'a> {
    pub(super) fn of(record: &'a Record, host: &'a [Mount], inside: &'a [Mount]) -> Self {
        Given::new(host, inside, record.root.as_deref(), !record.shares(NamespaceKind::Pid))
    }

    pub(super) fn new(host: &'a [Mount], inside: &'a [Mount], root: Option<&'a Path>, own_pids: bool) -> Self {
        let opened = |path: &Path| OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).ok();
        let mut given = Given {
            host,
            inside,
            root: root.map(|root| (root, opened(root).and_then(|opened| mount_of(&opened)))),
            devices: root.is_none_or(|root| !root.join("dev/null").exists()),
            fresh: Vec::new(),
        };
        if own_pids || root.is_some() {
            given.fresh.extend(given.find_fresh("proc", "/proc", PROC));
        }
        given.fresh.extend(given.find_fresh("devpts", "/dev/pts", DEVPTS));
        given
    }

    /// Below a /dev that somebody mounted, terminals are none that were there from the beginning.
    fn find_fresh(&self, kind: &str, path: &str, flags: MountFlags) -> Option<(u32, MountFlags)> {
        let found = self.inside.iter().find(|mount| {
            let is_it = mount.kind == kind && mount.path == Path::new(path) && mount.root == Path::new("/");
            let below = self.inside.iter().find(|below| below.id == mount.parent);
            let stands = below.is_none_or(|below| below.path == Path::new("/") || self.there(below).is_some());
            // In another root it may show the host's processes.
            let is_other =
                (kind == "proc" && self.root.is_some()) || !self.host.iter().any(|there| there.what() == mount.what());
            is_it && stands && is_other
        })?;
        Some((found.id, flags))
    }

    fn is_fresh(&self, mount: &Mount) -> bool {
        self.fresh.iter().any(|(id, _)| *id == mount.id)
    }

    /// The mount of the host's that a fresh container would have in this one's place.
    fn there(&self, mount: &Mount) -> Option<&'a Mount> {
        let known = |mount: &Mount| self.host.iter().find(|there| there.what() == mount.what());
        let Some((root, below)) = self.root else { return known(mount) };
        if mount.path == Path::new("/") {
            let shows = |there: &&Mount| there.device == mount.device && mount.root.starts_with(&there.root);
            return self.host.iter().find(|there| Some(there.id) == below).filter(shows);
        }
        // What the host has mounted below the directory; the host's devices.
        let inside = mount.path.strip_prefix("/").unwrap_or(&mount.path);
        let devices = self.devices && mount.path.starts_with("/dev");
        known(&Mount { path: root.join(inside), ..mount.clone() }).or_else(|| known(mount).filter(|_| devices))
    }

    /// The mounts that a new container would not have. `is_copy`: the container's first process has made a copy of all that it was born with.
    pub(super) fn foreign(&self, record: &Record, place: &Place, is_copy: bool) -> Vec<&'a Mount> {
        let mut foreign = self.unknown();
        // Who made the mounts of a container that was added began with none of the host's.
        if !record.added && !is_copy && !foreign.is_empty() {
            let birth = Birth::of(self, place);
            foreign.retain(|mount| !birth.is_left_over(mount, self.host, place));
        }
        foreign
    }

    fn unknown(&self) -> Vec<&'a Mount> {
        // A server that was mounted after the container began shows in it too; nothing inside depends on it, or its descriptors
        // tell, and a restore detaches it.
        self.inside.iter().filter(|mount| !mount.is_crfs() && !self.is_given(mount)).collect()
    }

    /// Below what was mounted inside, nothing was there from the beginning, even if the host has the same in that place: what is bound
    /// on /dev/shm of a /dev of its own.
    fn is_given(&self, mount: &Mount) -> bool {
        let is_root = self.root.is_some() && mount.path == Path::new("/");
        let below = self.inside.iter().find(|below| below.id == mount.parent && below.id != mount.id);
        is_root
            || self.is_fresh(mount)
            || (self.there(mount).is_some() && below.is_none_or(|below| self.is_given(below)))
    }

    /// The mounts of a fresh container whose attributes or peers are others here: it has them as the host has, and receives from
    /// those that are shared there.
    pub(super) fn changed(&self, foreign: &[&Mount], place: &Place) -> Vec<Own> {
        let given = self.inside.iter().filter(|mount| !foreign.iter().any(|own| own.id == mount.id));
        let changed = given.filter_map(|mount| {
            let flags = flags(mount)?;
            let fresh = self.fresh.iter().find(|(id, _)| *id == mount.id);
            let as_given = match (fresh, self.there(mount)) {
                (Some((_, given)), _) => flags == *given,
                (None, None) => true,
                (None, Some(there)) => {
                    let cut_off = mount.master.is_none() && (there.peers.is_some() || there.master.is_some());
                    Some(flags) == self::flags(there) && !cut_off
                }
            };
            let same = as_given && mount.peers.is_none() && !mount.unbindable;
            let is_seen = mount_at(place, &mount.path) == Some(mount.id);
            (!same && is_seen).then(|| Own { mount: mount.clone(), kind: MountKind::Host, flags })
        });
        changed.collect()
    }
}

/// Tells mounts that a container was born with from those that were made since: their numbers are lower than that of its own terminals. Not
/// where its first process has made a copy of them all (unshare(2)), whose numbers say nothing: what it has of the host's may come later too.
struct Birth(Option<u64>);

impl Birth {
    fn of(given: &Given<'_>, place: &Place) -> Self {
        let fresh = given.inside.iter().filter(|mount| given.is_fresh(mount));
        let birth = fresh.filter_map(|mount| Self::number(mount, place)).min();
        // In another root the host's devices are bound after its own /proc is there.
        let is_bound = |mount: &Mount| given.root.is_some() && mount.path.starts_with("/dev");
        let of_host = given.inside.iter().filter(|mount| !given.is_fresh(mount) && !is_bound(mount));
        let mut of_host = of_host.filter(|mount| given.there(mount).is_some());
        let is_later = |mount: &Mount| Self::number(mount, place).is_some_and(|number| birth < Some(number));
        Birth(birth.filter(|_| !of_host.any(is_later)))
    }

    /// Nothing inside made it, and the host has it no more.
    fn is_left_over(&self, mount: &Mount, host: &[Mount], place: &Place) -> bool {
        let is_there = paths_of(host, mount).next().is_some();
        let older = |birth| Self::number(mount, place).is_some_and(|number| number < birth);
        !is_there && self.0.is_some_and(older)
    }

    /// None for one that another hides, and before Linux 6.8.
    fn number(mount: &Mount, place: &Place) -> Option<u64> {
        let opened = look(place, &mount.path).filter(|opened| mount_of(opened) == Some(mount.id))?;
        crfs_sys::mount::unique_id(opened.as_fd()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mountinfo::mounts;

    const HOST: &[u8] = b"27 1 254:0 / / rw - ext4 /dev/vda rw\n22 27 0:21 / /proc rw - proc proc rw\n\
        24 27 0:6 / /dev rw - devtmpfs devtmpfs rw\n30 27 0:30 / /srv/a\\040b/data rw - tmpfs tmpfs rw\n";

    fn paths(own: &[u8], root: Option<&str>) -> Vec<String> {
        let own = mounts(own);
        let host = mounts(HOST);
        let given = Given::new(&host, &own, root.map(Path::new), true);
        let found = given.unknown();
        found.into_iter().map(|mount| mount.path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_copy_of_the_host_with_its_own_proc_is_as_expected() {
        let own = [HOST, b"90 22 0:70 / /proc rw - proc proc rw\n"].concat();
        assert!(paths(&own, None).is_empty());
    }

    #[test]
    fn what_was_mounted_inside_is_found_also_over_an_old_mount() {
        let own = [
            HOST,
            b"90 22 0:70 / /proc rw - proc proc rw\n91 27 0:71 / /dev rw - tmpfs t rw\n",
            b"92 27 0:72 / /proc rw - proc proc rw\n",
        ]
        .concat();
        assert_eq!(paths(&own, None), ["/dev", "/proc"]);
    }

    #[test]
    fn below_what_was_mounted_inside_nothing_is_the_hosts() {
        let host = mounts(&[HOST, b"31 24 0:31 / /dev/shm rw - tmpfs shm rw\n"].concat());
        let own = mounts(
            b"80 1 254:0 /srv/a / rw - ext4 /dev/vda rw\n81 80 0:71 / /dev rw - tmpfs t rw\n\
            82 81 0:31 / /dev/shm rw - tmpfs shm rw\n",
        );
        let given = Given::new(&host, &own, Some(Path::new("/srv/a")), true);
        assert_eq!(given.unknown().len(), 2);
    }

    #[test]
    fn below_another_root_the_host_is_seen_from_there() {
        let own = b"80 1 254:0 /srv/a\\040b / rw - ext4 /dev/vda rw\n81 80 0:30 / /data rw - tmpfs tmpfs rw\n\
            82 80 0:70 / /proc rw - proc proc rw\n83 80 0:6 / /dev rw - devtmpfs devtmpfs rw\n84 80 0:99 / /mnt rw - tmpfs t rw\n";
        assert_eq!(paths(own, Some("/srv/a b")), ["/mnt"]);
    }
}
