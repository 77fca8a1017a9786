//! Checkpoints on their way: the same tree, whatever carries it.
//!
//! A [`Source`] is a tree to read from: a plain directory ([`Directory`]), a frozen container ([`Frozen`]), which is the mounted tree
//! without the mount, or a packed stream ([`packed`]). [`write_tree`] makes a directory of one, byte for byte what `cp -r` makes
//! of the mounted tree, or with contents compressed, which [`Uncompressed`]
//! reads as if they were not.

mod compressed;
mod directory;
mod frozen;
pub mod packed;
mod write;

pub use compressed::{CompressedFile, Uncompressed};
pub use directory::Directory;
pub use frozen::Frozen;
pub use write::{WriteOptions, write_tree};

use crate::failure::{Failure, Kind};
use image_format::image::TextSource;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Something that a tree holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Relative to the tree's top, parts joined by `/`.
    pub path: String,
    /// Bytes of a file; None for a directory.
    pub size: Option<u64>,
}

/// A tree to read from, by several threads at once.
pub trait Source: Sync {
    /// Everything in it but the top itself, sorted: a directory before what it holds.
    ///
    /// # Errors
    /// When it cannot be listed.
    fn entries(&self) -> Result<Vec<Entry>, Failure>;

    /// Bytes of a file; None where the tree has none of that path.
    fn size(&self, path: &str) -> Option<u64>;

    /// Fills a buffer with what a file has from `offset` on.
    ///
    /// # Errors
    /// [`Kind::NotFound`]; [`Kind::Stale`] when a frozen container ran; that the file is shorter, or the system's.
    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<(), Failure>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// As [`Source::read_at`].
    fn read(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let missing = || Failure::new(Kind::NotFound, format!("{path}: missing"));
        let size = usize::try_from(self.size(path).ok_or_else(missing)?).map_err(|_| missing())?;
        let mut bytes = vec![0; size];
        self.read_at(path, 0, &mut bytes)?;
        Ok(bytes)
    }
}

/// [`Source::read_at`] of a file that lies in memory.
pub(crate) fn read_text(path: &str, text: &[u8], offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
    let from = usize::try_from(offset).ok();
    let part = from.and_then(|from| text.get(from..from.checked_add(buffer.len())?));
    let short = || Failure::new(Kind::BadImage, format!("{path}: has {} bytes, and more were asked for", text.len()));
    buffer.copy_from_slice(part.ok_or_else(short)?);
    Ok(())
}

/// The text files of a tree, for [`image_format::Image::parse`].
pub struct Texts<'a>(pub &'a dyn Source);

impl TextSource for Texts<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        match self.0.read(path) {
            Err(failure) if failure.kind == Kind::NotFound => Ok(None),
            other => other.map(Some).map_err(|failure| failure.to_string()),
        }
    }
}

/// The text files of a tree, each of which is kept when it is read: for who needs it again.
pub struct KeptTexts<'a> {
    source: Texts<'a>,
    /// In the order of reading: several threads wait for each other here.
    kept: Mutex<Vec<(String, Vec<u8>)>>,
}

impl<'a> KeptTexts<'a> {
    /// None is read yet.
    #[must_use]
    pub fn new(source: &'a dyn Source) -> Self {
        KeptTexts { source: Texts(source), kept: Mutex::default() }
    }

    /// Those that were read, by path.
    #[must_use]
    pub fn into_texts(self) -> BTreeMap<String, Vec<u8>> {
        self.kept.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
    }
}

impl TextSource for KeptTexts<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        let read = self.source.read(path)?;
        if let Some(bytes) = &read {
            let text = (path.to_owned(), bytes.clone());
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
        Ok(read)
    }
}

/// How far something long has come: written by those who work, read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// (bytes done, bytes in all); both 0 before the work begins.
    #[must_use]
    pub fn now(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    pub(crate) fn begin(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Ends long work when a signal asked for it ([`crate::worker::catch_signals`]).
fn go_on() -> Result<(), Failure> {
    if crate::worker::interrupted() {
        return Err(Failure::new(Kind::Interrupted, "interrupted by a signal; nothing half-made is left"));
    }
    Ok(())
}
