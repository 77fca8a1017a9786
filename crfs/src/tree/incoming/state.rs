//! What of a copy is there, by name, and what the manifest still misses: all that is known without the disk.

use super::super::attr::Changes;
use super::super::frozen::TOP;
use super::Next;
use image_format::layout;
use nix::errno::Errno;
use std::collections::{BTreeMap, HashMap, HashSet};

#[derive(Debug)]
pub(super) struct State {
    pub(super) nodes: HashMap<u32, Node>,
    pub(super) next: u32,
    pub(super) manifest: Named,
    /// Files the manifest names that are not there whole.
    pub(super) missing: HashSet<String>,
    pub(super) phase: Phase,
}

/// What the manifest says, as far as it is known.
#[derive(Debug)]
pub(super) enum Named {
    /// It is not there whole.
    Unknown,
    /// It is there and not understood: the build says why.
    Malformed,
    /// Files by path, with the size of raw ones.
    Files(HashMap<String, Option<u64>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes files.
    Open,
    /// The worker reads them.
    Building,
    /// Built: they are an image's now.
    Closed,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) directory: bool,
    pub(super) children: BTreeMap<String, u32>,
    /// How many of them are directories.
    pub(super) subdirectories: usize,
    pub(super) set: Changes,
    /// Opened for writing or written, and not flushed since.
    pub(super) dirty: bool,
    pub(super) whole: bool,
}

impl Node {
    pub(super) fn new(path: String, directory: bool) -> Self {
        Node {
            path,
            directory,
            children: BTreeMap::new(),
            subdirectories: 0,
            set: Changes::default(),
            dirty: false,
            whole: false,
        }
    }
}

impl State {
    pub(super) fn node(&self, index: u32) -> Result<&Node, Errno> {
        self.nodes.get(&index).ok_or(Errno::ESTALE)
    }

    pub(super) fn node_mut(&mut self, index: u32) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&index).ok_or(Errno::ESTALE)
    }

    pub(super) fn writable(&self) -> Result<(), Errno> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Building => Err(Errno::EBUSY),
            Phase::Closed => Err(Errno::EROFS),
        }
    }

    pub(super) fn path_in(&self, parent: u32, name: &str) -> Result<String, Errno> {
        let parent = &self.node(parent)?.path;
        Ok(if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") })
    }

    pub(super) fn index_of(&self, path: &str) -> Option<u32> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        parts.try_fold(TOP, |at, part| self.nodes.get(&at)?.children.get(part).copied())
    }

    pub(super) fn add(&mut self, parent: u32, name: String, directory: bool) -> u32 {
        let index = self.next;
        self.next += 1;
        let path = self.path_in(parent, &name).unwrap_or_else(|_| name.clone());
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children.insert(name, index);
            parent.subdirectories += usize::from(directory);
        }
        self.nodes.insert(index, Node::new(path, directory));
        index
    }

    /// A file may change from now on until it is flushed.
    pub(super) fn touch(&mut self, index: u32) -> Result<(), Errno> {
        let node = self.node_mut(index)?;
        if node.dirty {
            return Ok(());
        }
        node.dirty = true;
        node.whole = false;
        // Of its own accord the time moves on again.
        node.set.modified = None;
        let path = node.path.clone();
        self.lost(&path);
        Ok(())
    }

    /// A path no longer holds a whole file.
    pub(super) fn lost(&mut self, path: &str) {
        if path == layout::MANIFEST {
            self.manifest = Named::Unknown;
            self.missing.clear();
        } else if let Named::Files(files) = &self.manifest
            && files.contains_key(path)
        {
            self.missing.insert(path.to_owned());
        }
    }

    pub(super) fn forget(&mut self, parent: u32, name: &str) {
        let index = self.nodes.get_mut(&parent).and_then(|node| node.children.remove(name));
        if let Some(node) = index.and_then(|index| self.nodes.remove(&index)) {
            if let Some(parent) = self.nodes.get_mut(&parent) {
                parent.subdirectories -= usize::from(node.directory);
            }
            self.lost(&node.path);
        }
    }

    /// After a file settled: whether to build. Claims the build.
    pub(super) fn next(&mut self, index: u32) -> Next {
        let path = self.nodes.get(&index).map(|node| node.path.as_str());
        let is_manifest = path == Some(layout::MANIFEST);
        let ready = match &self.manifest {
            Named::Unknown => false,
            // Only the manifest's own writer is told, not that of every file that follows.
            Named::Malformed => is_manifest,
            // A temporary file changes nothing until it is renamed.
            Named::Files(files) => {
                self.missing.is_empty() && (is_manifest || path.is_some_and(|path| files.contains_key(path)))
            }
        };
        if !ready {
            return Next::Wait;
        }
        self.phase = Phase::Building;
        Next::Build
    }
}
