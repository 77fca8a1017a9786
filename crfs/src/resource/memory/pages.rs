//! Which pages of private mappings have contents of their own, and which are guards; and sets of address ranges.

use super::super::proc::Proc;
use super::super::subject::Process;
use crate::failure::{Doing, Failure, Kind};
use crfs_sys::memory::{CategoryMasks, PageRegion, category, pagemap_scan};
use image_format::layout;
use image_format::memory::{Backing, Segment};
use nix::errno::Errno;
use std::os::fd::AsFd;

/// One past the last address of a program with four-level page tables, and where five-level ones begin only on request.
const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// What the page tables say, as ascending ranges, apart.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// Pages of private mappings that must be stored.
    pub(super) private: Vec<(u64, u64)>,
    /// Guards (MADV_GUARD_INSTALL), in mappings of any kind.
    pub(super) guards: Vec<(u64, u64)>,
}

/// Goes through the page tables of a process: runs of pages that have contents, or are guards.
pub(super) fn scan(process: &Process, proc: &mut Proc) -> Result<Vec<PageRegion>, Failure> {
    let path = layout::process_file(process.pid, "mem.pages");
    let pagemap =
        proc.file(format_args!("{}/pagemap", process.alive().host)).doing(|| format!("{path}: opening pagemap"))?;
    let masks = CategoryMasks {
        inverted: category::PFNZERO,
        required: category::PFNZERO,
        any_of: category::PRESENT | category::SWAPPED,
        returned: category::FILE | category::GUARD,
    };
    let mut regions = Vec::new();
    let mut scanned = pagemap_scan(pagemap.as_fd(), 0, TASK_SIZE, masks, &mut regions);
    if scanned == Err(Errno::EINVAL) && !may_have_guards() {
        regions.clear();
        let masks = CategoryMasks { returned: category::FILE, ..masks };
        scanned = pagemap_scan(pagemap.as_fd(), 0, TASK_SIZE, masks, &mut regions);
    }
    if scanned == Err(Errno::ENOTTY) {
        return Err(Failure::new(
            Kind::Unsupported,
            format!("{path}: the kernel cannot list present pages (PAGEMAP_SCAN); Linux 6.7 or later is needed"),
        ));
    }
    scanned.doing(|| format!("{path}: listing present pages"))?;
    Ok(regions)
}

/// What of it belongs to the mappings.
pub(super) fn present(regions: Vec<PageRegion>, segments: &[Segment]) -> Present {
    let mut present = Present::default();
    let mut regions = regions.into_iter().peekable();
    for segment in segments {
        let (start, end) = (segment.start.0, segment.end.0);
        while regions.next_if(|region| region.end <= start).is_some() {}
        while let Some(region) = regions.peek() {
            if region.start >= end {
                break;
            }
            let (from, to) = (region.start.max(start), region.end.min(end));
            if region.categories & category::GUARD != 0 {
                push(&mut present.guards, from, to);
            } else if region.categories & category::FILE == 0 && is_private(segment) {
                push(&mut present.private, from, to);
            }
            if region.end > end {
                break;
            }
            regions.next();
        }
    }
    present
}

/// Whether this kernel has guard pages (since 6.13); only since 6.15 does it also tell where they are.
fn may_have_guards() -> bool {
    let release =
        nix::sys::utsname::uname().map(|uts| uts.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|digits| digits.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(13))
}

fn is_private(segment: &Segment) -> bool {
    use Backing as B;
    !segment.shared && matches!(segment.backing, B::Anonymous | B::HugePages(_) | B::File(_) | B::Unnamed(_))
}

/// Appends a range, joining it to the last where they touch.
fn push(ranges: &mut Vec<(u64, u64)>, start: u64, end: u64) {
    match ranges.last_mut() {
        Some(last) if last.1 == start => last.1 = end,
        _ => ranges.push((start, end)),
    }
}

/// The parts of ascending ranges inside a window.
pub(super) fn clip(ranges: &[(u64, u64)], window: (u64, u64)) -> Vec<(u64, u64)> {
    let first = ranges.partition_point(|range| range.1 <= window.0);
    let inside = ranges[first..].iter().take_while(|range| range.0 < window.1);
    inside.map(|&(start, end)| (start.max(window.0), end.min(window.1))).collect()
}

/// What two lists of ascending ranges have in common.
pub(super) fn intersect(a: &[(u64, u64)], b: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut out = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(&(a_start, a_end)), Some(&(b_start, b_end))) = (a.get(i), b.get(j)) {
        let (start, end) = (a_start.max(b_start), a_end.min(b_end));
        if start < end {
            push(&mut out, start, end);
        }
        if a_end < b_end {
            i += 1;
        } else {
            j += 1;
        }
    }
    out
}

/// The first list without the second.
pub(super) fn subtract(a: &[(u64, u64)], b: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut out = Vec::new();
    let mut j = 0;
    for &(start, end) in a {
        let mut at = start;
        while b.get(j).is_some_and(|hole| hole.1 <= at) {
            j += 1;
        }
        let mut k = j;
        while let Some(&(hole_start, hole_end)) = b.get(k).filter(|hole| hole.0 < end) {
            if hole_start > at {
                push(&mut out, at, hole_start);
            }
            at = at.max(hole_end);
            k += 1;
        }
        if at < end {
            push(&mut out, at, end);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_and_joined() {
        let a = [(0, 4), (6, 10), (12, 13)];
        assert_eq!(clip(&a, (3, 7)), [(3, 4), (6, 7)]);
        assert_eq!(intersect(&a, &[(2, 8), (9, 20)]), [(2, 4), (6, 8), (9, 10), (12, 13)]);
        assert_eq!(subtract(&a, &[(2, 8), (9, 12)]), [(0, 2), (8, 9), (12, 13)]);
        assert_eq!(subtract(&a, &[]), a);
        assert_eq!(subtract(&a, &[(0, 20)]), []);
        assert_eq!(subtract(&[(0, 10)], &[(2, 3), (5, 6)]), [(0, 2), (3, 5), (6, 10)]);
    }

    #[test]
    fn taking_apart_and_joining_gives_the_whole_for_all_small_sets() {
        let sets: Vec<Vec<(u64, u64)>> = (0u32..64)
            .map(|bits| {
                let mut ranges = Vec::new();
                (0..6).filter(|bit| bits >> bit & 1 == 1).for_each(|bit| push(&mut ranges, bit, bit + 1));
                ranges
            })
            .collect();
        let size = |ranges: &[(u64, u64)]| ranges.iter().map(|(start, end)| end - start).sum::<u64>();
        for a in &sets {
            for b in &sets {
                let (both, only) = (intersect(a, b), subtract(a, b));
                assert_eq!(size(&both) + size(&only), size(a), "{a:?} {b:?}");
                assert!(intersect(&only, b).is_empty() && subtract(&both, b).is_empty(), "{a:?} {b:?}");
            }
        }
    }
}
