//! Maps rings where they were.
//!
//! The kernel takes no address for the memory of a ring, neither from mmap(2) nor from mremap(2) (`io_uring_get_unmapped_area` in
//! io_uring/memmap.c, v6.18): it looks for a gap that is wide enough itself. So all gaps are closed for a moment but the one.

use crate::failure::{Doing, Failure, Kind};
use crfs_tracee::{Batch, CallId, HostPid};
use image_format::io_uring::MappedRing;
use image_format::memory::Segment;
use image_format::{Pid, layout};
use std::ops::Range;

/// The user address space ends one page below 2^47 (`TASK_SIZE_MAX`).
const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// A mapping of a ring, and the worker's descriptor of it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Where, and with which protection.
    pub segment: &'a Segment,
    /// Which of its memory.
    pub mapped: &'a MappedRing,
    /// The descriptor.
    pub worker_fd: u64,
}

/// Maps rings into a process that has all its other mappings. `link`: its descriptor for the worker.
///
/// # Errors
/// When the system refuses, or the kernel takes another address.
pub fn map(
    process: Pid,
    host: HostPid,
    places: &[Place<'_>],
    link: u32,
    mut run: impl FnMut(&Batch) -> Result<Vec<i64>, Failure>,
) -> Result<(), Failure> {
    for place in places {
        let (start, end) = (place.segment.start.0, place.segment.end.0);
        let object = || format!("{}: {start:#x}-{end:#x}", layout::process_file(process, "mem.segments"));
        let maps = format!("/proc/{}/maps", host.raw());
        let text = std::fs::read_to_string(&maps).doing(|| format!("{maps}: reading"))?;
        let lowest = std::fs::read_to_string("/proc/sys/vm/mmap_min_addr").ok();
        let lowest = lowest.and_then(|text| text.trim().parse().ok()).unwrap_or(0).max(4096);
        let closed = to_close(&taken(&text), lowest, start..end);
        let mut batch = Batch::new();
        for gap in &closed {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
            let (at, length) = (gap.start.into(), (gap.end - gap.start).into());
            let args = [at, length, libc::PROT_NONE.into(), flags.into(), u64::MAX.into(), 0u64.into()];
            batch.call(libc::SYS_mmap, &args, "mmap of what lies between mappings");
        }
        let ring = mapped(&mut batch, place, link);
        for gap in &closed {
            batch.call(libc::SYS_munmap, &[gap.start.into(), (gap.end - gap.start).into()], "munmap");
        }
        let results = run(&batch).map_err(|failure| failure.within(object()))?;
        let address = results.get(ring.index()).copied().unwrap_or_default();
        if address.cast_unsigned() != start {
            let reason = format!("{}: the kernel maps the ring of io_uring at {address:#x}", object());
            return Err(Failure::new(Kind::System, reason));
        }
    }
    Ok(())
}

/// Maps the ring where the kernel likes.
fn mapped(batch: &mut Batch, place: &Place<'_>, link: u32) -> CallId {
    let Place { segment, mapped, worker_fd } = *place;
    let args = [u64::from(link).into(), worker_fd.into(), 0u64.into()];
    let fd = crfs_tracee::Arg::Result(batch.call(libc::SYS_pidfd_getfd, &args, "pidfd_getfd"));
    let length = segment.end.0 - segment.start.0;
    let protection = segment.protection.0;
    let args = [0u64.into(), length.into(), protection.into(), libc::MAP_SHARED.into(), fd, mapped.offset.0.into()];
    let ring = batch.call(libc::SYS_mmap, &args, "mmap of a ring of io_uring");
    batch.call(libc::SYS_close, &[fd], "close");
    ring
}

/// What the lines of /proc/PID/maps cover, ascending.
fn taken(maps: &str) -> Vec<Range<u64>> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let line = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(number(start)?..number(end)?)
    };
    maps.lines().filter_map(line).filter(|range| range.start < TASK_SIZE).collect()
}

/// What must be mapped so that the kernel, which looks for a gap as wide as `wanted`, finds nothing else.
fn to_close(taken: &[Range<u64>], lowest: u64, wanted: Range<u64>) -> Vec<Range<u64>> {
    let length = wanted.end - wanted.start;
    let starts = [lowest].into_iter().chain(taken.iter().map(|range| range.end.max(lowest)));
    let ends = taken.iter().map(|range| range.start).chain([TASK_SIZE]);
    let gaps = starts.zip(ends).map(|(start, end)| start..end);
    let parts = gaps.flat_map(|gap| match gap.contains(&wanted.start) {
        // On both sides, also where that is narrow: the gap would be wider than wanted.
        true => [gap.start..wanted.start, wanted.end..gap.end],
        false => [if gap.end.saturating_sub(gap.start) < length { 0..0 } else { gap }, 0..0],
    });
    parts.filter(|part| part.start < part.end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_gaps_are_closed_but_the_wanted_one() {
        let taken = taken(
            "5000-6000 r--p 0 00:00 0\n9000-a000 rw-p 0 00:00 0 [heap]\nb000-c000 r--p 0 00:00 0 /x\nffffffffff600000-ffffffffff601000 --xp 0 00:00 0 [vsyscall]\n",
        );
        assert_eq!(taken, [0x5000..0x6000, 0x9000..0xa000, 0xb000..0xc000]);
        // One page between 0xa000 and 0xb000 is too narrow for two.
        let closed = to_close(&taken, 0x1000, 0x7000..0x9000);
        assert_eq!(closed, [0x1000..0x5000, 0x6000..0x7000, 0xc000..TASK_SIZE]);
        let closed = to_close(&taken, 0x5000, 0xa000..0xb000);
        assert_eq!(closed, [0x6000..0x9000, 0xc000..TASK_SIZE]);
    }
}
