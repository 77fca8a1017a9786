//! Making a directory of a tree, by several threads.

use super::{Entry, Progress, Source, compressed, go_on};
use crate::failure::{Doing, Failure, Kind};
use image_format::{layout, parallel};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::num::NonZero;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A thread takes so much of a file at a time: small enough that threads share one large file, large enough that its checksums
/// (1 MiB each) are computed on the way.
const PIECE: u64 = 8 << 20;
/// More threads than this only wait for memory.
const MOST_THREADS: usize = 8;

/// How a directory is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// fsync(2) every file and directory, and rename only then: after a crash of the machine it is whole or not there.
    pub sync: bool,
    /// Keep contents compressed, of pages and other raw files.
    pub compress: bool,
}

/// A part of a file that one thread copies.
struct Piece<'a> {
    path: &'a str,
    offset: u64,
    length: u64,
}

/// Writes `source` to the directory `target`, which must not exist while its parent must. It is made beside its place, under a name
/// that begins with a dot, and renamed: nothing half-made ever stands under the name. Returns how many bytes its files have.
///
/// # Errors
/// [`Kind::Exists`], [`Kind::NoSpace`], [`Kind::Interrupted`], what reading or writing meets. Nothing of it is left then.
pub fn write_tree(
    source: &dyn Source,
    target: &Path,
    options: WriteOptions,
    progress: &Progress,
) -> Result<u64, Failure> {
    let mut written = 0;
    publish(target, |partial| {
        written = make(source, partial, options, progress)?;
        Ok(())
    })?;
    if options.sync {
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync(parent)?;
    }
    Ok(written)
}

/// Lets `make` make a directory beside its place, and renames it there.
pub(super) fn publish(target: &Path, make: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    if target.symlink_metadata().is_ok() {
        return Err(exists(target));
    }
    let partial = partial(target)?;
    let rename = || match renameat2(AT_FDCWD, &partial, AT_FDCWD, target, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EEXIST) => Err(exists(target)),
        other => other.doing(|| format!("{}: renaming the copy into place", target.display())),
    };
    make(&partial).and_then(|()| rename()).inspect_err(|_| {
        // The first failure is the one that counts.
        let _ = fs::remove_dir_all(&partial);
    })
}

fn exists(target: &Path) -> Failure {
    Failure::new(Kind::Exists, format!("{}: exists already; name another place, or remove it", target.display()))
}

fn partial(target: &Path) -> Result<PathBuf, Failure> {
    let name = target.file_name().ok_or_else(|| {
        Failure::new(Kind::BadName, format!("{}: is no name that a directory can be made under", target.display()))
    })?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".partial-{}", std::process::id()));
    Ok(target.with_file_name(hidden))
}

/// Returns how many bytes the files have.
fn make(source: &dyn Source, at: &Path, options: WriteOptions, progress: &Progress) -> Result<u64, Failure> {
    let entries = source.entries()?;
    let mut written = entries.iter().filter_map(|entry| entry.size).sum();
    progress.begin(written);
    let directory = |path: &Path| {
        let made = fs::DirBuilder::new().mode(0o700).create(path);
        made.doing(|| format!("{}: making the directory", path.display()))
    };
    directory(at)?;
    for entry in entries.iter().filter(|entry| entry.size.is_none()) {
        directory(&at.join(&entry.path))?;
    }
    let files = entries.iter().filter(|entry| entry.size.is_some());
    // An empty file has nothing to compress.
    let is_compressed = |entry: &&Entry| {
        options.compress && compressed::may_be_compressed(&entry.path) && entry.size.is_some_and(|size| size > 0)
    };
    let (contents, files): (Vec<&Entry>, Vec<&Entry>) = files.partition(is_compressed);
    let stored = compress_files(source, &contents, at, options, progress)?;
    // Checksums are known once the contents have been read.
    let is_sums = |entry: &&Entry| entry.path.ends_with(layout::MEM_SUMS) || entry.path == layout::CONTENTS_SUMS;
    let (sums, others): (Vec<&Entry>, Vec<&Entry>) = files.into_iter().partition(is_sums);
    for group in [others, sums] {
        copy_files(source, &group, at, options, progress)?;
    }
    if !stored.is_empty() {
        let place = at.join(layout::MANIFEST);
        let manifest = compressed::manifest(source, &stored)?;
        let plain = |path: &str| source.size(path).unwrap_or(0);
        written -= plain(layout::MANIFEST) + stored.keys().map(|path| plain(path)).sum::<u64>();
        written += manifest.len() as u64 + stored.values().sum::<u64>();
        fs::write(&place, manifest).doing(|| format!("{}: writing", place.display()))?;
        if options.sync {
            sync(&place)?;
        }
    }
    if options.sync {
        for entry in entries.iter().filter(|entry| entry.size.is_none()) {
            sync(&at.join(&entry.path))?;
        }
        sync(at)?;
    }
    Ok(written)
}

/// Writes files compressed. Returns how many bytes each file has then.
fn compress_files<'a>(
    source: &dyn Source,
    files: &[&'a Entry],
    at: &Path,
    options: WriteOptions,
    progress: &Progress,
) -> Result<BTreeMap<&'a str, u64>, Failure> {
    let mut stored = BTreeMap::new();
    for entry in files {
        let place = at.join(&entry.path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place);
        let file = file.doing(|| format!("{}: making it", place.display()))?;
        stored.insert(entry.path.as_str(), compressed::write_file(source, entry, &file, progress)?);
        if options.sync {
            file.sync_all().doing(|| format!("{}: fsync", place.display()))?;
        }
    }
    Ok(stored)
}

fn copy_files(
    source: &dyn Source,
    files: &[&Entry],
    at: &Path,
    options: WriteOptions,
    progress: &Progress,
) -> Result<(), Failure> {
    let pieces: Vec<Piece<'_>> = files.iter().flat_map(|entry| pieces(entry)).collect();
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let work = || {
        let mut buffer = Vec::new();
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(failure) = copy_piece(source, piece, at, &mut buffer) {
                // No more pieces for anybody.
                next.store(pieces.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                break;
            }
            progress.advance(piece.length);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS).min(pieces.len());
    parallel::by(threads, work);
    if let Some(failure) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(failure);
    }
    files.iter().filter(|_| options.sync).try_for_each(|entry| sync(&at.join(&entry.path)))
}

/// An empty file has one empty piece, which makes it.
fn pieces(entry: &Entry) -> impl Iterator<Item = Piece<'_>> {
    let size = entry.size.unwrap_or(0);
    let offsets = (0..size.div_ceil(PIECE).max(1)).map(|n| n * PIECE);
    offsets.map(move |offset| Piece { path: &entry.path, offset, length: PIECE.min(size - offset) })
}

fn copy_piece(source: &dyn Source, piece: &Piece<'_>, at: &Path, buffer: &mut Vec<u8>) -> Result<(), Failure> {
    go_on()?;
    let place = at.join(piece.path);
    buffer.resize(usize::try_from(piece.length).unwrap_or(0), 0);
    source.read_at(piece.path, piece.offset, buffer)?;
    // Whoever comes first makes the file.
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&place);
    file.and_then(|file| file.write_all_at(buffer, piece.offset)).doing(|| format!("{}: writing", place.display()))
}

/// fsync(2) of a file or directory.
fn sync(path: &Path) -> Result<(), Failure> {
    File::open(path).and_then(|file| file.sync_all()).doing(|| format!("{}: fsync", path.display()))
}
