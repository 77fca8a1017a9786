//! The tree of one freeze by paths, for whoever reads it without the mount.

use super::frozen::{Content, Frozen, Inherited, TOP};
use super::outside::Outside;
use crate::failure::{Failure, Kind};
use crate::registry::{Container, Record};
use image_format::memory::sums_size;
use nix::errno::Errno;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// A frozen container's files.
#[derive(Debug)]
pub struct FrozenTree {
    frozen: Frozen,
    /// The node of each path.
    paths: BTreeMap<String, u32>,
    /// Opened once: the files of a mount may be many.
    outside: Mutex<HashMap<u32, Arc<Outside>>>,
}

impl FrozenTree {
    /// The tree of a container that is frozen.
    ///
    /// # Errors
    /// When what the freeze left in the registry is not all there.
    pub fn open(container: &Container, record: &Record) -> Result<Self, Failure> {
        let frozen = Frozen::load(container, record, record.generation, Inherited::default())?;
        let paths = frozen.paths().filter(|(index, _)| *index != TOP);
        Ok(FrozenTree {
            paths: paths.map(|(index, path)| (path.to_owned(), index)).collect(),
            frozen,
            outside: Mutex::default(),
        })
    }

    /// Every path, sorted, with the bytes of a file and None for a directory.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Option<u64>)> {
        self.paths.iter().map(|(path, &index)| (path.as_str(), self.size_of(index)))
    }

    /// Bytes of a file; None where there is none.
    #[must_use]
    pub fn size(&self, path: &str) -> Option<u64> {
        self.size_of(*self.paths.get(path)?)
    }

    fn size_of(&self, index: u32) -> Option<u64> {
        match self.frozen.node(index).ok()?.content {
            Content::Directory => None,
            Content::Text { size, .. } | Content::Elsewhere { size } => Some(size),
            Content::Pages(pid) => Some(self.frozen.pages_size(pid)),
            Content::Sums(pid) => Some(sums_size(self.frozen.pages_size(pid))),
            Content::FileSums => Some(self.frozen.content_sums.size()),
        }
    }

    /// Fills a buffer with what a file has from `offset` on.
    ///
    /// # Errors
    /// [`Kind::NotFound`]; [`Kind::Stale`] when the tasks ran; the system's.
    pub fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let missing = || Failure::new(Kind::NotFound, format!("{path}: missing"));
        let index = *self.paths.get(path).ok_or_else(missing)?;
        self.read_node(index, offset, buffer).map_err(|errno| match errno {
            Errno::ESTALE => Failure::new(Kind::Stale, format!("{path}: the container ran since it was frozen")),
            errno => Failure::from_error(&errno).within(format!("{path}: reading")),
        })
    }

    fn outside(&self, index: u32) -> Result<Arc<Outside>, Errno> {
        let mut opened = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match opened.entry(index) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => Arc::clone(new.insert(Arc::new(self.frozen.elsewhere(index)?))),
        })
    }

    fn read_node(&self, index: u32, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let copy = |bytes: Vec<u8>, buffer: &mut [u8]| {
            if bytes.len() != buffer.len() {
                return Err(Errno::EIO);
            }
            buffer.copy_from_slice(&bytes);
            Ok(())
        };
        match self.frozen.node(index)?.content {
            Content::Directory => Err(Errno::EISDIR),
            // What was written at the freeze stays right whatever ran; whoever reads all has looked once `contents.sums` is read.
            Content::Text { .. } => self.frozen.read_text_into(index, offset, buffer),
            Content::Elsewhere { .. } => {
                self.outside(index)?.read_exact_at(buffer, offset)?;
                self.frozen.witness.check_all()?;
                self.frozen.content_sums.note(&self.frozen.node(index)?.path, offset, buffer);
                Ok(())
            }
            Content::FileSums => {
                let text = self.frozen.content_sums.text(&self.frozen)?;
                let from = usize::try_from(offset).ok().and_then(|from| text.get(from..)).unwrap_or_default();
                buffer.copy_from_slice(from.get(..buffer.len()).ok_or(Errno::EIO)?);
                self.frozen.witness.check_all()
            }
            Content::Pages(pid) => self.frozen.source(pid)?.read(offset, buffer),
            Content::Sums(pid) => copy(self.frozen.source(pid)?.sums_text(offset, buffer.len())?, buffer),
        }
    }
}
