//! Where page contents come from: every page of `mem.pages` used once, and pages of other processes that lead somewhere.

use super::{Findings, memory};
use crate::image::ProcessImage;
use crate::memory::{Backing, PageRange, Segment, Source};
use crate::types::{PAGE_SIZE, Pid};
use std::collections::BTreeMap;

/// Page ranges of a process by themselves.
pub(super) fn own(pid: Pid, process: &ProcessImage, findings: &mut Findings) {
    let path = memory::path(pid);
    // (first page in mem.pages, pages, line)
    let mut own = Vec::new();
    for (index, segment) in (0..).zip(&process.segments) {
        let mut free = segment.start.0;
        for range in &segment.pages {
            let PageRange { start, count, source } = range;
            if let Some(problem) = placed(segment, range).or_else(|| sourced(segment, source)) {
                findings.line(&path, index, format!("pages at {start}: {problem}"));
            } else if start.0 < free {
                findings.line(&path, index, format!("pages at {start}: not above the pages before"));
            }
            free = free.max(range.end());
            if let Source::Own(first) = source {
                own.push((*first, *count, index));
            }
        }
    }
    own.sort_unstable();
    let mut next = 0;
    for (first, count, index) in own {
        if first != next {
            let (name, what) =
                (crate::layout::MEM_PAGES, if first < next { "is used twice" } else { "is used nowhere" });
            findings.line(&path, index, format!("page {} of {name} {what}", first.min(next)));
        }
        next = next.max(first.saturating_add(count));
    }
}

/// Whether a run of pages lies within its segment.
fn placed(segment: &Segment, range: &PageRange) -> Option<String> {
    let PageRange { start, count, .. } = range;
    if start.0 % PAGE_SIZE != 0 {
        return Some("not on a page boundary".to_owned());
    }
    if *count == 0 {
        return Some("no pages".to_owned());
    }
    let end = count.checked_mul(PAGE_SIZE).and_then(|length| start.0.checked_add(length));
    let inside = *start >= segment.start && end.is_some_and(|end| end <= segment.end.0);
    (!inside).then(|| format!("{count} pages that are not inside of {} to {}", segment.start, segment.end))
}

/// Whether such a segment can have pages from such a source.
fn sourced(segment: &Segment, source: &Source) -> Option<String> {
    match (source, &segment.backing) {
        (_, Backing::IoUring(_)) => Some("what is in a ring of io_uring lies beside its description".to_owned()),
        (_, Backing::AioRing) => Some("what waits in a ring of asynchronous I/O stands in aio".to_owned()),
        (_, Backing::Vvar | Backing::VvarVclock | Backing::Vsyscall) => {
            Some("these are the kernel's own and have no contents".to_owned())
        }
        (Source::Guard, _) => None,
        (_, Backing::SysvShm(_)) => Some("the contents of a System V segment lie in sysv.shm.ID".to_owned()),
        (Source::Parent, _) => Some("from a parent image, and this one has none".to_owned()),
        (Source::File, backing) if !matches!(backing, Backing::File(_) | Backing::Unnamed(_)) => {
            Some("from a mapped file, and none is mapped".to_owned())
        }
        _ => None,
    }
}

/// A run of pages taken from another process.
struct Taken {
    start: u64,
    end: u64,
    by: Pid,
    from: Pid,
    line: u64,
}

/// Pages taken from other processes: those must name a source for every one of them, and not, by whatever way, the process
/// that takes them. Both together make every page end at contents.
pub(super) fn sources(processes: &BTreeMap<Pid, ProcessImage>, findings: &mut Findings) {
    let named: BTreeMap<Pid, Vec<(u64, u64)>> = processes.iter().map(|(&pid, process)| (pid, runs(process))).collect();
    let mut taken = Vec::new();
    for (&by, process) in processes {
        for (line, segment) in (0..).zip(&process.segments) {
            for range in &segment.pages {
                let Source::Process(from) = range.source else { continue };
                let run = Taken { start: range.start.0, end: range.end(), by, from, line };
                match named.get(&from) {
                    _ if from == by => run.refuse(findings, "taken from this process itself"),
                    None => run.refuse(findings, format!("there is no process {from}")),
                    Some(runs) => match unnamed(runs, run.start, run.end) {
                        Some(at) => run.refuse(findings, format!("process {from} names no source of {at:#x}")),
                        None => taken.push(run),
                    },
                }
            }
        }
    }
    circles(&taken, findings);
}

impl Taken {
    fn refuse(&self, findings: &mut Findings, reason: impl std::fmt::Display) {
        findings.line(&memory::path(self.by), self.line, format!("pages at {:#x}: {reason}", self.start));
    }
}

/// The addresses a process names a source of contents for, ascending and joined.
fn runs(process: &ProcessImage) -> Vec<(u64, u64)> {
    let ranges = process.segments.iter().flat_map(|segment| &segment.pages);
    let ranges = ranges.filter(|range| range.source != Source::Guard);
    let mut runs: Vec<(u64, u64)> = ranges.map(|range| (range.start.0, range.end())).collect();
    runs.sort_unstable();
    runs.dedup_by(|next, run| {
        let joined = next.0 <= run.1;
        if joined {
            run.1 = run.1.max(next.1);
        }
        joined
    });
    runs
}

/// The first address that the runs leave out.
fn unnamed(runs: &[(u64, u64)], start: u64, end: u64) -> Option<u64> {
    let after = runs.partition_point(|run| run.0 <= start);
    let covered = after.checked_sub(1).map_or(start, |index| runs[index].1.max(start));
    (covered < end).then_some(covered)
}

/// Goes through the address space upwards, keeping who takes from whom at the present address, and follows each new
/// taking to its end.
fn circles(taken: &[Taken], findings: &mut Findings) {
    // At one address, what ends there comes first.
    let mut events: Vec<(u64, bool, &Taken)> =
        taken.iter().flat_map(|run| [(run.start, true, run), (run.end, false, run)]).collect();
    events.sort_by_key(|&(at, starts, _)| (at, starts));
    let mut present: BTreeMap<Pid, Pid> = BTreeMap::new();
    for (_, starts, run) in events {
        if !starts {
            present.remove(&run.by);
            continue;
        }
        let mut at = run.from;
        while let Some(&next) = present.get(&at).filter(|_| at != run.by) {
            at = next;
        }
        if at == run.by {
            // Left out of `present`, which therefore never holds a circle to get lost in.
            run.refuse(findings, format!("taken from process {}, which takes them from here", run.from));
        } else {
            present.insert(run.by, run.from);
        }
    }
}
