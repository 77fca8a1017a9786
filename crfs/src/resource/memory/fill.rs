//! Page contents on their way into processes that are being made: compared with their checksums, and written from outside by several
//! threads.

use super::aside::{Aside, HUGE, HugePagesFor, Supply, processor_time};
use super::userfault::Userfault;
use crate::copy::Copy;
use crate::failure::{Doing, Failure, Kind};
use crate::plan::MemoryPlan;
use crate::plan::memory::Fill;
use crate::transport::CompressedFile;
use crfs_sys::memory;
use crfs_tracee::{Batch, HostPid, Injector};
use image_format::memory::{Backing, CHUNK_SIZE, ChunkSum, Segment, checksum};
use image_format::{Pid, ProcessImage, layout, parallel};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[allow(clippy::cast_possible_truncation)] // 1 MiB
const CHUNK: usize = CHUNK_SIZE as usize;
/// The most that a thread takes on at a time.
const LARGEST_PIECE: u64 = 64 << 20;
/// Less is written sooner than anything is prepared for it.
const WORTH_PREPARING: u64 = 512 << 10;
/// As sched_setaffinity(2) names the thread that calls.
const CALLER: nix::unistd::Pid = nix::unistd::Pid::from_raw(0);
/// A thread more is not worth starting for less.
const SMALLEST_SHARE: u64 = 4 << 20;

/// The `mem.pages` of every process, with their checksums.
#[derive(Debug)]
pub struct PageFiles<'a> {
    directory: &'a Path,
    sums: &'a BTreeMap<Pid, Vec<ChunkSum>>,
    compressed: &'a BTreeMap<String, CompressedFile>,
    open: BTreeMap<Pid, Checked<'a>>,
    supply: Supply,
}

#[derive(Debug)]
enum Contents<'a> {
    Plain { file: File, size: u64 },
    Compressed(&'a CompressedFile),
}

#[derive(Debug)]
struct Checked<'a> {
    from: Pid,
    contents: Contents<'a>,
    sums: &'a [ChunkSum],
    /// Whether somebody compares a chunk with its checksum, or has.
    done: Vec<AtomicBool>,
}

/// A chunk, or a part of one, as a thread has read it last. Read and not mapped: what is copied into memory that the processor has at
/// hand is compared and written from there; a mapping's pages take as long to map as to copy.
#[derive(Debug, Default)]
struct AtHand {
    /// What all of which lies in the buffer.
    chunk: Option<(Pid, usize)>,
    buffer: Vec<u8>,
}

impl<'a> PageFiles<'a> {
    /// Those of the image in a directory, opened as they are needed.
    #[must_use]
    pub fn new(directory: &'a Path, copy: &'a Copy) -> Self {
        PageFiles {
            directory,
            sums: &copy.sums,
            compressed: &copy.compressed,
            open: BTreeMap::new(),
            supply: Supply::default(),
        }
    }

    fn open(&mut self, from: Pid) -> Result<&Checked<'a>, Failure> {
        use std::collections::btree_map::Entry;
        match self.open.entry(from) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let path = layout::process_file(from, layout::MEM_PAGES);
                let contents = match self.compressed.get(&path) {
                    Some(pages) => Contents::Compressed(pages),
                    None => {
                        let file = File::open(self.directory.join(&path)).doing(|| format!("{path}: opening"))?;
                        let size = file.metadata().doing(|| format!("{path}: asking for its size"))?.len();
                        Contents::Plain { file, size }
                    }
                };
                let chunks = contents.size().div_ceil(CHUNK_SIZE);
                let done = (0..chunks).map(|_| AtomicBool::new(false)).collect();
                let sums = self.sums.get(&from).map_or(&[][..], Vec::as_slice);
                Ok(entry.insert(Checked { from, contents, sums, done }))
            }
        }
    }

    /// Hands on the bytes of a fill, compared with their checksums, in parts that begin at these addresses.
    ///
    /// # Errors
    /// [`Kind::BadImage`] naming the chunk that is not what was captured; and of `write`.
    pub(super) fn each_part(
        &mut self,
        fill: &Fill,
        mut write: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let contents = self.open(fill.from)?;
        let mut at_hand = AtHand::default();
        in_chunks(*fill).try_for_each(|part| write(part.address, contents.bytes(&part, &mut at_hand)?))
    }
}

impl Contents<'_> {
    fn size(&self) -> u64 {
        match self {
            Contents::Plain { size, .. } => *size,
            Contents::Compressed(pages) => pages.size(),
        }
    }
}

impl Checked<'_> {
    /// The bytes of a part of one chunk, which is compared with its checksum by whoever asks first. Of two that ask for parts of a
    /// chunk at once only one hears that it is wrong.
    fn bytes<'b>(&self, part: &Fill, at_hand: &'b mut AtHand) -> Result<&'b [u8], Failure> {
        let short = || Failure::new(Kind::BadImage, format!("{}: shorter than mem.segments says", self.path()));
        let size = self.contents.size();
        if part.offset.checked_add(part.length).is_none_or(|end| end > size) {
            return Err(short());
        }
        // Of numbers up to that of a chunk's bytes, which is a usize.
        let length = |bytes: u64| usize::try_from(bytes).unwrap_or(CHUNK);
        let chunk = usize::try_from(part.offset / CHUNK_SIZE).map_err(|_| short())?;
        let mut wanted = length(part.offset % CHUNK_SIZE)..length(part.offset % CHUNK_SIZE + part.length);
        let AtHand { chunk: there, buffer } = at_hand;
        if *there != Some((self.from, chunk)) {
            *there = None;
            buffer.resize(CHUNK, 0);
            if self.done.get(chunk).is_none_or(|done| !done.swap(true, Ordering::Relaxed)) {
                let start = part.offset - part.offset % CHUNK_SIZE;
                let whole = &mut buffer[..length(size - start).min(CHUNK)];
                self.read_at(start, whole)?;
                self.compare(chunk, whole)?;
                *there = Some((self.from, chunk));
            } else {
                wanted = 0..wanted.len();
                self.read_at(part.offset, &mut buffer[wanted.clone()])?;
            }
        }
        buffer.get(wanted).ok_or_else(short)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        match &self.contents {
            Contents::Plain { file, .. } => {
                file.read_exact_at(buffer, offset).doing(|| format!("{}: reading at {offset:#x}", self.path()))
            }
            Contents::Compressed(pages) => pages.read_at(offset, buffer),
        }
    }

    fn path(&self) -> String {
        layout::process_file(self.from, layout::MEM_PAGES)
    }

    fn compare(&self, chunk: usize, content: &[u8]) -> Result<(), Failure> {
        if self.sums.get(chunk).map(|sum| sum.xxh3.0) == Some(checksum(content)) {
            return Ok(());
        }
        let path = self.path();
        let sums = layout::process_file(self.from, layout::MEM_SUMS);
        let why =
            format!("{path}: chunk {chunk} (1 MiB) does not have the checksum that line {} of {sums} names", chunk + 1);
        Err(Failure::new(Kind::BadImage, format!("{why}; take the copy again")))
    }
}

/// A process whose mappings are there, and wait for their contents.
#[derive(Debug)]
pub struct Unfilled<'a> {
    host_pid: HostPid,
    image: &'a ProcessImage,
    fill: Cow<'a, [Fill]>,
    userfault: Option<Userfault>,
    aside: Option<Aside>,
}

impl<'a> Unfilled<'a> {
    /// Prepares a process that this injector is in. Where all get huge pages anyway, nothing is better than writing.
    ///
    /// # Errors
    /// Of the injected calls.
    pub fn new(
        injector: &mut Injector,
        image: &'a ProcessImage,
        plan: &'a MemoryPlan,
        huge_pages: HugePagesFor,
    ) -> Result<Self, Failure> {
        let mut unfilled =
            Unfilled { host_pid: injector.tid(), image, fill: (&plan.fill).into(), userfault: None, aside: None };
        let bytes: u64 = plan.fill.iter().map(|fill| fill.length).sum();
        if huge_pages != HugePagesFor::All && bytes >= WORTH_PREPARING {
            unfilled.userfault = Userfault::open(injector, image, plan)?;
        }
        if huge_pages == HugePagesFor::WhoAsks && unfilled.userfault.as_ref().is_some_and(|userfault| userfault.moves) {
            unfilled.aside = Aside::open(injector, image, &unfilled.fill)?;
        }
        Ok(unfilled)
    }

    /// Once everything is written: puts in its place what was not written there. Returns the process again if something is still to
    /// be written.
    ///
    /// # Errors
    /// Of the injected calls.
    pub fn finish(mut self, injector: &mut Injector) -> Result<Option<Self>, Failure> {
        let Some(userfault) = self.userfault.take() else { return Ok(None) };
        let left = match self.aside.take() {
            Some(aside) => aside.put_in_place(injector, self.image, &self.fill, &userfault)?,
            None => Vec::new(),
        };
        let mut batch = Batch::new();
        userfault.close(&mut batch);
        injector.run(&batch).doing(|| layout::process_dir(self.image.process.pid))?;
        Ok((!left.is_empty()).then_some(Unfilled { fill: left.into(), ..self }))
    }

    /// In parts of which each is written to one place.
    fn parts(&self) -> impl Iterator<Item = Fill> {
        self.fill.iter().flat_map(|fill| match &self.aside {
            Some(aside) => aside.cut(*fill),
            None => vec![*fill],
        })
    }
}

/// Writes the page contents of processes from outside, on these CPUs (one bit each).
///
/// # Errors
/// Of writing, or of the checksums.
pub fn fill(processes: &[Unfilled<'_>], pages: &mut PageFiles<'_>, cpus: &[u64]) -> Result<(), Failure> {
    for fill in processes.iter().flat_map(|process| process.fill.iter()) {
        pages.open(fill.from)?;
    }
    let targets = processes.iter().map(|process| Target::open(process, pages));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let bytes: u64 = processes.iter().flat_map(|process| process.fill.iter()).map(|fill| fill.length).sum();
    let cpus_there: u32 = cpus.iter().map(|word| word.count_ones()).sum();
    let threads = (bytes / SMALLEST_SHARE).clamp(1, cpus_there.max(1).into());
    let largest = (bytes / threads / HUGE * HUGE).clamp(HUGE, LARGEST_PIECE);
    let parts = targets.iter().flat_map(|target| target.unfilled.parts().map(move |part| (target, part)));
    let work: Vec<(&Target<'_>, Fill)> =
        parts.flat_map(|(target, part)| pieces(part, largest).map(move |piece| (target, piece))).collect();
    each(&work, usize::try_from(threads).unwrap_or(1), cpus, &|at_hand, (target, piece)| target.write(piece, at_hand))
}

/// A run in parts of so many bytes at most. Those of whole huge pages are cut where such begin.
fn pieces(fill: Fill, largest: u64) -> impl Iterator<Item = Fill> {
    let Fill { address, length, from, offset } = fill;
    let end = address + length;
    let unit = largest.min(HUGE);
    let mut at = address;
    std::iter::from_fn(move || {
        let start = at;
        at = (start / unit * unit + largest).min(end);
        (start < end).then(|| Fill { address: start, length: at - start, from, offset: offset + (start - address) })
    })
}

/// A run in parts of one chunk each.
fn in_chunks(fill: Fill) -> impl Iterator<Item = Fill> {
    let Fill { address, length, from, offset } = fill;
    let end = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        let start = at;
        at = (start / CHUNK_SIZE * CHUNK_SIZE + CHUNK_SIZE).min(end);
        (start < end).then(|| Fill { address: address + (start - offset), length: at - start, from, offset: start })
    })
}

/// Does all pieces by so many threads. Returns the first failure; what is begun then is ended.
fn each<T: Sync>(
    pieces: &[T],
    threads: usize,
    cpus: &[u64],
    work: &(dyn Fn(&mut AtHand, &T) -> Result<(), Failure> + Sync),
) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let work = || {
        let mut at_hand = AtHand::default();
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(failure) = work(&mut at_hand, piece) {
                next.store(pieces.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            }
        }
    };
    // A new thread begins where its maker may be, and waits for it if that is one CPU only.
    let own = crfs_sys::sched::affinity(CALLER).ok();
    let _ = crfs_sys::sched::set_affinity(CALLER, cpus);
    parallel::by(threads, work);
    if let Some(own) = own {
        let _ = crfs_sys::sched::set_affinity(CALLER, &own);
    }
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// A process that is being filled.
struct Target<'a> {
    unfilled: &'a Unfilled<'a>,
    memory: File,
    files: &'a BTreeMap<Pid, Checked<'a>>,
    supply: &'a Supply,
}

impl<'a> Target<'a> {
    fn open(unfilled: &'a Unfilled<'a>, pages: &'a PageFiles<'a>) -> Result<Self, Failure> {
        let path = format!("/proc/{}/mem", unfilled.host_pid.raw());
        let memory = OpenOptions::new().write(true).open(&path).doing(|| format!("{path}: opening"))?;
        Ok(Target { unfilled, memory, files: &pages.open, supply: &pages.supply })
    }

    fn write(&self, piece: &Fill, at_hand: &mut AtHand) -> Result<(), Failure> {
        let Unfilled { host_pid, image, userfault, aside, .. } = self.unfilled;
        let segments = &image.segments;
        let segment = segments.get(segments.partition_point(|segment| segment.end.0 <= piece.address));
        let file = self.files.get(&piece.from);
        let file = file.ok_or_else(|| Failure::new(Kind::System, format!("process {}: not opened", piece.from)))?;
        let is_writable = segment.is_some_and(|segment| is_writable(segment) || is_huge(segment));
        // What was compared with its checksum is still at hand when it is written.
        let mut write = |to: u64| {
            in_chunks(*piece).try_fold(Duration::ZERO, |spent, part| {
                let (bytes, address) = (file.bytes(&part, at_hand)?, to + (part.address - piece.address));
                let begun = processor_time();
                // process_vm_writev is twice as fast, and refuses what the process itself may not write.
                let over = |address: u64, bytes: &[u8]| {
                    if is_writable {
                        memory::write(host_pid.pid(), address, bytes).map_err(std::io::Error::from)
                    } else {
                        self.memory.write_all_at(bytes, address)
                    }
                };
                let written = match userfault.as_ref().filter(|userfault| userfault.takes(address)) {
                    Some(userfault) => userfault.put(address, bytes, over),
                    None => over(address, bytes),
                };
                written.doing(|| {
                    let directory = layout::process_dir(image.process.pid);
                    format!("{directory}: writing {} bytes at {:#x}", part.length, part.address)
                })?;
                Ok(spent + processor_time().saturating_sub(begun))
            })
        };
        match aside {
            Some(aside) => aside.write(piece, self.supply, write),
            None => write(piece.address).map(drop),
        }
    }
}

fn is_writable(segment: &Segment) -> bool {
    segment.protection.0 & u64::from(libc::PROT_WRITE.cast_unsigned()) != 0
}

/// From a pool of huge pages: writable until it is filled.
fn is_huge(segment: &Segment) -> bool {
    matches!(segment.backing, Backing::HugePages(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_run_cut_where_huge_pages_begin() {
        let largest = 4 * HUGE;
        for (address, length) in
            [(0x1000, 0x1000), (HUGE - 0x1000, 3 * largest), (7 * HUGE, largest), (HUGE, largest + 0x1000)]
        {
            let run = Fill { address, length, from: Pid(1), offset: 0x5000 };
            let parts: Vec<Fill> = pieces(run, largest).collect();
            let mut at = address;
            for part in &parts {
                assert_eq!((part.address, part.offset), (at, 0x5000 + at - address), "{parts:?}");
                assert!(part.length > 0 && part.length <= largest, "{parts:?}");
                assert!(at == address || at.is_multiple_of(HUGE), "{parts:?}");
                at += part.length;
            }
            assert_eq!(at, address + length, "{parts:?}");
        }
    }
}
