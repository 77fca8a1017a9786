//! A checkpoint of an older format, made one of today's: in a new directory, the old one stays as it is.

use super::Copy;
use crate::failure::{Failure, Kind};
use crate::transport::{Directory, Entry, Progress, Source, Texts, WriteOptions, read_text, write_tree};
use image_format::contents::{self, ContentSum};
use image_format::convert::Converted;
use image_format::image::TextSource;
use image_format::memory::{CHUNK_SIZE, Fixed, checksum};
use image_format::{check, layout, render_lines, render_object};
use std::collections::BTreeMap;
use std::path::Path;

/// Converts the checkpoint in `directory`, and writes it to `target`, which must not exist while its parent must. Nothing half-made
/// ever stands under that name.
///
/// # Errors
/// [`Kind::BadImage`] when it is of this format already or of an unknown one, or unsound once it is
/// converted, with every finding: file, line, reason. [`Kind::Exists`], and what reading or writing meets. Nothing is left of `target` then.
pub fn convert(directory: &Path, target: &Path) -> Result<(), Failure> {
    let source = Directory::new(directory);
    let texts = Texts(&source);
    let converted = Converted::new(&texts).map_err(|error| super::refuse(&source, &[error]))?;
    let converted = Summed { sums: content_sums(&source, &converted)?, below: converted };
    let copy = Copy::parse(&source, &converted)?;
    let mut texts = copy.image.render();
    texts.insert(layout::CONTENTS_SUMS.to_owned(), converted.sums);
    texts.insert(layout::MANIFEST.to_owned(), render_object(&copy.image.manifest));
    write_tree(&Rewritten { below: source, copy, texts }, target, WriteOptions::default(), &Progress::default())
        .map(drop)
}

/// The checksums that older formats had not, as `contents.sums` has them.
fn content_sums(source: &dyn Source, texts: &dyn TextSource) -> Result<Vec<u8>, Failure> {
    let read = |error: String| Failure::new(Kind::BadImage, error);
    let manifest = texts.read(layout::MANIFEST).map_err(read)?.unwrap_or_default();
    let manifest = check::read_manifest(&manifest).map_err(|error| read(error.to_string()))?;
    let mut sums = Vec::new();
    let mut buffer = Vec::new();
    for (path, size) in contents::summed(&manifest.paths) {
        // One of another size is for the checks to refuse.
        if source.size(path) != Some(size) {
            continue;
        }
        for chunk in 0..contents::chunks(size) {
            let at = chunk * CHUNK_SIZE;
            buffer.resize(usize::try_from(CHUNK_SIZE.min(size - at)).unwrap_or(0), 0);
            source.read_at(path, at, &mut buffer)?;
            sums.push(ContentSum { path: path.to_owned(), chunk: Fixed(chunk), xxh3: Fixed(checksum(&buffer)) });
        }
    }
    Ok(render_lines(&sums))
}

/// Text files with `contents.sums` among them.
struct Summed<T> {
    below: T,
    sums: Vec<u8>,
}

impl<T: TextSource> TextSource for Summed<T> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        if path == layout::CONTENTS_SUMS { Ok(Some(self.sums.clone())) } else { self.below.read(path) }
    }
}

/// A directory with other text files; those that are not among them, and raw files, are its own.
struct Rewritten {
    below: Directory,
    copy: Copy,
    texts: BTreeMap<String, Vec<u8>>,
}

impl Source for Rewritten {
    fn entries(&self) -> Result<Vec<Entry>, Failure> {
        let listed = self.copy.image.manifest.paths.iter().map(|entry| entry.path.as_str());
        let paths = listed.chain([layout::MANIFEST]);
        let mut entries: Vec<Entry> =
            paths.map(|path| Entry { path: path.to_owned(), size: self.size(path) }).collect();
        entries.sort();
        Ok(entries)
    }

    fn size(&self, path: &str) -> Option<u64> {
        self.texts.get(path).map(|text| text.len() as u64).or_else(|| self.below.size(path))
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        match self.texts.get(path) {
            Some(text) => read_text(path, text, offset, buffer),
            None => self.below.read_at(path, offset, buffer),
        }
    }
}
