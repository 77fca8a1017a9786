//! Huge pages for mappings that did not ask for them.
//!
//! Most of the time that contents take goes into fresh pages, not into copying: a gigabyte of 4 KiB pages takes ten times as long as one
//! of huge pages. The kernel makes those where a mapping asks for them, and what has asked cannot take it back. So contents that fill
//! huge pages whole are written to a mapping aside, which asks, and the pages are moved to their place: `UFFDIO_MOVE`
//! (ioctl_userfaultfd(2), `mm/userfaultfd.c`, v6.18; since v6.8), microseconds each. `MADV_COLLAPSE` leaves no mark on a mapping either, and waits
//! for all processors, tens of milliseconds where they are busy.
//!
//! Where memory is in pieces the kernel must put huge pages together first, and small ones come sooner. So it is looked at what each
//! costs, and where the kernel gives none of this away it is slower and nothing else.

use super::userfault::{Userfault, register, unregister, words};
use crate::failure::{Doing, Failure};
use crate::plan::memory::Fill;
use crfs_tracee::{Arg, Batch, Injector};
use image_format::ProcessImage;
use image_format::controls::HugePages;
use image_format::layout;
use image_format::memory::{Backing, Segment, SegmentFlags};
use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A huge page of x86-64.
pub(super) const HUGE: u64 = 2 << 20;
/// Where an administrator says who gets huge pages.
const ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// So much is written aside at a time.
const PART: usize = 4 << 20;
/// What a huge page may take: as much as 512 small ones.
const SMALL_PAGES: Duration = Duration::from_micros(600);
/// After a part that took longer so many are written to their place; each time twice as many.
const FEWEST_REFUSALS: u32 = 8;
const MOST_REFUSALS: u32 = 1024;

const UFFDIO_MOVE: u64 = 0xc028_aa05;

/// Who gets huge pages, as an administrator has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePagesFor {
    /// Whoever writes to memory that could be of them.
    All,
    /// Mappings that ask for them.
    WhoAsks,
    /// Nobody, or nobody knows.
    None,
}

/// Reads who gets them.
#[must_use]
pub fn huge_pages() -> HugePagesFor {
    match fs::read_to_string(ENABLED) {
        Ok(text) if text.contains("[madvise]") => HugePagesFor::WhoAsks,
        Ok(text) if text.contains("[always]") => HugePagesFor::All,
        _ => HugePagesFor::None,
    }
}

/// Whether huge pages are to be had.
#[derive(Debug, Default)]
pub(super) struct Supply(Mutex<Refusals>);

#[derive(Debug, Default)]
struct Refusals {
    /// So many more parts are not asked huge pages for.
    left: u32,
    /// How many it were after the last that took too long; 0 after one that did not.
    last: u32,
}

impl Supply {
    /// Whether the next part is worth asking.
    fn is_worth_asking(&self) -> bool {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let worth = refusals.left == 0;
        refusals.left = refusals.left.saturating_sub(1);
        worth
    }

    /// Learns what a part took.
    fn took(&self, pages: u64, time: Duration) {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let dear = time > SMALL_PAGES * u32::try_from(pages).unwrap_or(u32::MAX);
        refusals.last = if dear { (refusals.last * 2).clamp(FEWEST_REFUSALS, MOST_REFUSALS) } else { 0 };
        refusals.left = refusals.last;
    }
}

/// What lies aside in a process.
#[derive(Debug)]
pub(super) struct Aside {
    mapped: Range<u64>,
    runs: Vec<Run>,
    /// What was written aside, by the addresses where it belongs.
    written: Mutex<Vec<Range<u64>>>,
}

/// Huge pages that follow each other in one mapping.
#[derive(Debug)]
struct Run {
    /// Where they belong.
    place: Range<u64>,
    /// Where they lie until then.
    at: u64,
    /// The mapping they belong to.
    mapping: Range<u64>,
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
        let aside = Aside { mapped, runs, written: Mutex::default() };
        if [map, advise].into_iter().all(|call| result(call) >= 0) {
            return Ok(Some(aside));
        }
        let mut batch = Batch::new();
        aside.close(&mut batch);
        injector.run(&batch).doing(|| layout::process_dir(process.process.pid))?;
        Ok(None)
    }

    fn close(&self, batch: &mut Batch) {
        if !self.mapped.is_empty() {
            let length = self.mapped.end - self.mapped.start;
            batch.call(libc::SYS_munmap, &[self.mapped.start.into(), length.into()], "munmap");
        }
    }

    /// Writes a part, which lies aside whole or not at all, there or at its place. `write` tells how long the processor was at it.
    pub(super) fn write<E>(
        &self,
        part: &Fill,
        supply: &Supply,
        write: impl FnOnce(u64) -> Result<Duration, E>,
    ) -> Result<(), E> {
        let run = self.runs.get(self.runs.partition_point(|run| run.place.end <= part.address));
        let inside = run.filter(|run| run.place.contains(&part.address));
        let Some(run) = inside.filter(|_| supply.is_worth_asking()) else {
            return write(part.address).map(drop);
        };
        supply.took(part.length / HUGE, write(run.at + (part.address - run.place.start))?);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.push(part.address..part.address + part.length);
        Ok(())
    }

    /// A fill in parts that lie aside whole or not at all, none of them large then.
    pub(super) fn cut(&self, fill: Fill) -> Vec<Fill> {
        let first = self.runs.partition_point(|run| run.place.end <= fill.address);
        let touched = self.runs[first..].iter().take_while(|run| run.place.start < fill.address + fill.length);
        let inside = |run: &Run| (run.place.start..run.place.end).step_by(PART).chain([run.place.end]);
        cut(fill, touched.flat_map(inside))
    }

    /// Moves everything to its place, and unmaps the room. Returns what must be written there instead.
    pub(super) fn put_in_place(
        self,
        injector: &mut Injector,
        process: &ProcessImage,
        fill: &[Fill],
        userfault: &Userfault,
    ) -> Result<Vec<Fill>, Failure> {
        let mut batch = Batch::new();
        let fd: Arg = userfault.number.into();
        let mut moves = Vec::new();
        for run in &self.runs {
            let written = self.written_in(run);
            if written.is_empty() {
                continue;
            }
            for place in &written {
                // It may have inherited pages there.
                let args = [place.start.into(), (place.end - place.start).into(), libc::MADV_DONTNEED.into()];
                batch.attempt(libc::SYS_madvise, &args, "madvise(MADV_DONTNEED)");
            }
            register(&mut batch, fd, &run.mapping);
            for place in written {
                let at = run.at + (place.start - run.place.start);
                let moved = words(&mut batch, &[place.start, at, place.end - place.start, 0, 0]);
                moves.push((batch.attempt(libc::SYS_ioctl, &[fd, UFFDIO_MOVE.into(), moved], "UFFDIO_MOVE"), place));
            }
            unregister(&mut batch, fd, &run.mapping);
        }
        self.close(&mut batch);
        let results = injector.run(&batch).doing(|| layout::process_dir(process.process.pid))?;
        let failed = moves.into_iter().filter(|(call, _)| results.get(call.index()) != Some(&0));
        let failed: Vec<Range<u64>> = failed.map(|(_, place)| place).collect();
        let edges = || failed.iter().flat_map(|place| [place.start, place.end]);
        let parts = fill.iter().flat_map(|fill| cut(*fill, edges()));
        Ok(parts.filter(|part| failed.iter().any(|place| place.contains(&part.address))).collect())
    }

    /// What was written aside of a run, neighbours put together.
    fn written_in(&self, run: &Run) -> Vec<Range<u64>> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut parts: Vec<_> = written.iter().filter(|part| run.place.contains(&part.start)).cloned().collect();
        parts.sort_by_key(|part| part.start);
        let mut together: Vec<Range<u64>> = Vec::new();
        for part in parts {
            match together.last_mut() {
                Some(last) if last.end == part.start => last.end = part.end,
                _ => together.push(part),
            }
        }
        together
    }
}

/// What the calling thread has used: other programs do not count.
pub(super) fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
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
        let mapping = segment.start.0..segment.end.0;
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
    fn who_took_too_long_is_asked_again_later() {
        let supply = Supply::default();
        let refused = || (0..10_000).take_while(|_| !supply.is_worth_asking()).count();
        assert_eq!(refused(), 0, "nothing is known yet");
        supply.took(2, Duration::from_millis(30));
        assert_eq!(refused(), 8);
        supply.took(2, Duration::from_millis(30));
        assert_eq!(refused(), 16, "longer the second time");
        supply.took(2, SMALL_PAGES * 2);
        assert_eq!(refused(), 0);
        (0..20).for_each(|_| supply.took(1, Duration::from_secs(1)));
        assert_eq!(refused(), 1024, "but not for ever");
    }

    #[test]
    fn a_fill_is_cut_at_edges() {
        let fill = Fill { address: 0x3000, length: 0x5000, from: Pid(1), offset: 0x1000 };
        let parts = cut(fill, [0x1000, 0x3000, 0x4000, 0x7000, 0x8000, 0x9000].into_iter());
        let parts: Vec<_> = parts.iter().map(|part| (part.address, part.length, part.offset)).collect();
        assert_eq!(parts, [(0x3000, 0x1000, 0x1000), (0x4000, 0x3000, 0x2000), (0x7000, 0x1000, 0x5000)]);
    }
}
