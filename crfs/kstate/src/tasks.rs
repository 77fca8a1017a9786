//! From the calling thread to the tasks it traces.
//!
//! The kernel keeps them in the list `ptraced` of the tracer's task_struct, each linked by its `ptrace_entry`.
//! Source: include/linux/sched.h and kernel/ptrace.c (`__ptrace_link`), v6.18.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::{KernelState, View};

/// More tasks than that cannot be (`PID_MAX_LIMIT`): the list is no list.
const MAX_TASKS: usize = 4 << 20;

/// A task that the calling thread traces, by its address in the kernel.
///
/// Valid as long as it is traced; a task that has been let go, or reaped, may leave its address to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    tid: i32,
    tgid: i32,
    address: u64,
    /// Which of the tasks it was that were found with it.
    place: usize,
}

impl Task {
    /// The calling thread itself, in the place of one that is not traced; `tid` is for errors.
    pub(crate) fn caller(tid: i32) -> Self {
        Self { tid, tgid: 0, address: 0, place: usize::MAX }
    }

    /// Its thread id in the host's pid namespace.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Its process id in the host's pid namespace.
    #[must_use]
    pub fn tgid(&self) -> i32 {
        self.tgid
    }

    /// Where its task_struct lies.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl KernelState {
    /// The tasks that the calling thread traces, by thread id (of the host's pid namespace), those that have ended and were not yet reaped included.
    ///
    /// One read for each: a thousand take about a millisecond.
    ///
    /// # Errors
    /// [`Error::List`] when the list changes meanwhile, which it does not while the tasks are stopped; [`Error::FeatureOff`], [`Error::Read`].
    pub fn tracees(&self) -> Result<BTreeMap<i32, Task>, Error> {
        self.walk(|_, _, _| ())
    }

    /// [`KernelState::tracees`], and from now on members of their task_struct are answered from a copy that was made on the
    /// way: for tasks that hold still until they are no longer asked about. A thousand getters cost less than one read then.
    ///
    /// # Errors
    /// As [`KernelState::tracees`].
    pub fn keep_tracees(&mut self) -> Result<BTreeMap<i32, Task>, Error> {
        let mut copies = Copies::default();
        let tasks = self.walk(|task, start, bytes| copies.push(task, start, bytes))?;
        self.copies = copies;
        Ok(tasks)
    }

    /// Walks the list, and hands on the address of each task and a part of its task_struct, with the offset that begins at.
    fn walk(&self, mut found: impl FnMut(u64, u64, &[u8])) -> Result<BTreeMap<i32, Task>, Error> {
        let changed = || Error::List { tid: 0, list: "ptraced" };
        let view = self.view(Feature::Tracees, &Task::caller(0))?;
        let entry = Entry::new(&view, self.known.task_members())?;
        let mut head_bytes = [0; 16];
        let head = view.bytes(&[Path::TaskPtraced], &mut head_bytes)?;
        let mut tasks = BTreeMap::new();
        let (mut previous, mut node) = (head, word(&head_bytes, 0));
        let mut buf = vec![0; entry.length];
        while node != head {
            let address = node.wrapping_sub(entry.link);
            let links = entry.read(&view, address, &mut buf)?;
            let task = Task { tid: links.tid, tgid: links.tgid, address, place: tasks.len() };
            found(address, entry.start, &buf);
            if links.previous != previous || tasks.len() >= MAX_TASKS || tasks.insert(task.tid, task).is_some() {
                return Err(changed());
            }
            (previous, node) = (node, links.next);
        }
        Ok(tasks)
    }
}

/// How one entry is read: everything that is ever asked of a task_struct lies within 3 KiB, so one read takes it all.
struct Entry {
    start: u64,
    length: usize,
    pid: u64,
    tgid: u64,
    link: u64,
}

struct Links {
    tid: i32,
    tgid: i32,
    next: u64,
    previous: u64,
}

impl Entry {
    fn new(view: &View<'_>, members: Range<u64>) -> Result<Self, Error> {
        let (pid, tgid) = (view.offset(Path::TaskPid)?, view.offset(Path::TaskTgid)?);
        let link = view.offset(Path::TaskPtraceEntry)?;
        // Within one task_struct, so far below 2^32.
        let length = usize::try_from(members.end - members.start).unwrap_or(0);
        Ok(Self { start: members.start, length, pid, tgid, link })
    }

    fn read(&self, view: &View<'_>, task: u64, buf: &mut [u8]) -> Result<Links, Error> {
        view.bytes_at(task.wrapping_add(self.start), Path::TaskPtraceEntry, buf)?;
        let at = |offset: u64| usize::try_from(offset.wrapping_sub(self.start)).unwrap_or(usize::MAX);
        let id = |offset| (word(buf, at(offset)) & 0xffff_ffff) as u32;
        Ok(Links {
            tid: id(self.pid).cast_signed(),
            tgid: id(self.tgid).cast_signed(),
            next: word(buf, at(self.link)),
            previous: word(buf, at(self.link) + 8),
        })
    }
}

/// What was read of tasks that hold still, in the order they were found in: each with where it lies, the offset in task_struct that was
/// read from, and the bytes.
#[derive(Debug, Default)]
pub(crate) struct Copies(Vec<(u64, u64, Box<[u8]>)>);

impl Copies {
    fn push(&mut self, task: u64, start: u64, bytes: &[u8]) {
        self.0.push((task, start, bytes.into()));
    }

    pub(crate) fn get(&self, task: &Task) -> Option<Kept<'_>> {
        // A task may be of another look than the copies.
        let (_, start, bytes) = self.0.get(task.place).filter(|(address, ..)| *address == task.address)?;
        Some(Kept { start: *start, bytes })
    }
}

/// A part of one task_struct.
pub(crate) struct Kept<'a> {
    start: u64,
    bytes: &'a [u8],
}

impl Kept<'_> {
    /// What lies at an offset in task_struct, if it was kept.
    pub(crate) fn get(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..at.checked_add(length)?)
    }
}

/// Eight bytes as a number; missing ones are 0.
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    let mut whole = [0; 8];
    for (to, from) in whole.iter_mut().zip(bytes.get(at..).unwrap_or_default()) {
        *to = *from;
    }
    u64::from_ne_bytes(whole)
}
