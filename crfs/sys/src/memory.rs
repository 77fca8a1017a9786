//! The memory of other processes: copies, and which pages are there.
//!
//! Source: process_vm_readv(2), process_madvise(2); `Documentation/admin-guide/mm/pagemap.rst` and `include/uapi/linux/fs.h`, v6.18.

use std::io::{IoSlice, IoSliceMut};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

/// `UIO_MAXIOV`: how many ranges one call takes.
const MAX_RANGES: usize = 1024;

/// A range of addresses in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteRange {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub len: usize,
}

/// The part of `ranges` from byte `done` on, at most [`MAX_RANGES`] of them.
fn rest(ranges: &[RemoteRange], done: usize) -> Result<Vec<RemoteIoVec>> {
    let mut skip = done;
    let mut rest = Vec::new();
    for range in ranges {
        if skip >= range.len {
            skip -= range.len;
            continue;
        }
        let base = usize::try_from(range.start).map_err(|_| Errno::EFAULT)? + skip;
        rest.push(RemoteIoVec { base, len: range.len - skip });
        skip = 0;
        if rest.len() == MAX_RANGES {
            break;
        }
    }
    Ok(rest)
}

/// Fills `buffer` with the contents of the ranges, one after the other; their lengths must add up to its own, else `EINVAL`.
///
/// `EFAULT` for an address that is not mapped or not readable (`PROT_NONE` pages: read /proc/PID/mem instead).
pub fn read_ranges(pid: Pid, ranges: &[RemoteRange], buffer: &mut [u8]) -> Result<()> {
    if ranges.iter().map(|range| range.len).sum::<usize>() != buffer.len() {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    while done < buffer.len() {
        let remote = rest(ranges, done)?;
        match process_vm_readv(pid, &mut [IoSliceMut::new(&mut buffer[done..])], &remote)? {
            // Short counts come first, the reason with the next call.
            0 => return Err(Errno::EFAULT),
            count => done += count,
        }
    }
    Ok(())
}

/// Writes `buffer` over the ranges, one after the other; their lengths must add up to its own, else `EINVAL`.
///
/// `EFAULT` for an address that is not mapped or not writable, also for the tracer.
pub fn write_ranges(pid: Pid, ranges: &[RemoteRange], buffer: &[u8]) -> Result<()> {
    if ranges.iter().map(|range| range.len).sum::<usize>() != buffer.len() {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    while done < buffer.len() {
        let remote = rest(ranges, done)?;
        match process_vm_writev(pid, &[IoSlice::new(&buffer[done..])], &remote)? {
            0 => return Err(Errno::EFAULT),
            count => done += count,
        }
    }
    Ok(())
}

/// [`read_ranges`] for one range.
pub fn read(pid: Pid, start: u64, buffer: &mut [u8]) -> Result<()> {
    read_ranges(pid, &[RemoteRange { start, len: buffer.len() }], buffer)
}

/// [`write_ranges`] for one range.
pub fn write(pid: Pid, start: u64, buffer: &[u8]) -> Result<()> {
    write_ranges(pid, &[RemoteRange { start, len: buffer.len() }], buffer)
}

/// Categories of pages, `PAGE_IS_*`.
pub mod category {
    /// The mapping is registered for asynchronous write protection.
    pub const WPALLOWED: u64 = 1;
    /// Written since it was last write-protected.
    pub const WRITTEN: u64 = 1 << 1;
    /// Backed by a file (or shared memory).
    pub const FILE: u64 = 1 << 2;
    /// In memory.
    pub const PRESENT: u64 = 1 << 3;
    /// In swap.
    pub const SWAPPED: u64 = 1 << 4;
    /// The shared page of zeros.
    pub const PFNZERO: u64 = 1 << 5;
    /// Part of a huge page mapping.
    pub const HUGE: u64 = 1 << 6;
    /// Written since soft-dirty was last cleared.
    pub const SOFT_DIRTY: u64 = 1 << 7;
    /// A guard page of `MADV_GUARD_INSTALL` (6.15 and later).
    pub const GUARD: u64 = 1 << 8;
}

/// Which pages to report: those for which, after flipping the `inverted` bits of their categories, all of `required` and at least
/// one of `any_of` (unless that is 0) are set. Their categories are reported as far as they are in `returned`; neighbours that
/// are the same in these make one region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CategoryMasks {
    /// `category_inverted`
    pub inverted: u64,
    /// `category_mask`
    pub required: u64,
    /// `category_anyof_mask`
    pub any_of: u64,
    /// `return_mask`
    pub returned: u64,
}

/// `struct page_region`: a run of pages of the same categories.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRegion {
    /// Address of the first page.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Their categories.
    pub categories: u64,
}
const _: () = assert!(size_of::<PageRegion>() == 24);

/// `struct pm_scan_arg`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}
const _: () = assert!(size_of::<ScanArg>() == 96);

mod ioctl {
    nix::ioctl_readwrite!(pagemap_scan, b'f', 16, super::ScanArg);
}

/// Appends the matching pages of `start..end` (page aligned) to `regions`, in order. `pagemap` is an open /proc/PID/pagemap.
///
/// Holes are passed over. `ENOTTY` on kernels before 6.7; `EINVAL` for an unknown category.
pub fn pagemap_scan(
    pagemap: BorrowedFd<'_>,
    start: u64,
    end: u64,
    masks: CategoryMasks,
    regions: &mut Vec<PageRegion>,
) -> Result<()> {
    scan(pagemap, start, end, masks, 0, regions)
}

/// [`pagemap_scan`] that also write-protects what it reports again (`PM_SCAN_WP_MATCHING`), in one step with the report. The
/// mappings must be registered with a userfaultfd for asynchronous write protection, or it is `EPERM`.
pub fn pagemap_scan_and_protect(
    pagemap: BorrowedFd<'_>,
    start: u64,
    end: u64,
    masks: CategoryMasks,
    regions: &mut Vec<PageRegion>,
) -> Result<()> {
    scan(pagemap, start, end, masks, 1 | 2, regions)
}

fn scan(
    pagemap: BorrowedFd<'_>,
    start: u64,
    end: u64,
    masks: CategoryMasks,
    flags: u64,
    regions: &mut Vec<PageRegion>,
) -> Result<()> {
    let mut chunk = [PageRegion::default(); 512];
    let mut at = start;
    while at < end {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            flags,
            start: at,
            end,
            vec: chunk.as_mut_ptr().expose_provenance() as u64,
            vec_len: chunk.len() as u64,
            category_inverted: masks.inverted,
            category_mask: masks.required,
            category_anyof_mask: masks.any_of,
            return_mask: masks.returned,
            ..ScanArg::default()
        };
        // SAFETY: `arg.size` is its size, and `vec` has room for `vec_len` regions.
        let count = unsafe { ioctl::pagemap_scan(pagemap.as_raw_fd(), &raw mut arg) }?;
        let count = usize::try_from(count).map_err(|_| Errno::EOVERFLOW)?;
        for region in &chunk[..count] {
            match regions.last_mut() {
                // A run that was cut where the vector was full.
                Some(last) if last.end == region.start && last.categories == region.categories => last.end = region.end,
                _ => regions.push(*region),
            }
        }
        if arg.walk_end <= at {
            break;
        }
        at = arg.walk_end;
    }
    Ok(())
}
