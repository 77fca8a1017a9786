//! From the mounts that were found to the records.

use super::super::Findings;
use super::super::proc::Proc;
use super::contents::MountPlace;
use super::own::{self, Own};
use super::tree;
use crate::failure::{Doing, Failure};
use crate::registry::Record;
use image_format::Bytes;
use image_format::layout;
use image_format::mounts::{Master, Mount, MountKind, Propagation, TreeEntry};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

/// The container's own mounts.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    /// The lines of `mounts`.
    pub mounts: Vec<Mount>,
    /// The files of each tmpfs among them, by number.
    pub trees: BTreeMap<u32, Vec<TreeEntry>>,
}

/// Captures the mounts of a frozen container that has its own, as its first process (host pid) sees them.
///
/// # Errors
/// When the first process is gone, or a tmpfs cannot be read.
pub fn capture(record: &Record, init: i32, proc: &mut Proc, findings: &mut Findings) -> Result<Mounts, Failure> {
    let found = own::find(record, init, proc, findings)?;
    let groups = Groups::of(&found);
    let mut captured = Mounts::default();
    for (number, own) in (1..).zip(&found) {
        let path = Bytes(own.mount.path.as_os_str().as_bytes().to_vec());
        if let MountKind::Tmpfs(_) = own.kind {
            let place = MountPlace { host: init, path: path.clone() };
            let tree = place.copy().and_then(|top| tree::list(&top));
            captured.trees.insert(number, tree.doing(|| format!("{}: listing {path}", layout::mount_tree(number)))?);
        }
        let propagation = groups.propagation(own);
        let Own { kind, flags, .. } = own.clone();
        captured.mounts.push(Mount { number, path, kind, flags, propagation });
    }
    Ok(captured)
}

/// The peer groups of the container's own mounts, by the kernel's number, counted in order.
struct Groups(BTreeMap<u32, u32>);

impl Groups {
    fn of(found: &[Own]) -> Self {
        let mut groups = BTreeMap::new();
        for group in found.iter().filter_map(|own| own.mount.peers) {
            let next = u32::try_from(groups.len() + 1).unwrap_or(u32::MAX);
            groups.entry(group).or_insert(next);
        }
        Groups(groups)
    }

    fn propagation(&self, own: &Own) -> Propagation {
        let group = |peers: u32| self.0.get(&peers).copied();
        Propagation {
            peers: own.mount.peers.and_then(group),
            master: own.mount.master.map(|peers| group(peers).map_or(Master::Host, Master::Peers)),
            unbindable: own.mount.unbindable,
        }
    }
}
