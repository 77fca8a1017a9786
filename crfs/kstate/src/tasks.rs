//! From the calling thread to the tasks it traces, and from a pidfd to the threads of a process.
//!
//! The kernel keeps the former in the list `ptraced` of the tracer's task_struct, each linked by its `ptrace_entry`, and the latter in the
//! list `thread_head` of what they share, each linked by its `thread_node`.
//! Source: include/linux/sched.h, include/linux/sched/signal.h and kernel/ptrace.c (`__ptrace_link`), v6.18.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::{KernelState, View};
use crate::waits;

/// More tasks than that cannot be (`PID_MAX_LIMIT`): the list is no list.
const MAX_TASKS: usize = 4 << 20;

/// A task, by its address in the kernel.
///
/// Valid as long as it is traced, or frozen; one that has been let go, or reaped, may leave its address to another.
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
    /// way: for tasks that hold still until [`KernelState::forget`]. A thousand getters cost less than one read then.
    ///
    /// # Errors
    /// As [`KernelState::tracees`].
    pub fn keep_tracees(&mut self) -> Result<BTreeMap<i32, Task>, Error> {
        let mut copies = Copies::default();
        let tasks = self.walk(|task, start, bytes| copies.push(task, start, bytes))?;
        Ok(self.keep(tasks, copies))
    }

    /// The threads of a process, traced or not, by thread id (of the host's pid namespace). `process` is a pidfd of it, open in the calling thread,
    /// and `pid` its id. They should be frozen, or a thread may begin or end meanwhile.
    ///
    /// # Errors
    /// [`Error::Gone`] when the process has ended; otherwise as [`KernelState::tracees`].
    pub fn threads(&self, process: BorrowedFd<'_>, pid: i32) -> Result<BTreeMap<i32, Task>, Error> {
        self.walk_threads(process, pid, |_, _, _| ())
    }

    /// [`KernelState::threads`], kept as [`KernelState::keep_tracees`] keeps what it finds.
    ///
    /// # Errors
    /// As [`KernelState::threads`].
    pub fn keep_threads(&mut self, process: BorrowedFd<'_>, pid: i32) -> Result<BTreeMap<i32, Task>, Error> {
        let mut copies = Copies::default();
        let tasks = self.walk_threads(process, pid, |task, start, bytes| copies.push(task, start, bytes))?;
        Ok(self.keep(tasks, copies))
    }

    /// Lets go of all that was kept.
    pub fn forget(&mut self) {
        self.copies = Copies::default();
    }

    fn keep(&mut self, mut tasks: BTreeMap<i32, Task>, mut copies: Copies) -> BTreeMap<i32, Task> {
        let first = self.copies.0.len();
        tasks.values_mut().for_each(|task| task.place += first);
        self.copies.0.append(&mut copies.0);
        tasks
    }

    fn walk(&self, found: impl FnMut(u64, u64, &[u8])) -> Result<BTreeMap<i32, Task>, Error> {
        let view = self.view(Feature::Tracees, &Task::caller(0))?;
        let mut head = [0; 16];
        let address = view.bytes(&[Path::TaskPtraced], &mut head)?;
        let entry = Entry::new(&view, self.known.task_members(), Path::TaskPtraceEntry)?;
        entry.walk(&view, (address, word(&head, 0)), "ptraced", found)
    }

    fn walk_threads(
        &self,
        process: BorrowedFd<'_>,
        pid: i32,
        found: impl FnMut(u64, u64, &[u8]),
    ) -> Result<BTreeMap<i32, Task>, Error> {
        let view = self.view(Feature::Threads, &Task::caller(pid))?;
        let leader = waits::task(&view, process)?;
        let mut head = [0; 16];
        let address = view.bytes_from(leader, &[Path::TaskSignal, Path::SignalThreads], &mut head)?;
        let entry = Entry::new(&view, self.known.task_members(), Path::TaskThreadNode)?;
        let tasks = entry.walk(&view, (address, word(&head, 0)), "thread_head", found)?;
        // Another process may have the memory by now of one that ends.
        if tasks.is_empty() || tasks.values().any(|task| task.tgid != pid) {
            return Err(Error::List { tid: pid, list: "thread_head" });
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
    /// `link` is the member by which a task is in the list.
    fn new(view: &View<'_>, members: Range<u64>, link: Path) -> Result<Self, Error> {
        let (pid, tgid) = (view.offset(Path::TaskPid)?, view.offset(Path::TaskTgid)?);
        let link = view.offset(link)?;
        // Within one task_struct, so far below 2^32.
        let length = usize::try_from(members.end - members.start).unwrap_or(0);
        Ok(Self { start: members.start, length, pid, tgid, link })
    }

    /// Walks the list of that head and first node, and hands on the address of each task and a part of its task_struct, with the offset
    /// that begins at.
    fn walk(
        &self,
        view: &View<'_>,
        (head, first): (u64, u64),
        list: &'static str,
        mut found: impl FnMut(u64, u64, &[u8]),
    ) -> Result<BTreeMap<i32, Task>, Error> {
        let changed = || Error::List { tid: view.tid(), list };
        let mut tasks = BTreeMap::new();
        let (mut previous, mut node) = (head, first);
        let mut buf = vec![0; self.length];
        while node != head {
            let address = node.wrapping_sub(self.link);
            let links = self.read(view, address, &mut buf)?;
            let task = Task { tid: links.tid, tgid: links.tgid, address, place: tasks.len() };
            found(address, self.start, &buf);
            if links.previous != previous || tasks.len() >= MAX_TASKS || tasks.insert(task.tid, task).is_some() {
                return Err(changed());
            }
            (previous, node) = (node, links.next);
        }
        Ok(tasks)
    }

    fn read(&self, view: &View<'_>, task: u64, buf: &mut [u8]) -> Result<Links, Error> {
        view.bytes_at(task.wrapping_add(self.start), Path::TaskPid, buf)?;
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
