//! Writes a captured tree beside its place and renames it there, and notes which tasks are behind it.

use super::records::Records;
use crate::failure::{Doing, Failure, Kind};
use crate::registry::{Container, Live, LiveProcess};
use crate::resource::subject::Subjects;
use crfs_sys::time::process_cpu_ns;
use image_format::text::{render_lines, render_object};
use image_format::{Blocker, layout};
use nix::unistd::Pid;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What stands in the place of `manifest` when there are obstacles.
const BLOCKERS: &str = "blockers";

fn beside(container: &Container) -> PathBuf {
    container.image_dir().with_extension("new")
}

/// Writes the tree: `manifest` last, or `blockers` in its place when there are any.
pub(super) fn tree(container: &Container, records: &Records, blockers: &[Blocker]) -> Result<(), Failure> {
    let new = beside(container);
    remove(&new)?;
    let mut tree = Tree { root: new.clone(), parent: String::new() };
    tree.directory("")?;
    tree.directory(layout::FILES)?;
    for (path, bytes) in records.image.render() {
        tree.file(&path, &bytes)?;
    }
    for (&pipe, bytes) in &records.pipes {
        tree.file(&layout::pipe_data(pipe), bytes)?;
    }
    if blockers.is_empty() {
        tree.file(layout::MANIFEST, &render_object(&records.image.manifest))?;
    } else {
        tree.file(BLOCKERS, &render_lines(blockers))?;
    }
    let place = container.image_dir();
    remove(&place)?;
    fs::rename(&new, &place).doing(|| format!("{}: renaming the captured tree", place.display()))
}

/// Removes what an attempt left.
pub(super) fn discard(container: &Container) {
    // Reported as a failure already if it matters; a tree that stays is replaced by the next capture.
    let _ = remove(&beside(container));
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).doing(|| format!("{}: removing", path.display()))
        }
        _ => Ok(()),
    }
}

/// The tree while it is written. Paths come in order, so that a directory is made when its first file comes.
struct Tree {
    root: PathBuf,
    parent: String,
}

impl Tree {
    fn directory(&mut self, path: &str) -> Result<(), Failure> {
        let whole = self.root.join(path);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&whole);
        made.doing(|| format!("{}: creating the directory", whole.display()))
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), Failure> {
        if let Some((parent, _)) = path.rsplit_once('/')
            && parent != self.parent
        {
            self.directory(parent)?;
            parent.clone_into(&mut self.parent);
        }
        let whole = self.root.join(path);
        let write = || -> std::io::Result<()> {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&whole)?.write_all(bytes)
        };
        write().doing(|| format!("{}: writing", whole.display()))
    }
}

/// Notes the tasks behind the tree, with their processor time, which stands still as long as the tree is true.
pub(super) fn live(container: &Container, subjects: &Subjects) -> Result<(), Failure> {
    let mut processes = Vec::with_capacity(subjects.processes.len());
    for process in &subjects.processes {
        let object = layout::process_dir(process.pid);
        let cpu_ns =
            process_cpu_ns(Pid::from_raw(process.host)).doing(|| format!("{object}: reading its processor time"))?;
        let cpu_ns = u64::try_from(cpu_ns)
            .map_err(|_| Failure::new(Kind::System, format!("{object}: its processor time is negative")))?;
        processes.push(LiveProcess { pid: process.pid, host_pid: process.host, cpu_ns });
    }
    container.write_live(&Live { processes })
}
