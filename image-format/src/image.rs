//! A whole image in memory, but for its raw files: rendered to the files of a tree, and parsed from them.

use crate::aio::AioContext;
use crate::cgroups::Cgroup;
use crate::files::{File, Stdio};
use crate::layout;
use crate::ldt::LdtEntry;
use crate::locks::Lock;
use crate::manifest::{Manifest, PathEntry, PathKind};
use crate::memory::{Backing, ChunkSum, Segment};
use crate::mounts::{Mount, TreeEntry, data_size};
use crate::mqueue::PosixQueue;
use crate::namespaces::UnsharedNamespace;
use crate::numa::NumaPolicy;
use crate::parallel;
use crate::process::{Absent, Fd, Process, ProcessAttr, ThreadEntry, Zombie};
use crate::seccomp::SeccompFilter;
use crate::signal::{AltStack, PendingSignal, SignalAction, SignalMask};
use crate::sysv::{AttachedCount, MessageQueue, SemaphoreAdjustment, SemaphoreSet, SharedSegment, SysV};
use crate::text::{TextError, parse_lines, parse_object, render_lines, render_object};
use crate::thread::{FpuState, Frame, ThreadAttr, Tls};
use crate::timer::{Timer, Timers};
use crate::tty::Pty;
use crate::types::{FileId, Pid};
use crate::unnamed::UnnamedFile;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// Processes, or threads, whose text is made before any of it is written.
const RENDERED_AT_ONCE: usize = 256;

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

/// What is wrong with an image: a file of it, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A file the image should have is not there.
    #[error("{path}: missing")]
    Missing {
        /// The file.
        path: String,
    },
    /// A file could not be read.
    #[error("{path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A text file is malformed.
    #[error("{path}: {source}")]
    Text {
        /// The file.
        path: String,
        /// Where and why.
        source: TextError,
    },
    /// A file's content contradicts another, or asks for what cannot be.
    #[error("{path}: {reason}")]
    Content {
        /// The file, with the line where that helps.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Where text files are read from, whatever carries them; by several threads at once.
pub trait TextSource: Sync {
    /// The whole content of a text file, or None where the image has no such file.
    ///
    /// # Errors
    /// In words.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String>;
}

impl TextSource for BTreeMap<String, Vec<u8>> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.get(path).cloned())
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

    /// The image's text files by path, but for `manifest` and `mem.sums`.
    #[must_use]
    pub fn render(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        self.render_each(|path, bytes| drop(files.insert(path, bytes)));
        files
    }

    /// [`Image::render`] group by group, in no particular order: the text of all of them never lies in memory at once.
    pub fn render_each(&self, mut out: impl FnMut(String, Vec<u8>)) {
        for name in layout::CONTAINER_ABSENT {
            out(name.to_owned(), render_lines::<Absent>(&[]));
        }
        out(layout::STDIOS.to_owned(), render_lines(&self.stdios));
        out(layout::SECCOMP.to_owned(), render_lines(&self.seccomp));
        out(layout::SYSV_SHM.to_owned(), render_lines(&self.sysv.segments));
        out(layout::SYSV_SEM.to_owned(), render_lines(&self.sysv.semaphores));
        out(layout::SYSV_MSG.to_owned(), render_lines(&self.sysv.queues));
        out(layout::POSIX_MQ.to_owned(), render_lines(&self.queues));
        out(layout::LOCKS.to_owned(), render_lines(&self.locks));
        out(layout::UNNAMED.to_owned(), render_lines(&self.unnamed));
        out(layout::MOUNTS.to_owned(), render_lines(&self.mounts));
        out(layout::CGROUPS.to_owned(), render_lines(&self.cgroups));
        out(layout::NAMESPACES.to_owned(), render_lines(&self.namespaces));
        for (&number, tree) in &self.trees {
            out(layout::mount_tree(number), render_lines(tree));
        }
        let files: Vec<_> = self.files.iter().collect();
        for group in files.chunks(RENDERED_AT_ONCE) {
            let texts = parallel::map(group, |&(&id, file)| (layout::file_entry(id), render_object(file)));
            texts.into_iter().for_each(|(path, bytes)| out(path, bytes));
        }
        for (&number, pty) in &self.ttys {
            out(layout::tty_file(number), render_object(pty));
        }
        let processes: Vec<&ProcessImage> = self.processes.values().collect();
        for group in processes.chunks(RENDERED_AT_ONCE) {
            let texts = parallel::map(group, |process| process.render());
            texts.into_iter().flatten().for_each(|(path, bytes)| out(path, bytes));
        }
        let threads =
            self.processes.iter().flat_map(|(pid, process)| process.threads.iter().map(move |thread| (pid, thread)));
        let threads: Vec<_> = threads.collect();
        for group in threads.chunks(RENDERED_AT_ONCE) {
            let texts = parallel::map(group, |&(&pid, (&tid, thread))| thread.render(pid, tid));
            texts.into_iter().flatten().for_each(|(path, bytes)| out(path, bytes));
        }
    }

    /// Every path the image has but the manifest's own, sorted: what `manifest.paths` holds.
    #[must_use]
    pub fn paths(&self) -> Vec<PathEntry> {
        let entry = |path: String, kind, size| PathEntry { path, kind, size };
        let text = |path: String| {
            let kind = layout::kind(&path).unwrap_or(PathKind::Object);
            entry(path, kind, None)
        };
        let mut paths: Vec<PathEntry> = self.render_names().into_iter().map(text).collect();
        paths.push(entry(layout::FILES.to_owned(), PathKind::Directory, None));
        for (&pid, process) in &self.processes {
            paths.push(entry(layout::process_dir(pid), PathKind::Directory, None));
            paths.push(text(layout::process_file(pid, layout::MEM_SUMS)));
            paths.push(entry(layout::process_file(pid, layout::MEM_PAGES), PathKind::Raw, Some(process.pages_size())));
            for &tid in process.threads.keys() {
                paths.push(entry(layout::process_file(pid, &layout::id_name(tid.0)), PathKind::Directory, None));
            }
        }
        for (&id, file) in &self.files {
            if file.queue_size() > 0 {
                paths.push(entry(layout::socket_data(id), PathKind::Raw, Some(file.queue_size())));
            }
            if let Some(pipe) = file.pipe() {
                paths.push(entry(layout::pipe_data(pipe.pipe), PathKind::Raw, Some(pipe.queued)));
            }
        }
        for file in &self.unnamed {
            paths.push(entry(layout::unnamed_data(file.number), PathKind::Raw, Some(file.size)));
        }
        for (&number, tree) in &self.trees {
            paths.push(entry(layout::mount_data(number), PathKind::Raw, Some(data_size(tree))));
        }
        for segment in &self.sysv.segments {
            paths.push(entry(layout::segment_data(segment.id), PathKind::Raw, Some(segment.content_size())));
        }
        for queue in &self.sysv.queues {
            paths.push(entry(layout::queue_data(queue.id), PathKind::Raw, Some(queue.queued())));
        }
        for queue in &self.queues {
            paths.push(entry(layout::posix_queue_data(queue.number), PathKind::Raw, Some(queue.queued())));
        }
        paths.sort();
        // The ends of a pipe share its data.
        paths.dedup_by(|later, entry| later.path == entry.path);
        paths
    }

    /// The names of [`Image::render`] without rendering.
    fn render_names(&self) -> Vec<String> {
        let mut names: Vec<String> = layout::CONTAINER_ABSENT.iter().map(|&name| name.to_owned()).collect();
        names.extend([layout::STDIOS, layout::SECCOMP].map(str::to_owned));
        names.extend([layout::LOCKS, layout::UNNAMED].map(str::to_owned));
        names.extend(layout::CONTAINER_FILES.map(str::to_owned));
        names.extend(self.files.keys().map(|&id| layout::file_entry(id)));
        names.extend(self.trees.keys().map(|&number| layout::mount_tree(number)));
        names.extend(self.ttys.keys().map(|&number| layout::tty_file(number)));
        for (&pid, process) in &self.processes {
            let own = layout::PROCESS_FILES.iter().map(|(name, _)| *name).filter(|&name| name != layout::MEM_SUMS);
            names.extend(own.map(|name| layout::process_file(pid, name)));
            for (&tid, thread) in &process.threads {
                names.extend(layout::THREAD_FILES.iter().map(|(name, _)| layout::thread_file(pid, tid, name)));
                names.extend(thread.fds.as_ref().map(|_| layout::thread_file(pid, tid, layout::FDS)));
            }
        }
        names
    }

    /// Parses every text file the manifest names, but for `mem.sums` ([`read_sums`]).
    ///
    /// # Errors
    /// The first file that is missing or malformed. [`crate::check`] looks at what files say about each other.
    pub fn parse(source: &dyn TextSource) -> Result<Image, ImageError> {
        let manifest = crate::check::read_manifest(&bytes(source, layout::MANIFEST)?)?;
        for name in layout::CONTAINER_ABSENT {
            lines::<Absent>(source, name)?;
        }
        let mut image = Image {
            manifest,
            processes: BTreeMap::new(),
            files: BTreeMap::new(),
            stdios: lines(source, layout::STDIOS)?,
            locks: lines(source, layout::LOCKS)?,
            unnamed: lines(source, layout::UNNAMED)?,
            seccomp: lines(source, layout::SECCOMP)?,
            sysv: SysV {
                segments: lines(source, layout::SYSV_SHM)?,
                semaphores: lines(source, layout::SYSV_SEM)?,
                queues: lines(source, layout::SYSV_MSG)?,
            },
            queues: lines(source, layout::POSIX_MQ)?,
            ttys: BTreeMap::new(),
            mounts: lines(source, layout::MOUNTS)?,
            trees: BTreeMap::new(),
            cgroups: lines(source, layout::CGROUPS)?,
            namespaces: lines(source, layout::NAMESPACES)?,
        };
        // A path that stands there twice is for `check` to tell: here it must not cost twice.
        let (mut pids, mut files) = (BTreeSet::new(), Vec::new());
        for entry in &image.manifest.paths {
            let parts: Vec<&str> = entry.path.split('/').collect();
            match parts[..] {
                [layout::FILES, name] => {
                    if let Some(id) = layout::parse_id(name) {
                        files.push((FileId(id), entry.path.as_str()));
                    } else if let Some(number) = layout::parse_tty(name) {
                        image.ttys.insert(number, object(source, &entry.path)?);
                    }
                }
                [process] if entry.kind == PathKind::Directory => pids.extend(layout::parse_id(process).map(Pid)),
                [name] => {
                    if let Some(number) = layout::parse_mount_tree(name) {
                        image.trees.insert(number, lines(source, &entry.path)?);
                    }
                }
                _ => {}
            }
        }
        let files = parallel::map(&files, |&(id, path)| Ok((id, object(source, path)?)));
        image.files = files.into_iter().collect::<Result<_, ImageError>>()?;
        let pids = Vec::from_iter(pids);
        let processes = parallel::map(&pids, |&pid| Ok((pid, process_image(source, pid)?)));
        image.processes = processes.into_iter().collect::<Result<_, ImageError>>()?;
        Ok(image)
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

    /// Its own files, without those of its threads.
    fn render(&self) -> Vec<(String, Vec<u8>)> {
        let own = [
            ("process", render_object(&self.process)),
            ("attr", render_object(&self.attr)),
            ("fds", render_lines(&self.fds)),
            ("aio", render_lines(&self.aio)),
            ("ldt", render_lines(&self.ldt)),
            ("numa", render_lines(&self.numa)),
            ("mem.segments", render_lines(&self.segments)),
            ("signal.action", render_lines(&self.actions)),
            ("signal.pending", render_lines(&self.pending)),
            ("sysv.semadj", render_lines(&self.semadj)),
            ("sysv.shmcount", render_lines(&self.attached())),
            ("thread.list", render_lines(&self.thread_list())),
        ];
        own.into_iter().map(|(name, bytes)| (layout::process_file(self.process.pid, name), bytes)).collect()
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

impl ThreadImage {
    fn render(&self, pid: Pid, tid: Pid) -> Vec<(String, Vec<u8>)> {
        let own = [
            ("attr", render_object(&self.attr)),
            ("signal", render_object(&self.mask)),
            ("signal.altstack", render_object(&self.altstack)),
            ("signal.pending", render_lines(&self.pending)),
            ("thread", render_object(&self.fpu)),
            ("thread.frame", render_object(&self.frame)),
            ("timers", render_lines(&self.timers)),
            ("tls", render_object(&self.tls)),
            ("wait.zombies", render_lines(&self.zombies)),
        ];
        let fds = self.fds.as_ref().map(|fds| (layout::FDS, render_lines(fds)));
        own.into_iter().chain(fds).map(|(name, bytes)| (layout::thread_file(pid, tid, name), bytes)).collect()
    }

    fn parse(source: &dyn TextSource, pid: Pid, tid: Pid) -> Result<Self, ImageError> {
        let path = |name: &str| layout::thread_file(pid, tid, name);
        Ok(ThreadImage {
            attr: object(source, &path("attr"))?,
            fds: optional_lines(source, &path(layout::FDS))?,
            mask: object(source, &path("signal"))?,
            altstack: object(source, &path("signal.altstack"))?,
            pending: lines(source, &path("signal.pending"))?,
            fpu: object(source, &path("thread"))?,
            frame: object(source, &path("thread.frame"))?,
            timers: lines(source, &path("timers"))?,
            tls: object(source, &path("tls"))?,
            zombies: lines(source, &path("wait.zombies"))?,
        })
    }
}

/// Parses a process's `mem.sums`.
///
/// # Errors
/// When it is missing or malformed.
pub fn read_sums(source: &dyn TextSource, pid: Pid) -> Result<Vec<ChunkSum>, ImageError> {
    lines(source, &layout::process_file(pid, layout::MEM_SUMS))
}

fn process_image(source: &dyn TextSource, pid: Pid) -> Result<ProcessImage, ImageError> {
    let path = |name: &str| layout::process_file(pid, name);
    let list: Vec<ThreadEntry> = lines(source, &path("thread.list"))?;
    let mut listed = BTreeSet::new();
    let leader_lives = list.iter().any(|entry| entry.tid == pid);
    for (index, &ThreadEntry { tid }) in list.iter().enumerate() {
        let refuse = |reason: &str| ImageError::Content {
            path: path("thread.list"),
            reason: format!("line {}: thread {tid} {reason}", index + 1),
        };
        if index == 0 && leader_lives && tid != pid {
            return Err(refuse("stands first, where the group leader belongs"));
        }
        if !listed.insert(tid) {
            return Err(refuse("is listed twice"));
        }
    }
    let threads = parallel::map(&list, |&ThreadEntry { tid }| Ok((tid, ThreadImage::parse(source, pid, tid)?)));
    let threads = threads.into_iter().collect::<Result<_, ImageError>>()?;
    let image = ProcessImage {
        process: object(source, &path("process"))?,
        attr: object(source, &path("attr"))?,
        fds: lines(source, &path("fds"))?,
        aio: lines(source, &path("aio"))?,
        ldt: lines(source, &path("ldt"))?,
        numa: lines(source, &path("numa"))?,
        segments: lines(source, &path("mem.segments"))?,
        actions: lines(source, &path("signal.action"))?,
        pending: lines(source, &path("signal.pending"))?,
        semadj: lines(source, &path("sysv.semadj"))?,
        threads,
    };
    let counts: Vec<AttachedCount> = lines(source, &path("sysv.shmcount"))?;
    if counts != image.attached() {
        let reason = "it does not count the lines of mem.segments; it is shown only".to_owned();
        return Err(ImageError::Content { path: path("sysv.shmcount"), reason });
    }
    Ok(image)
}

/// Parses one text file on its own: whether it is whole and well formed, before the others are there.
///
/// # Errors
/// When it is cut or malformed, or no image has a text file of this name.
pub fn parse_file(path: &str, bytes: &[u8]) -> Result<(), ImageError> {
    fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<(), TextError> {
        parse_object::<T>(bytes).map(drop)
    }
    fn lines<T: DeserializeOwned>(bytes: &[u8]) -> Result<(), TextError> {
        parse_lines::<T>(bytes).map(drop)
    }
    let parts: Vec<&str> = path.split('/').collect();
    let form = match layout::kind(path) {
        Some(PathKind::Object | PathKind::Lines) => parts.as_slice(),
        _ => &[],
    };
    let parse: fn(&[u8]) -> Result<(), TextError> = match form {
        [layout::MANIFEST] => object::<Manifest>,
        [layout::SECCOMP] => lines::<SeccompFilter>,
        [layout::SYSV_SHM] => lines::<SharedSegment>,
        [layout::SYSV_SEM] => lines::<SemaphoreSet>,
        [layout::SYSV_MSG] => lines::<MessageQueue>,
        [layout::MOUNTS] => lines::<Mount>,
        [layout::CGROUPS] => lines::<Cgroup>,
        [layout::NAMESPACES] => lines::<UnsharedNamespace>,
        [name] if layout::parse_mount_tree(name).is_some() => lines::<TreeEntry>,
        [layout::POSIX_MQ] => lines::<PosixQueue>,
        [_] => lines::<Absent>,
        [layout::FILES, "stdios"] => lines::<Stdio>,
        [layout::FILES, "locks"] => lines::<Lock>,
        [layout::FILES, "unnamed"] => lines::<UnnamedFile>,
        [layout::FILES, name] if layout::parse_tty(name).is_some() => object::<Pty>,
        [layout::FILES, _] => object::<File>,
        [_, "attr"] => object::<ProcessAttr>,
        [_, "fds"] => lines::<Fd>,
        [_, "aio"] => lines::<AioContext>,
        [_, "ldt"] => lines::<LdtEntry>,
        [_, "numa"] => lines::<NumaPolicy>,
        [_, "mem.segments"] => lines::<Segment>,
        [_, layout::MEM_SUMS] => lines::<ChunkSum>,
        [_, "process"] => object::<Process>,
        [_, "signal.action"] => lines::<SignalAction>,
        [_, "signal.pending"] | [_, _, "signal.pending"] => lines::<PendingSignal>,
        [_, "sysv.semadj"] => lines::<SemaphoreAdjustment>,
        [_, "sysv.shmcount"] => lines::<AttachedCount>,
        [_, "thread.list"] => lines::<ThreadEntry>,
        [_, _] => lines::<Absent>,
        [_, _, "attr"] => object::<ThreadAttr>,
        [_, _, layout::FDS] => lines::<Fd>,
        [_, _, "signal"] => object::<SignalMask>,
        [_, _, "signal.altstack"] => object::<AltStack>,
        [_, _, "thread"] => object::<FpuState>,
        [_, _, "thread.frame"] => object::<Frame>,
        [_, _, "timers"] => lines::<Timer>,
        [_, _, "tls"] => object::<Tls>,
        [_, _, "wait.zombies"] => lines::<Zombie>,
        _ => {
            let reason = "no image has a text file of this name".to_owned();
            return Err(ImageError::Content { path: path.to_owned(), reason });
        }
    };
    parse(bytes).map_err(|source| ImageError::Text { path: path.to_owned(), source })
}

pub(crate) fn bytes(source: &dyn TextSource, path: &str) -> Result<Vec<u8>, ImageError> {
    let read = source.read(path).map_err(|reason| ImageError::Read { path: path.to_owned(), reason })?;
    read.ok_or_else(|| ImageError::Missing { path: path.to_owned() })
}

fn object<T: DeserializeOwned>(source: &dyn TextSource, path: &str) -> Result<T, ImageError> {
    parse_object(&bytes(source, path)?).map_err(|source| ImageError::Text { path: path.to_owned(), source })
}

fn lines<T: DeserializeOwned>(source: &dyn TextSource, path: &str) -> Result<Vec<T>, ImageError> {
    parse_lines(&bytes(source, path)?).map_err(|source| ImageError::Text { path: path.to_owned(), source })
}

/// None where the image has no such file: [`crate::check`] compares what it has with the manifest.
fn optional_lines<T: DeserializeOwned>(source: &dyn TextSource, path: &str) -> Result<Option<Vec<T>>, ImageError> {
    let read = source.read(path).map_err(|reason| ImageError::Read { path: path.to_owned(), reason })?;
    let parsed = read.map(|bytes| parse_lines(&bytes)).transpose();
    parsed.map_err(|source| ImageError::Text { path: path.to_owned(), source })
}
