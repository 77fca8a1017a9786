//! What is being copied in: files under `staging/`, and which of those the manifest names are still missing.
//!
//! All of it is on the disk, so a server that starts again finds it. Page contents lie in the registry's staging directory,
//! with a symbolic link in their place.

mod state;

use super::attr::{Attr, Changes, modified};
use super::frozen::{Inherited, TOP};
use super::id::{ImageNode, Place};
use super::staging::{is_allowed, is_bulk, is_whole, read_all, walk};
use crate::failure::{Doing, Failure};
use crate::registry::{Container, Record, Registry};
use image_format::manifest::{Manifest, PathKind};
use image_format::{layout, parse_object};
use nix::errno::Errno;
use state::{Named, Node, Phase, State};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Files on their way in.
#[derive(Debug)]
pub(super) struct Incoming {
    /// As node ids carry it.
    pub(super) generation: u64,
    dir: PathBuf,
    bulk: PathBuf,
    state: Mutex<State>,
}

/// What follows from a flush or a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Next {
    Wait,
    /// The last file is there. The caller builds, and says how it went with [`Incoming::built`].
    Build,
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

impl Incoming {
    /// What is staged for a container.
    pub(super) fn load(registry: &Registry, container: &Container, record: &Record) -> Result<Self, Failure> {
        let dir = container.staging_dir();
        crate::registry::create_dir(&dir)?;
        let bulk = registry.staging_dir().join(container.name());
        crate::registry::create_dir(&bulk)?;
        let walked = walk(&dir).doing(|| format!("{}: reading what was copied in", dir.display()))?;
        let incoming = Incoming {
            generation: super::id::mask(record.generation),
            dir,
            bulk,
            state: Mutex::new(State {
                nodes: HashMap::from([(TOP, Node::new(String::new(), true))]),
                next: TOP + 1,
                manifest: Named::Unknown,
                missing: HashSet::new(),
                phase: Phase::Open,
            }),
        };
        {
            let mut state = incoming.lock();
            for (path, directory) in walked {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
                let Some(parent) = state.index_of(parent) else { continue };
                let name = name.to_owned();
                let index = state.add(parent, name, directory);
                incoming.settle(&mut state, index);
            }
        }
        Ok(incoming)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn id(&self, index: u32) -> Place {
        Place::Image(ImageNode::new(self.generation, index, false))
    }

    pub(super) fn child(&self, parent: u32, name: &str) -> Result<u32, Errno> {
        self.lock().node(parent)?.children.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// The names in a directory, in order, with their ids.
    pub(super) fn children(&self, index: u32) -> Result<Vec<(String, u32)>, Errno> {
        let state = self.lock();
        Ok(state.node(index)?.children.iter().map(|(name, &index)| (name.clone(), index)).collect())
    }

    pub(super) fn attr(&self, index: u32) -> Result<Attr, Errno> {
        let (path, subdirectories, set) = {
            let state = self.lock();
            let node = state.node(index)?;
            (self.dir.join(&node.path), node.subdirectories, node.set)
        };
        let metadata = fs::metadata(path).map_err(|error| errno(&error))?;
        let time = modified(&metadata);
        let attr = if metadata.is_dir() {
            Attr::directory(self.id(index), subdirectories, time)
        } else {
            Attr::file(self.id(index), metadata.size(), time)
        };
        Ok(attr.with(&set))
    }

    /// Remembers what was set, and cuts a file to a size.
    pub(super) fn set(&self, index: u32, changes: &Changes) -> Result<(), Errno> {
        let mut state = self.lock();
        if let Some(size) = changes.size {
            state.writable()?;
            let path = self.dir.join(&state.node(index)?.path);
            let file = OpenOptions::new().write(true).open(path).map_err(|error| errno(&error))?;
            file.set_len(size).map_err(|error| errno(&error))?;
            state.touch(index)?;
        }
        let node = state.node_mut(index)?;
        node.set.absorb(changes);
        if let (false, Some(time)) = (node.directory, changes.modified) {
            // On the disk too, so that a server that starts again tells rsync the same. The remembered time rules otherwise.
            let path = self.dir.join(&node.path);
            let _ = File::open(path).and_then(|file| file.set_modified(time));
        }
        Ok(())
    }

    /// EINVAL: an image has no such directory.
    pub(super) fn make_directory(&self, parent: u32, name: &str, mode: u16) -> Result<u32, Errno> {
        let mut state = self.lock();
        state.writable()?;
        let path = state.path_in(parent, name)?;
        if state.node(parent)?.children.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if !is_allowed(&path, true) {
            return Err(Errno::EINVAL);
        }
        fs::DirBuilder::new().mode(0o700).create(self.dir.join(&path)).map_err(|error| errno(&error))?;
        let index = state.add(parent, name.to_owned(), true);
        state.node_mut(index)?.set.mode = Some(mode);
        Ok(index)
    }

    /// Makes a file, open for reading and writing. EINVAL: an image has no such file.
    pub(super) fn create(&self, parent: u32, name: &str, mode: u16) -> Result<(u32, File), Errno> {
        let mut state = self.lock();
        state.writable()?;
        let path = state.path_in(parent, name)?;
        if state.node(parent)?.children.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if !is_allowed(&path, false) {
            return Err(Errno::EINVAL);
        }
        let place = self.dir.join(&path);
        let target = if is_bulk(&path) {
            // What an earlier server numbered alike is staged still, and is not to be overwritten.
            let target = (state.next..).map(|n| self.bulk.join(n.to_string())).find(|target| !target.exists());
            let target = target.ok_or(Errno::EMFILE)?;
            std::os::unix::fs::symlink(&target, &place).map_err(|error| errno(&error))?;
            target
        } else {
            place.clone()
        };
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(target);
        let file = opened.map_err(|error| {
            // Whatever was made of it has no content; the reason is the open's.
            let _ = fs::remove_file(&place);
            errno(&error)
        })?;
        let index = state.add(parent, name.to_owned(), false);
        state.node_mut(index)?.set.mode = Some(mode);
        state.touch(index)?;
        Ok((index, file))
    }

    /// Opens a file.
    pub(super) fn open(&self, index: u32, write: bool, truncate: bool) -> Result<File, Errno> {
        let mut state = self.lock();
        let path = self.dir.join(&state.node(index)?.path);
        if write {
            state.writable()?;
            state.touch(index)?;
        }
        OpenOptions::new().read(true).write(write).truncate(write && truncate).open(path).map_err(|error| errno(&error))
    }

    /// Before a write through a descriptor. EBUSY: a build is under way; EROFS: it is built.
    pub(super) fn before_write(&self, index: u32) -> Result<(), Errno> {
        let mut state = self.lock();
        state.writable()?;
        state.touch(index)
    }

    /// Whether the file's content lies outside the run directory, where the kernel may be sent to directly.
    pub(super) fn is_bulk(&self, index: u32) -> bool {
        self.lock().nodes.get(&index).is_some_and(|node| is_bulk(&node.path))
    }

    /// A descriptor that was open for writing was closed.
    pub(super) fn flush(&self, index: u32) -> Result<Next, Errno> {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Ok(Next::Wait);
        }
        // Removed while it was open.
        if !state.nodes.contains_key(&index) {
            return Ok(Next::Wait);
        }
        state.node_mut(index)?.dirty = false;
        self.settle(&mut state, index);
        Ok(state.next(index))
    }

    pub(super) fn unlink(&self, parent: u32, name: &str) -> Result<(), Errno> {
        let mut state = self.lock();
        state.writable()?;
        let index = state.node(parent)?.children.get(name).copied().ok_or(Errno::ENOENT)?;
        if state.node(index)?.directory {
            return Err(Errno::EISDIR);
        }
        self.remove_file(&state.node(index)?.path).map_err(|error| errno(&error))?;
        state.forget(parent, name);
        Ok(())
    }

    pub(super) fn remove_directory(&self, parent: u32, name: &str) -> Result<(), Errno> {
        let mut state = self.lock();
        state.writable()?;
        let index = state.node(parent)?.children.get(name).copied().ok_or(Errno::ENOENT)?;
        let node = state.node(index)?;
        if !node.directory {
            return Err(Errno::ENOTDIR);
        }
        if !node.children.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        fs::remove_dir(self.dir.join(&node.path)).map_err(|error| errno(&error))?;
        state.forget(parent, name);
        Ok(())
    }

    /// Renames a file; one that has the new name is replaced unless `keep`.
    pub(super) fn rename(&self, from: (u32, &str), to: (u32, &str), keep: bool) -> Result<Next, Errno> {
        let mut state = self.lock();
        state.writable()?;
        let index = state.node(from.0)?.children.get(from.1).copied().ok_or(Errno::ENOENT)?;
        let (old, new) = (state.node(index)?.path.clone(), state.path_in(to.0, to.1)?);
        if state.node(index)?.directory {
            return Err(Errno::EPERM);
        }
        if !is_allowed(&new, false) {
            return Err(Errno::EINVAL);
        }
        let replaced = state.node(to.0)?.children.get(to.1).copied();
        if replaced == Some(index) {
            return Ok(Next::Wait);
        }
        if let Some(replaced) = replaced {
            if keep {
                return Err(Errno::EEXIST);
            }
            self.remove_file(&state.node(replaced)?.path).map_err(|error| errno(&error))?;
            state.forget(to.0, to.1);
        }
        fs::rename(self.dir.join(&old), self.dir.join(&new)).map_err(|error| errno(&error))?;
        state.node_mut(from.0)?.children.remove(from.1);
        state.node_mut(to.0)?.children.insert(to.1.to_owned(), index);
        state.node_mut(index)?.path = new;
        state.lost(&old);
        self.settle(&mut state, index);
        Ok(state.next(index))
    }

    /// Removes a staged file and, if it is a link, the content it leads to.
    fn remove_file(&self, path: &str) -> io::Result<()> {
        let path = self.dir.join(path);
        if let Ok(target) = fs::read_link(&path) {
            match fs::remove_file(target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::remove_file(path)
    }

    /// How a build ended.
    pub(super) fn built(&self, success: bool) {
        self.lock().phase = if success { Phase::Closed } else { Phase::Open };
    }

    /// What the built tree keeps.
    pub(super) fn bequeath(&self) -> Inherited {
        let mut state = self.lock();
        state.phase = Phase::Closed;
        let set = |(&index, node): (&u32, &Node)| (node.set != Changes::default()).then_some((index, node.set));
        Inherited {
            indices: state
                .nodes
                .iter()
                .map(|(&index, node)| (node.path.clone(), index))
                .filter(|(_, i)| *i != TOP)
                .collect(),
            set: state.nodes.iter().filter_map(set).collect(),
        }
    }

    /// The last file is there and the worker is at it.
    pub(super) fn is_building(&self) -> bool {
        self.lock().phase == Phase::Building
    }

    /// Whether nothing is staged.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().node(TOP).is_ok_and(|top| top.children.is_empty())
    }

    /// What was set on the container's directory, its subdirectories, and when the last file came.
    pub(super) fn top(&self) -> Result<Attr, Errno> {
        self.attr(TOP)
    }

    /// What is still awaited, for people.
    pub(super) fn awaited(&self) -> String {
        let open: Vec<String> = {
            let state = self.lock();
            state.nodes.values().filter(|node| node.dirty).map(|node| node.path.clone()).collect()
        };
        crate::copy::awaited(&self.dir, &open)
    }

    /// Looks at a file again: whether it is whole, and what follows for those that are missing.
    fn settle(&self, state: &mut State, index: u32) {
        let Some(node) = state.nodes.get_mut(&index).filter(|node| !node.directory) else { return };
        let file = File::open(self.dir.join(&node.path));
        let path = node.path.clone();
        node.whole = !node.dirty && file.as_ref().is_ok_and(|file| is_whole(&path, file).unwrap_or(false));
        let whole = node.whole;
        if path != layout::MANIFEST {
            let size = file.and_then(|file| file.metadata()).map_or(0, |metadata| metadata.len());
            let Named::Files(files) = &state.manifest else { return };
            match files.get(&path) {
                Some(named) if whole && named.is_none_or(|named| named == size) => drop(state.missing.remove(&path)),
                Some(_) => drop(state.missing.insert(path)),
                None => {}
            }
            return;
        }
        let manifest = file.ok().filter(|_| whole).and_then(|file| read_all(&file).ok());
        state.manifest = match manifest.map(|bytes| parse_object::<Manifest>(&bytes)) {
            None => Named::Unknown,
            Some(Err(_)) => Named::Malformed,
            Some(Ok(manifest)) if image_format::check::manifest(&manifest).is_err() => Named::Malformed,
            Some(Ok(manifest)) => {
                let files = manifest.paths.into_iter().filter(|entry| entry.kind != PathKind::Directory);
                Named::Files(files.map(|entry| (entry.path, entry.size)).collect())
            }
        };
        let Named::Files(files) = &state.manifest else { return };
        let size = |path: &str| fs::metadata(self.dir.join(path)).map_or(0, |metadata| metadata.len());
        let there: HashMap<&str, &Node> = state.nodes.values().map(|node| (node.path.as_str(), node)).collect();
        let is_there = |path: &str, named: Option<u64>| {
            there.get(path).is_some_and(|node| node.whole && named.is_none_or(|named| named == size(path)))
        };
        state.missing = files.iter().filter(|(path, named)| !is_there(path, **named)).map(|(p, _)| p.clone()).collect();
    }
}

/// The moment a container's directory shows while nothing better is known.
pub(super) fn created(record: &Record) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(record.created)
}
