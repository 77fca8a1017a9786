//! Records from the text files of a tree.

use super::{Image, ProcessImage, ThreadImage};
use crate::aio::AioContext;
use crate::cgroups::Cgroup;
use crate::contents::ContentSum;
use crate::files::{File, Stdio};
use crate::ldt::LdtEntry;
use crate::locks::Lock;
use crate::manifest::{Manifest, PathKind};
use crate::memory::{ChunkSum, Segment};
use crate::mounts::{Mount, TreeEntry};
use crate::mqueue::PosixQueue;
use crate::namespaces::UnsharedNamespace;
use crate::numa::NumaPolicy;
use crate::process::{Absent, Fd, Process, ProcessAttr, ThreadEntry, Zombie};
use crate::seccomp::SeccompFilter;
use crate::signal::{AltStack, PendingSignal, SignalAction, SignalMask};
use crate::sysv::{AttachedCount, MessageQueue, SemaphoreAdjustment, SemaphoreSet, SharedSegment, SysV};
use crate::text::{TextError, parse_lines, parse_object};
use crate::thread::{FpuState, Frame, ThreadAttr, Tls};
use crate::timer::Timer;
use crate::tty::Pty;
use crate::types::{FileId, Pid};
use crate::unnamed::UnnamedFile;
use crate::{layout, parallel};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

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
    /// Parses every text file the manifest names, but for `mem.sums` ([`read_sums`]) and `contents.sums`
    /// ([`read_content_sums`]).
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

impl ThreadImage {
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

/// Parses `contents.sums`.
///
/// # Errors
/// When it is missing or malformed.
pub fn read_content_sums(source: &dyn TextSource) -> Result<Vec<ContentSum>, ImageError> {
    lines(source, layout::CONTENTS_SUMS)
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
        [layout::CONTENTS_SUMS] => lines::<ContentSum>,
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
