//! Mounts of cgroup hierarchies.
//!
//! One of the container's own cgroup is made again as that of the restored one: it has another name. The hierarchies of version 1, and what
//! a container without a cgroup namespace sees, belong to the host: a restored container lies at the top of them, or wherever the server
//! and `crctl` do, and sees them from there.

use super::super::container::Place;
use super::super::container::inside::{CGROUP, inside};
use super::super::proc::Proc;
use super::own::source;
use crate::failure::{Doing, Failure};
use crate::mountinfo::{Mount, mounts};
use crate::registry::Record;
use image_format::Bytes;
use image_format::manifest::NamespaceKind;
use image_format::mounts::{BindMount, FileSystem, FreshMount, MountKind};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the container's cgroup is in its hierarchy, if it has a namespace that ends there: of a container that was added, the cgroup that
/// its namespace was made in.
///
/// # Errors
/// When /proc cannot be read.
pub(super) fn top(record: &Record, init: i32, proc: &mut Proc) -> Result<Option<PathBuf>, Failure> {
    if record.shares(NamespaceKind::Cgroup) {
        return Ok(None);
    }
    if record.added {
        let of_the_host = mounts(proc.bytes(format_args!("{init}/mountinfo"))?);
        return if of_the_host.iter().any(|mount| mount.kind == "cgroup2") {
            namespace_top(init, &of_the_host)
        } else {
            Ok(None)
        };
    }
    Ok(of_cgroup(&mounts(proc.bytes(format_args!("self/mountinfo"))?), &record.cgroup))
}

fn of_cgroup(host: &[Mount], cgroup: &Path) -> Option<PathBuf> {
    host.iter().filter(|mount| mount.kind == "cgroup2").find_map(|mount| {
        let below = cgroup.strip_prefix(&mount.path).ok()?;
        Some(mount.root.join(below))
    })
}

/// What the namespace shows as `/`: the kernel writes which part of the hierarchy is mounted as the reader's namespace has it.
fn namespace_top(init: i32, of_the_host: &[Mount]) -> Result<Option<PathBuf>, Failure> {
    let path = format!("/proc/{init}/mountinfo");
    let text = inside(init, &[CGROUP], || fs::read(&path).doing(|| format!("{path}: reading")))?;
    let shown = mounts(&text);
    Ok(of_the_host.iter().filter(|mount| mount.kind == "cgroup2").find_map(|mount| {
        let below = &shown.iter().find(|shown| shown.id == mount.id)?.root;
        let depth = below.strip_prefix("/").ok().filter(|below| !below.starts_with(".."))?.components().count();
        mount.root.ancestors().nth(depth).map(Path::to_owned)
    }))
}

/// How a mount of the container's own cgroup, or of one inside it, is made again: not by the host's mount, since a container of another
/// name has another cgroup. `own` is where it is in the hierarchy.
pub(super) fn kind(mount: &Mount, placed: &[&Mount], place: &Place, own: &Path) -> Option<MountKind> {
    if mount.root == own {
        // Its options are those of the one hierarchy, and nobody inside a cgroup namespace can change them.
        let options = FileSystem { source: Bytes(mount.source.clone()), options: "".into(), read_only: false };
        return Some(MountKind::Fresh(FreshMount { file_system: mount.kind.clone(), options }));
    }
    let from = placed.iter().filter(|from| from.root.starts_with(own));
    let source = from.clone().find_map(|from| source((mount, place), (from, place)));
    source.map(|source| MountKind::Bind(BindMount { source }))
}

/// Where the host has the hierarchy.
pub(super) fn host_path(mount: &Mount, host: &[Mount]) -> Option<Bytes> {
    let there = host.iter().find(|there| there.device == mount.device)?;
    Some(Bytes(there.path.as_os_str().as_bytes().to_vec()))
}
