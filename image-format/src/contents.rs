//! `contents.sums`: checksums of the raw files that hold what programs keep in memory and in files, but for `mem.pages`, which have
//! `mem.sums`. What waits in queues is small, and may be edited as records are.

use crate::layout;
use crate::manifest::{PathEntry, PathKind};
use crate::memory::{CHUNK_SIZE, Fixed};
use crate::text::{END, render_lines};
use serde::{Deserialize, Serialize};

/// A line of `contents.sums`: the checksum of one chunk of a raw file. How long it is follows from the path, so that the file's size is
/// known before the contents are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentSum {
    /// The raw file.
    pub path: String,
    /// Counted from 0; chunk n covers bytes n * CHUNK_SIZE up to the next or the end of the file. 16 digits.
    pub chunk: Fixed,
    /// xxh3-64 of the bytes. 16 digits.
    pub xxh3: Fixed,
}

/// The files that have lines there, in their order, each with its bytes. `paths` are those of a manifest, sorted.
pub fn summed(paths: &[PathEntry]) -> impl Iterator<Item = (&str, u64)> {
    let summed = paths.iter().filter(|entry| entry.kind == PathKind::Raw && layout::is_content(&entry.path));
    summed.filter_map(|entry| Some((entry.path.as_str(), entry.size?)))
}

/// How many lines a file of so many bytes has.
#[must_use]
pub fn chunks(size: u64) -> u64 {
    size.div_ceil(CHUNK_SIZE)
}

/// Bytes of a `contents.sums` about these files.
#[must_use]
pub fn sums_size<'a>(files: impl Iterator<Item = (&'a str, u64)>) -> u64 {
    let line = |path: &str| {
        let line = ContentSum { path: path.to_owned(), chunk: Fixed(0), xxh3: Fixed(0) };
        (render_lines(&[line]).len() - END.len() - 1) as u64
    };
    let lines: u64 = files.map(|(path, size)| chunks(size).saturating_mul(line(path))).sum();
    lines + END.len() as u64 + 1
}
