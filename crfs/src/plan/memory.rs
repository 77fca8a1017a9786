//! What is done to each address space: which mappings are kept from the creator, which go, which are made, and which pages
//! are written from where.

use super::birth::{Birth, memory_parent};
use image_format::memory::{Backing, PageRange, Protection, Segment, SegmentFlags as F, Source};
use image_format::namespaces::namespace_of_segment;
use image_format::types::PAGE_SIZE;
use image_format::{Image, Pid};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The plan of one address space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Whose memory the process is born with; None for the first, which starts from the stub.
    pub inherited_from: Option<Pid>,
    /// Inherited ranges to unmap.
    pub unmap: Vec<(u64, u64)>,
    /// Segments to map, by their index in the image.
    pub map: Vec<usize>,
    /// Segments inherited as they are, by their index in the image.
    pub keep: Vec<usize>,
    /// Kept segments whose protection differs from the creator's.
    pub protect: Vec<usize>,
    /// Kept segments about which the creator told the kernel something else (madvise).
    pub advise: Vec<usize>,
    /// Pages inherited inside kept segments that the process does not have.
    pub drop: Vec<(u64, u64)>,
    /// Pages to write.
    pub fill: Vec<Fill>,
    /// Calls PR_SET_MM_MAP with an executable: false where the creator's is the right one.
    pub new_exe: bool,
}

/// A run of pages to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Where to.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// Whose `mem.pages`.
    pub from: Pid,
    /// Bytes into it.
    pub offset: u64,
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filled: u64 = self.fill.iter().map(|fill| fill.length).sum();
        write!(
            f,
            "keep {}, unmap {}, map {}, drop {}, fill {} KiB",
            self.keep.len(),
            self.unmap.len(),
            self.map.len(),
            self.drop.len(),
            filled / 1024
        )
    }
}

/// A shared anonymous object: made once by the worker, mapped by whoever maps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Bytes.
    pub size: u64,
    /// Pages to write; addresses are offsets into the object.
    pub fill: Vec<Fill>,
}

/// Every shared anonymous object of the image, by its number.
#[must_use]
pub fn objects(image: &Image) -> BTreeMap<u32, Object> {
    let mut objects: BTreeMap<u32, Object> = BTreeMap::new();
    for (&pid, process) in &image.processes {
        for segment in &process.segments {
            let Backing::SharedAnonymous(shared) = &segment.backing else { continue };
            let object = objects.entry(shared.object).or_default();
            object.size = object.size.max(shared.size);
            for range in &segment.pages {
                if let Source::Own(first) = range.source {
                    let address = shared.offset + (range.start.0 - segment.start.0);
                    let length = range.count * PAGE_SIZE;
                    object.fill.push(Fill { address, length, from: pid, offset: first * PAGE_SIZE });
                }
            }
        }
    }
    objects
}

/// Computes the memory plan of every process of the image that has memory of its own.
#[must_use]
pub fn plan(image: &Image, births: &BTreeMap<Pid, Birth>) -> BTreeMap<Pid, MemoryPlan> {
    let own = image.processes.iter().filter(|(_, process)| process.process.shares.memory.is_none());
    own.map(|(&pid, _)| (pid, process(image, pid, memory_parent(births, pid)))).collect()
}

fn process(image: &Image, pid: Pid, inherited_from: Option<Pid>) -> MemoryPlan {
    let mut plan = MemoryPlan { inherited_from, new_exe: true, ..MemoryPlan::default() };
    let Some(own) = image.processes.get(&pid) else { return plan };
    let parent = inherited_from.and_then(|parent| image.processes.get(&parent));
    if let Some(parent) = parent {
        plan.new_exe = parent.process.exe != own.process.exe;
    }
    let inherited: &[Segment] = parent.map_or(&[], |parent| &parent.segments);
    let by_start: BTreeMap<u64, &Segment> = inherited.iter().map(|segment| (segment.start.0, segment)).collect();
    let mut kept = BTreeSet::new();
    for (index, segment) in own.segments.iter().enumerate() {
        match segment.backing {
            Backing::Vsyscall => continue,
            // The three parts of the vDSO come and go together; see below.
            Backing::Vdso | Backing::Vvar | Backing::VvarVclock => continue,
            _ => {}
        }
        // Of two ipc namespaces, two segments may have one id.
        let same_segment = |_: &&&Segment| match &segment.backing {
            Backing::SysvShm(piece) => {
                let namespace = |pid| namespace_of_segment(&image.namespaces, pid, piece.segment);
                inherited_from.is_some_and(|parent| namespace(parent) == namespace(pid))
            }
            _ => true,
        };
        match by_start.get(&segment.start.0).filter(|other| inheritable(other, segment)).filter(same_segment) {
            Some(other) => {
                plan.keep.push(index);
                kept.insert(segment.start.0);
                if other.protection != segment.protection {
                    plan.protect.push(index);
                }
                if inherited_advice(other) != inherited_advice(segment) {
                    plan.advise.push(index);
                }
                if !segment.shared {
                    plan.drop.extend(subtract(&content(other), &content(segment)));
                }
            }
            None => plan.map.push(index),
        }
    }
    let is_vdso = |s: &&Segment| matches!(s.backing, Backing::Vdso | Backing::Vvar | Backing::VvarVclock);
    let vdso = |segments: &[Segment]| segments.iter().filter(is_vdso).map(|s| s.start).collect::<Vec<_>>();
    let same_vdso = parent.is_some() && vdso(inherited) == vdso(&own.segments);
    for segment in inherited {
        let stays = match segment.backing {
            Backing::Vsyscall => true,
            Backing::Vdso | Backing::Vvar | Backing::VvarVclock => same_vdso,
            _ => kept.contains(&segment.start.0),
        };
        if !stays {
            plan.unmap.push((segment.start.0, segment.end.0));
        }
    }
    let parts = own.segments.iter().enumerate().filter(|(_, segment)| is_vdso(segment)).map(|(index, _)| index);
    if same_vdso {
        plan.keep.extend(parts);
    } else {
        // First: the kernel maps all parts, and something else may lie where the program has unmapped one.
        plan.map.splice(0..0, parts);
    }
    plan.fill = fills(image, pid, inherited_from, &plan.keep);
    plan
}

/// The flags that madvise(2) sets and a child is born with. The others are set in the parent after its children are born.
fn inherited_advice(segment: &Segment) -> u64 {
    segment.flags.0 & (F::hugepage.0 | F::nohugepage.0 | F::sequential.0 | F::random.0 | F::dontdump.0)
}

/// Whether a mapping born from `parent` can serve as `child`: the same object at the same place with what only mmap
/// decides. Protection and advice can be changed afterwards, but for advice about huge pages, which can be turned and not taken back;
/// and a pool's huge pages are filled only where they are mapped writable.
fn inheritable(parent: &Segment, child: &Segment) -> bool {
    let huge = |segment: &Segment| segment.flags.0 & (F::hugepage.0 | F::nohugepage.0) != 0;
    let own = |range: &PageRange| matches!(range.source, Source::Own(_));
    let unfillable = matches!(child.backing, Backing::HugePages(_))
        && !child.protection.contains(Protection::PROT_WRITE)
        && child.pages.iter().any(own);
    let fixed = F::growsdown.0 | F::noreserve.0 | F::accounted.0 | F::droppable.0;
    parent.start == child.start
        && parent.end == child.end
        && parent.shared == child.shared
        && parent.flags.0 & fixed == child.flags.0 & fixed
        && parent.backing == child.backing
        && (huge(child) || !huge(parent))
        && !unfillable
}

/// The ranges in which a segment has contents of its own (not its backing's), ascending.
fn content(segment: &Segment) -> Vec<(u64, u64)> {
    let own = segment.pages.iter().filter(|range| matches!(range.source, Source::Own(_) | Source::Process(_)));
    own.map(|range| (range.start.0, range.end())).collect()
}

/// What of `from` is not in `without`; both ascending and disjoint.
fn subtract(from: &[(u64, u64)], without: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut rest = Vec::new();
    for &(start, end) in from {
        let mut at = start;
        let first = without.partition_point(|hole| hole.1 <= start);
        for &(hole_start, hole_end) in without[first..].iter().take_while(|hole| hole.0 < end) {
            if hole_start > at {
                rest.push((at, hole_start));
            }
            at = at.max(hole_end);
        }
        if at < end {
            rest.push((at, end));
        }
    }
    rest
}

fn fills(image: &Image, pid: Pid, inherited_from: Option<Pid>, keep: &[usize]) -> Vec<Fill> {
    let mut fill = Vec::new();
    let Some(own) = image.processes.get(&pid) else { return fill };
    // Shared memory is filled through its object.
    for (index, segment) in own.segments.iter().enumerate().filter(|(_, segment)| !segment.shared) {
        for range in &segment.pages {
            match range.source {
                Source::Own(first) => fill.push(Fill {
                    address: range.start.0,
                    length: range.count * PAGE_SIZE,
                    from: pid,
                    offset: first * PAGE_SIZE,
                }),
                // What was inherited is there already.
                Source::Process(from) if Some(from) == inherited_from && keep.contains(&index) => {}
                Source::Process(from) => resolve(image, from, range.start.0, range.end(), &mut fill),
                Source::Zero | Source::File | Source::Guard | Source::Parent => {}
            }
        }
    }
    fill
}

/// Finds the bytes of `start..end` of another process. image_format::check has seen that they are there and that no chain of
/// references is a circle.
fn resolve(image: &Image, pid: Pid, start: u64, end: u64, fill: &mut Vec<Fill>) {
    let segments = image.processes.get(&pid).map_or(&[][..], |process| &process.segments);
    let first = segments.partition_point(|segment| segment.end.0 <= start);
    for segment in segments[first..].iter().take_while(|segment| segment.start.0 < end) {
        for range in segment.pages.iter().filter(|range| range.start.0 < end && range.end() > start) {
            let (from, to) = (range.start.0.max(start), range.end().min(end));
            match range.source {
                Source::Own(page) => fill.push(Fill {
                    address: from,
                    length: to - from,
                    from: pid,
                    offset: page * PAGE_SIZE + (from - range.start.0),
                }),
                Source::Process(other) => resolve(image, other, from, to, fill),
                Source::Zero | Source::File | Source::Guard | Source::Parent => {}
            }
        }
    }
}
