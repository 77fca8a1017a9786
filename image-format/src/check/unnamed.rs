//! `files/unnamed`: files that can be made again, each used by somebody.

use super::memory::huge_page_size;
use super::{Findings, absolute, time};
use crate::files::FileKind;
use crate::image::Image;
use crate::layout::{UNNAMED, file_entry, process_file};
use crate::memory::{Backing, MappedUnnamed, Segment};
use crate::types::Bytes;
use crate::unnamed::{Memfd, Origin, Seals, UnnamedFile};
use std::collections::{BTreeMap, BTreeSet};

/// MFD_NAME_MAX_LEN (mm/memfd.c, v6.18).
const NAME_MAX: usize = 249;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    for (index, file) in (0..).zip(&image.unnamed) {
        if u64::from(file.number) != index + 1 {
            findings.line(UNNAMED, index, format!("number {} stands where {} belongs", file.number, index + 1));
        }
        for problem in own(file) {
            findings.line(UNNAMED, index, problem);
        }
    }
    let files: BTreeMap<u32, &UnnamedFile> = image.unnamed.iter().map(|file| (file.number, file)).collect();
    let mut used = BTreeSet::new();
    for (&id, file) in &image.files {
        let FileKind::Unnamed(unnamed) = &file.kind else { continue };
        used.insert(unnamed.file);
        if !files.contains_key(&unnamed.file) {
            findings.add(&file_entry(id), format!("there is no file {} in {UNNAMED}", unnamed.file));
        }
    }
    for (&pid, process) in &image.processes {
        for (index, segment) in (0..).zip(&process.segments) {
            let Backing::Unnamed(unnamed) = &segment.backing else { continue };
            used.insert(unnamed.file);
            let problem = match files.get(&unnamed.file) {
                Some(file) => mapped(segment, unnamed, file),
                None => Some(format!("there is no file {} in {UNNAMED}", unnamed.file)),
            };
            if let Some(problem) = problem {
                findings.line(&process_file(pid, "mem.segments"), index, problem);
            }
        }
    }
    for (index, file) in (0..).zip(&image.unnamed).filter(|(_, file)| !used.contains(&file.number)) {
        findings.line(UNNAMED, index, format!("number {}: nobody has it open or mapped", file.number));
    }
}

fn own(file: &UnnamedFile) -> Vec<String> {
    let origin = match &file.origin {
        Origin::Memfd(memfd) => self::memfd(memfd),
        Origin::Deleted(place) | Origin::Tmpfile(place) => path(&place.path),
        Origin::SharedHugePages(_) => None,
    };
    let pages = file.origin.huge_page_size().and_then(|page_size| huge_pages(page_size, file.size));
    let size = i64::try_from(file.size).is_err().then(|| format!("size {}: no file has that", file.size));
    let mode = (file.mode.0 > 0o7777).then(|| format!("mode {}: permissions are twelve bits", file.mode));
    let modified = time(file.modified).map(|problem| format!("modified: {problem}"));
    [origin, pages, size, mode, modified].into_iter().flatten().collect()
}

fn path(path: &Bytes) -> Option<String> {
    absolute(path).map(|problem| format!("path: {problem}"))
}

fn memfd(memfd: &Memfd) -> Option<String> {
    let known = Seals::NAMES.iter().fold(0, |bits, (_, bit)| bits | bit);
    if memfd.seals.0 & !known != 0 {
        return Some(format!("seals: {:#x} is not known here", memfd.seals.0 & !known));
    }
    let bad = memfd.name.0.len() > NAME_MAX || memfd.name.0.contains(&0);
    bad.then(|| format!("name: {:?} is not at most {NAME_MAX} bytes without NUL", memfd.name))
}

/// A file in huge pages has whole ones.
fn huge_pages(page_size: u64, size: u64) -> Option<String> {
    let cut = || (!size.is_multiple_of(page_size)).then(|| format!("size {size}: no whole huge pages"));
    huge_page_size(page_size).or_else(cut)
}

/// Of a file in huge pages nothing but whole ones can be mapped, and nothing but what is shared is carried.
fn mapped(segment: &Segment, mapped: &MappedUnnamed, file: &UnnamedFile) -> Option<String> {
    let page_size = file.origin.huge_page_size()?;
    if !segment.shared {
        return Some(format!("private: file {} consists of huge pages", file.number));
    }
    let whole = |at: u64| at.checked_rem(page_size) == Some(0);
    let cut = ![segment.start.0, segment.end.0, mapped.offset].into_iter().all(whole);
    cut.then(|| format!("file {} consists of huge pages, and the mapping of no whole ones", file.number))
}
