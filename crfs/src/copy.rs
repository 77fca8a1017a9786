//! A checkpoint read, parsed and checked as a whole.

mod contents;
mod convert;
pub mod core_file;
mod reach;
pub mod space;
mod verify;

pub use contents::{Content, Contents};
pub use convert::convert;
pub use verify::verify;

use crate::failure::{Failure, Kind};
use crate::transport::{CompressedFile, Directory, KeptTexts, Source, Texts, Uncompressed};
use image_format::contents::ContentSum;
use image_format::image::{ImageError, TextSource, parse_file, read_content_sums, read_sums};
use image_format::manifest::{Manifest, PathEntry, PathKind};
use image_format::memory::ChunkSum;
use image_format::types::PAGE_SIZE;
use image_format::{Image, Pid, check, layout};
use std::collections::BTreeMap;
use std::path::Path;

/// Findings of an image that are told at once; beyond them only their number is.
const MOST_FINDINGS: usize = 20;
/// Files that are told of a directory that is not whole; beyond them only their number is.
const MOST_AWAITED: usize = 5;

/// Text files as they stand in a copy, by path.
pub type KeptFiles = BTreeMap<String, Vec<u8>>;

/// The records of an image that is sound in itself. Page contents stay where they are.
#[derive(Debug)]
pub struct Copy {
    /// Every record.
    pub image: Image,
    /// `mem.sums` of every process.
    pub sums: BTreeMap<Pid, Vec<ChunkSum>>,
    /// `contents.sums`.
    pub content_sums: Vec<ContentSum>,
    /// The raw files that are kept compressed, by path, of one that was loaded to be restored.
    pub compressed: BTreeMap<String, CompressedFile>,
}

impl Copy {
    /// Parses and checks a directory.
    ///
    /// # Errors
    /// [`Kind::BadImage`] with every finding: file, line, reason. [`Kind::System`] when a file cannot be read.
    pub fn load(directory: &Path) -> Result<Self, Failure> {
        Copy::of(&Uncompressed::open(directory)?)
    }

    /// [`Copy::load`], to be restored: with what is compressed in it, and if they are to be kept with the text files as they stand there,
    /// by path.
    ///
    /// # Errors
    /// As there.
    pub fn load_to_restore(directory: &Path, keep_texts: bool) -> Result<(Self, Option<KeptFiles>), Failure> {
        let source = Uncompressed::open(directory)?;
        let (read, kept) = (Texts(&source), keep_texts.then(|| KeptTexts::new(&source)));
        let texts: &dyn TextSource = kept.as_ref().map_or(&read, |kept| kept);
        let mut copy = Copy::parse(&source, texts)?;
        let texts = kept.map(KeptTexts::into_texts);
        copy.compressed = source.into_files();
        Ok((copy, texts))
    }

    /// Parses and checks a tree, wherever it stands.
    ///
    /// # Errors
    /// [`Kind::BadImage`] with every finding: file, line, reason.
    pub fn of(source: &dyn Source) -> Result<Self, Failure> {
        Copy::parse(source, &Texts(source))
    }

    fn parse(source: &dyn Source, texts: &dyn TextSource) -> Result<Self, Failure> {
        let image = Image::parse(texts).map_err(|error| refuse(source, &[error]))?;
        let mut findings = check::image(&image, &|path: &str| source.size(path));
        let mut sums = BTreeMap::new();
        for (&pid, process) in &image.processes {
            match read_sums(texts, pid) {
                Ok(lines) => {
                    findings.extend(check::sums(pid, &lines, process.pages_size()));
                    sums.insert(pid, lines);
                }
                Err(error) => findings.push(error),
            }
        }
        let content_sums = read_content_sums(texts).unwrap_or_else(|error| {
            findings.push(error);
            Vec::new()
        });
        if findings.is_empty() {
            findings.extend(check::content_sums(&image, &content_sums));
        }
        if findings.is_empty() {
            let page = |pid: Pid, page: u64| read_page(source, &layout::process_file(pid, layout::MEM_PAGES), page);
            findings.extend(image.processes.keys().flat_map(|&pid| check::shown(&image, pid, &page)));
        }
        if findings.is_empty() {
            Ok(Copy { image, sums, content_sums, compressed: BTreeMap::new() })
        } else {
            Err(refuse(source, &findings))
        }
    }
}

/// What keeps a directory from being an image, for people: the files that are missing, cut or of another size than the manifest
/// says, each with the reason. `open` are files that somebody is still writing.
#[must_use]
pub fn awaited(directory: &Path, open: &[String]) -> String {
    let source = Directory::new(directory);
    let written = |path: &str| open.iter().any(|open| open == path).then(|| format!("{path}: open for writing"));
    let manifest = match manifest(&source) {
        Ok(manifest) => manifest,
        Err(ImageError::Missing { .. }) => return "awaiting the manifest".to_owned(),
        Err(error) => return format!("awaiting the manifest: {error}"),
    };
    if let Some(reason) = written(layout::MANIFEST) {
        return format!("awaiting the manifest: {reason}");
    }
    let files = manifest.paths.iter().filter(|entry| entry.kind != PathKind::Directory);
    let mut told: Vec<String> =
        files.filter_map(|entry| written(&entry.path).or_else(|| lacks(&source, entry))).collect();
    if told.is_empty() {
        return "every file of the manifest is there".to_owned();
    }
    told.sort_unstable();
    let more = told.len().saturating_sub(MOST_AWAITED);
    told.truncate(MOST_AWAITED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("missing or not whole: {}{more}", told.join("; "))
}

fn manifest(source: &dyn Source) -> Result<Manifest, ImageError> {
    let path = || layout::MANIFEST.to_owned();
    let read = Texts(source).read(layout::MANIFEST).map_err(|reason| ImageError::Read { path: path(), reason })?;
    let bytes = read.ok_or_else(|| ImageError::Missing { path: path() })?;
    check::read_manifest(&bytes)
}

/// Why a file that the manifest names is not there whole.
fn lacks(source: &dyn Source, entry: &PathEntry) -> Option<String> {
    let path = &entry.path;
    if matches!(entry.kind, PathKind::Raw | PathKind::Zstd) {
        let named = entry.size.unwrap_or(0);
        return match source.size(path) {
            Some(size) if size == named => None,
            Some(size) => Some(format!("{path}: has {size} bytes, and the manifest says {named}")),
            None => Some(format!("{path}: missing")),
        };
    }
    match Texts(source).read(path) {
        Ok(Some(bytes)) => parse_file(path, &bytes).err().map(|error| error.to_string()),
        Ok(None) => Some(format!("{path}: missing")),
        Err(reason) => Some(format!("{path}: {reason}")),
    }
}

/// One page of a `mem.pages`; what cannot be read is told when it is needed.
fn read_page(source: &dyn Source, path: &str, page: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(PAGE_SIZE).ok()?];
    source.read_at(path, page.checked_mul(PAGE_SIZE)?, &mut bytes).ok()?;
    Some(bytes)
}

fn refuse(source: &dyn Source, findings: &[ImageError]) -> Failure {
    // Nothing is wrong with an image that its reader may not see.
    let mut unread = findings.iter().filter_map(|finding| match finding {
        ImageError::Read { path, .. } => source.read(path).err().filter(|failure| failure.kind == Kind::System),
        _ => None,
    });
    if let Some(failure) = unread.next() {
        return failure;
    }
    let mut told: Vec<String> = findings.iter().take(MOST_FINDINGS).map(ToString::to_string).collect();
    if findings.len() > MOST_FINDINGS {
        told.push(format!("and {} more", findings.len() - MOST_FINDINGS));
    }
    Failure::new(Kind::BadImage, told.join("; "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
