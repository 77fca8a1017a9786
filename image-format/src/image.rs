//! A whole image in memory, but for its raw files: rendered to the files of a tree, and parsed from them.

mod parse;
mod render;

pub(crate) use parse::bytes;
pub use parse::{ImageError, TextSource, parse_file, read_content_sums, read_sums};
pub use render::Texts;

use crate::aio::AioContext;
use crate::cgroups::Cgroup;
use crate::files::{File, Stdio};
use crate::layout;
use crate::ldt::LdtEntry;
use crate::locks::Lock;
use crate::manifest::Manifest;
use crate::memory::{Backing, Segment};
use crate::mounts::{Mount, TreeEntry};
use crate::mqueue::PosixQueue;
use crate::namespaces::UnsharedNamespace;
use crate::numa::NumaPolicy;
use crate::process::{Fd, Process, ProcessAttr, ThreadEntry, Zombie};
use crate::seccomp::SeccompFilter;
use crate::signal::{AltStack, PendingSignal, SignalAction, SignalMask};
use crate::sysv::{AttachedCount, SemaphoreAdjustment, SysV};
use crate::thread::{FpuState, Frame, ThreadAttr, Tls};
use crate::timer::{Timer, Timers};
use crate::tty::Pty;
use crate::types::{FileId, Pid};
use crate::unnamed::UnnamedFile;
use std::collections::BTreeMap;

/// Every record of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `manifest`.
    pub manifest: Manifest,
    /// The process directories.
    pub processes: BTreeMap<Pid, ProcessImage>,
    /// `files/`.
    pub files: BTreeMap<FileId, File>,
    /// `files/stdios`.
    pub stdios: Vec<Stdio>,
    /// `files/locks`.
    pub locks: Vec<Lock>,
    /// `files/unnamed`.
    pub unnamed: Vec<UnnamedFile>,
    /// `seccomp`.
    pub seccomp: Vec<SeccompFilter>,
    /// `sysv.shm`, `sysv.sem`, `sysv.msg`.
    pub sysv: SysV,
    /// `posix.mq`.
    pub queues: Vec<PosixQueue>,
    /// `files/tty.N`, by number.
    pub ttys: BTreeMap<u32, Pty>,
    /// `mounts`.
    pub mounts: Vec<Mount>,
    /// `mounts.N`, by number.
    pub trees: BTreeMap<u32, Vec<TreeEntry>>,
    /// `cgroups`.
    pub cgroups: Vec<Cgroup>,
    /// `namespaces`.
    pub namespaces: Vec<UnsharedNamespace>,
}

/// Every record of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessImage {
    /// `process`.
    pub process: Process,
    /// `attr`.
    pub attr: ProcessAttr,
    /// `fds`.
    pub fds: Vec<Fd>,
    /// `aio`.
    pub aio: Vec<AioContext>,
    /// `ldt`.
    pub ldt: Vec<LdtEntry>,
    /// `numa`.
    pub numa: Vec<NumaPolicy>,
    /// `mem.segments`.
    pub segments: Vec<Segment>,
    /// `signal.action`.
    pub actions: Vec<SignalAction>,
    /// `signal.pending`.
    pub pending: Vec<PendingSignal>,
    /// `sysv.semadj`.
    pub semadj: Vec<SemaphoreAdjustment>,
    /// The thread directories.
    pub threads: BTreeMap<Pid, ThreadImage>,
}

/// Every record of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadImage {
    /// `attr`.
    pub attr: ThreadAttr,
    /// `fds`, of a thread that has a descriptor table of its own; None for one that has the process's, and no such file.
    pub fds: Option<Vec<Fd>>,
    /// `signal`.
    pub mask: SignalMask,
    /// `signal.altstack`.
    pub altstack: AltStack,
    /// `signal.pending`.
    pub pending: Vec<PendingSignal>,
    /// `thread`.
    pub fpu: FpuState,
    /// `thread.frame`.
    pub frame: Frame,
    /// `timers`.
    pub timers: Vec<Timer>,
    /// `tls`.
    pub tls: Tls,
    /// `wait.zombies`.
    pub zombies: Vec<Zombie>,
}

/// A descriptor table: that of a process, or one that a thread has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorTable<'a> {
    /// The process.
    pub process: Pid,
    /// Whose table it is: the process, or its thread.
    pub owner: Pid,
    /// What is open in it.
    pub fds: &'a [Fd],
}

impl DescriptorTable<'_> {
    /// Its file.
    #[must_use]
    pub fn path(&self) -> String {
        layout::table_file(self.process, self.owner)
    }
}

impl ProcessImage {
    /// Bytes of the process's `mem.pages`.
    #[must_use]
    pub fn pages_size(&self) -> u64 {
        let own = self.segments.iter().flat_map(|segment| &segment.pages).filter_map(|range| match range.source {
            crate::memory::Source::Own(first) => Some(first.saturating_add(range.count)),
            _ => None,
        });
        own.max().unwrap_or(0).saturating_mul(crate::types::PAGE_SIZE)
    }
}

impl Image {
    /// The process that has the record of a process's memory: itself, or the one it shares the memory with.
    #[must_use]
    pub fn memory_holder(&self, pid: Pid) -> Pid {
        self.processes.get(&pid).and_then(|process| process.process.shares.memory).unwrap_or(pid)
    }

    /// What a process has mapped, its own or shared; nothing when there is no such process.
    #[must_use]
    pub fn segments(&self, pid: Pid) -> &[Segment] {
        self.processes.get(&self.memory_holder(pid)).map(|process| process.segments.as_slice()).unwrap_or_default()
    }

    /// Every descriptor table, those of each process together and its own first; empty that of a process which shares another's.
    pub fn tables(&self) -> impl Iterator<Item = DescriptorTable<'_>> {
        self.processes.iter().flat_map(|(&process, image)| image.tables(process))
    }

    /// The lowest descriptor under which a process holds one of these descriptions, in a table of its own or one it shares.
    #[must_use]
    pub fn descriptor(&self, pid: Pid, of: impl Fn(FileId) -> bool) -> Option<u32> {
        let holder = self.processes.get(&pid)?.process.shares.descriptors.unwrap_or(pid);
        self.processes.get(&holder)?.fds.iter().find(|fd| of(fd.file)).map(|fd| fd.fd)
    }
}

impl ProcessImage {
    fn tables(&self, process: Pid) -> impl Iterator<Item = DescriptorTable<'_>> {
        let of_threads = self.threads.iter().filter_map(move |(&owner, thread)| {
            let fds = thread.fds.as_deref()?;
            Some(DescriptorTable { process, owner, fds })
        });
        std::iter::once(DescriptorTable { process, owner: process, fds: &self.fds }).chain(of_threads)
    }

    /// Its first thread that lives: the group leader, or the one with the lowest id where that has ended.
    #[must_use]
    pub fn first_thread(&self) -> Option<(Pid, &ThreadImage)> {
        let leader = self.threads.get_key_value(&self.process.pid);
        leader.or_else(|| self.threads.first_key_value()).map(|(&tid, thread)| (tid, thread))
    }

    /// Its timers, which stand with the first thread that lives.
    #[must_use]
    pub fn timers(&self) -> Timers<'_> {
        let mut timers = Timers::default();
        for timer in self.first_thread().iter().flat_map(|(_, thread)| &thread.timers) {
            match timer {
                Timer::Interval(timer) => timers.interval.push(timer),
                Timer::Posix(timer) => timers.posix.push(timer),
            }
        }
        timers
    }

    /// The lines of `sysv.shmcount`: what `mem.segments` says of System V segments.
    #[must_use]
    pub fn attached(&self) -> Vec<AttachedCount> {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for segment in &self.segments {
            if let Backing::SysvShm(piece) = &segment.backing {
                *counts.entry(piece.segment).or_default() += 1;
            }
        }
        counts.into_iter().map(|(segment, mappings)| AttachedCount { segment, mappings }).collect()
    }

    /// The lines of `thread.list`: the leader first, unless it has ended.
    #[must_use]
    pub fn thread_list(&self) -> Vec<ThreadEntry> {
        let first = self.first_thread().map(|(tid, _)| tid);
        let others = self.threads.keys().copied().filter(|&tid| Some(tid) != first);
        first.into_iter().chain(others).map(|tid| ThreadEntry { tid }).collect()
    }
}
