//! Open files.

use super::cache::Buffer;
use super::events::Watcher;
use super::frozen::Frozen;
use super::incoming::Incoming;
use super::look::Listed;
use super::outside::Outside;
use super::pages::PageSource;
use image_format::Pid;
use nix::errno::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// An open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// What was opened.
#[derive(Debug)]
pub struct Opened {
    /// To be released once.
    pub handle: HandleId,
    /// How its content is to be carried.
    pub content: Content,
    /// [`super::Tree::flush`] has to be told when a descriptor is closed.
    pub flush: bool,
}

/// How the content of an open file is carried.
#[derive(Debug)]
pub enum Content {
    /// It never changes while its node lives: the kernel may keep it.
    Cached,
    /// Every read and write is asked for.
    Direct,
    /// As `Direct`, and the kernel may be sent to this file instead.
    Backed(Arc<File>),
}

/// Bytes that were read.
#[derive(Debug)]
pub enum Data {
    /// Made for this read.
    Own(Vec<u8>),
    /// A part of what was made when the file was opened.
    Part(Arc<Vec<u8>>, Range<usize>),
    /// A part of a chunk that all readers share.
    Chunk(Arc<Buffer>, Range<usize>),
}

impl AsRef<[u8]> for Data {
    fn as_ref(&self) -> &[u8] {
        match self {
            Data::Own(bytes) => bytes,
            Data::Part(bytes, range) => bytes.get(range.clone()).unwrap_or_default(),
            Data::Chunk(buffer, range) => (**buffer).as_ref().get(range.clone()).unwrap_or_default(),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Handle {
    Directory(Arc<Vec<Listed>>),
    Text(Arc<Text>),
    Pages(Arc<Pages>),
    Sums(Arc<PageSource>),
    FileSums(Arc<Frozen>),
    Elsewhere(Arc<Elsewhere>),
    /// Computed when it was opened.
    Bytes(Arc<Vec<u8>>),
    Staged(Arc<Staged>),
    /// `.ctl/state`: the state's word to read, the container's name for what is written.
    State(Arc<Vec<u8>>, String),
    Events(Arc<Watcher>),
}

/// A text file of a frozen tree.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) index: u32,
    pub(super) tree: Arc<Frozen>,
    pub(super) pid: Option<Pid>,
}

/// A raw file of a frozen tree that is read from what a task holds.
#[derive(Debug)]
pub(super) struct Elsewhere {
    pub(super) index: u32,
    pub(super) content: Outside,
    pub(super) tree: Arc<Frozen>,
    /// Bytes it had at the freeze.
    pub(super) size: u64,
}

/// A reader of page contents.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) source: Arc<PageSource>,
    /// Where a reader in order goes on.
    pub(super) next: AtomicU64,
}

/// A file that is being copied in.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) name: String,
    pub(super) incoming: Arc<Incoming>,
    pub(super) index: u32,
    pub(super) file: Arc<File>,
    pub(super) write: bool,
}

#[derive(Debug, Default)]
pub(super) struct Handles {
    open: Mutex<HashMap<u64, Handle>>,
    next: AtomicU64,
}

impl Handles {
    pub(super) fn add(&self, handle: Handle) -> HandleId {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, handle);
        HandleId(id)
    }

    pub(super) fn get(&self, id: HandleId) -> Result<Handle, Errno> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&id.0).cloned().ok_or(Errno::EBADF)
    }

    pub(super) fn remove(&self, id: HandleId) -> Option<Handle> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id.0)
    }

    /// Whether another open file reads the same page contents.
    pub(super) fn reads(&self, source: &PageSource) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().any(|handle| matches!(handle, Handle::Pages(pages) if pages.source.id == source.id))
    }
}
