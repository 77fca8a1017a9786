//! `mem.pages` and `mem.sums` of a frozen process, read from its memory.
//!
//! `mem.segments` says for each run of pages where in `mem.pages` it lies; turned around, that is the index from file offset
//! to address.

use super::witness::Witness;
use crate::resource::subject;
use crfs_sys::memory::RemoteRange;
use image_format::memory::{CHUNK_SIZE, ChunkSum, Fixed, Segment, Source, checksum};
use image_format::types::PAGE_SIZE;
use image_format::{Pid, render_lines};
use nix::errno::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Pages that lie one after the other in the file and in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// In the file, bytes.
    offset: u64,
    bytes: u64,
    address: u64,
}

/// From offsets in `mem.pages` to addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PageIndex {
    /// By offset.
    runs: Vec<Run>,
}

/// A part of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Memory(RemoteRange),
    /// Nothing lies there, which no image that was captured has.
    Gap(usize),
}

impl PageIndex {
    pub(super) fn new(segments: &[Segment]) -> Self {
        let mut runs: Vec<Run> = segments
            .iter()
            .flat_map(|segment| &segment.pages)
            .filter_map(|range| match range.source {
                Source::Own(first) => Some(Run {
                    offset: first.saturating_mul(PAGE_SIZE),
                    bytes: range.count.saturating_mul(PAGE_SIZE),
                    address: range.start.0,
                }),
                _ => None,
            })
            .collect();
        runs.sort_by_key(|run| run.offset);
        let mut joined: Vec<Run> = Vec::with_capacity(runs.len());
        for run in runs {
            match joined.last_mut() {
                Some(last)
                    if last.offset + last.bytes == run.offset
                        && last.address.wrapping_add(last.bytes) == run.address =>
                {
                    last.bytes += run.bytes;
                }
                _ => joined.push(run),
            }
        }
        joined.shrink_to_fit();
        PageIndex { runs: joined }
    }

    /// What `len` bytes from `offset` on are made of, in order.
    fn pieces(&self, offset: u64, len: usize) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let (mut at, end) = (offset, offset.saturating_add(len as u64));
        let mut next = self.runs.partition_point(|run| run.offset + run.bytes <= offset);
        while at < end {
            let upto = match self.runs.get(next) {
                Some(run) if run.offset <= at => {
                    next += 1;
                    let upto = end.min(run.offset + run.bytes);
                    let start = run.address + (at - run.offset);
                    pieces.push(Piece::Memory(RemoteRange { start, len: bytes(upto - at) }));
                    upto
                }
                later => {
                    let upto = later.map_or(end, |run| end.min(run.offset));
                    pieces.push(Piece::Gap(bytes(upto - at)));
                    upto
                }
            };
            at = upto;
        }
        pieces
    }
}

/// A length that is no longer than a buffer in memory.
fn bytes(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Checksums by chunk, kept once a chunk was read whole.
#[derive(Debug)]
pub(super) struct Sums(Mutex<Vec<Option<u64>>>);

impl Sums {
    pub(super) fn new(size: u64) -> Self {
        Sums(Mutex::new(vec![None; bytes(size.div_ceil(CHUNK_SIZE))]))
    }

    pub(super) fn get(&self, chunk: u64) -> Option<u64> {
        let sums = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sums.get(bytes(chunk)).copied().flatten()
    }

    pub(super) fn set(&self, chunk: u64, sum: u64) {
        let mut sums = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(slot) = sums.get_mut(bytes(chunk)) {
            *slot = Some(sum);
        }
    }
}

/// The page contents of one frozen process.
#[derive(Debug)]
pub(super) struct PageSource {
    /// Tells sources apart in the cache.
    pub(super) id: u64,
    pid: Pid,
    host_pid: nix::unistd::Pid,
    index: PageIndex,
    size: u64,
    witness: Arc<Witness>,
    sums: Arc<Sums>,
    /// /proc/PID/mem, once it was needed.
    mem: OnceLock<File>,
}

impl PageSource {
    /// ESTALE when the process is none of the witness's.
    pub(super) fn new(
        pid: Pid,
        index: PageIndex,
        size: u64,
        witness: &Arc<Witness>,
        sums: &Arc<Sums>,
    ) -> Result<Self, Errno> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(PageSource {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            pid,
            host_pid: witness.host_pid(pid).ok_or(Errno::ESTALE)?,
            index,
            size,
            witness: Arc::clone(witness),
            sums: Arc::clone(sums),
            mem: OnceLock::new(),
        })
    }

    /// Bytes of `mem.pages`.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a chunk: all but the last have [`CHUNK_SIZE`].
    pub(super) fn chunk_len(&self, chunk: u64) -> usize {
        bytes(self.size.saturating_sub(chunk.saturating_mul(CHUNK_SIZE)).min(CHUNK_SIZE))
    }

    /// Whether the process has run. Before the last byte of a file is given out, all processes are looked at.
    pub(super) fn check(&self, end: u64) -> Result<(), Errno> {
        if end >= self.size { self.witness.check_all() } else { self.witness.check(Some(self.pid)) }
    }

    /// Reads a whole chunk and keeps its checksum.
    pub(super) fn load(&self, chunk: u64, buffer: &mut Vec<u8>) -> Result<(), Errno> {
        let len = self.chunk_len(chunk);
        if buffer.capacity() == 0 {
            // Zero pages from the kernel: not written twice.
            *buffer = vec![0; len];
        }
        buffer.resize(len, 0);
        self.fill(chunk * CHUNK_SIZE, buffer)?;
        if self.sums.get(chunk).is_none() {
            self.sums.set(chunk, checksum(buffer));
        }
        Ok(())
    }

    /// As [`PageSource::fill`], and keeps the checksums of the chunks that lie whole in the buffer.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        self.fill(offset, buffer)?;
        let before_first = offset.next_multiple_of(CHUNK_SIZE) - offset;
        let mut chunk = (offset + before_first) / CHUNK_SIZE;
        let mut rest = buffer.get(bytes(before_first)..).unwrap_or_default();
        while let Some((whole, after)) =
            rest.split_at_checked(self.chunk_len(chunk)).filter(|(whole, _)| !whole.is_empty())
        {
            if self.sums.get(chunk).is_none() {
                self.sums.set(chunk, checksum(whole));
            }
            (chunk, rest) = (chunk + 1, after);
        }
        Ok(())
    }

    /// Fills a buffer with what `mem.pages` has from `offset` on; it must not reach beyond the end.
    ///
    /// Through /proc/PID/mem, though process_vm_readv(2) is faster: that one pins what it reads, and pinning gives a process its own
    /// copy of every page it still shares with a parent or child since fork(2). Taking a copy must not make the container grow.
    pub(super) fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let len = buffer.len() as u64;
        let mut rest = buffer;
        for piece in self.index.pieces(offset, rest.len()) {
            let (Piece::Memory(RemoteRange { len, .. }) | Piece::Gap(len)) = piece;
            let (part, after) = rest.split_at_mut(len);
            rest = after;
            match piece {
                Piece::Gap(_) => part.fill(0),
                Piece::Memory(range) => {
                    let read = self.mem()?.read_exact_at(part, range.start);
                    read.map_err(|error| self.gone(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))?;
                }
            }
        }
        self.check(offset + len)
    }

    fn mem(&self) -> Result<&File, Errno> {
        if let Some(file) = self.mem.get() {
            return Ok(file);
        }
        let path = format!("/proc/{}/mem", subject::living_thread(self.host_pid.as_raw()));
        let file =
            File::open(path).map_err(|error| self.gone(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))?;
        Ok(self.mem.get_or_init(|| file))
    }

    /// A process that ran may have changed its mappings or ended: that is the better answer than what the read said.
    fn gone(&self, errno: Errno) -> Errno {
        if errno == Errno::ESRCH { Errno::ESTALE } else { self.witness.check_all().err().unwrap_or(errno) }
    }

    /// A part of `mem.sums`. Chunks whose sum is not known are read.
    pub(super) fn sums_text(&self, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let total = image_format::memory::sums_size(self.size);
        let end = total.min(offset.saturating_add(len as u64));
        if offset >= end {
            return Ok(Vec::new());
        }
        let chunks = self.size.div_ceil(CHUNK_SIZE);
        let closing = image_format::memory::sums_size(0);
        let line = (total - closing).checked_div(chunks).unwrap_or(1);
        let (first, last) = (offset / line, end.div_ceil(line).min(chunks));
        let mut buffer = Vec::new();
        let mut lines = Vec::new();
        for chunk in first.min(chunks)..last {
            if self.sums.get(chunk).is_none() {
                self.load(chunk, &mut buffer)?;
            }
            lines.push(ChunkSum { chunk: Fixed(chunk), xxh3: Fixed(self.sums.get(chunk).ok_or(Errno::EIO)?) });
        }
        self.check(if end == total { self.size } else { 0 })?;
        let text = render_lines(&lines);
        let from = bytes(offset - first.min(chunks) * line);
        text.get(from..from + bytes(end - offset)).map(<[u8]>::to_vec).ok_or(Errno::EIO)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_addresses_in_file_order() {
        let run = |offset, bytes, address| Run { offset, bytes, address };
        let index = PageIndex {
            runs: vec![run(0, 0x2000, 0x10000), run(0x2000, 0x1000, 0x90000), run(0x4000, 0x1000, 0x5000)],
        };
        let memory = |start, len| Piece::Memory(RemoteRange { start, len });
        assert_eq!(index.pieces(0x1800, 0x1000), [memory(0x11800, 0x800), memory(0x90000, 0x800)]);
        assert_eq!(index.pieces(0x2800, 0x2000), [memory(0x90800, 0x800), Piece::Gap(0x1000), memory(0x5000, 0x800)]);
        assert_eq!(index.pieces(0x5000, 0x10), [Piece::Gap(0x10)]);
    }
}
