//! Making an address space again: the calls, and the contents.

use super::fill::PageFiles;
use crate::failure::{Doing, Failure, Kind};
use crate::plan::{MemoryPlan, Plan};
use crate::resource::unnamed::Made;
use crate::resource::{aio, io_uring};
use crfs_tracee::{Arg, Batch, HostPid};
use image_format::files::FileKind;
use image_format::io_uring::MappedRing;
use image_format::memory::{Backing, MappedFile, Segment, SegmentFlags, Source, SysvShm};
use image_format::process::MemoryLayout;
use image_format::types::PAGE_SIZE;
use image_format::{Bytes, FileId, Image, ProcessImage, Timespec, layout};
use libc::{
    MADV_DODUMP, MADV_DONTDUMP, MADV_DONTFORK, MADV_DONTNEED, MADV_HUGEPAGE, MADV_MERGEABLE, MADV_NOHUGEPAGE,
    MADV_NORMAL, MADV_POPULATE_WRITE, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WIPEONFORK, MAP_ANONYMOUS, MAP_DROPPABLE,
    MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, PROT_WRITE,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// `arch_prctl(ARCH_MAP_VDSO_64)` (arch/x86/include/uapi/asm/prctl.h, v6.18).
const ARCH_MAP_VDSO_64: u64 = 0x2003;
const PR_SET_MM: u64 = 35;
const PR_SET_MM_MAP: u64 = 14;
/// Makes pages guards (include/uapi/asm-generic/mman-common.h, v6.18).
const MADV_GUARD_INSTALL: i32 = 102;
/// The user address space ends one page below 2^47 (TASK_SIZE_MAX).
const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// Whatever the image maps that is not private memory: opened or made once, by the worker, which every process pulls its
/// descriptors from.
#[derive(Debug, Default)]
pub struct Backings {
    files: BTreeMap<(Bytes, bool), OwnedFd>,
    objects: BTreeMap<u32, File>,
    unnamed: BTreeMap<(u32, bool), OwnedFd>,
    /// Rings of io_uring.
    rings: BTreeMap<u32, OwnedFd>,
    /// The numbers of files without a name that consist of huge pages.
    huge: BTreeSet<u32>,
}

impl Backings {
    /// Opens every mapped file and executable below the container's root, and makes every shared anonymous object.
    ///
    /// # Errors
    /// [`Kind::Incompatible`] with every file that is gone or is not what it was.
    pub fn open(image: &Image, plan: &Plan, root: BorrowedFd<'_>, unnamed: &Made) -> Result<Self, Failure> {
        let huge = image.unnamed.iter().filter(|file| file.origin.huge_page_size().is_some());
        let mut backings = Backings { huge: huge.map(|file| file.number).collect(), ..Backings::default() };
        let mut differences = BTreeSet::new();
        for (&pid, process) in &image.processes {
            backings.open_file(root, &process.process.exe, false).map(drop).unwrap_or_else(|reason| {
                differences.insert(format!("{}: {reason}", layout::process_file(pid, "process")));
            });
            for segment in &process.segments {
                if let Backing::Unnamed(file) = &segment.backing {
                    let access = if file.writable { libc::O_RDWR } else { libc::O_RDONLY };
                    let opened = unnamed.open(file.file, access)?;
                    backings.unnamed.entry((file.file, file.writable)).or_insert(opened);
                }
                if let Backing::File(file) = &segment.backing {
                    let checked =
                        backings.open_file(root, &file.path, file.writable).and_then(|fd| unchanged(fd, file));
                    checked.unwrap_or_else(|reason| {
                        differences.insert(format!(
                            "{}: {}: {reason}",
                            layout::process_file(pid, "mem.segments"),
                            segment.start
                        ));
                    });
                }
            }
        }
        if !differences.is_empty() {
            return Err(Failure { kind: Kind::Incompatible, chain: vec![Vec::from_iter(differences).join("; ")] });
        }
        for (&number, object) in &plan.objects {
            let made = crfs_sys::shared_memory::create(object.size);
            backings
                .objects
                .insert(number, made.doing(|| format!("shared memory {number}: making {} bytes", object.size))?);
        }
        Ok(backings)
    }

    fn open_file(&mut self, root: BorrowedFd<'_>, path: &Bytes, writable: bool) -> Result<&OwnedFd, String> {
        use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
        use std::collections::btree_map::Entry;
        match self.files.entry((path.clone(), writable)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
                // O_NONBLOCK: what stands there now may be a fifo.
                let how = OpenHow::new()
                    .flags(access | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
                    .resolve(ResolveFlag::RESOLVE_IN_ROOT);
                let opened = openat2(root, path.0.as_slice(), how);
                opened
                    .map(|fd| &*entry.insert(fd))
                    .map_err(|errno| format!("{path}: cannot be opened: {}", errno.desc()))
            }
        }
    }

    fn file(&self, path: &Bytes, writable: bool) -> Result<u64, Failure> {
        let fd = self.files.get(&(path.clone(), writable)).map(AsRawFd::as_raw_fd);
        fd.and_then(|fd| u64::try_from(fd).ok())
            .ok_or_else(|| Failure::new(Kind::System, format!("{path}: was not opened")))
    }

    fn unnamed(&self, number: u32, writable: bool) -> Result<u64, Failure> {
        let fd = self.unnamed.get(&(number, writable)).map(AsRawFd::as_raw_fd);
        fd.and_then(|fd| u64::try_from(fd).ok())
            .ok_or_else(|| Failure::new(Kind::System, format!("{}: was not opened", layout::unnamed_data(number))))
    }

    /// Takes the rings of io_uring, once they were made as descriptors.
    ///
    /// # Errors
    /// When the system refuses to duplicate one.
    pub fn add_rings(&mut self, image: &Image, open: &BTreeMap<FileId, OwnedFd>) -> Result<(), Failure> {
        for (id, file) in &image.files {
            if let (FileKind::IoUring(record), Some(fd)) = (&file.kind, open.get(id)) {
                let ring = fd.try_clone().doing(|| format!("{}: duplicating it", layout::file_entry(*id)))?;
                self.rings.insert(record.ring, ring);
            }
        }
        Ok(())
    }

    /// The mappings of rings that a process does not inherit.
    ///
    /// # Errors
    /// When a ring was not made, which is a mistake of the caller.
    pub fn rings<'a>(
        &self,
        process: &'a ProcessImage,
        plan: &MemoryPlan,
    ) -> Result<Vec<io_uring::map::Place<'a>>, Failure> {
        let segments = plan.map.iter().filter_map(|&index| process.segments.get(index));
        let rings = segments.filter_map(|segment| match &segment.backing {
            Backing::IoUring(mapped) => Some((segment, mapped)),
            _ => None,
        });
        let place = |(segment, mapped): (&'a Segment, &'a MappedRing)| {
            let fd = self.rings.get(&mapped.ring).map(AsRawFd::as_raw_fd).and_then(|fd| u64::try_from(fd).ok());
            let missing = || Failure::new(Kind::System, format!("ring {} of io_uring: was not made", mapped.ring));
            Ok(io_uring::map::Place { segment, mapped, worker_fd: fd.ok_or_else(missing)? })
        };
        rings.map(place).collect()
    }

    /// Whether a mapping takes pages from a pool of huge ones.
    fn is_huge(&self, segment: &Segment) -> bool {
        match &segment.backing {
            Backing::HugePages(_) => true,
            Backing::Unnamed(file) => self.huge.contains(&file.file),
            _ => false,
        }
    }

    fn object(&self, number: u32) -> Result<u64, Failure> {
        let fd = self.objects.get(&number).map(AsRawFd::as_raw_fd);
        fd.and_then(|fd| u64::try_from(fd).ok())
            .ok_or_else(|| Failure::new(Kind::System, format!("shared memory {number}: was not made")))
    }

    /// Writes the contents of the shared anonymous objects.
    ///
    /// # Errors
    /// Of writing, or when checksums do not fit.
    pub fn fill_objects(&self, plan: &Plan, pages: &mut PageFiles<'_>) -> Result<(), Failure> {
        for (number, object) in &plan.objects {
            let Some(file) = self.objects.get(number) else { continue };
            for fill in &object.fill {
                pages.each_part(fill, |at, bytes| {
                    let written = file.write_all_at(bytes, at);
                    written.doing(|| format!("shared memory {number}: writing its contents"))
                })?;
            }
        }
        Ok(())
    }
}

fn unchanged(fd: &OwnedFd, file: &MappedFile) -> Result<(), String> {
    let stat = nix::sys::stat::fstat(fd).map_err(|errno| format!("{}: fstat: {}", file.path, errno.desc()))?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let modified = Timespec { sec: stat.st_mtime, nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    if file.writable {
        // Written through the mapping itself: its time moves with every write, and only a cut takes pages away.
        return (size >= file.size)
            .then_some(())
            .ok_or_else(|| format!("{}: had {} bytes, has {size}", file.path, file.size));
    }
    if size != file.size {
        return Err(format!("{}: had {} bytes, has {size}; put the same file back", file.path, file.size));
    }
    if modified != file.modified {
        let (was, is) = (file.modified, modified);
        return Err(format!(
            "{}: was modified at {}.{:09}, now {}.{:09}; put the same file back with its time",
            file.path, was.sec, was.nsec, is.sec, is.nsec
        ));
    }
    Ok(())
}

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
            Backing::SysvShm(piece) => attach(batch, segment, piece),
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
