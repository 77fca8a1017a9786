//! From the mounts that were found to the records.

use super::super::Findings;
use super::super::container::Place;
use super::super::proc::Proc;
use super::cgroup_mounts;
use super::contents::MountPlace;
use super::difference::{Difference, Surroundings};
use super::own::{self, Own};
use super::tree;
use super::views::{View, Views};
use crate::failure::{Doing, Failure};
use crate::registry::Record;
use image_format::Bytes;
use image_format::layout;
use image_format::mounts::{Master, Mount, MountKind, Propagation, TreeEntry};
use image_format::namespaces::{MountNamespace, NamespaceContent, UnsharedNamespace};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The container's own mounts, and its mount namespaces apart.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    /// The lines of `mounts`.
    pub mounts: Vec<Mount>,
    /// The files of each tmpfs among them, by number.
    pub trees: BTreeMap<u32, Vec<TreeEntry>>,
    /// Of the namespaces apart, without the files that are open there.
    pub namespaces: Vec<UnsharedNamespace>,
}

/// A line of `mounts` to be.
struct Line {
    /// The number of its namespace, and a process that sees it, as the host numbers it.
    namespace: u32,
    host: i32,
    own: Own,
}

/// Captures the mounts of a frozen container that has its own, as its first process (host pid) sees them, and those of namespaces apart.
///
/// # Errors
/// When the first process is gone, or a tmpfs cannot be read.
pub fn capture(
    record: &Record,
    init: i32,
    views: &Views,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<Mounts, Failure> {
    let found = own::find(record, init, proc, findings)?;
    let mut lines: Vec<Line> = found.into_iter().map(|own| Line { namespace: 0, host: init, own }).collect();
    let mut captured = Mounts::default();
    if !views.all().is_empty() {
        let own = View::of(init, Place::of(record, init, proc)?, proc)?;
        let cgroups = cgroup_mounts::top(record, init, proc)?;
        captured.namespaces = apart(&own, views, cgroups.as_deref(), &mut lines, findings);
    }
    let groups = Groups::of(&lines);
    for (number, Line { namespace, host, own }) in (1..).zip(lines) {
        let path = Bytes(own.mount.path.as_os_str().as_bytes().to_vec());
        if let MountKind::Tmpfs(_) = own.kind {
            let place = MountPlace { host, path: path.clone() };
            let tree = place.copy().and_then(|top| tree::list(&top));
            captured.trees.insert(number, tree.doing(|| format!("{}: listing {path}", layout::mount_tree(number)))?);
        }
        let propagation = groups.propagation(&own);
        let Own { kind, flags, .. } = own;
        captured.mounts.push(Mount { number, namespace, path, kind, flags, propagation });
    }
    Ok(captured)
}

/// Adds the lines of the namespaces apart, each compared with that which it differs least from: the container's `own`, or an earlier one.
fn apart(
    own: &View,
    views: &Views,
    cgroups: Option<&Path>,
    lines: &mut Vec<Line>,
    findings: &mut Findings,
) -> Vec<UnsharedNamespace> {
    let mut namespaces = Vec::new();
    let all: Vec<&View> = [own].into_iter().chain(views.all()).collect();
    for (number, &view) in (0..).zip(&all).skip(1) {
        let earlier = (0..).zip(&all).take_while(|&(other, _)| other < number);
        let compared = earlier.clone().map(|(base, original)| {
            let others = earlier.clone().filter(|&(other, _)| other != base);
            let elsewhere = others.flat_map(|(_, view)| &view.mounts).map(|mount| mount.device.as_slice());
            let surroundings = Surroundings { cgroups, elsewhere: elsewhere.collect() };
            (base, Difference::between(original, view, &surroundings))
        });
        // At least the container's own was compared.
        let Some((base, difference)) = compared.min_by_key(|(base, difference)| (difference.size(), *base)) else {
            continue;
        };
        let process = view.processes[0];
        let mut refuse = |mount: &crate::mountinfo::Mount, reason: &str| {
            let path = Bytes(mount.path.as_os_str().as_bytes().to_vec());
            findings.block(
                "manifest",
                format!("{} is mounted on {path} in the mount namespace of process {process}, {reason}", mount.kind),
                "Unmount it there",
            );
        };
        for (mount, reason) in &difference.refused {
            refuse(mount, reason);
        }
        let private = difference.private;
        let others = (0..).zip(&all).filter(|&(other, _)| other != base && other != number);
        let other_groups: Vec<u32> =
            others.flat_map(|(_, view)| &view.mounts).filter_map(|mount| mount.peers).collect();
        let is_of_base =
            |group: u32| lines.iter().any(|line| line.namespace == base && line.own.mount.peers == Some(group));
        for own in &difference.lines {
            let is_unknown = |group: &u32| other_groups.contains(group) && !is_of_base(*group);
            if own.mount.peers.into_iter().chain(own.mount.master).any(|group| is_unknown(&group)) {
                refuse(&own.mount, "and shares mounts with a namespace that it is no copy of");
            }
        }
        let new = difference.lines.into_iter().map(|own| Line { namespace: number, host: view.host, own });
        lines.extend(new);
        let content = MountNamespace { number, base, private, files: Vec::new() };
        namespaces.push(UnsharedNamespace {
            content: NamespaceContent::Mnt(content),
            processes: view.processes.clone(),
            user: None,
        });
    }
    namespaces
}

/// The peer groups of the mounts, by the kernel's number, counted in order.
struct Groups(BTreeMap<u32, u32>);

impl Groups {
    fn of(lines: &[Line]) -> Self {
        let mut groups = BTreeMap::new();
        for group in lines.iter().filter_map(|line| line.own.mount.peers) {
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
