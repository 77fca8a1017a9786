//! Page contents on their way into processes that are being made: compared with their checksums, and written from outside by several
//! threads.

use super::aside::{Aside, HUGE, HugePagesFor, Supply, processor_time};
use super::userfault::Userfault;
use crate::copy::Copy;
use crate::failure::{Doing, Failure, Kind};
use crate::plan::MemoryPlan;
use crate::plan::memory::Fill;
use crate::transport::CompressedFile;
use crfs_sys::file_map::FileMap;
use crfs_sys::memory;
use crfs_tracee::{Batch, HostPid, Injector};
use image_format::memory::{Backing, CHUNK_SIZE, ChunkSum, Segment, checksum};
use image_format::{Pid, ProcessImage, layout};
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
/// The most that a thread writes at a time.
const LARGEST_PIECE: u64 = 64 << 20;
/// The same of compressed contents, which lie in the thread's own memory then.
const LARGEST_COMPRESSED: u64 = 4 << 20;
/// Less is written sooner than anything is prepared for it.
const WORTH_PREPARING: u64 = 512 << 10;
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
    Plain(FileMap),
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
                let (contents, size) = match self.compressed.get(&path) {
                    Some(pages) => (Contents::Compressed(pages), usize::try_from(pages.size()).unwrap_or(usize::MAX)),
                    None => {
                        let file = File::open(self.directory.join(&path)).doing(|| format!("{path}: opening"))?;
                        let map = FileMap::new(&file).doing(|| format!("{path}: mapping"))?;
                        let size = map.bytes().len();
                        (Contents::Plain(map), size)
                    }
                };
                let chunks = size.div_ceil(CHUNK);
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
        pieces(*fill, contents.largest()).try_for_each(|piece| write(piece.address, &contents.bytes(&piece)?))
    }
}

impl Checked<'_> {
    /// The most that is asked for at a time.
    fn largest(&self) -> u64 {
        match self.contents {
            Contents::Plain(_) => LARGEST_PIECE,
            Contents::Compressed(_) => LARGEST_COMPRESSED,
        }
    }

    /// The bytes of a fill, compared with their checksums. Of two that ask for parts of a chunk at once only one hears that it is wrong.
    fn bytes(&self, fill: &Fill) -> Result<Cow<'_, [u8]>, Failure> {
        let path = || layout::process_file(self.from, layout::MEM_PAGES);
        let short = || Failure::new(Kind::BadImage, format!("{}: shorter than mem.segments says", path()));
        let start = usize::try_from(fill.offset).map_err(|_| short())?;
        let end = usize::try_from(fill.offset + fill.length).map_err(|_| short())?;
        let chunks = start / CHUNK..end.div_ceil(CHUNK);
        match &self.contents {
            Contents::Plain(map) => {
                let all = map.bytes();
                let bytes = all.get(start..end).ok_or_else(short)?;
                for chunk in chunks.filter(|&chunk| self.is_first(chunk)) {
                    let whole = chunk * CHUNK..all.len().min((chunk + 1) * CHUNK);
                    map.populate(whole.clone());
                    self.compare(chunk, &all[whole])?;
                }
                Ok(bytes.into())
            }
            Contents::Compressed(pages) => {
                let mut bytes = Vec::with_capacity(end - start);
                for chunk in chunks {
                    let content = pages.chunk(chunk)?;
                    if self.is_first(chunk) {
                        self.compare(chunk, &content)?;
                    }
                    let part = start.saturating_sub(chunk * CHUNK)..content.len().min(end - chunk * CHUNK);
                    bytes.extend_from_slice(content.get(part).ok_or_else(short)?);
                }
                if bytes.len() == end - start { Ok(bytes.into()) } else { Err(short()) }
            }
        }
    }

    /// Whether nobody compares a chunk with its checksum, or has: the caller does now.
    fn is_first(&self, chunk: usize) -> bool {
        self.done.get(chunk).is_none_or(|done| !done.swap(true, Ordering::Relaxed))
    }

    fn compare(&self, chunk: usize, content: &[u8]) -> Result<(), Failure> {
        if self.sums.get(chunk).map(|sum| sum.xxh3.0) == Some(checksum(content)) {
            return Ok(());
        }
        let path = layout::process_file(self.from, layout::MEM_PAGES);
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
    let mut most = LARGEST_PIECE;
    for fill in processes.iter().flat_map(|process| process.fill.iter()) {
        most = most.min(pages.open(fill.from)?.largest());
    }
    let targets = processes.iter().map(|process| Target::open(process, pages));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let bytes: u64 = processes.iter().flat_map(|process| process.fill.iter()).map(|fill| fill.length).sum();
    let cpus_there: u32 = cpus.iter().map(|word| word.count_ones()).sum();
    let threads = (bytes / SMALLEST_SHARE).clamp(1, cpus_there.max(1).into());
    let largest = (bytes / threads / HUGE * HUGE).clamp(HUGE, most);
    let parts = targets.iter().flat_map(|target| target.unfilled.parts().map(move |part| (target, part)));
    let work: Vec<(&Target<'_>, Fill)> =
        parts.flat_map(|(target, part)| pieces(part, largest).map(move |piece| (target, piece))).collect();
    each(&work, threads, cpus, &|(target, piece)| target.write(piece))
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

/// Does all pieces by so many threads. Returns the first failure; what is begun then is ended.
fn each<T: Sync>(
    pieces: &[T],
    threads: u64,
    cpus: &[u64],
    work: &(dyn Fn(&T) -> Result<(), Failure> + Sync),
) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let work = || {
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(failure) = work(piece) {
                next.store(pieces.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let elsewhere = || {
                // Else it stays where the tracer is.
                let _ = crfs_sys::sched::set_affinity(nix::unistd::Pid::from_raw(0), cpus);
                work();
            };
            // Where no thread is to be had, the others do its part.
            let _ = std::thread::Builder::new().spawn_scoped(scope, elsewhere);
        }
        work();
    });
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

    fn write(&self, piece: &Fill) -> Result<(), Failure> {
        let Unfilled { host_pid, image, userfault, aside, .. } = self.unfilled;
        let segments = &image.segments;
        let segment = segments.get(segments.partition_point(|segment| segment.end.0 <= piece.address));
        let file = self.files.get(&piece.from);
        let file = file.ok_or_else(|| Failure::new(Kind::System, format!("process {}: not opened", piece.from)))?;
        let is_writable = segment.is_some_and(|segment| is_writable(segment) || is_huge(segment));
        // What was compared with its checksum is still at hand when it is written.
        let write = |to: u64| {
            pieces(*piece, CHUNK_SIZE).try_fold(Duration::ZERO, |spent, part| {
                let (bytes, address) = (file.bytes(&part)?, to + (part.address - piece.address));
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
                    Some(userfault) => userfault.put(address, &bytes, over),
                    None => over(address, &bytes),
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
