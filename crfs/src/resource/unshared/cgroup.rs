//! Cgroup namespaces apart: what is the top of all cgroups in them.

use super::maker::Maker;
use crate::failure::{Doing, Failure};
use crate::freezer;
use crate::resource::Findings;
use crate::resource::container::inside::{CGROUP, inside};
use crate::resource::user_namespace;
use image_format::cgroups::Cgroup;
use image_format::namespaces::CgroupRoot;
use image_format::{Bytes, Pid, layout};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The top of the namespace of a process, which the container and the host number so. None, and an obstacle, where it is none of the
/// container's `cgroups`, which lie below `own`.
///
/// The caller must have one thread.
///
/// # Errors
/// When the process is gone, or the namespace cannot be looked into.
pub(super) fn root(
    (pid, host): (Pid, i32),
    own: &freezer::Cgroup,
    cgroups: &[Cgroup],
    findings: &mut Findings,
) -> Result<Option<CgroupRoot>, Failure> {
    let inode = |found: fs::Metadata| (found.dev(), found.ino());
    let root = inside(host, &[CGROUP], || match crfs_sys::mount::detached(c"cgroup2") {
        // It was removed.
        Err(Errno::ENOENT) => Ok(None),
        root => {
            File::from(root.doing(|| "mounting cgroup2")?).metadata().map(inode).map(Some).doing(|| "looking at it")
        }
    })?;
    let is_it = |cgroup: &&Cgroup| {
        let path = own.path().join(Path::new(OsStr::from_bytes(&cgroup.path.0)));
        root.is_some() && fs::metadata(path).map(inode).ok() == root
    };
    match cgroups.iter().find(is_it) {
        Some(Cgroup { path, threaded: false, .. }) => Ok(Some(CgroupRoot { root: path.clone() })),
        found => {
            let what = found.map_or_else(
                || "is none of the container's cgroups".to_owned(),
                |cgroup| format!("is the threaded cgroup {}", cgroup.path),
            );
            findings.block(
                layout::thread_file(pid, pid, "attr"),
                format!("is in another cgroup namespace than the container's first process, whose top {what}"),
                "Have it call unshare in a cgroup of the container that holds processes and is there at the freeze",
            );
            Ok(None)
        }
    }
}

/// A namespace whose top is the cgroup that a directory is: that in which lies who makes it. It belongs to `user`, if not to the container's own.
///
/// # Errors
/// When no process can be born there, or the system refuses.
pub(super) fn make(directory: BorrowedFd<'_>, path: &Bytes, user: Option<&File>) -> Result<File, Failure> {
    let maker = Maker::born(Some(directory), |_| {
        user_namespace::enter(user)?;
        unshare(CloneFlags::CLONE_NEWCGROUP).doing(|| "unshare(2)").map(|()| Vec::new())
    });
    maker.and_then(|maker| maker.open("ns/cgroup")).map_err(|failure| failure.within(format!("root: {path}")))
}
