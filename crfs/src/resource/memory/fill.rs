//! Page contents on their way into processes that are being made: compared with their checksums, and written from outside by several
//! threads.
//!
//! Most of the time goes into fresh pages, not into copying: a gigabyte of 4 KiB pages takes ten times as long as one of huge pages.
//! So where an image fills all of a huge page it gets one, by MADV_COLLAPSE, which leaves no mark on the mapping. `mm/khugepaged.c`,
//! v6.18.

use crate::copy::Copy;
use crate::failure::{Doing, Failure, Kind};
use crate::plan::MemoryPlan;
use crate::plan::memory::Fill;
use crate::transport::CompressedPages;
use crfs_sys::file_map::FileMap;
use crfs_sys::memory::{self, RemoteRange};
use crfs_tracee::HostPid;
use image_format::controls::HugePages;
use image_format::memory::{Backing, ChunkSum, Segment, SegmentFlags, checksum};
use image_format::{Pid, ProcessImage, layout};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[allow(clippy::cast_possible_truncation)] // 1 MiB
const CHUNK: usize = image_format::memory::CHUNK_SIZE as usize;
/// A huge page of x86-64.
const HUGE: u64 = 2 << 20;
/// The most that a thread writes at a time.
const LARGEST_PIECE: u64 = 64 << 20;
/// The same of compressed contents, which lie in the thread's own memory then.
const LARGEST_COMPRESSED: u64 = 4 << 20;
/// A thread more is not worth starting for less.
const SMALLEST_SHARE: u64 = 4 << 20;
/// What a huge page saves, microseconds: making the small ones takes longer still where memory is short.
const SAVED_US: u64 = 1000;
/// Where an administrator says whether there are huge pages at all.
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// The `mem.pages` of every process, with their checksums.
#[derive(Debug)]
pub struct PageFiles<'a> {
    directory: &'a Path,
    sums: &'a BTreeMap<Pid, Vec<ChunkSum>>,
    compressed: &'a BTreeMap<String, CompressedPages>,
    open: BTreeMap<Pid, Checked<'a>>,
    huge_pages: bool,
    collapsing: Collapsing,
}

/// How long a collapse takes now. For each the kernel waits for all processors (`lru_add_drain_all`): hardly at all, or for tens of
/// milliseconds where they are busy.
#[derive(Debug, Default)]
struct Collapsing {
    /// Microseconds of the last one.
    took: u64,
}

impl Collapsing {
    /// Whether so many huge pages are worth one. After enough of those that were not, another is tried.
    fn is_worth(&mut self, pages: u64) -> bool {
        let worth = pages * SAVED_US > self.took;
        if !worth {
            self.took -= self.took / 16;
        }
        worth
    }

    fn took(&mut self, time: Duration) {
        self.took = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    }
}

#[derive(Debug)]
enum Contents<'a> {
    Plain(FileMap),
    Compressed(&'a CompressedPages),
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
        let never = fs::read_to_string(HUGE_PAGES).is_ok_and(|text| text.contains("[never]"));
        PageFiles {
            directory,
            sums: &copy.sums,
            compressed: &copy.compressed,
            open: BTreeMap::new(),
            huge_pages: !never,
            collapsing: Collapsing::default(),
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
        pieces(fill, contents.largest()).try_for_each(|piece| write(piece.address, &contents.bytes(&piece)?))
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
                for chunk in chunks {
                    self.compare(chunk, &all[chunk * CHUNK..all.len().min((chunk + 1) * CHUNK)])?;
                }
                Ok(bytes.into())
            }
            Contents::Compressed(pages) => {
                let mut bytes = Vec::with_capacity(end - start);
                for chunk in chunks {
                    let content = pages.chunk(chunk)?;
                    self.compare(chunk, &content)?;
                    let part = start.saturating_sub(chunk * CHUNK)..content.len().min(end - chunk * CHUNK);
                    bytes.extend_from_slice(content.get(part).ok_or_else(short)?);
                }
                if bytes.len() == end - start { Ok(bytes.into()) } else { Err(short()) }
            }
        }
    }

    /// Compares a chunk with its checksum, unless somebody does or has.
    fn compare(&self, chunk: usize, content: &[u8]) -> Result<(), Failure> {
        if self.done.get(chunk).is_some_and(|done| done.swap(true, Ordering::Relaxed)) {
            return Ok(());
        }
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
#[derive(Clone, Copy, Debug)]
pub struct Unfilled<'a> {
    /// As the host numbers it.
    pub host_pid: HostPid,
    /// What it will be.
    pub image: &'a ProcessImage,
    /// What is to be written where.
    pub plan: &'a MemoryPlan,
}

/// Writes the page contents of processes from outside, on these CPUs (one bit each).
///
/// # Errors
/// Of writing, or of the checksums.
pub fn fill(processes: &[Unfilled<'_>], pages: &mut PageFiles<'_>, cpus: &[u64]) -> Result<(), Failure> {
    let mut most = LARGEST_PIECE;
    for fill in processes.iter().flat_map(|process| &process.plan.fill) {
        most = most.min(pages.open(fill.from)?.largest());
    }
    let targets = processes.iter().map(|&process| Target::open(process, &pages.open));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    if pages.huge_pages {
        // By one thread, before there are others: what they do in the kernel is what a collapse waits for.
        targets.iter().for_each(|target| target.collapse(&mut pages.collapsing));
    }
    let bytes: u64 = targets.iter().flat_map(|target| &target.unfilled.plan.fill).map(|fill| fill.length).sum();
    let cpus_there: u32 = cpus.iter().map(|word| word.count_ones()).sum();
    let threads = (bytes / SMALLEST_SHARE).clamp(1, cpus_there.max(1).into());
    let largest = (bytes / threads / HUGE * HUGE).clamp(HUGE, most);
    let pieces: Vec<(&Target<'_>, Fill)> = targets
        .iter()
        .flat_map(|target| target.unfilled.plan.fill.iter().map(move |fill| (target, fill)))
        .flat_map(|(target, fill)| pieces(fill, largest).map(move |piece| (target, piece)))
        .collect();
    each(&pieces, threads, cpus, &|(target, piece)| target.write(piece))
}

/// A run in parts that one thread writes at a time, cut where huge pages begin. `largest` is a number of whole huge pages.
fn pieces(fill: &Fill, largest: u64) -> impl Iterator<Item = Fill> {
    let Fill { address, length, from, offset } = *fill;
    let end = address + length;
    let mut at = address;
    std::iter::from_fn(move || {
        let start = at;
        at = (start / HUGE * HUGE + largest).min(end);
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
            scope.spawn(|| {
                // Else it stays where the tracer is.
                let _ = crfs_sys::sched::set_affinity(nix::unistd::Pid::from_raw(0), cpus);
                work();
            });
        }
        work();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// A process that is being filled.
struct Target<'a> {
    unfilled: Unfilled<'a>,
    memory: File,
    files: &'a BTreeMap<Pid, Checked<'a>>,
}

impl<'a> Target<'a> {
    fn open(unfilled: Unfilled<'a>, files: &'a BTreeMap<Pid, Checked<'a>>) -> Result<Self, Failure> {
        let path = format!("/proc/{}/mem", unfilled.host_pid.raw());
        let memory = OpenOptions::new().write(true).open(&path).doing(|| format!("{path}: opening"))?;
        Ok(Target { unfilled, memory, files })
    }

    fn segment(&self, address: u64) -> Option<&'a Segment> {
        let segments = &self.unfilled.image.segments;
        segments.get(segments.partition_point(|segment| segment.end.0 <= address))
    }

    fn write(&self, piece: &Fill) -> Result<(), Failure> {
        let Unfilled { host_pid, image, .. } = self.unfilled;
        let file = self.files.get(&piece.from);
        let file = file.ok_or_else(|| Failure::new(Kind::System, format!("process {}: not opened", piece.from)))?;
        let bytes = file.bytes(piece)?;
        // process_vm_writev is twice as fast, and refuses what the process itself may not write.
        let written = if self.segment(piece.address).is_some_and(|segment| is_writable(segment) || is_huge(segment)) {
            memory::write(host_pid.pid(), piece.address, &bytes).map_err(std::io::Error::from)
        } else {
            self.memory.write_all_at(&bytes, piece.address)
        };
        written.doing(|| {
            let directory = layout::process_dir(image.process.pid);
            format!("{directory}: writing {} bytes at {:#x}", piece.length, piece.address)
        })
    }

    /// Makes huge pages of those that will be filled whole. Without them it is slower and nothing else, so whatever keeps the kernel
    /// from it is no failure.
    fn collapse(&self, collapsing: &mut Collapsing) {
        // A program that asked for none has its reasons.
        if self.unfilled.image.attr.memory.huge_pages != HugePages::Default {
            return;
        }
        let Ok(pidfd) = crfs_sys::pidfd::open(self.unfilled.host_pid.pid(), false) else { return };
        for run in self.huge_runs() {
            let pages = (run.end - run.start) / HUGE;
            if !collapsing.is_worth(pages) {
                continue;
            }
            let begun = Instant::now();
            // The kernel collapses only where there is a page already.
            let touched: Vec<RemoteRange> =
                run.clone().step_by(2 << 20).map(|start| RemoteRange { start, len: 1 }).collect();
            let touch = memory::write_ranges(self.unfilled.host_pid.pid(), &touched, &vec![0; touched.len()]);
            let _ = touch.and_then(|()| memory::collapse(pidfd.as_fd(), run.start, run.end));
            collapsing.took(begun.elapsed());
        }
    }

    /// The huge pages that will be filled whole, in runs of [`LARGEST_PIECE`] at most.
    fn huge_runs(&self) -> Vec<Range<u64>> {
        let mut filled: Vec<Range<u64>> = Vec::new();
        for fill in &self.unfilled.plan.fill {
            let (start, end) = (fill.address, fill.address + fill.length);
            let takes = self.segment(start).is_some_and(|segment| is_writable(segment) && takes_huge_pages(segment));
            match filled.last_mut() {
                _ if !takes => {}
                Some(last) if last.end == start => last.end = end,
                _ => filled.push(start..end),
            }
        }
        let whole = filled.into_iter().map(|range| range.start.next_multiple_of(HUGE)..range.end / HUGE * HUGE);
        let cut = |range: Range<u64>| {
            let end = range.end;
            range.step_by(LARGEST_PIECE as usize).map(move |at| at..end.min(at + LARGEST_PIECE))
        };
        whole.flat_map(cut).collect()
    }
}

fn is_writable(segment: &Segment) -> bool {
    segment.protection.0 & u64::from(libc::PROT_WRITE.cast_unsigned()) != 0
}

/// From a pool of huge pages: writable until it is filled.
fn is_huge(segment: &Segment) -> bool {
    matches!(segment.backing, Backing::HugePages(_))
}

fn takes_huge_pages(segment: &Segment) -> bool {
    let small = [SegmentFlags::nohugepage, SegmentFlags::growsdown];
    segment.backing == Backing::Anonymous && !segment.shared && !small.iter().any(|&flag| segment.flags.contains(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collapse_that_took_long_is_tried_again_later() {
        let mut collapsing = Collapsing::default();
        assert!(collapsing.is_worth(1), "nothing is known yet");
        collapsing.took(Duration::from_millis(36));
        assert!(collapsing.is_worth(37) && !collapsing.is_worth(1));
        let declined = (0..1000).take_while(|_| !collapsing.is_worth(1)).count();
        assert!((10..1000).contains(&declined), "{declined} more were declined");
    }

    #[test]
    fn pieces_are_the_run_cut_where_huge_pages_begin() {
        let largest = 4 * HUGE;
        for (address, length) in
            [(0x1000, 0x1000), (HUGE - 0x1000, 3 * largest), (7 * HUGE, largest), (HUGE, largest + 0x1000)]
        {
            let run = Fill { address, length, from: Pid(1), offset: 0x5000 };
            let parts: Vec<Fill> = pieces(&run, largest).collect();
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
