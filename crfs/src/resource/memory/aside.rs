//! Huge pages for mappings that did not ask for them.
//!
//! Most of the time that contents take goes into fresh pages, not into copying: a gigabyte of 4 KiB pages takes ten times as long as one
//! of huge pages. The kernel makes those where a mapping asks for them, and what has asked cannot take it back. So contents that fill
//! huge pages whole are written to a mapping aside, which asks, and the pages are moved to their place: `UFFDIO_MOVE`
//! (ioctl_userfaultfd(2), `mm/userfaultfd.c`, v6.18; since v6.8), 2 us each. `MADV_COLLAPSE` leaves no mark on a mapping either, and waits for
//! all processors, tens of milliseconds where they are busy. Where the kernel gives none of this away it is slower and nothing else.

use crate::failure::{Doing, Failure};
use crate::plan::memory::Fill;
use crfs_tracee::{Arg, Batch, Injector};
use image_format::ProcessImage;
use image_format::controls::HugePages;
use image_format::layout;
use image_format::memory::{Backing, Segment, SegmentFlags};
use std::fs;
use std::ops::Range;

/// A huge page of x86-64.
pub(super) const HUGE: u64 = 2 << 20;
/// Where an administrator says who gets huge pages.
const ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// `include/uapi/linux/userfaultfd.h`, v6.18.
const UFFD_USER_MODE_ONLY: i32 = 1;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_MOVE: u64 = 1 << 16;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_UNREGISTER: u64 = 0x8010_aa01;
const UFFDIO_MOVE: u64 = 0xc028_aa05;

/// Whether only those get huge pages that ask for them. Who gets none, or gets them anyway, needs nothing of this.
#[must_use]
pub fn are_wanted() -> bool {
    fs::read_to_string(ENABLED).is_ok_and(|text| text.contains("[madvise]"))
}

/// What lies aside in a process.
#[derive(Debug)]
pub(super) struct Aside {
    userfaultfd: i64,
    mapped: Range<u64>,
    runs: Vec<Run>,
}

/// Huge pages that follow each other in one mapping.
#[derive(Debug)]
struct Run {
    /// Where they belong.
    place: Range<u64>,
    /// Where they lie until then.
    at: u64,
    /// The mapping they belong to, start and length.
    mapping: (u64, u64),
}

impl Aside {
    /// Maps room for what will be filled whole. None where there is no such, or the kernel cannot.
    pub(super) fn open(
        injector: &mut Injector,
        process: &ProcessImage,
        fill: &[Fill],
    ) -> Result<Option<Self>, Failure> {
        let mut runs = runs(process, fill);
        let length: u64 = runs.iter().map(|run| run.place.end - run.place.start).sum();
        if length == 0 {
            return Ok(None);
        }
        let mut batch = Batch::new();
        let flags = libc::O_CLOEXEC | UFFD_USER_MODE_ONLY;
        let userfaultfd = batch.attempt(libc::SYS_userfaultfd, &[flags.into()], "userfaultfd");
        let api = words(&mut batch, &[UFFD_API, UFFD_FEATURE_MOVE, 0]);
        let api = batch.attempt(libc::SYS_ioctl, &[userfaultfd.into(), UFFDIO_API.into(), api], "UFFDIO_API");
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        let room = length + HUGE;
        let args = [0u64.into(), room.into(), protection.into(), flags.into(), (-1).into(), 0u64.into()];
        let map = batch.attempt(libc::SYS_mmap, &args, "mmap");
        let args = [map.into(), room.into(), libc::MADV_HUGEPAGE.into()];
        let advise = batch.attempt(libc::SYS_madvise, &args, "madvise(MADV_HUGEPAGE)");
        let results = injector.run(&batch).doing(|| layout::process_dir(process.process.pid))?;
        let result = |call: crfs_tracee::CallId| results.get(call.index()).copied().unwrap_or(-1);
        let start = u64::try_from(result(map)).ok();
        let mapped = start.map_or(0..0, |start| start..start + room);
        let mut at = mapped.start.next_multiple_of(HUGE);
        for run in &mut runs {
            run.at = at;
            at += run.place.end - run.place.start;
        }
        let aside = Aside { userfaultfd: result(userfaultfd), mapped, runs };
        if [userfaultfd, api, map, advise].into_iter().all(|call| result(call) >= 0) {
            return Ok(Some(aside));
        }
        let mut batch = Batch::new();
        aside.close(&mut batch);
        injector.run(&batch).doing(|| layout::process_dir(process.process.pid))?;
        Ok(None)
    }

    fn close(&self, batch: &mut Batch) {
        if self.userfaultfd >= 0 {
            batch.call(libc::SYS_close, &[self.userfaultfd.into()], "close");
        }
        if !self.mapped.is_empty() {
            let length = self.mapped.end - self.mapped.start;
            batch.call(libc::SYS_munmap, &[self.mapped.start.into(), length.into()], "munmap");
        }
    }

    /// Where what belongs to this address is to be written.
    pub(super) fn place(&self, address: u64) -> u64 {
        let run = self.runs.get(self.runs.partition_point(|run| run.place.end <= address));
        let inside = run.filter(|run| run.place.contains(&address));
        inside.map_or(address, |run| run.at + (address - run.place.start))
    }

    /// A fill in parts that lie aside whole or not at all.
    pub(super) fn cut(&self, fill: Fill) -> Vec<Fill> {
        let first = self.runs.partition_point(|run| run.place.end <= fill.address);
        let touched = self.runs[first..].iter().take_while(|run| run.place.start < fill.address + fill.length);
        cut(fill, touched.flat_map(|run| [run.place.start, run.place.end]))
    }

    /// Moves everything to its place, and unmaps the room. Returns what must be written there instead.
    pub(super) fn put_in_place(
        self,
        injector: &mut Injector,
        process: &ProcessImage,
        fill: &[Fill],
    ) -> Result<Vec<Fill>, Failure> {
        let mut batch = Batch::new();
        let fd: Arg = self.userfaultfd.into();
        let mut moves = Vec::new();
        for runs in self.runs.chunk_by(|one, next| one.mapping == next.mapping) {
            let Some(Run { mapping: (start, length), .. }) = runs.first() else { continue };
            for run in runs {
                // It may have inherited pages there.
                let length = run.place.end - run.place.start;
                let args = [run.place.start.into(), length.into(), libc::MADV_DONTNEED.into()];
                batch.attempt(libc::SYS_madvise, &args, "madvise(MADV_DONTNEED)");
            }
            // The whole mapping, so that it is not divided.
            let range = words(&mut batch, &[*start, *length, UFFDIO_REGISTER_MODE_MISSING, 0]);
            batch.attempt(libc::SYS_ioctl, &[fd, UFFDIO_REGISTER.into(), range], "UFFDIO_REGISTER");
            for run in runs {
                let moved = words(&mut batch, &[run.place.start, run.at, run.place.end - run.place.start, 0, 0]);
                moves.push((batch.attempt(libc::SYS_ioctl, &[fd, UFFDIO_MOVE.into(), moved], "UFFDIO_MOVE"), run));
            }
            batch.attempt(libc::SYS_ioctl, &[fd, UFFDIO_UNREGISTER.into(), range], "UFFDIO_UNREGISTER");
        }
        self.close(&mut batch);
        let results = injector.run(&batch).doing(|| layout::process_dir(process.process.pid))?;
        let failed = moves.iter().filter(|(call, _)| results.get(call.index()) != Some(&0));
        let failed: Vec<&Range<u64>> = failed.map(|(_, run)| &run.place).collect();
        let edges = || failed.iter().flat_map(|place| [place.start, place.end]);
        let parts = fill.iter().flat_map(|fill| cut(*fill, edges()));
        Ok(parts.filter(|part| failed.iter().any(|place| place.contains(&part.address))).collect())
    }
}

fn words(batch: &mut Batch, words: &[u64]) -> Arg {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    batch.data(&bytes).into()
}

/// A fill in parts, none of which reaches across an edge. The edges come in order.
fn cut(fill: Fill, edges: impl Iterator<Item = u64>) -> Vec<Fill> {
    let Fill { address, length, from, offset } = fill;
    let end = address + length;
    let inside = edges.filter(|&edge| address < edge && edge < end);
    let mut start = address;
    let mut parts = Vec::new();
    for edge in inside.chain([end]) {
        parts.push(Fill { address: start, length: edge - start, from, offset: offset + (start - address) });
        start = edge;
    }
    parts
}

/// The huge pages that are filled whole, in mappings that take such.
fn runs(process: &ProcessImage, fill: &[Fill]) -> Vec<Run> {
    // A program that asked for none has its reasons.
    if process.attr.memory.huge_pages != HugePages::Default {
        return Vec::new();
    }
    let mut filled: Vec<(Range<u64>, &Segment)> = Vec::new();
    for fill in fill {
        let (start, end) = (fill.address, fill.address + fill.length);
        let segment = process.segments.get(process.segments.partition_point(|segment| segment.end.0 <= start));
        let Some(segment) = segment.filter(|segment| takes_huge_pages(segment)) else { continue };
        match filled.last_mut() {
            Some((last, in_segment)) if last.end == start && in_segment.start == segment.start => last.end = end,
            _ => filled.push((start..end, segment)),
        }
    }
    let run = |(range, segment): (Range<u64>, &Segment)| {
        let place = range.start.next_multiple_of(HUGE)..range.end / HUGE * HUGE;
        let mapping = (segment.start.0, segment.end.0 - segment.start.0);
        (!place.is_empty()).then_some(Run { place, at: 0, mapping })
    };
    filled.into_iter().filter_map(run).collect()
}

/// Pages are moved between mappings of the same protection.
fn takes_huge_pages(segment: &Segment) -> bool {
    let unsuited = [SegmentFlags::nohugepage, SegmentFlags::hugepage, SegmentFlags::growsdown, SegmentFlags::droppable];
    segment.backing == Backing::Anonymous
        && !segment.shared
        && segment.protection.0 == u64::from((libc::PROT_READ | libc::PROT_WRITE).cast_unsigned())
        && !unsuited.iter().any(|&flag| segment.flags.contains(flag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_format::Pid;

    #[test]
    fn a_fill_is_cut_at_edges() {
        let fill = Fill { address: 0x3000, length: 0x5000, from: Pid(1), offset: 0x1000 };
        let parts = cut(fill, [0x1000, 0x3000, 0x4000, 0x7000, 0x8000, 0x9000].into_iter());
        let parts: Vec<_> = parts.iter().map(|part| (part.address, part.length, part.offset)).collect();
        assert_eq!(parts, [(0x3000, 0x1000, 0x1000), (0x4000, 0x3000, 0x2000), (0x7000, 0x1000, 0x5000)]);
    }
}
