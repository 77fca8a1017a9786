//! Writes a captured tree beside its place and renames it there.

use super::records::Records;
use crate::failure::{Doing, Failure};
use crate::registry::Container;
use image_format::text::{render_lines, render_object};
use image_format::{Blocker, layout};
use std::collections::HashMap;
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
    let last = if blockers.is_empty() { render_object(&records.image.manifest) } else { render_lines(blockers) };
    let rendered = records.image.render();
    let mut tree = Tree { root: new.clone(), parent: String::new(), written: HashMap::new() };
    tree.directory("")?;
    tree.directory(layout::FILES)?;
    for (path, bytes) in &rendered {
        tree.file(path, bytes)?;
    }
    for (&pipe, bytes) in &records.pipes {
        tree.file(&layout::pipe_data(pipe), bytes)?;
    }
    if blockers.is_empty() {
        tree.file(layout::MANIFEST, &last)?;
    } else {
        tree.file(BLOCKERS, &last)?;
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
///
/// Half the files of a thousand threads say the same (nothing pending, no timers, the same mask): a further name for a file costs a
/// third of a further file. Nobody writes to them.
struct Tree<'a> {
    root: PathBuf,
    parent: String,
    written: HashMap<&'a [u8], PathBuf>,
}

/// Longest content that is compared with what was written before.
const SHORT: usize = 256;

impl<'a> Tree<'a> {
    fn directory(&mut self, path: &str) -> Result<(), Failure> {
        let whole = self.root.join(path);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&whole);
        made.doing(|| format!("{}: creating the directory", whole.display()))
    }

    fn file(&mut self, path: &str, bytes: &'a [u8]) -> Result<(), Failure> {
        if let Some((parent, _)) = path.rsplit_once('/')
            && parent != self.parent
        {
            self.directory(parent)?;
            parent.clone_into(&mut self.parent);
        }
        let whole = self.root.join(path);
        // A file has a limit of names (65,000 on ext4): past it a copy is made.
        if bytes.len() <= SHORT
            && let Some(same) = self.written.get(bytes)
            && fs::hard_link(same, &whole).is_ok()
        {
            return Ok(());
        }
        let write = || -> std::io::Result<()> {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&whole)?.write_all(bytes)
        };
        write().doing(|| format!("{}: writing", whole.display()))?;
        if bytes.len() <= SHORT {
            self.written.insert(bytes, whole);
        }
        Ok(())
    }
}
