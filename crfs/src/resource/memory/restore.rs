//! Making an address space again: the calls, and the contents.

use super::opened::Backings;
use crate::failure::{Doing, Failure, Kind};
use crate::plan::MemoryPlan;
use crate::resource::aio;
use crate::resource::unshared::IpcNamespaces;
use crfs_tracee::{Arg, Batch, HostPid};
use image_format::memory::{Backing, Segment, SegmentFlags, Source, SysvShm};
use image_format::process::MemoryLayout;
use image_format::types::PAGE_SIZE;
use image_format::{ProcessImage, layout};
use libc::{
    MADV_DODUMP, MADV_DONTDUMP, MADV_DONTFORK, MADV_DONTNEED, MADV_HUGEPAGE, MADV_MERGEABLE, MADV_NOHUGEPAGE,
    MADV_NORMAL, MADV_POPULATE_WRITE, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WIPEONFORK, MAP_ANONYMOUS, MAP_DROPPABLE,
    MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, PROT_WRITE,
};
use std::collections::BTreeMap;

/// `arch_prctl(ARCH_MAP_VDSO_64)` (arch/x86/include/uapi/asm/prctl.h, v6.18).
const ARCH_MAP_VDSO_64: u64 = 0x2003;
const PR_SET_MM: u64 = 35;
const PR_SET_MM_MAP: u64 = 14;
/// Makes pages guards (include/uapi/asm-generic/mman-common.h, v6.18).
const MADV_GUARD_INSTALL: i32 = 102;
/// The user address space ends one page below 2^47 (TASK_SIZE_MAX).
const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// Unmaps everything a stub has but the scratch. The page at vsyscall stays, as in every process.
pub fn empty(batch: &mut Batch, scratch: (u64, u64)) {
    unmap(batch, 0, scratch.0);
    unmap(batch, scratch.1, TASK_SIZE);
}

fn unmap(batch: &mut Batch, start: u64, end: u64) {
    batch.call(libc::SYS_munmap, &[start.into(), (end - start).into()], "munmap");
}

/// The calls that turn what a process was born with into its own mappings, without contents.
///
/// # Errors
/// When a backing was not opened, which is a mistake of the caller.
pub fn map(
    batch: &mut Batch,
    process: &ProcessImage,
    plan: &MemoryPlan,
    link: u32,
    backings: &Backings,
    ipc: &IpcNamespaces<'_>,
    vdso_size: u64,
) -> Result<(), Failure> {
    for &(start, end) in &plan.unmap {
        unmap(batch, start, end);
    }
    // Now: the old executable must be unmapped, and the new one must not yet be mapped if it is the same file.
    let exe = plan.new_exe.then(|| backings.file(&process.process.exe, false)).transpose()?;
    layout_call(batch, &process.process.layout, exe, link);
    let mut pulled: BTreeMap<u64, Arg> = BTreeMap::new();
    for segment in plan.map.iter().filter_map(|&index| process.segments.get(index)) {
        let source = match &segment.backing {
            Backing::File(file) => Some(backings.file(&file.path, file.writable)?),
            Backing::Unnamed(file) => Some(backings.unnamed(file.file, file.writable)?),
            Backing::SharedAnonymous(shared) => Some(backings.object(shared.object)?),
            _ => None,
        };
        let fd = source.map(|worker_fd| *pulled.entry(worker_fd).or_insert_with(|| pull(batch, link, worker_fd)));
        match &segment.backing {
            Backing::SysvShm(piece) => {
                let whose = (process.process.pid, piece.segment);
                ipc.attach(batch, whose, link, |batch| attach(batch, segment, piece));
            }
            Backing::AioRing => {
                aio::restore::map(batch, segment);
                advise_early(batch, segment);
            }
            Backing::IoUring(_) => {}
            _ => map_segment(batch, segment, fd, backings.is_huge(segment)),
        }
        if segment.backing == Backing::Vvar && !process.segments.iter().any(|other| other.backing == Backing::Vdso) {
            // The code lies behind its data. valgrind unmaps it and leaves those.
            let data = process.segments.iter().filter(|s| matches!(s.backing, Backing::Vvar | Backing::VvarVclock));
            let end = data.map(|segment| segment.end.0).max().unwrap_or(segment.end.0);
            unmap(batch, end, end + vdso_size);
        }
    }
    for fd in pulled.into_values() {
        close(batch, fd);
    }
    for segment in plan.advise.iter().filter_map(|&index| process.segments.get(index)) {
        advise(batch, segment, MADV_NORMAL);
        // What the kernel may drop is never dumped, and saying otherwise is EINVAL.
        if !segment.flags.contains(SegmentFlags::dontdump) {
            advise(batch, segment, MADV_DODUMP);
        }
        advise_early(batch, segment);
    }
    for segment in plan.protect.iter().filter_map(|&index| process.segments.get(index)) {
        protect(batch, segment);
    }
    register_barriers(batch);
    for &(start, end) in &plan.drop {
        batch.call(
            libc::SYS_madvise,
            &[start.into(), (end - start).into(), MADV_DONTNEED.into()],
            "madvise(MADV_DONTNEED)",
        );
    }
    Ok(())
}

/// Lets the process use membarrier(2) in every way. Which ways it asked for nobody outside can tell; a program that did and is
/// refused later has lost its memory ordering, and one that did not never notices.
fn register_barriers(batch: &mut Batch) {
    /// `MEMBARRIER_CMD_REGISTER_` `GLOBAL_EXPEDITED`, `PRIVATE_EXPEDITED`, `PRIVATE_EXPEDITED_SYNC_CORE`, `PRIVATE_EXPEDITED_RSEQ`
    /// (include/uapi/linux/membarrier.h, v6.18). A kernel without one of them has no program that relies on it.
    const REGISTER: [u64; 4] = [1 << 2, 1 << 4, 1 << 6, 1 << 8];
    for command in REGISTER {
        batch.attempt(libc::SYS_membarrier, &[command.into(), 0u64.into(), 0u64.into()], "membarrier");
    }
}

/// Duplicates a descriptor of the worker into the process.
fn pull(batch: &mut Batch, link: u32, worker_fd: u64) -> Arg {
    Arg::Result(batch.call(
        libc::SYS_pidfd_getfd,
        &[u64::from(link).into(), worker_fd.into(), 0u64.into()],
        "pidfd_getfd",
    ))
}

fn close(batch: &mut Batch, fd: Arg) {
    batch.call(libc::SYS_close, &[fd], "close");
}

/// Attaches a System V segment, whole, where its first piece lies. Every piece then gets the protection and advice of its own.
fn attach(batch: &mut Batch, segment: &Segment, piece: &SysvShm) {
    if piece.offset == 0 {
        let flags = if piece.writable { 0 } else { libc::SHM_RDONLY };
        batch.call(libc::SYS_shmat, &[piece.segment.into(), segment.start.0.into(), flags.into()], "shmat");
    }
    protect(batch, segment);
    advise_early(batch, segment);
}

fn map_segment(batch: &mut Batch, segment: &Segment, fd: Option<Arg>, huge: bool) {
    let (start, length) = (segment.start.0, segment.end.0 - segment.start.0);
    let offset = match &segment.backing {
        Backing::Vsyscall | Backing::Vdso | Backing::VvarVclock | Backing::SysvShm(_) => return,
        // The latter by a batch of their own.
        Backing::AioRing | Backing::IoUring(_) => return,
        Backing::Vvar => {
            // Maps all three parts, the lowest of which is this one.
            let args = [ARCH_MAP_VDSO_64.into(), start.into()];
            batch.call(libc::SYS_arch_prctl, &args, "arch_prctl(ARCH_MAP_VDSO_64)");
            return;
        }
        Backing::File(file) => file.offset,
        Backing::Unnamed(file) => file.offset,
        Backing::SharedAnonymous(shared) => shared.offset,
        Backing::Anonymous | Backing::HugePages(_) => 0,
    };
    let has = |flag: SegmentFlags| segment.flags.contains(flag);
    let mut flags = MAP_FIXED_NOREPLACE;
    flags |= match segment.shared {
        true => MAP_SHARED,
        false if has(SegmentFlags::droppable) => MAP_DROPPABLE,
        false => MAP_PRIVATE,
    };
    for (flag, wanted) in [
        (MAP_ANONYMOUS, fd.is_none()),
        (MAP_GROWSDOWN, has(SegmentFlags::growsdown)),
        (MAP_NORESERVE, has(SegmentFlags::noreserve)),
    ] {
        flags |= if wanted { flag } else { 0 };
    }
    if let Backing::HugePages(pages) = &segment.backing {
        let exponent = i32::try_from(pages.page_size.trailing_zeros()).unwrap_or(0);
        flags |= libc::MAP_HUGETLB | exponent << libc::MAP_HUGE_SHIFT;
    }
    // A private mapping counts against the commit limit from when it is first writable, and that shows in its flags for good once
    // it has had pages: it is protected after it was filled.
    let first = if protected_late(segment) {
        segment.protection.0 | u64::from(PROT_WRITE.cast_unsigned())
    } else {
        segment.protection.0
    };
    let fd = fd.unwrap_or(Arg::Value(u64::MAX));
    let label = if huge { "mmap of huge pages, of which nr_hugepages must leave enough" } else { "mmap" };
    batch.call(libc::SYS_mmap, &[start.into(), length.into(), first.into(), flags.into(), fd, offset.into()], label);
    advise_early(batch, segment);
}

/// Advice that children may inherit.
pub fn advise_early(batch: &mut Batch, segment: &Segment) {
    for (flag, advice) in [
        (SegmentFlags::nohugepage, MADV_NOHUGEPAGE),
        (SegmentFlags::hugepage, MADV_HUGEPAGE),
        (SegmentFlags::sequential, MADV_SEQUENTIAL),
        (SegmentFlags::random, MADV_RANDOM),
        (SegmentFlags::dontdump, MADV_DONTDUMP),
    ] {
        if segment.flags.contains(flag) {
            advise(batch, segment, advice);
        }
    }
}

/// Mapped writable to be filled. Nobody writes into huge pages that their process may not write (`check_vma_flags` in `mm/gup.c`, v6.18).
fn protected_late(segment: &Segment) -> bool {
    accounted_by_writing(segment) || matches!(segment.backing, Backing::HugePages(_)) && !is_writable(segment)
}

fn accounted_by_writing(segment: &Segment) -> bool {
    !segment.shared && segment.flags.contains(SegmentFlags::accounted) && !is_writable(segment)
}

fn is_writable(segment: &Segment) -> bool {
    segment.protection.0 & u64::from(PROT_WRITE.cast_unsigned()) != 0
}

/// The calls that protect what was mapped writable to be filled. Anonymous memory that never had a page would lose its accounting
/// by that (`mprotect_fixup` in `mm/mprotect.c`, v6.18), so that one gets a page for a moment.
pub fn protect_filled(batch: &mut Batch, process: &ProcessImage, plan: &MemoryPlan) {
    let mapped = plan.map.iter().filter_map(|&index| process.segments.get(index));
    for segment in mapped.filter(|segment| protected_late(segment)) {
        if segment.backing == Backing::Anonymous && segment.pages.iter().all(|range| range.source == Source::Guard) {
            for advice in [MADV_POPULATE_WRITE, MADV_DONTNEED] {
                let args = [segment.start.0.into(), PAGE_SIZE.into(), advice.into()];
                batch.call(libc::SYS_madvise, &args, "madvise");
            }
        }
        protect(batch, segment);
    }
}

fn protect(batch: &mut Batch, segment: &Segment) {
    let length = segment.end.0 - segment.start.0;
    batch.call(libc::SYS_mprotect, &[segment.start.0.into(), length.into(), segment.protection.0.into()], "mprotect");
}

fn advise(batch: &mut Batch, segment: &Segment, advice: i32) {
    let length = segment.end.0 - segment.start.0;
    batch.call(libc::SYS_madvise, &[segment.start.0.into(), length.into(), advice.into()], "madvise");
}

/// What would keep children from inheriting, and what must come after the contents; then seals, after which a mapping stays as it is.
pub fn advise_late(batch: &mut Batch, process: &ProcessImage) {
    for segment in &process.segments {
        let guards = segment.pages.iter().filter(|range| range.source == Source::Guard);
        for guard in guards.clone() {
            let args = [guard.start.0.into(), (guard.end() - guard.start.0).into(), MADV_GUARD_INSTALL.into()];
            batch.call(libc::SYS_madvise, &args, "madvise(MADV_GUARD_INSTALL)");
        }
        for (flag, advice) in [
            (SegmentFlags::dontfork, MADV_DONTFORK),
            (SegmentFlags::wipeonfork, MADV_WIPEONFORK),
            (SegmentFlags::mergeable, MADV_MERGEABLE),
        ] {
            if segment.flags.contains(flag) {
                advise(batch, segment, advice);
            }
        }
        if segment.flags.contains(SegmentFlags::locked) {
            let length = segment.end.0 - segment.start.0;
            let flags = if segment.flags.contains(SegmentFlags::onfault) { libc::MLOCK_ONFAULT } else { 0 };
            let args = [segment.start.0.into(), length.into(), flags.into()];
            if segment.protection.0 == 0 || guards.count() > 0 {
                // It is locked nevertheless; ENOMEM is for the pages, which nobody may touch and which are not made present.
                batch.attempt(libc::SYS_mlock2, &args, "mlock2");
            } else {
                batch.call(libc::SYS_mlock2, &args, "mlock2");
            }
        }
        if segment.flags.contains(SegmentFlags::sealed) {
            let length = segment.end.0 - segment.start.0;
            batch.call(libc::SYS_mseal, &[segment.start.0.into(), length.into(), 0u64.into()], "mseal");
        }
    }
}

/// One PR_SET_MM_MAP with everything (`struct prctl_mm_map`, 104 bytes); without `exe` the executable stays what it is.
fn layout_call(batch: &mut Batch, layout: &MemoryLayout, exe: Option<u64>, link: u32) {
    // The record holds the descriptor's number, so it must be known beforehand: the one above the link is free.
    let exe_fd = link + 1;
    let mut map = Vec::with_capacity(104);
    for address in [
        layout.start_code,
        layout.end_code,
        layout.start_data,
        layout.end_data,
        layout.start_brk,
        layout.brk,
        layout.start_stack,
        layout.arg_start,
        layout.arg_end,
        layout.env_start,
        layout.env_end,
    ] {
        map.extend_from_slice(&address.0.to_ne_bytes());
    }
    let auxv = batch.data(&layout.auxv.0);
    map.extend_from_slice(&0u64.to_ne_bytes());
    map.extend_from_slice(&u32::try_from(layout.auxv.0.len()).unwrap_or(u32::MAX).to_ne_bytes());
    map.extend_from_slice(&exe.map_or(u32::MAX, |_| exe_fd).to_ne_bytes());
    let record = batch.data(&map);
    batch.point(record.from(88), auxv);
    if let Some(exe) = exe {
        let pulled = pull(batch, link, exe);
        batch.call(libc::SYS_dup3, &[pulled, exe_fd.into(), 0u64.into()], "dup3 the executable");
        close(batch, pulled);
    }
    let args = [PR_SET_MM.into(), PR_SET_MM_MAP.into(), record.into(), 104u64.into(), 0u64.into()];
    batch.call(libc::SYS_prctl, &args, "prctl(PR_SET_MM_MAP)");
    if exe.is_some() {
        close(batch, exe_fd.into());
    }
}

/// Compares what the kernel maps now with what the image wants: a vDSO that landed elsewhere, or a mapping of another size, is
/// found before anything runs.
///
/// # Errors
/// [`Kind::System`] naming the first difference.
pub fn verify(host_pid: HostPid, process: &ProcessImage) -> Result<(), Failure> {
    let path = format!("/proc/{}/maps", host_pid.raw());
    let maps = std::fs::read_to_string(&path).doing(|| format!("{path}: reading"))?;
    let range = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    };
    // The kernel merges neighbours that are alike, so compare what is covered, not where it is cut.
    let merge = |ranges: &mut dyn Iterator<Item = (u64, u64)>| {
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => merged.push((start, end)),
            }
        }
        merged
    };
    let vsyscall = 0xffff_ffff_ff60_0000;
    let is = merge(&mut maps.lines().filter_map(range).filter(|r| r.0 != vsyscall));
    let wanted = process.segments.iter().filter(|s| s.backing != Backing::Vsyscall).map(|s| (s.start.0, s.end.0));
    let wanted = merge(&mut wanted.into_iter());
    if is == wanted {
        return Ok(());
    }
    let difference = wanted.iter().find(|r| !is.contains(r)).or_else(|| is.iter().find(|r| !wanted.contains(r)));
    match difference {
        None => Ok(()),
        Some((start, end)) => {
            let dir = layout::process_file(process.process.pid, "mem.segments");
            let pages = (end - start) / PAGE_SIZE;
            Err(Failure::new(
                Kind::System,
                format!("{dir}: {start:#x}-{end:#x} ({pages} pages) is not mapped as the image has it"),
            ))
        }
    }
}
