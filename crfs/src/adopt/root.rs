//! Where the root directory of a container that somebody else made lies on this host.

use crate::failure::{Doing, Failure};
use crate::mountinfo::{mounts, paths_of};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The root directory of a process with a mount namespace of its own, as a path of this host; None where it is the host's own, or no path
/// leads there, which is an obstacle for a freeze.
///
/// # Errors
/// When the process is gone.
pub(super) fn find(pid: i32) -> Result<Option<PathBuf>, Failure> {
    let read = |name: &str| fs::read(name).doing(|| format!("{name}: reading"));
    let look = |path: &Path| fs::metadata(path).doing(|| format!("{}: looking at it", path.display()));
    let link = format!("/proc/{pid}/root");
    let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let root = look(Path::new(&link).join("").as_path())?;
    if same(&root, &look(Path::new("/"))?) {
        return Ok(None);
    }
    let host = mounts(&read("/proc/self/mountinfo")?);
    let inside = mounts(&read(&format!("/proc/{pid}/mountinfo"))?);
    // A chroot(2) in a copy of the host's mounts has the path that leads there on the host too.
    let chroot = fs::read_link(&link).doing(|| format!("{link}: reading the link"))?;
    let top = inside.iter().rev().find(|mount| mount.path == Path::new("/"));
    let mut paths = top.into_iter().flat_map(|top| paths_of(&host, top)).chain([chroot]);
    Ok(paths.find(|path| fs::metadata(path).is_ok_and(|there| same(&there, &root))))
}
