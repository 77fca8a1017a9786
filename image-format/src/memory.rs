//! `mem.segments` and `mem.sums`: what a process has mapped, and where the contents lie.

use crate::flags;
use crate::io_uring::MappedRing;
use crate::types::{Address, Bytes, Pid, Timespec};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

/// Bytes of `mem.pages` that one line of `mem.sums` covers.
pub const CHUNK_SIZE: u64 = 1 << 20;

/// A line of `mem.segments`: one mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// First address.
    pub start: Address,
    /// Address after the last.
    pub end: Address,
    /// mmap(2) `PROT_` flags.
    pub protection: Protection,
    /// `MAP_SHARED`; otherwise `MAP_PRIVATE`.
    pub shared: bool,
    /// What of /proc/PID/smaps' VmFlags must be made again.
    pub flags: SegmentFlags,
    /// What is mapped.
    pub backing: Backing,
    /// Where pages' contents come from, ascending and apart. Pages that are not named are as the backing has them: the
    /// file's, or zero.
    pub pages: Vec<PageRange>,
}

flags! {
    /// `PROT_` flags.
    Protection { PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4 }
}

flags! {
    /// Named after the two letters of VmFlags (fs/proc/task_mmu.c, v6.18).
    SegmentFlags {
        growsdown = 1,      // gd: MAP_GROWSDOWN
        accounted = 2,      // ac: counts against the commit limit
        noreserve = 4,      // nr: MAP_NORESERVE
        locked = 8,         // lo: mlock(2)
        dontfork = 0x10,    // dc: MADV_DONTFORK
        dontdump = 0x20,    // dd: MADV_DONTDUMP
        wipeonfork = 0x40,  // wf: MADV_WIPEONFORK
        hugepage = 0x80,    // hg: MADV_HUGEPAGE
        nohugepage = 0x100, // nh: MADV_NOHUGEPAGE, MAP_STACK
        mergeable = 0x200,  // mg: MADV_MERGEABLE
        sequential = 0x400, // sr: MADV_SEQUENTIAL
        random = 0x800,     // rr: MADV_RANDOM
        droppable = 0x1000, // dp: MAP_DROPPABLE
        onfault = 0x2000,   // lf: mlock2(MLOCK_ONFAULT), beside `locked`
        sealed = 0x4000,    // sl: mseal(2)
    }
}

/// What a mapping maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Backing {
    /// Private memory of the process: heap, stack, MAP_ANONYMOUS.
    Anonymous,
    /// Private memory in huge pages: MAP_HUGETLB.
    HugePages(HugeMapping),
    /// A file.
    File(MappedFile),
    /// A file that no path leads to.
    Unnamed(MappedUnnamed),
    /// MAP_SHARED | MAP_ANONYMOUS: an object that all its mappings name alike.
    SharedAnonymous(SharedAnonymous),
    /// A System V shared memory segment, attached by shmat(2).
    SysvShm(SysvShm),
    /// The ring of a context of io_setup(2): a line of `aio`, which has what waits in it.
    AioRing,
    /// Memory that a ring of io_uring shares with the program; its content lies with its description.
    IoUring(MappedRing),
    /// The kernel's vDSO.
    Vdso,
    /// The vDSO's data.
    Vvar,
    /// The vDSO's data of paravirtual clocks.
    VvarVclock,
    /// The legacy page at 0xffffffffff600000; every process has it.
    Vsyscall,
}

/// Memory from a pool of huge pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HugeMapping {
    /// Bytes of one.
    pub page_size: u64,
}

/// A mapped file and what it was at the freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappedFile {
    /// Its path inside the container.
    pub path: Bytes,
    /// Bytes into the file where the mapping starts.
    pub offset: u64,
    /// Bytes of the file.
    pub size: u64,
    /// Last modification.
    pub modified: Timespec,
    /// Opened for writing too: a shared mapping that may be made writable.
    pub writable: bool,
}

/// A mapped file that the image itself holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappedUnnamed {
    /// Its number: a line of `files/unnamed`.
    pub file: u32,
    /// Bytes into the file where the mapping starts.
    pub offset: u64,
    /// A shared mapping that may be made writable.
    pub writable: bool,
}

/// A piece of shared anonymous memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedAnonymous {
    /// The object, counted from 1 inside the image.
    pub object: u32,
    /// Bytes into the object where the mapping starts.
    pub offset: u64,
    /// Bytes of the object.
    pub size: u64,
}

/// A piece of an attached System V segment. An attachment is whole: neighbouring lines cover the segment from its start to its
/// end, cut only where protections differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SysvShm {
    /// shmid: a line of `sysv.shm`.
    pub segment: u32,
    /// Bytes into the segment where the mapping starts.
    pub offset: u64,
    /// Attached without SHM_RDONLY: it may be made writable.
    pub writable: bool,
}

/// A run of pages with one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageRange {
    /// First address.
    pub start: Address,
    /// Pages.
    pub count: u64,
    /// Where they are.
    pub source: Source,
}

impl PageRange {
    /// Address after the last page.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start.0.saturating_add(self.count.saturating_mul(crate::types::PAGE_SIZE))
    }
}

/// Where the contents of a run of pages lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// In this process's `mem.pages`, from this page on (counted from 0).
    Own(u64),
    /// The same addresses of another process of the image: memory still shared after fork, or shared by nature.
    Process(Pid),
    /// Zero, though the backing may say otherwise.
    Zero,
    /// As the mapped file has them.
    File,
    /// Nobody may touch them: MADV_GUARD_INSTALL.
    Guard,
    /// The same addresses of the same process in the parent image. None is written so far.
    Parent,
}

/// A line of `mem.sums`: the checksum of one chunk of `mem.pages`. Every line has the same length, so that the file's
/// size is known before the contents are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkSum {
    /// Counted from 0; chunk n covers bytes n * CHUNK_SIZE up to the next or the end of the file. 16 digits.
    pub chunk: Fixed,
    /// xxh3-64 of the bytes. 16 digits.
    pub xxh3: Fixed,
}

/// A number written with all of its 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fixed(pub u64);

impl Serialize for Fixed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("0x{:016x}", self.0))
    }
}
impl<'de> Deserialize<'de> for Fixed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::types::deserialize_text(deserializer, |text| {
            let digits = text.strip_prefix("0x").filter(|d| d.len() == 16 && d.bytes().all(|b| b.is_ascii_hexdigit()));
            let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            number.map(Fixed).ok_or_else(|| format!("{text:?} is not 0x and 16 hex digits"))
        })
    }
}

/// The checksum of a chunk's bytes.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// Bytes of a `mem.sums` for so many bytes of `mem.pages`.
#[must_use]
pub fn sums_size(pages_size: u64) -> u64 {
    let line =
        crate::text::render_lines(&[ChunkSum { chunk: Fixed(0), xxh3: Fixed(0) }]).len() - crate::text::END.len() - 1;
    pages_size.div_ceil(CHUNK_SIZE) * line as u64 + crate::text::END.len() as u64 + 1
}
