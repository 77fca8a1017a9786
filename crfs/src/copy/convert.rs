//! A checkpoint of an older format, made one of today's: in a new directory, the old one stays as it is.

use super::Copy;
use crate::failure::Failure;
use crate::transport::{Directory, Entry, Progress, Source, Texts, WriteOptions, read_text, write_tree};
use image_format::convert::Converted;
use image_format::{layout, render_object};
use std::collections::BTreeMap;
use std::path::Path;

/// Converts the checkpoint in `directory`, and writes it to `target`, which must not exist while its parent must. Nothing half-made
/// ever stands under that name.
///
/// # Errors
/// [`Kind::BadImage`](crate::failure::Kind::BadImage) when it is of this format already or of an unknown one, or unsound once it is
/// converted, with every finding: file, line, reason. `Kind::Exists`, and what reading or writing meets. Nothing is left of `target` then.
pub fn convert(directory: &Path, target: &Path) -> Result<(), Failure> {
    let source = Directory::new(directory);
    let texts = Texts(&source);
    let converted = Converted::new(&texts).map_err(|error| super::refuse(&[error]))?;
    let copy = Copy::parse(&source, &converted)?;
    let mut texts = copy.image.render();
    texts.insert(layout::MANIFEST.to_owned(), render_object(&copy.image.manifest));
    write_tree(&Rewritten { below: source, copy, texts }, target, WriteOptions::default(), &Progress::default())
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
