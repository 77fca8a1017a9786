//! `contents.sums` of a frozen container: noted while contents are read, and for those that nobody has read, by reading them.

use super::frozen::{Content, Frozen};
use super::outside::Outside;
use super::pages::Sums;
use image_format::contents::{self, ContentSum};
use image_format::memory::{CHUNK_SIZE, Fixed, checksum};
use image_format::render_lines;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// The checksums of one freeze.
#[derive(Debug, Default)]
pub(super) struct ContentSums {
    /// By path, with the bytes of each.
    files: BTreeMap<String, (u64, Sums)>,
    text: OnceLock<Vec<u8>>,
}

impl ContentSums {
    /// Those of these files.
    pub(super) fn new(files: impl Iterator<Item = (String, u64)>) -> Self {
        ContentSums {
            files: files.map(|(path, size)| (path, (size, Sums::new(size)))).collect(),
            text: OnceLock::new(),
        }
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        contents::sums_size(self.files.iter().map(|(path, (size, _))| (path.as_str(), *size)))
    }

    /// Keeps the checksums of the chunks that lie whole in what was read of a file.
    pub(super) fn note(&self, path: &str, offset: u64, bytes: &[u8]) {
        let Some((size, sums)) = self.files.get(path) else { return };
        let before_first = offset.next_multiple_of(CHUNK_SIZE) - offset;
        let mut at = offset + before_first;
        let mut rest = usize::try_from(before_first).ok().and_then(|skip| bytes.get(skip..)).unwrap_or_default();
        while let Some((whole, after)) =
            rest.split_at_checked(chunk_len(*size, at)).filter(|(whole, _)| !whole.is_empty())
        {
            if sums.get(at / CHUNK_SIZE).is_none() {
                sums.set(at / CHUNK_SIZE, checksum(whole));
            }
            (at, rest) = (at + CHUNK_SIZE, after);
        }
    }

    /// The whole file. Chunks whose sum is not known are read from `tree`.
    pub(super) fn text(&self, tree: &Frozen) -> Result<&[u8], Errno> {
        if let Some(text) = self.text.get() {
            return Ok(text);
        }
        let mut lines = Vec::new();
        for (path, (size, sums)) in &self.files {
            let mut reader = None;
            for chunk in 0..contents::chunks(*size) {
                if sums.get(chunk).is_none() {
                    let offset = chunk * CHUNK_SIZE;
                    let reader = match &reader {
                        Some(reader) => reader,
                        None => reader.insert(Reader::open(tree, path)?),
                    };
                    sums.set(chunk, checksum(&reader.read(tree, offset, chunk_len(*size, offset))?));
                }
                let xxh3 = Fixed(sums.get(chunk).ok_or(Errno::EIO)?);
                lines.push(ContentSum { path: path.clone(), chunk: Fixed(chunk), xxh3 });
            }
        }
        tree.witness.check_all()?;
        Ok(self.text.get_or_init(|| render_lines(&lines)))
    }
}

/// Bytes of the chunk that begins at `offset`.
fn chunk_len(size: u64, offset: u64) -> usize {
    usize::try_from(size.saturating_sub(offset).min(CHUNK_SIZE)).unwrap_or(0)
}

/// Where the content of a file is read.
enum Reader {
    /// Among the captured records.
    Captured(u32),
    Outside(Outside),
}

impl Reader {
    fn open(tree: &Frozen, path: &str) -> Result<Self, Errno> {
        let index = tree.index_of(path).ok_or(Errno::ESTALE)?;
        Ok(match tree.node(index)?.content {
            Content::Elsewhere { .. } => Reader::Outside(tree.elsewhere(index)?),
            _ => Reader::Captured(index),
        })
    }

    fn read(&self, tree: &Frozen, offset: u64, length: usize) -> Result<Vec<u8>, Errno> {
        match self {
            Reader::Captured(index) => tree.read_text(*index, offset, length),
            Reader::Outside(outside) => {
                let mut bytes = vec![0; length];
                outside.read_exact_at(&mut bytes, offset)?;
                Ok(bytes)
            }
        }
    }
}
