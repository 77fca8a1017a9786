//! Looking at a checkpoint without restoring it: whether it is sound, and whether this host could run it.

use super::Copy;
use super::reach::Reach;
use crate::failure::{Failure, Kind};
use crate::resource::container::restore::check_host;
use crate::transport::{Progress, Source};
use image_format::files::{FileKind, IfChanged, Stream};
use image_format::memory::{Backing, CHUNK_SIZE, MappedFile, checksum};
use image_format::namespaces::NamespaceContent;
use image_format::{Bytes, Pid, contents, layout, parallel};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Everything that keeps a checkpoint from being restored on this host, all at once: structure and references, else checksums, kernel, CPU
/// and the files it needs. Empty: it could be restored.
#[must_use]
pub fn verify(source: &dyn Source, progress: &Progress) -> Vec<Failure> {
    let copy = match Copy::of(source) {
        Ok(copy) => copy,
        Err(failure) => return vec![failure],
    };
    let mut findings = damaged_chunks(source, &copy, progress);
    findings.extend(check_host(&copy.image.manifest).err());
    findings.extend(missing_files(&copy));
    findings
}

/// A chunk of a raw file, and how to tell of its damage.
struct Chunk<'a> {
    path: Cow<'a, str>,
    number: u64,
    /// Bytes of the whole file.
    size: u64,
    expected: u64,
    /// Whose page contents it is, or the line that has the checksum, counted from 0.
    of: Result<Pid, usize>,
}

/// The chunks that do not have the checksum they should, in order.
fn damaged_chunks(source: &dyn Source, copy: &Copy, progress: &Progress) -> Vec<Failure> {
    let mut chunks = Vec::new();
    for (&pid, sums) in &copy.sums {
        let path = layout::process_file(pid, layout::MEM_PAGES);
        let size = copy.image.processes.get(&pid).map_or(0, image_format::image::ProcessImage::pages_size);
        chunks.extend(sums.iter().map(|sum| Chunk {
            path: path.clone().into(),
            number: sum.chunk.0,
            size,
            expected: sum.xxh3.0,
            of: Ok(pid),
        }));
    }
    let sizes: BTreeMap<&str, u64> = contents::summed(&copy.image.manifest.paths).collect();
    chunks.extend(copy.content_sums.iter().enumerate().map(|(line, sum)| Chunk {
        path: sum.path.as_str().into(),
        number: sum.chunk.0,
        size: sizes.get(sum.path.as_str()).copied().unwrap_or(0),
        expected: sum.xxh3.0,
        of: Err(line),
    }));
    let length = |chunk: &Chunk<'_>| chunk.size.saturating_sub(chunk.number.saturating_mul(CHUNK_SIZE)).min(CHUNK_SIZE);
    progress.begin(chunks.iter().map(length).sum());
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let work = || {
        let mut buffer = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = chunks.get(index) else { return };
            buffer.resize(usize::try_from(length(chunk)).unwrap_or(0), 0);
            let finding = match source.read_at(&chunk.path, chunk.number.saturating_mul(CHUNK_SIZE), &mut buffer) {
                Err(failure) => Some(failure),
                Ok(()) if checksum(&buffer) == chunk.expected => None,
                Ok(()) => Some(match chunk.of {
                    Ok(pid) => damaged(copy, pid, chunk.number),
                    Err(line) => super::contents::damaged(&chunk.path, chunk.number, line),
                }),
            };
            progress.advance(buffer.len() as u64);
            if let Some(finding) = finding {
                found.lock().unwrap_or_else(PoisonError::into_inner).push((index, finding));
            }
        }
    };
    parallel::by(std::thread::available_parallelism().map_or(1, NonZero::get), work);
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, finding)| finding).collect()
}

/// Names the damage of page contents as a user can place it: process, chunk, and the first address whose page lies in it.
fn damaged(copy: &Copy, pid: Pid, chunk: u64) -> Failure {
    use image_format::memory::Source::Own;
    let page_size = image_format::types::PAGE_SIZE;
    let (from, to) = (chunk * CHUNK_SIZE / page_size, (chunk + 1) * CHUNK_SIZE / page_size);
    let segments = copy.image.processes.get(&pid).map(|process| process.segments.as_slice()).unwrap_or_default();
    let ranges = segments.iter().flat_map(|segment| &segment.pages);
    let addresses = ranges.filter_map(|range| match range.source {
        Own(first) if first < to && first + range.count > from => {
            Some(range.start.0 + from.saturating_sub(first) * page_size)
        }
        _ => None,
    });
    let at = addresses.min().map_or_else(String::new, |address| format!(" (memory from {address:#x} on)"));
    let path = layout::process_file(pid, layout::MEM_PAGES);
    let sums = layout::process_file(pid, layout::MEM_SUMS);
    let reason =
        format!("{path}: chunk {chunk}{at} does not have the checksum that line {} of {sums} names", chunk + 1);
    Failure::new(Kind::BadImage, format!("{reason}; take the copy again"))
}

/// Files that the programs have mapped, open or stand in, as this host has them.
fn missing_files(copy: &Copy) -> Vec<Failure> {
    let image = &copy.image;
    let reach = Reach::of(image);
    let look = |path: &Bytes| reach.path(path).map(fs::metadata);
    let mut found: BTreeSet<String> = reach.missing().into_iter().collect();
    let mut tell = |reason: Option<String>| found.extend(reason);
    let apart: Vec<_> = image
        .namespaces
        .iter()
        .filter_map(|namespace| match &namespace.content {
            NamespaceContent::Mnt(content) => Some((&namespace.processes, &content.files)),
            _ => None,
        })
        .collect();
    for (pid, process) in &image.processes {
        // What only a mount namespace apart shows is no path of this host's.
        let is_there = process.process.cwd_deleted.is_none() && !apart.iter().any(|(pids, _)| pids.contains(pid));
        let cwd = is_there.then_some(&process.process.cwd);
        for path in [Some(&process.process.exe), cwd].into_iter().flatten() {
            let error = look(path).and_then(Result::err);
            tell(error.map(|error| format!("{path}: {error}; put it back")));
        }
        for segment in &process.segments {
            if let Backing::File(file) = &segment.backing {
                tell(look(&file.path).and_then(|now| changed(file, now)));
            }
        }
    }
    // A restored container has a log of its own.
    let logs = image.stdios.iter().filter(|stdio| stdio.stream == Stream::Log).map(|stdio| &stdio.file);
    let elsewhere: BTreeSet<_> = apart.iter().flat_map(|(_, files)| files.iter()).chain(logs).collect();
    for (&id, file) in image.files.iter().filter(|(id, _)| !elsewhere.contains(id)) {
        if let FileKind::Regular(file) = &file.kind {
            let entry = layout::file_entry(id);
            let as_it_was = matches!(file.if_changed, IfChanged::Default | IfChanged::Strict);
            let Some(now) = look(&file.path) else { continue };
            tell(match now {
                Err(_) if matches!(file.if_changed, IfChanged::Replace(_)) => None,
                Err(error) => Some(format!("{entry}: {}: {error}; put it back, or edit the path", file.path)),
                Ok(now) if now.len() < file.size && as_it_was => Some(format!(
                    "{entry}: {} has shrunk from {} to {} bytes since the checkpoint; put it back as it was",
                    file.path,
                    file.size,
                    now.len()
                )),
                Ok(_) => None,
            });
        }
    }
    found.into_iter().map(|reason| Failure::new(Kind::Incompatible, reason)).collect()
}

/// What of a mapped file differs.
fn changed(file: &MappedFile, now: std::io::Result<Metadata>) -> Option<String> {
    let path = &file.path;
    match now {
        Err(error) => Some(format!("{path}: {error}; put the file back")),
        Ok(now) if now.len() != file.size => {
            Some(format!("{path}: had {} bytes, has {}; put the same file back", file.size, now.len()))
        }
        Ok(now) if i128::from(now.mtime()) * 1_000_000_000 + i128::from(now.mtime_nsec()) != file.modified.ns() => {
            Some(format!("{path}: was modified since the checkpoint; put the same file back with its time"))
        }
        Ok(_) => None,
    }
}
