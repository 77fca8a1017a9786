//! `files/unnamed`: files that can be made again, each used by somebody.

use super::{Findings, absolute, time};
use crate::files::FileKind;
use crate::image::Image;
use crate::layout::{UNNAMED, file_entry, process_file};
use crate::memory::Backing;
use crate::types::Bytes;
use crate::unnamed::{Memfd, Origin, Seals, UnnamedFile};
use std::collections::BTreeSet;

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
    let known: BTreeSet<u32> = image.unnamed.iter().map(|file| file.number).collect();
    let mut used = BTreeSet::new();
    for (&id, file) in &image.files {
        let FileKind::Unnamed(unnamed) = &file.kind else { continue };
        used.insert(unnamed.file);
        if !known.contains(&unnamed.file) {
            findings.add(&file_entry(id), format!("there is no file {} in {UNNAMED}", unnamed.file));
        }
    }
    for (&pid, process) in &image.processes {
        for (index, segment) in (0..).zip(&process.segments) {
            let Backing::Unnamed(unnamed) = &segment.backing else { continue };
            used.insert(unnamed.file);
            if !known.contains(&unnamed.file) {
                let reason = format!("there is no file {} in {UNNAMED}", unnamed.file);
                findings.line(&process_file(pid, "mem.segments"), index, reason);
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
    };
    let size = i64::try_from(file.size).is_err().then(|| format!("size {}: no file has that", file.size));
    let mode = (file.mode.0 > 0o7777).then(|| format!("mode {}: permissions are twelve bits", file.mode));
    let modified = time(file.modified).map(|problem| format!("modified: {problem}"));
    [origin, size, mode, modified].into_iter().flatten().collect()
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
