//! Raw files of a checkpoint in a directory that may be as large as memory, but for page contents: plain or kept compressed, each chunk
//! compared with its checksum before any of it is given out.

use super::Copy;
use crate::failure::{Doing, Failure, Kind};
use crate::transport::CompressedFile;
use image_format::contents::ContentSum;
use image_format::layout::CONTENTS_SUMS;
use image_format::memory::{CHUNK_SIZE, checksum};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Those of an image, with the directory that has them: opened while its path still leads there.
#[derive(Debug)]
pub struct Contents<'a> {
    directory: File,
    compressed: &'a BTreeMap<String, CompressedFile>,
    sums: &'a [ContentSum],
}

impl<'a> Contents<'a> {
    /// Those of the image in this directory.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn of(copy: &'a Copy, directory: &Path) -> Result<Self, Failure> {
        let opened = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(directory);
        let directory = opened.doing(|| format!("{}: opening", directory.display()))?;
        Ok(Contents { directory, compressed: &copy.compressed, sums: &copy.content_sums })
    }

    /// Opens one, to be read from its start. What is damaged is an error that holds a [`Failure`] ([`Kind::BadImage`]).
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self, path: &str) -> Result<Content<'a>, Failure> {
        let doing = || format!("{path}: opening");
        let (stored, size) = match self.compressed.get(path) {
            Some(file) => (Stored::Compressed(file), file.size()),
            None => {
                let file = openat(&self.directory, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
                let file = File::from(file.doing(doing)?);
                let size = file.metadata().doing(doing)?.len();
                (Stored::Plain(file), size)
            }
        };
        let first = self.sums.partition_point(|sum| sum.path.as_str() < path);
        let sums = self.sums.get(first..).unwrap_or_default();
        let sums = &sums[..sums.partition_point(|sum| sum.path == path)];
        let chunk = Arc::default();
        Ok(Content { path: path.to_owned(), stored, size, sums, line: first, next: 0, chunk, taken: 0 })
    }
}

#[derive(Debug)]
enum Stored<'a> {
    Plain(File),
    Compressed(&'a CompressedFile),
}

/// A raw file that is being read.
#[derive(Debug)]
pub struct Content<'a> {
    path: String,
    stored: Stored<'a>,
    size: u64,
    sums: &'a [ContentSum],
    /// Where they begin among all, counted from 0.
    line: usize,
    /// The chunk that follows.
    next: usize,
    chunk: Arc<Vec<u8>>,
    /// Bytes of the chunk that were given out.
    taken: usize,
}

impl Content<'_> {
    /// Reads all of it, and hands on parts of so many bytes with their offsets; those that are all zero are left out.
    ///
    /// # Errors
    /// Of reading, and of `write`.
    pub fn each_part(&mut self, length: usize, mut write: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut at = 0;
        loop {
            let chunk = self.fill_buf()?;
            let count = chunk.len();
            if count == 0 {
                return Ok(());
            }
            for part in chunk.chunks(length) {
                if part.iter().any(|&byte| byte != 0) {
                    write(at, part)?;
                }
                at += part.len() as u64;
            }
            self.consume(count);
        }
    }

    /// Goes to the chunk that follows; at the end to none.
    fn advance(&mut self) -> Result<(), Failure> {
        let at = self.next as u64 * CHUNK_SIZE;
        let length = usize::try_from(self.size.saturating_sub(at).min(CHUNK_SIZE)).unwrap_or(0);
        self.taken = 0;
        if length == 0 {
            self.chunk = Arc::default();
            return Ok(());
        }
        match &self.stored {
            Stored::Compressed(file) => self.chunk = file.chunk(self.next)?,
            Stored::Plain(file) => {
                // In the same place as the one before, which nobody else has.
                let mut chunk = std::mem::take(&mut self.chunk);
                let bytes = Arc::make_mut(&mut chunk);
                bytes.resize(length, 0);
                file.read_exact_at(bytes, at).doing(|| format!("{}: reading", self.path))?;
                self.chunk = chunk;
            }
        }
        if self.sums.get(self.next).map(|sum| sum.xxh3.0) != Some(checksum(&self.chunk)) {
            return Err(damaged(&self.path, self.next as u64, self.line + self.next));
        }
        self.next += 1;
        Ok(())
    }
}

/// Names the damage of a chunk, whose checksum stands in a line that is counted from 0.
pub(super) fn damaged(path: &str, chunk: u64, line: usize) -> Failure {
    let line = line + 1;
    let why =
        format!("{path}: chunk {chunk} (1 MiB) does not have the checksum that line {line} of {CONTENTS_SUMS} names");
    Failure::new(Kind::BadImage, format!("{why}; take the copy again"))
}

impl BufRead for Content<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.chunk.len() {
            self.advance().map_err(io::Error::other)?;
        }
        Ok(self.chunk.get(self.taken..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.taken = self.chunk.len().min(self.taken.saturating_add(count));
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
