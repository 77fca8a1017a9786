//! Contents that are kept compressed (docs/FORMAT.md), of pages and of other raw files: read as if they were not, and written.

use super::{Directory, Entry, Progress, Source, go_on};
use crate::failure::{Doing, Failure, Kind};
use image_format::layout::{self, MANIFEST};
use image_format::manifest::{Manifest, PathKind};
use image_format::memory::CHUNK_SIZE;
use image_format::seekable::{FOOTER_SIZE, Frames};
use image_format::{check, parallel, render_object};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How hard zstd tries: the container stands still meanwhile, and more takes longer than it saves.
const LEVEL: i32 = 1;
/// Chunks that are kept for whoever reads on in one, of all files of an image together: one each for several threads.
const KEPT: usize = 8;

/// The chunks that were decompressed last, by file and number.
type Recent = Mutex<VecDeque<((String, usize), Arc<Vec<u8>>)>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A checkpoint in a directory, its contents plain however they are kept, and its manifest as that of one with plain contents.
#[derive(Debug)]
pub struct Uncompressed {
    below: Directory,
    /// None: as it stands there.
    manifest: Option<Vec<u8>>,
    files: BTreeMap<String, CompressedFile>,
}

impl Uncompressed {
    /// Looks what is compressed in a directory.
    ///
    /// # Errors
    /// [`Kind::BadImage`] naming a file whose table of chunks is damaged. What is wrong with the manifest its reader tells.
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        let below = Directory::new(directory);
        let text = below.read(MANIFEST).ok().filter(|text| memchr::memmem::find(text, b"\"zstd\"").is_some());
        let Some(Ok(mut manifest)) = text.map(|text| check::read_manifest(&text)) else {
            return Ok(Uncompressed { below, manifest: None, files: BTreeMap::new() });
        };
        let (mut files, recent) = (BTreeMap::new(), Arc::default());
        for entry in manifest.paths.iter_mut().filter(|entry| is_compressed(&entry.path, entry.kind)) {
            let file = File::open(directory.join(&entry.path)).doing(|| format!("{}: opening", entry.path))?;
            let compressed = CompressedFile::open(file, &entry.path, &recent)?;
            if entry.size != Some(compressed.stored) {
                let (has, says) = (compressed.stored, entry.size.unwrap_or(0));
                let reason = format!("{}: holds {has} bytes where the manifest says {says}", entry.path);
                return Err(Failure::new(Kind::BadImage, reason));
            }
            (entry.kind, entry.size) = (PathKind::Raw, Some(compressed.size()));
            files.insert(entry.path.clone(), compressed);
        }
        Ok(Uncompressed { below, manifest: Some(render_object(&manifest)), files })
    }

    /// Those that are compressed, by path.
    #[must_use]
    pub fn into_files(self) -> BTreeMap<String, CompressedFile> {
        self.files
    }

    fn manifest(&self, path: &str) -> Option<&[u8]> {
        self.manifest.as_deref().filter(|_| path == MANIFEST)
    }
}

/// Anything else of that kind is for the checks to refuse.
fn is_compressed(path: &str, kind: PathKind) -> bool {
    kind == PathKind::Zstd && may_be_compressed(path)
}

/// What is read a chunk at a time, and may be as large as memory. What waits in queues is small.
pub(super) fn may_be_compressed(path: &str) -> bool {
    path.rsplit('/').next() == Some(layout::MEM_PAGES) || layout::is_content(path)
}

impl Source for Uncompressed {
    fn entries(&self) -> Result<Vec<Entry>, Failure> {
        let mut entries = self.below.entries()?;
        for entry in entries.iter_mut().filter(|entry| entry.size.is_some()) {
            entry.size = self.size(&entry.path);
        }
        Ok(entries)
    }

    fn size(&self, path: &str) -> Option<u64> {
        match (self.files.get(path), self.manifest(path)) {
            (Some(pages), _) => Some(pages.size()),
            (None, Some(manifest)) => Some(manifest.len() as u64),
            (None, None) => self.below.size(path),
        }
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        match (self.files.get(path), self.manifest(path)) {
            (Some(file), _) => file.read_at(offset, buffer),
            (None, Some(manifest)) => super::read_text(path, manifest, offset, buffer),
            (None, None) => self.below.read_at(path, offset, buffer),
        }
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, Failure> {
        self.manifest(path).map_or_else(|| self.below.read(path), |manifest| Ok(manifest.to_vec()))
    }
}

/// A raw file that is kept compressed.
#[derive(Debug)]
pub struct CompressedFile {
    path: String,
    file: File,
    /// Bytes of the file.
    stored: u64,
    frames: Frames,
    recent: Arc<Recent>,
}

impl CompressedFile {
    /// Reads the table of a file; `path` is its place in the image, and `recent` is shared by its files.
    ///
    /// # Errors
    /// [`Kind::BadImage`] when it is damaged, or what reading meets.
    fn open(file: File, path: &str, recent: &Arc<Recent>) -> Result<Self, Failure> {
        let reading = || format!("{path}: reading its table of chunks");
        let damaged = |reason: &dyn std::fmt::Display| Failure::new(Kind::BadImage, format!("{path}: {reason}"));
        let stored = file.metadata().doing(reading)?.len();
        let mut footer = [0; FOOTER_SIZE];
        let behind = stored.checked_sub(FOOTER_SIZE as u64).ok_or_else(|| damaged(&"it has no table of chunks"))?;
        file.read_exact_at(&mut footer, behind).doing(reading)?;
        let size = Frames::size(footer).map_err(|error| damaged(&error))?;
        let start = stored.checked_sub(size as u64).ok_or_else(|| damaged(&"its table of chunks is longer than it"))?;
        let mut table = vec![0; size];
        file.read_exact_at(&mut table, start).doing(reading)?;
        let frames = Frames::parse(&table, stored).map_err(|error| damaged(&error))?;
        Ok(CompressedFile { path: path.to_owned(), file, stored, frames, recent: Arc::clone(recent) })
    }

    /// Bytes of its content.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frames.length()
    }

    /// The content of a chunk.
    ///
    /// # Errors
    /// [`Kind::BadImage`] when it does not decompress to as many bytes as the table says, or there is none; what reading meets.
    pub fn chunk(&self, chunk: usize) -> Result<Arc<Vec<u8>>, Failure> {
        let is_it = |(path, kept): &(String, usize)| *kept == chunk && *path == self.path;
        if let Some((_, pages)) = lock(&self.recent).iter().find(|(key, _)| is_it(key)) {
            return Ok(Arc::clone(pages));
        }
        let damaged = || {
            let reason =
                format!("{}: chunk {chunk} is damaged: it cannot be decompressed; take the copy again", self.path);
            Failure::new(Kind::BadImage, reason)
        };
        let frame = self.frames.get(chunk).ok_or_else(damaged)?;
        let bytes = |number: u32| usize::try_from(number).unwrap_or(0);
        let mut stored = vec![0; bytes(frame.stored)];
        let read = self.file.read_exact_at(&mut stored, frame.offset);
        read.doing(|| format!("{}: reading chunk {chunk}", self.path))?;
        let mut pages = vec![0; bytes(frame.length)];
        match zstd::bulk::decompress_to_buffer(&stored, &mut pages) {
            Ok(length) if length == pages.len() => {}
            _ => return Err(damaged()),
        }
        let pages = Arc::new(pages);
        let mut recent = lock(&self.recent);
        recent.truncate(KEPT - 1);
        recent.push_front(((self.path.clone(), chunk), Arc::clone(&pages)));
        Ok(pages)
    }

    /// Fills a buffer with the content from `offset` on.
    ///
    /// # Errors
    /// As [`CompressedFile::chunk`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let short =
            || Failure::new(Kind::BadImage, format!("{}: ends before byte {offset} and what follows", self.path));
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let pages = self.chunk(usize::try_from(at / CHUNK_SIZE).map_err(|_| short())?)?;
            let from = usize::try_from(at % CHUNK_SIZE).map_err(|_| short())?;
            let there = pages.get(from..).filter(|there| !there.is_empty()).ok_or_else(short)?;
            let length = there.len().min(rest.len());
            let (part, after) = rest.split_at_mut(length);
            part.copy_from_slice(&there[..length]);
            (at, rest) = (at + length as u64, after);
        }
        Ok(())
    }
}

/// Writes the content of `entry` to `file`, compressed by several threads, and returns how many bytes it has then.
pub(super) fn write_file(source: &dyn Source, entry: &Entry, file: &File, progress: &Progress) -> Result<u64, Failure> {
    let size = entry.size.unwrap_or(0);
    let chunks = usize::try_from(size.div_ceil(CHUNK_SIZE)).unwrap_or(0);
    let next = AtomicUsize::new(0);
    let line = Line::default();
    let work = || {
        while let chunk = next.fetch_add(1, Ordering::Relaxed)
            && chunk < chunks
        {
            let offset = chunk as u64 * CHUNK_SIZE;
            let length = CHUNK_SIZE.min(size - offset);
            let compressed = go_on().and_then(|()| compress(source, &entry.path, offset, length));
            if !line.write(file, &entry.path, chunk, compressed) {
                return;
            }
            progress.advance(length);
        }
    };
    parallel::by(std::thread::available_parallelism().map_or(1, NonZero::get).min(chunks), work);
    let Written { frames, end, failure, .. } = line.written.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = failure {
        return Err(failure);
    }
    let table = frames.render();
    file.write_all_at(&table, end).doing(|| format!("{}: writing", entry.path))?;
    Ok(end + table.len() as u64)
}

/// The frame of a chunk, and how many bytes of content it makes.
fn compress(source: &dyn Source, path: &str, offset: u64, length: u64) -> Result<(Vec<u8>, u32), Failure> {
    let mut pages = vec![0; usize::try_from(length).unwrap_or(0)];
    source.read_at(path, offset, &mut pages)?;
    let frame = zstd::bulk::compress(&pages, LEVEL).doing(|| format!("{path}: compressing"))?;
    Ok((frame, u32::try_from(length).unwrap_or(u32::MAX)))
}

/// Where threads wait until it is their chunk's turn: frames stand in the order of the content.
#[derive(Default)]
struct Line {
    written: Mutex<Written>,
    moved: Condvar,
}

#[derive(Default)]
struct Written {
    chunks: usize,
    frames: Frames,
    end: u64,
    failure: Option<Failure>,
}

impl Line {
    /// Writes the frame of a chunk when those before it are written. False: nobody need go on.
    fn write(&self, file: &File, path: &str, chunk: usize, frame: Result<(Vec<u8>, u32), Failure>) -> bool {
        let waiting = |written: &mut Written| written.chunks < chunk && written.failure.is_none();
        let waited = self.moved.wait_while(lock(&self.written), waiting);
        let mut written = waited.unwrap_or_else(PoisonError::into_inner);
        if written.failure.is_none() {
            let stored = frame.and_then(|(frame, length)| {
                file.write_all_at(&frame, written.end).doing(|| format!("{path}: writing"))?;
                Ok((frame.len(), length))
            });
            match stored {
                Ok((stored, length)) => {
                    written.frames.push(u32::try_from(stored).unwrap_or(u32::MAX), length);
                    written.end += stored as u64;
                    written.chunks += 1;
                }
                Err(failure) => written.failure = Some(failure),
            }
        }
        self.moved.notify_all();
        written.failure.is_none()
    }
}

/// The manifest of a tree whose files take so many bytes compressed, by path.
pub(super) fn manifest(source: &dyn Source, stored: &BTreeMap<&str, u64>) -> Result<Vec<u8>, Failure> {
    let text = source.read(MANIFEST)?;
    let mut manifest: Manifest =
        check::read_manifest(&text).map_err(|error| Failure::new(Kind::BadImage, error.to_string()))?;
    for entry in &mut manifest.paths {
        if let Some(&stored) = stored.get(entry.path.as_str()) {
            (entry.kind, entry.size) = (PathKind::Zstd, Some(stored));
        }
    }
    Ok(render_object(&manifest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    const PAGES: &str = "0x00000001/mem.pages";

    /// A directory with page contents alone, some of which compress well and some not at all; of so many bytes.
    fn plain(size: usize) -> (tempfile::TempDir, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[7]
        };
        let pages: Vec<u8> = (0..size).map(|at| if at % (3 << 20) < (1 << 20) { noise() } else { 7 }).collect();
        fs::create_dir(directory.path().join("0x00000001")).unwrap();
        fs::write(directory.path().join(PAGES), &pages).unwrap();
        (directory, pages)
    }

    fn compressed(size: usize) -> (Vec<u8>, Vec<u8>) {
        let (directory, pages) = plain(size);
        let entry = Entry { path: PAGES.to_owned(), size: Some(size as u64) };
        let file = tempfile::NamedTempFile::new().unwrap();
        let stored =
            write_file(&Directory::new(directory.path()), &entry, file.as_file(), &Progress::default()).unwrap();
        let bytes = fs::read(file.path()).unwrap();
        assert_eq!(bytes.len() as u64, stored);
        (bytes, pages)
    }

    fn open(bytes: &[u8]) -> Result<CompressedFile, Failure> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        CompressedFile::open(file, PAGES, &Arc::default())
    }

    #[test]
    fn any_part_is_read_as_it_was() {
        for size in [4096, 1 << 20, (1 << 20) + 4096, 10 << 20] {
            let (bytes, pages) = compressed(size);
            // zstd's own tool makes the plain file of it.
            assert!(zstd::stream::decode_all(&bytes[..]).unwrap() == pages, "{size}");
            let read = open(&bytes).unwrap();
            assert_eq!(read.size(), size as u64);
            for (offset, length) in [(0, size), (0, 4096), (size - 4096, 4096), (size / 2, size / 3), (size, 0)] {
                let mut part = vec![0; length];
                read.read_at(offset as u64, &mut part).unwrap();
                assert!(part == pages[offset..offset + length], "{size}: {length} bytes at {offset}");
            }
            let beyond = read.read_at(size as u64 - 1, &mut [0; 2]).unwrap_err();
            assert_eq!(beyond.kind, Kind::BadImage);
        }
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let (mut bytes, pages) = compressed(3 << 20);
        assert!(bytes.len() < pages.len() / 2);
        for cut in [0, 5, 100, bytes.len() - 30, bytes.len() - 1] {
            let failure = open(&bytes[..cut]).unwrap_err();
            assert_eq!(failure.kind, Kind::BadImage, "{failure}");
            assert!(failure.to_string().contains("table of chunks"), "{failure}");
        }
        // The magic number of the first frame.
        bytes[0] ^= 1;
        let read = open(&bytes).unwrap();
        let told = read.chunk(0).unwrap_err().to_string();
        assert!(told.contains("0x00000001/mem.pages: chunk 0 is damaged"), "{told}");
        assert!(read.chunk(1).is_ok());
    }

    #[test]
    fn a_failure_ends_all_threads() {
        let (directory, _) = plain(8 << 20);
        let entry = Entry { path: PAGES.to_owned(), size: Some(9 << 20) };
        let file = tempfile::tempfile().unwrap();
        let failure = write_file(&Directory::new(directory.path()), &entry, &file, &Progress::default()).unwrap_err();
        assert!(failure.to_string().contains("0x00000001/mem.pages: reading"), "{failure}");
    }
}
