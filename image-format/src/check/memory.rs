//! `mem.segments`: mappings that can be made side by side. What lies in them is for [`super::pages`].

use super::{ADDRESS_LIMIT, Findings, absolute, time};
use crate::image::ProcessImage;
use crate::layout::process_file;
use crate::manifest::Manifest;
use crate::memory::{Backing, MappedFile, Protection, Segment, SegmentFlags, SharedAnonymous};
use crate::types::{PAGE_SIZE, Pid};
use std::collections::{BTreeMap, BTreeSet};

/// VSYSCALL_ADDR (arch/x86/include/uapi/asm/vsyscall.h, v6.18): the one page of user space above [`ADDRESS_LIMIT`].
const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;

pub(super) fn path(pid: Pid) -> String {
    process_file(pid, "mem.segments")
}

/// Pieces of shared memory are as long in every mapping.
pub(super) fn objects(processes: &BTreeMap<Pid, ProcessImage>, findings: &mut Findings) {
    let mut first: BTreeMap<u32, (u64, Pid)> = BTreeMap::new();
    for (&pid, process) in processes {
        for (index, segment) in (0..).zip(&process.segments) {
            let Backing::SharedAnonymous(piece) = &segment.backing else { continue };
            let SharedAnonymous { object, size, .. } = *piece;
            let (other, by) = *first.entry(object).or_insert((size, pid));
            if other != size {
                let reason = format!("object {object}: {size} bytes, but process {by} says {other}");
                findings.line(&path(pid), index, reason);
            }
        }
    }
}

pub(super) fn check(pid: Pid, process: &ProcessImage, manifest: &Manifest, findings: &mut Findings) {
    let path = path(pid);
    let mut previous: Option<&Segment> = None;
    let mut kernel = BTreeSet::new();
    for (index, segment) in (0..).zip(&process.segments) {
        let mut problems = range(segment);
        problems.extend(previous.and_then(|previous| order(previous, segment)));
        problems.extend(bits(segment));
        problems.extend(flags(segment));
        problems.extend(backing(segment, manifest));
        problems.extend(kernel_mapping(segment).and_then(|name| {
            let twice = !kernel.insert(name);
            twice.then(|| format!("{name} stands there twice"))
        }));
        for problem in problems {
            findings.line(&path, index, problem);
        }
        previous = Some(segment);
    }
}

fn range(segment: &Segment) -> Vec<String> {
    let Segment { start, end, .. } = segment;
    let mut problems = Vec::new();
    if start.0 % PAGE_SIZE != 0 || end.0 % PAGE_SIZE != 0 {
        problems.push(format!("{start} to {end}: not on page boundaries"));
    }
    if end <= start {
        problems.push(format!("{start} to {end}: it ends before it has started"));
    }
    if segment.backing == Backing::Vsyscall {
        if (start.0, end.0) != (VSYSCALL, VSYSCALL + PAGE_SIZE) {
            problems.push(format!("{start} to {end}: vsyscall is the page at {VSYSCALL:#x}"));
        }
    } else if start.0.max(end.0) > ADDRESS_LIMIT {
        problems.push(format!("{start} to {end}: user space ends at {ADDRESS_LIMIT:#x}"));
    }
    problems
}

fn order(previous: &Segment, segment: &Segment) -> Option<String> {
    let Segment { start, end, .. } = segment;
    if start < &previous.start {
        Some(format!("{start} to {end}: lower than the line before: segments ascend"))
    } else {
        let overlap = *start < previous.end;
        overlap.then(|| format!("{start} to {end}: overlaps {} to {}", previous.start, previous.end))
    }
}

fn bits(segment: &Segment) -> Vec<String> {
    let known = |names: &[(&str, u64)]| names.iter().fold(0, |bits, (_, bit)| bits | bit);
    let unknown = |name: &str, bits: u64, known: u64| {
        (bits & !known != 0).then(|| format!("{name}: {:#x} is not known here", bits & !known))
    };
    let protection = unknown("protection", segment.protection.0, known(Protection::NAMES));
    let flags = unknown("flags", segment.flags.0, known(SegmentFlags::NAMES));
    protection.into_iter().chain(flags).collect()
}

/// Flags that no mapping has together, or not without another.
fn flags(segment: &Segment) -> Option<String> {
    use SegmentFlags as F;
    let has = |flag| segment.flags.contains(flag);
    if has(F::onfault) && !has(F::locked) {
        return Some("flags: onfault without locked".to_owned());
    }
    let droppable = segment.backing == Backing::Anonymous && !has(F::growsdown) && !has(F::locked);
    (has(F::droppable) && !droppable)
        .then(|| "flags: droppable, which only private memory is, neither locked nor growing".to_owned())
}

/// The name of what the kernel maps by itself, once a process.
fn kernel_mapping(segment: &Segment) -> Option<&'static str> {
    match segment.backing {
        Backing::Vdso => Some("vdso"),
        Backing::Vvar => Some("vvar"),
        Backing::VvarVclock => Some("vvar_vclock"),
        Backing::Vsyscall => Some("vsyscall"),
        Backing::Anonymous
        | Backing::HugePages(_)
        | Backing::File(_)
        | Backing::Unnamed(_)
        | Backing::SharedAnonymous(_)
        | Backing::SysvShm(_)
        | Backing::AioRing
        | Backing::IoUring(_) => None,
    }
}

fn backing(segment: &Segment, manifest: &Manifest) -> Vec<String> {
    let length = segment.end.0.saturating_sub(segment.start.0);
    let problems = match &segment.backing {
        Backing::File(file) => mapped_file(file, length),
        Backing::Unnamed(file) => {
            let written = segment.shared && segment.protection.contains(Protection::PROT_WRITE) && !file.writable;
            let end = file.offset.checked_add(length).and_then(|end| i64::try_from(end).ok());
            vec![
                (!file.offset.is_multiple_of(PAGE_SIZE))
                    .then(|| format!("offset {}: not on a page boundary", file.offset)),
                end.is_none().then(|| format!("offset {}: the mapping passes the end of all files", file.offset)),
                written.then(|| "protection: PROT_WRITE, and it is mapped for reading".to_owned()),
            ]
        }
        Backing::HugePages(pages) => vec![private(segment), huge_pages(segment, pages.page_size)],
        Backing::SharedAnonymous(piece) => vec![shared(piece, length)],
        Backing::SysvShm(piece) => {
            let written = segment.protection.contains(Protection::PROT_WRITE) && !piece.writable;
            vec![
                (!segment.shared).then(|| "a System V segment is always mapped shared".to_owned()),
                written.then(|| "protection: PROT_WRITE, and it was attached for reading".to_owned()),
            ]
        }
        Backing::AioRing => super::aio::ring(segment),
        // By the check of rings.
        Backing::IoUring(_) => vec![],
        Backing::Vdso => {
            let expected = manifest.kernel.vdso_size;
            vec![
                private(segment),
                (length != expected).then(|| format!("the vdso has {length} bytes, the manifest's has {expected}")),
            ]
        }
        Backing::Anonymous | Backing::Vvar | Backing::VvarVclock | Backing::Vsyscall => vec![private(segment)],
    };
    problems.into_iter().flatten().collect()
}

fn private(segment: &Segment) -> Option<String> {
    segment.shared.then(|| "shared: what backs it is private".to_owned())
}

/// Huge pages of x86-64 are of 2 MiB or 1 GiB.
pub(super) fn huge_page_size(page_size: u64) -> Option<String> {
    let known = [2 << 20, 1 << 30].contains(&page_size);
    (!known).then(|| format!("page_size {page_size}: huge pages have 2 MiB or 1 GiB"))
}

/// Everything about memory in huge pages is in whole ones.
fn huge_pages(segment: &Segment, page_size: u64) -> Option<String> {
    if let Some(problem) = huge_page_size(page_size) {
        return Some(problem);
    }
    let runs = segment.pages.iter().map(|range| (range.start.0, range.end()));
    let mut ranges = std::iter::once((segment.start.0, segment.end.0)).chain(runs);
    let cut = ranges.find(|(start, end)| !start.is_multiple_of(page_size) || !end.is_multiple_of(page_size));
    cut.map(|(start, end)| format!("{start:#x} to {end:#x}: no whole huge pages"))
}

fn mapped_file(file: &MappedFile, length: u64) -> Vec<Option<String>> {
    let end = file.offset.checked_add(length).and_then(|end| i64::try_from(end).ok());
    vec![
        absolute(&file.path).map(|problem| format!("path: {problem}")),
        time(file.modified).map(|problem| format!("modified: {problem}")),
        (!file.offset.is_multiple_of(PAGE_SIZE)).then(|| format!("offset {}: not on a page boundary", file.offset)),
        end.is_none().then(|| format!("offset {}: the mapping passes the end of all files", file.offset)),
    ]
}

fn shared(piece: &SharedAnonymous, length: u64) -> Option<String> {
    let SharedAnonymous { object, offset, size } = *piece;
    if object == 0 {
        return Some("object 0: shared memory is counted from 1".to_owned());
    }
    if offset % PAGE_SIZE != 0 {
        return Some(format!("offset {offset}: not on a page boundary"));
    }
    if i64::try_from(size).is_err() {
        return Some(format!("object {object}: {size} bytes are more than any file has"));
    }
    let fits = offset.checked_add(length).is_some_and(|end| end <= size);
    (!fits).then(|| format!("object {object}: {length} bytes at {offset} pass its end at {size}"))
}
