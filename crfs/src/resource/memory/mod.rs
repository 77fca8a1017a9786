//! Memory: what a process has mapped, and which pages have contents of their own.
//!
//! - **What:** mappings with protection, flags and backing; pages that the backing does not give back.
//! - **Where:** the maple tree of `mm_struct` and the page tables (`include/linux/mm_types.h`, `fs/proc/task_mmu.c`, v6.18).
//! - **Read:** mappings from /proc/PID/smaps, for its VmFlags (it walks the page tables: 10 ms a GiB of 4 KiB pages); which pages are there
//!   by the PAGEMAP_SCAN ioctl over the whole address space (2 ms a GiB); pages still shared after fork by their frame
//!   numbers in /proc/PID/pagemap; shared anonymous objects by SEEK_DATA through /proc/PID/map_files. Contents are not read here.
//! - **Made again:** mapped at the same addresses, filled, protected; children inherit what they still shared. Guards, locks and at
//!   last seals come once they are there.
//! - **Refused:** replaced files, huge pages of hugetlbfs, devices, userfaultfd,
//!   protection keys and whatever this module has no name for; with the words of `refuse.rs`.
//!
//! Which pages are recorded: of private anonymous memory those that are present or swapped and not the page of zeros; of private
//! file mappings those that were written (they are anonymous then); of shared file mappings none, the file holds them. A
//! page of a shared anonymous object is stored once, by the first mapping (by process, then address) that reaches it; a mapping of the
//! same object at the same addresses in another process names that process as the source, and one at other addresses names
//! no pages: whoever makes the object again has filled it already.

pub mod aside;
mod backing;
pub mod fill;
mod fork;
mod objects;
pub mod opened;
mod pages;
mod refuse;
pub mod restore;
mod smaps;
mod userfault;

use super::Findings;
use super::container::Place;
use super::met::Met;
use super::proc::Proc;
use super::subject::Process;
use crate::failure::Failure;
use backing::Backings;
use crfs_sys::memory::PageRegion;
use image_format::memory::{Backing, PageRange, Segment, Source};
use image_format::types::{Address, PAGE_SIZE, Pid};
use objects::Objects;
use std::collections::BTreeMap;

/// What is known of a process's memory before its pages get a place in the image.
struct Space {
    segments: Vec<Segment>,
    present: pages::Present,
}

/// Obstacles in the mappings of one process, running or frozen.
///
/// # Errors
/// When the process is gone.
pub fn survey(process: &Process, place: &Place, proc: &mut Proc, findings: &mut Findings) -> Result<(), Failure> {
    let mut met = Met::new();
    let mut backings = Backings::new(place, &mut met);
    let mappings = smaps::read(process.alive().host, proc)?;
    segments(process, mappings, &mut backings, findings)?;
    Ok(())
}

/// What the kernel says of a process's memory.
#[derive(Debug)]
struct Look {
    mappings: Vec<smaps::Mapping>,
    regions: Vec<PageRegion>,
}

/// What was seen of processes that stand still, by their pids, for [`capture`].
#[derive(Debug, Default)]
pub struct Looks(BTreeMap<Pid, Result<Look, Failure>>);

/// Looks at processes: by all processors, since the kernel walks the page tables of each twice. Needs no more than /proc, so that others
/// may ask about other things meanwhile.
#[must_use]
pub fn look(processes: &[&Process]) -> Looks {
    let looks = image_format::parallel::map(processes, |process| {
        let mut proc = Proc::open()?;
        let mappings = smaps::read(process.alive().host, &mut proc)?;
        Ok(Look { mappings, regions: pages::scan(process, &mut proc)? })
    });
    Looks(processes.iter().map(|process| process.pid).zip(looks).collect())
}

/// `mem.segments` of the processes, each of which has memory of its own; whom `looks` does not have is looked at. A parent is one of them,
/// or not of the container.
///
/// # Errors
/// When a process is gone, or the kernel cannot say which pages are there.
pub fn capture(
    processes: &[&Process],
    mut looks: Looks,
    parents: &BTreeMap<Pid, Pid>,
    place: &Place,
    proc: &mut Proc,
    met: &mut Met,
    findings: &mut Findings,
) -> Result<BTreeMap<Pid, Vec<Segment>>, Failure> {
    let mut backings = Backings::new(place, met);
    let mut spaces = BTreeMap::new();
    let missing: Vec<&Process> =
        processes.iter().copied().filter(|process| !looks.0.contains_key(&process.pid)).collect();
    looks.0.extend(look(&missing).0);
    for &process in processes {
        let Some(look) = looks.0.remove(&process.pid) else { continue };
        let Look { mappings, regions } = look?;
        let segments = segments(process, mappings, &mut backings, findings)?;
        let present = pages::present(regions, &segments);
        spaces.insert(process.pid, Space { segments, present });
    }
    let mut objects = backings.into_objects();
    let mut placed = BTreeMap::new();
    for &process in processes {
        let Some(space) = spaces.get(&process.pid) else { continue };
        let parent = parents.get(&process.pid).and_then(|pid| {
            let parent = processes.iter().find(|process| process.pid == *pid)?;
            Some((parent, spaces.get(pid)?))
        });
        let inherited = match parent {
            Some((parent, theirs)) => {
                fork::shared(process, &space.present.private, parent, &theirs.present.private, proc)?
            }
            None => Vec::new(),
        };
        let parent = parent.map(|(parent, _)| parent.pid);
        placed.insert(process.pid, place_pages(process.pid, space, parent, &inherited, &mut objects));
    }
    objects.report(findings);
    Ok(placed)
}

/// The mappings, without pages.
fn segments(
    process: &Process,
    mappings: Vec<smaps::Mapping>,
    backings: &mut Backings<'_>,
    findings: &mut Findings,
) -> Result<Vec<Segment>, Failure> {
    let mut segments = Vec::with_capacity(mappings.len());
    let mut named = false;
    for mapping in mappings {
        named |= mapping.name.starts_with(b"[anon:") || mapping.name.starts_with(b"[anon_shmem:");
        let backing = backings.find(process, &mapping, findings)?;
        refuse::mapping(process.pid, &mapping, backing.as_ref(), findings);
        if let Some(backing) = backing {
            segments.push(mapping.segment(backing));
        }
    }
    if named {
        findings.notes.push(format!(
            "process {}: names given to anonymous memory (PR_SET_VMA_ANON_NAME) are not carried; they change nothing but what /proc shows",
            process.pid
        ));
    }
    Ok(segments)
}

/// Gives every run of pages its source, and own pages their places, counted up in the order of addresses.
fn place_pages(
    pid: Pid,
    space: &Space,
    parent: Option<Pid>,
    inherited: &[(u64, u64)],
    objects: &mut Objects,
) -> Vec<Segment> {
    let mut next = 0;
    let mut segments = space.segments.clone();
    for segment in &mut segments {
        let window = (segment.start.0, segment.end.0);
        let guards = pages::clip(&space.present.guards, window);
        let mut runs: Vec<(u64, u64, Option<Pid>)> = Vec::new();
        match &segment.backing {
            Backing::Anonymous | Backing::HugePages(_) | Backing::File(_) | Backing::Unnamed(_) if !segment.shared => {
                let mine = pages::clip(&space.present.private, window);
                for (start, end) in pages::subtract(&mine, inherited) {
                    runs.push((start, end, None));
                }
                for (start, end) in pages::intersect(&mine, inherited) {
                    runs.push((start, end, parent));
                }
                runs.sort_unstable();
            }
            Backing::SharedAnonymous(shared) => runs = objects.place(pid, window, &guards, shared),
            _ => {}
        }
        for (start, end, from) in runs {
            let count = (end - start) / PAGE_SIZE;
            let source = match from {
                Some(process) => Source::Process(process),
                None => {
                    next += count;
                    Source::Own(next - count)
                }
            };
            segment.pages.push(PageRange { start: Address(start), count, source });
        }
        for &(start, end) in &guards {
            let count = (end - start) / PAGE_SIZE;
            segment.pages.push(PageRange { start: Address(start), count, source: Source::Guard });
        }
        segment.pages.sort_unstable_by_key(|range| range.start);
    }
    segments
}
